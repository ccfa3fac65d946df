//! The LiveKit data channels of one connection: `_reliable` and `_lossy` (and `_data_track`, kept open, unused).

use str0m::Rtc;
use str0m::channel::{ChannelConfig, ChannelId, Reliability};

use crate::sfu::DataChannel;

const RELIABLE: &str = "_reliable";
const LOSSY: &str = "_lossy";
const DATA_TRACK: &str = "_data_track";

/// Bytes that may wait in a channel before messages are dropped: a reader this slow must not grow our memory.
pub(super) const MAX_BUFFERED_BYTES: usize = 1 << 20;

#[derive(Default)]
pub(super) struct Channels {
    reliable: Option<ChannelId>,
    lossy: Option<ChannelId>,
}

impl Channels {
    /// Opens them from our side, as the v0 dialect wants on the connection that we offer.
    pub fn create(rtc: &mut Rtc) {
        let unordered = Reliability::MaxRetransmits { retransmits: 0 };
        let kinds =
            [(RELIABLE, true, Reliability::Reliable), (LOSSY, false, unordered), (DATA_TRACK, false, unordered)];
        for (label, ordered, reliability) in kinds {
            let config = ChannelConfig { label: label.into(), ordered, reliability, ..Default::default() };
            rtc.direct_api().create_data_channel(config);
        }
    }

    pub fn opened(&mut self, id: ChannelId, label: &str) {
        match label {
            RELIABLE => self.reliable = Some(id),
            LOSSY => self.lossy = Some(id),
            _ => {}
        }
    }

    pub fn closed(&mut self, id: ChannelId) {
        for slot in [&mut self.reliable, &mut self.lossy] {
            if *slot == Some(id) {
                *slot = None;
            }
        }
    }

    pub fn label_of(&self, id: ChannelId) -> Option<DataChannel> {
        if self.reliable == Some(id) {
            Some(DataChannel::Reliable)
        } else if self.lossy == Some(id) {
            Some(DataChannel::Lossy)
        } else {
            None
        }
    }

    /// Whether the message was taken.
    pub fn send(&self, rtc: &mut Rtc, channel: DataChannel, message: &[u8]) -> bool {
        let id = match channel {
            DataChannel::Reliable => self.reliable,
            DataChannel::Lossy => self.lossy,
        };
        let Some(mut channel) = id.and_then(|id| rtc.channel(id)) else { return false };
        channel.buffered_amount() + message.len() <= MAX_BUFFERED_BYTES && channel.write(true, message).unwrap_or(false)
    }
}
