//! Reads bytes off the front of a payload. Used by the descriptor parsers beside it.

/// The next byte; `None` at the end.
pub(super) fn take(payload: &[u8], at: &mut usize) -> Option<u8> {
    let byte = *payload.get(*at)?;
    *at += 1;
    Some(byte)
}
