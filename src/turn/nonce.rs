//! Nonces that nothing has to be remembered for (RFC 8489 §9.2, §16.1.1): the second of issue, and a code over it and the
//! address it was given to, under a key that only we know. Who sends one back has seen our answer, so its source address
//! is no forgery. 24 characters, as the answer that carries it goes to addresses that may be forged.

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::constant_time;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// How long one is good for. RFC 8656 §5 would have it at least as long as a client takes between refreshes; a nonce
/// that ran out costs the client one more round trip.
pub(super) const LIFETIME_S: u64 = 600;

pub(super) const CHARS: usize = 24;

const TIME_BYTES: usize = 4;

/// What 24 characters leave for the code: 112 bits.
const CODE_BYTES: usize = 14;

pub(super) type Nonce = [u8; CHARS];

pub(super) struct Nonces {
    key: hmac::Key,
}

impl Nonces {
    pub fn new(key: &[u8; 32]) -> Nonces {
        Nonces { key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    pub fn issue(&self, unix_ms: u64, client: SocketAddr) -> Nonce {
        let time = seconds(unix_ms).to_be_bytes();
        let mut bytes = [0; TIME_BYTES + CODE_BYTES];
        bytes[..TIME_BYTES].copy_from_slice(&time);
        bytes[TIME_BYTES..].copy_from_slice(&self.code(time, client));
        let mut nonce = [0; CHARS];
        let written = BASE64_URL_SAFE_NO_PAD.encode_slice(bytes, &mut nonce);
        debug_assert_eq!(written.ok(), Some(CHARS));
        nonce
    }

    /// Whether it is one of ours, given to this client, and not too old. One from the future is not ours: the clock was
    /// set back, and a new one is had for the asking.
    pub fn accepts(&self, nonce: &[u8], unix_ms: u64, client: SocketAddr) -> bool {
        let mut bytes = [0; TIME_BYTES + CODE_BYTES];
        if nonce.len() != CHARS || BASE64_URL_SAFE_NO_PAD.decode_slice(nonce, &mut bytes).ok() != Some(bytes.len()) {
            return false;
        }
        let Some((time, code)) = bytes.split_first_chunk::<TIME_BYTES>() else { return false };
        let age = seconds(unix_ms).wrapping_sub(u32::from_be_bytes(*time));
        u64::from(age) <= LIFETIME_S && constant_time::verify_slices_are_equal(code, &self.code(*time, client)).is_ok()
    }

    fn code(&self, time: [u8; TIME_BYTES], client: SocketAddr) -> [u8; CODE_BYTES] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&time);
        context.update(&client.port().to_be_bytes());
        match client.ip() {
            IpAddr::V4(ip) => context.update(&ip.octets()),
            IpAddr::V6(ip) => context.update(&ip.octets()),
        }
        let tag = context.sign();
        let mut code = [0; CODE_BYTES];
        code.copy_from_slice(&tag.as_ref()[..CODE_BYTES]);
        code
    }
}

/// Unix time as it fits; it wraps in 2106, and so does the age.
fn seconds(unix_ms: u64) -> u32 {
    (unix_ms / 1000) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START_MS: u64 = 1_750_000_000_000;

    fn client() -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 5000))
    }

    #[test]
    fn good_for_ten_minutes_and_one_address() {
        let nonces = Nonces::new(&[1; 32]);
        let nonce = nonces.issue(START_MS, client());
        assert!(nonce.iter().all(u8::is_ascii_graphic), "goes into a quoted-string");
        let accepts = |ms, client| nonces.accepts(&nonce, ms, client);
        assert!(accepts(START_MS, client()) && accepts(START_MS + LIFETIME_S * 1000, client()));
        assert!(!accepts(START_MS + (LIFETIME_S + 1) * 1000, client()), "too old");
        assert!(!accepts(START_MS - 1000, client()), "from the future");
        assert!(!accepts(START_MS, SocketAddr::from(([192, 0, 2, 1], 5001))));
        assert!(!accepts(START_MS, SocketAddr::from(([192, 0, 2, 2], 5000))));
        assert!(!Nonces::new(&[2; 32]).accepts(&nonce, START_MS, client()), "another key");
    }

    proptest! {
        #[test]
        fn no_other_text_is_taken(at in 0..CHARS, change in 1u8..=255, text in prop::collection::vec(any::<u8>(), 0..40)) {
            let nonces = Nonces::new(&[1; 32]);
            let mut nonce = nonces.issue(START_MS, client());
            prop_assert!(!nonces.accepts(&text, START_MS, client()));
            nonce[at] ^= change;
            prop_assert!(!nonces.accepts(&nonce, START_MS, client()));
        }
    }
}
