//! SRTP of a light sink: opens the packets it looks into, seals the RTCP it sends (RFC 3711, RFC 7714).
//!
//! Written apart from the server's on purpose: two sides that share a mistake would understand each other.

use str0m::crypto::dtls::SrtpProfile;
use str0m::crypto::{
    AeadAes128Gcm, AeadAes128GcmCipher, AeadAes256GcmCipher, Aes128CmSha1_80, Aes128CmSha1_80Cipher, Sha1HmacProvider,
    SrtpProvider,
};

use super::keys::{Agreed, crypto};

/// Bytes of the GCM tag.
const GCM_TAG: usize = AeadAes128Gcm::TAG_LEN;
/// Bytes of the HMAC tag.
const HMAC_TAG: usize = Aes128CmSha1_80::HMAC_TAG_LEN;
/// Bytes that stay clear in every RTCP packet: its first header and the sender's SSRC.
const RTCP_CLEAR: usize = 8;
/// The bit before the SRTCP index that says "encrypted".
const E_FLAG: u32 = 1 << 31;
/// aws-lc wants a block's room behind what it counters.
const CTR_SLACK: usize = 15;

/// The labels of the key derivation (RFC 3711 §4.3.2), for RTP; those for RTCP are 3 higher.
const LABEL_KEY: u8 = 0;
const LABEL_AUTH: u8 = 1;
const LABEL_SALT: u8 = 2;
const RTCP_LABELS: u8 = 3;

/// The keys of one direction.
pub struct Direction {
    rtp: Cipher,
    rtcp: Cipher,
    /// Of the RTCP sent last.
    rtcp_index: u32,
    scratch: Vec<u8>,
    /// Of the scratch, what the last packet filled.
    opened: usize,
}

enum Cipher {
    Gcm { cipher: Gcm, salt: [u8; 12] },
    Cm { cipher: Box<dyn Aes128CmSha1_80Cipher>, auth: [u8; 20], salt: [u8; 14] },
}

enum Gcm {
    Aes128(Box<dyn AeadAes128GcmCipher>),
    Aes256(Box<dyn AeadAes256GcmCipher>),
}

/// The directions of a connection: ours, theirs.
pub fn directions(agreed: &Agreed) -> (Direction, Direction) {
    let (key, salt) = lengths(agreed.profile);
    let material: &[u8] = &agreed.material;
    let (client_key, rest) = material.split_at(key);
    let (server_key, rest) = rest.split_at(key);
    let (client_salt, server_salt) = rest.split_at(salt);
    let client = |sealing| Direction::new(agreed.profile, client_key, client_salt, sealing);
    let server = |sealing| Direction::new(agreed.profile, server_key, &server_salt[..salt], sealing);
    if agreed.client { (client(true), server(false)) } else { (server(true), client(false)) }
}

/// What the report calls the suite (the names of the IANA registry, without `SRTP_`).
pub fn suite_name(profile: SrtpProfile) -> &'static str {
    match profile {
        SrtpProfile::AES128_CM_SHA1_80 => "AES128_CM_HMAC_SHA1_80",
        SrtpProfile::AEAD_AES_128_GCM => "AEAD_AES_128_GCM",
        SrtpProfile::AEAD_AES_256_GCM => "AEAD_AES_256_GCM",
        _ => "unknown",
    }
}

/// Bytes of key and salt.
fn lengths(profile: SrtpProfile) -> (usize, usize) {
    match profile {
        SrtpProfile::AES128_CM_SHA1_80 => (16, 14),
        SrtpProfile::AEAD_AES_256_GCM => (32, 12),
        _ => (16, 12),
    }
}

impl Direction {
    fn new(profile: SrtpProfile, key: &[u8], salt: &[u8], sealing: bool) -> Direction {
        let cipher = |labels| Cipher::new(profile, key, salt, labels, sealing);
        Direction { rtp: cipher(0), rtcp: cipher(RTCP_LABELS), rtcp_index: 0, scratch: Vec::new(), opened: 0 }
    }

    /// What the last opened RTP packet held.
    pub fn opened(&self) -> &[u8] {
        &self.scratch[..self.opened]
    }

