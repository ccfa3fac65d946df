//! AES in counter mode with HMAC-SHA1 for SRTP and SRTCP (RFC 3711 §4): the profile that every WebRTC endpoint has, for those
//! that have no other.

use aws_lc_rs::cipher::{EncryptingKey, EncryptionContext};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;

use super::derivation::counter_mode_key;
use super::{ENCRYPTED, RTCP_CLEAR_LEN, rtcp_sender};

/// HMAC-SHA1 cut to 80 bits, for SRTP and SRTCP alike.
const TAG_LEN: usize = 10;
const AUTHENTICATION_KEY_LEN: usize = 20;
const INDEX_LEN: usize = 4;

pub(super) struct AesCm {
    key: EncryptingKey,
    /// Has the inner and the outer pad hashed already.
    authentication: hmac::Key,
    salt: [u8; 14],
}

impl AesCm {
    /// Of session keys.
    pub fn new(key: &[u8; 16], authentication: &[u8; AUTHENTICATION_KEY_LEN], salt: [u8; 14]) -> Self {
        let authentication = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, authentication);
        AesCm { key: counter_mode_key(key), authentication, salt }
    }

    pub fn seal_rtp(&self, packet: &mut [u8], header_len: usize, ssrc: u32, index: u64) {
        let body_len = packet.len() - TAG_LEN;
        let (body, tag) = packet.split_at_mut(body_len);
        self.apply_key_stream(&mut body[header_len..], ssrc, index);
        tag.copy_from_slice(&self.rtp_tag(body, index).as_ref()[..TAG_LEN]);
    }

    pub fn open_rtp(&self, packet: &[u8], header_len: usize, ssrc: u32, index: u64, out: &mut Vec<u8>) -> Option<()> {
        let (body, tag) = packet.split_at_checked(packet.len().checked_sub(TAG_LEN)?)?;
        if header_len > body.len() {
            return None;
        }
        verify_slices_are_equal(&self.rtp_tag(body, index).as_ref()[..TAG_LEN], tag).ok()?;
        out.clear();
        out.extend_from_slice(body);
        self.apply_key_stream(&mut out[header_len..], ssrc, index);
        Some(())
    }

    /// The last word, before the tag, is authenticated with the packet (RFC 3711 §3.4).
    pub fn seal_rtcp(&self, packet: &mut Vec<u8>, index: u32) {
        let ssrc = rtcp_sender(packet).expect("an RTCP header");
        self.apply_key_stream(&mut packet[RTCP_CLEAR_LEN..], ssrc, index.into());
        packet.extend_from_slice(&(ENCRYPTED | index).to_be_bytes());
        let tag = hmac::sign(&self.authentication, packet);
        packet.extend_from_slice(&tag.as_ref()[..TAG_LEN]);
    }

    /// The index of an encrypted packet.
    pub fn rtcp_index(packet: &[u8]) -> Option<u32> {
        let word = u32::from_be_bytes(*packet[..packet.len().checked_sub(TAG_LEN)?].last_chunk()?);
        (word & ENCRYPTED != 0).then_some(word & !ENCRYPTED)
    }

    pub fn open_rtcp(&self, packet: &[u8], index: u32, out: &mut Vec<u8>) -> Option<()> {
        let (signed, tag) = packet.split_at_checked(packet.len().checked_sub(TAG_LEN)?)?;
        let body = &signed[..signed.len().checked_sub(INDEX_LEN)?];
        if body.len() < RTCP_CLEAR_LEN {
            return None;
        }
        let ssrc = rtcp_sender(packet)?;
        verify_slices_are_equal(&hmac::sign(&self.authentication, signed).as_ref()[..TAG_LEN], tag).ok()?;
        out.clear();
        out.extend_from_slice(body);
        self.apply_key_stream(&mut out[RTCP_CLEAR_LEN..], ssrc, index.into());
        Some(())
    }

    /// Over the packet and the rollover counter (RFC 3711 §4.2).
    fn rtp_tag(&self, body: &[u8], index: u64) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.authentication);
        context.update(body);
        context.update(&((index >> 16) as u32).to_be_bytes());
        context.sign()
    }

    /// The counter starts at salt, SSRC and index, XOR each other at their places (RFC 3711 §4.1.1).
    fn apply_key_stream(&self, bytes: &mut [u8], ssrc: u32, index: u64) {
        let mut iv = [0; 16];
        iv[4..8].copy_from_slice(&ssrc.to_be_bytes());
        iv[8..14].copy_from_slice(&index.to_be_bytes()[2..]);
        for (byte, salt) in iv.iter_mut().zip(self.salt) {
            *byte ^= salt;
        }
        self.key
            .less_safe_encrypt(bytes, EncryptionContext::Iv128(FixedLength::from(iv)))
            .expect("counter mode takes any length");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3711 appendix B.2: the key stream of session key and salt for SSRC and index zero.
    #[test]
    fn makes_the_key_stream_of_the_standard() {
        let key = 0x2b7e151628aed2a6abf7158809cf4f3cu128.to_be_bytes();
        let salt = *0xf0f1f2f3f4f5f6f7f8f9fafbfcfd0000u128.to_be_bytes().first_chunk().unwrap();
        let mut stream = vec![0; 16 * 0xff02];
        AesCm::new(&key, &[0; 20], salt).apply_key_stream(&mut stream, 0, 0);
        let block = |at: usize| u128::from_be_bytes(stream[16 * at..][..16].try_into().unwrap());
        for (at, expected) in [
            (0, 0xe03ead0935c95e80e166b16dd92b4eb4),
            (1, 0xd23513162b02d0f72a43a2fe4a5f97ab),
            (2, 0x41e95b3bb0a2e8dd477901e4fca894c0),
            (0xfeff, 0xec8cdf7398607cb0f2d21675ea9ea1e4),
            (0xff00, 0x362b7c3c6773516318a077d7fc5073ae),
            (0xff01, 0x6a2cc3787889374fbeb4c81b17ba6c44),
        ] {
            assert_eq!(block(at), expected, "block {at:x}");
        }
    }
}
