//! The SFU in virtual time: the whole of `parlour::sfu` against real WebRTC clients made of str0m, over links that lose,
//! delay and reorder by a committed seed. One thread, no sockets, no sleeping: a minute of a call takes a second, and the
//! same seed gives the same call.
//!
//! [`world`] owns the clock, [`client`] behaves as livekit-client does, [`oracle`] judges what arrived.

mod armed;
mod chance;
mod chaos;
mod churn;
mod client;
mod congestion;
mod dual;
mod dynacast;
mod forged_media;
mod forged_reports;
mod forgery;
mod guest;
mod hostile;
mod idle;
mod independent;
mod lifecycle;
mod lines;
mod loss;
mod loudest;
mod media;
mod memory;
mod moderation;
mod network;
mod oracle;
mod peer;
mod pictures;
mod receiver;
mod room;
mod seals;
mod single;
mod tally;
mod tracks;
mod updates;
mod workers;
mod world;
