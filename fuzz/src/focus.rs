//! The front door of `m.call.*`: events as their senders wrote them, and messages on a conference's data channel.

use parlour::focus::content::MAX_CANDIDATES_PER_EVENT;
use parlour::focus::data_channel::{MAX_MESSAGE_BYTES, Message};
use parlour::focus::{Content, Kind};

/// A line with the event's type, then its content. What is read can be written, and reads the same again.
pub fn call_event(data: &[u8]) {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let Ok(event_type) = std::str::from_utf8(&data[..end]) else { return };
    let Ok(content) = serde_json::from_slice(&data[end + 1..]) else { return };
    for parse in [Content::parse, Content::parse_to_device] {
        let Ok(read) = parse(event_type, &content) else { continue };
        if let Kind::Candidates(candidates) = &read.kind {
            assert!(candidates.len() <= MAX_CANDIDATES_PER_EVENT);
        }
        let (event_type, written) = read.to_json();
        assert_eq!(parse(event_type, &written).as_ref(), Ok(&read));
    }
}

pub fn focus_message(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(message) = Message::parse(text) {
        let written = message.to_text();
        // Streams are listed under both of their names.
        if written.len() <= MAX_MESSAGE_BYTES {
            assert_eq!(Message::parse(&written), Ok(message));
        }
    }
}