    /// The payload of an RTP packet whose header is `header` bytes long. `None` when it is not genuine.
    pub fn open_rtp(&mut self, packet: &[u8], header: usize, roc: u32) -> Option<&[u8]> {
        let (head, body) = packet.split_at_checked(header)?;
        let sequence = u16::from_be_bytes([head[2], head[3]]);
        let ssrc = u32::from_be_bytes(head[8..12].try_into().ok()?);
        let out = &mut self.scratch;
        match &mut self.rtp {
            Cipher::Gcm { cipher, salt } => {
                let iv = AeadAes128Gcm::rtp_iv(*salt, ssrc, roc, sequence);
                let length = body.len().checked_sub(GCM_TAG)?;
                grow(out, body.len());
                cipher.open(&iv, &[head], body, out)?;
                self.opened = length;
            }
            Cipher::Cm { cipher, auth, salt } => {
                let length = body.len().checked_sub(HMAC_TAG)?;
                let index = u64::from(roc) << 16 | u64::from(sequence);
                let (signed, tag) = packet.split_at(header + length);
                if !Aes128CmSha1_80::rtp_verify(sha1(), auth, signed, index, tag) {
                    return None;
                }
                grow(out, length + CTR_SLACK);
                let iv = Aes128CmSha1_80::rtp_iv(*salt, ssrc, index);
                cipher.decrypt(&iv, &body[..length], &mut out[..length + CTR_SLACK]).ok()?;
                self.opened = length;
            }
        }
        Some(self.opened())
    }

    /// A compound RTCP packet in the clear. `None` when it is not genuine.
    pub fn open_rtcp(&mut self, packet: &[u8]) -> Option<&[u8]> {
        let (head, _) = packet.split_at_checked(RTCP_CLEAR)?;
        let ssrc = u32::from_be_bytes(head[4..8].try_into().ok()?);
        let out = &mut self.scratch;
        let length = match &mut self.rtcp {
            Cipher::Gcm { cipher, salt } => {
                let (sealed, index) = packet.split_at_checked(packet.len().checked_sub(4)?)?;
                let body = sealed.get(RTCP_CLEAR..)?;
                let length = body.len().checked_sub(GCM_TAG)?;
                let flagged = u32::from_be_bytes(index.try_into().ok()?);
                let iv = AeadAes128Gcm::rtcp_iv(*salt, ssrc, flagged & !E_FLAG);
                grow(out, RTCP_CLEAR + body.len());
                cipher.open(&iv, &[head, index], body, &mut out[RTCP_CLEAR..])?;
                length
            }
            Cipher::Cm { cipher, auth, salt } => {
                let signed = packet.len().checked_sub(HMAC_TAG)?;
                let (signed, tag) = packet.split_at(signed);
                if !Aes128CmSha1_80::rtcp_verify(sha1(), auth, signed, tag) {
                    return None;
                }
                let (sealed, index) = signed.split_at_checked(signed.len().checked_sub(4)?)?;
                let body = sealed.get(RTCP_CLEAR..)?;
                let flagged = u32::from_be_bytes(index.try_into().ok()?);
                let iv = Aes128CmSha1_80::rtp_iv(*salt, ssrc, u64::from(flagged & !E_FLAG));
                grow(out, RTCP_CLEAR + body.len() + CTR_SLACK);
                cipher.decrypt(&iv, body, &mut out[RTCP_CLEAR..RTCP_CLEAR + body.len() + CTR_SLACK]).ok()?;
                body.len()
            }
        };
        out[..RTCP_CLEAR].copy_from_slice(head);
        Some(&out[..RTCP_CLEAR + length])
    }

