//! What goes into a [`Focus`](super::Focus) from Matrix, and what comes out of it.

use std::time::Duration;

use serde_json::Value;

use super::call::{CallKey, LegId};
use super::content::{Candidate, Content};
use super::negotiation::Exchange;
use super::streams::Stream;
use super::verdict::Verdict;

/// A call's event as it was received.
#[derive(Debug, Clone)]
pub struct Event {
    pub origin: Origin,
    /// Whom the homeserver names, a Matrix id.
    pub sender: String,
    pub content: Content,
    /// `unsigned.age`, and the time that it waited here, e.g. for its room key. Zero for to-device messages.
    pub age: Duration,
    /// Room events only.
    pub event_id: Option<String>,
}

#[derive(Debug, Clone)]
pub enum Origin {
    Room {
        room: String,
        /// Nobody else is joined or invited than the sender and us: an invitation to "anyone in the room" is for us.
        is_direct: bool,
    },
    ToDevice {
        /// The device that encrypted the message. `None`: it was not encrypted, and the device is what the message says.
        verified_device: Option<String>,
    },
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// A user calls: to be answered with [`admit`](super::Focus::admit) or [`refuse`](super::Focus::refuse).
    Asked {
        leg: LegId,
        call: CallKey,
        /// Our own ringing of the same user that ended in favour of this call: its purpose is this one's.
        instead_of: Option<LegId>,
    },
    /// To be sent, one after another as they come out. When that fails for good: [`send_failed`](super::Focus::send_failed).
    Send {
        /// `None`: a refusal, or a hangup of a call from before the start.
        leg: Option<LegId>,
        to: Address,
        event_type: &'static str,
        content: Value,
    },
    Media {
        leg: LegId,
        command: Media,
    },
    /// Both sides agree that they are in the call. Media may connect before or after.
    Established {
        leg: LegId,
    },
    /// What became of it. The last that is heard of a leg.
    Verdict {
        /// `None`: an invitation that was no leg.
        leg: Option<LegId>,
        call: CallKey,
        verdict: Verdict,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Room(String),
    Device { user: String, device: String },
}

/// What a leg's peer connection is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Media {
    /// Answer the peer's offer: [`media_answer`](super::Focus::media_answer).
    Offer { exchange: Exchange, sdp: String },
    /// Make an offer that sends these streams, and takes what the peer has: [`media_offer`](super::Focus::media_offer).
    CreateOffer { exchange: Exchange, streams: Vec<Stream> },
    /// The peer's answer to our offer.
    Answer { exchange: Exchange, sdp: String },
    /// Our offer, made or being made, is void. What the peer has was agreed before it.
    Rollback { exchange: Exchange },
    /// Of the peer.
    Candidates(Vec<Candidate>),
    /// What the peer's streams are. `None`: it knows one stream each way, whatever its name.
    PeerStreams(Option<Vec<Stream>>),
    /// The peer takes nothing until this is false. What it sends meanwhile is not its user's voice.
    Held(bool),
    /// The leg is over.
    End,
}
