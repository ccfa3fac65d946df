//! What Parlour asks of its own homeserver, against one that answers as told: everything that a homeserver, or the proxy
//! before it, may say.

mod membership;
mod requests;
mod scripted;
mod setup;