    /// Seals a compound RTCP packet for the wire.
    pub fn seal_rtcp(&mut self, clear: &[u8]) -> Vec<u8> {
        self.rtcp_index = (self.rtcp_index + 1) & !E_FLAG;
        let (head, body) = clear.split_at(RTCP_CLEAR);
        let ssrc = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let index = (self.rtcp_index | E_FLAG).to_be_bytes();
        let mut out = head.to_vec();
        match &mut self.rtcp {
            Cipher::Gcm { cipher, salt } => {
                let iv = AeadAes128Gcm::rtcp_iv(*salt, ssrc, self.rtcp_index);
                let aad: Vec<u8> = head.iter().chain(&index).copied().collect();
                out.resize(RTCP_CLEAR + body.len() + GCM_TAG, 0);
                cipher.seal(&iv, &aad, body, &mut out[RTCP_CLEAR..]);
                out.extend(index);
            }
            Cipher::Cm { cipher, auth, salt } => {
                let iv = Aes128CmSha1_80::rtp_iv(*salt, ssrc, u64::from(self.rtcp_index));
                out.resize(RTCP_CLEAR + body.len() + CTR_SLACK, 0);
                cipher.encrypt(&iv, body, &mut out[RTCP_CLEAR..]).expect("room for the body");
                out.truncate(RTCP_CLEAR + body.len());
                out.extend(index);
                let signed = out.len();
                out.resize(signed + HMAC_TAG, 0);
                Aes128CmSha1_80::rtcp_hmac(sha1(), auth, &mut out, signed);
            }
        }
        out
    }
}

fn grow(buffer: &mut Vec<u8>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
}

fn sha1() -> impl Fn(&[u8], &[&[u8]]) -> [u8; 20] {
    let provider: &'static dyn Sha1HmacProvider = crypto().sha1_hmac_provider;
    move |key, parts| provider.sha1_hmac(key, parts)
}

impl Cipher {
    fn new(profile: SrtpProfile, key: &[u8], salt: &[u8], labels: u8, sealing: bool) -> Cipher {
        let provider = crypto().srtp_provider;
        match profile {
            SrtpProfile::AES128_CM_SHA1_80 => Cipher::Cm {
                cipher: provider
                    .aes_128_cm_sha1_80()
                    .create_cipher(derive(provider, key, salt, LABEL_KEY + labels), sealing),
                auth: derive(provider, key, salt, LABEL_AUTH + labels),
                salt: derive(provider, key, salt, LABEL_SALT + labels),
            },
            SrtpProfile::AEAD_AES_256_GCM => Cipher::Gcm {
                cipher: Gcm::Aes256(
                    provider.aead_aes_256_gcm().create_cipher(derive(provider, key, salt, LABEL_KEY + labels), sealing),
                ),
                salt: derive(provider, key, salt, LABEL_SALT + labels),
            },
            // dimpl negotiates these three and no other.
            _ => Cipher::Gcm {
                cipher: Gcm::Aes128(
                    provider.aead_aes_128_gcm().create_cipher(derive(provider, key, salt, LABEL_KEY + labels), sealing),
                ),
                salt: derive(provider, key, salt, LABEL_SALT + labels),
            },
        }
    }
}

impl Gcm {
    fn open(&mut self, iv: &[u8; 12], aad: &[&[u8]], sealed: &[u8], out: &mut [u8]) -> Option<usize> {
        match self {
            Gcm::Aes128(cipher) => cipher.decrypt(iv, aad, sealed, out).ok(),
            Gcm::Aes256(cipher) => cipher.decrypt(iv, aad, sealed, out).ok(),
        }
    }

    fn seal(&mut self, iv: &[u8; 12], aad: &[u8], clear: &[u8], out: &mut [u8]) {
        match self {
            Gcm::Aes128(cipher) => cipher.encrypt(iv, aad, clear, out),
            Gcm::Aes256(cipher) => cipher.encrypt(iv, aad, clear, out),
        }
        .expect("room for the tag");
    }
}

/// A session key: the counter mode of AES over the salt with the label mixed in, a 12-byte salt filled up with zeroes
/// (RFC 3711 §4.3.1, RFC 7714 §11). The derivation rate is zero, as everybody has it.
fn derive<const N: usize>(provider: &dyn SrtpProvider, key: &[u8], salt: &[u8], label: u8) -> [u8; N] {
    let mut block = [0; 16];
    block[..salt.len()].copy_from_slice(salt);
    block[7] ^= label;
    let mut derived = [0; N];
    for (counter, chunk) in (0u16..).zip(derived.chunks_mut(16)) {
        block[14..].copy_from_slice(&counter.to_be_bytes());
        // The provider writes one block, and asks for the room of two.
        let mut out = [0; 32];
        if key.len() == 32 {
            provider.srtp_aes_256_ecb_round(key, &block, &mut out);
        } else {
            provider.srtp_aes_128_ecb_round(key, &block, &mut out);
        }
        chunk.copy_from_slice(&out[..chunk.len()]);
    }
    derived
}
