//! SRTP and SRTCP (RFC 3711, RFC 7714) for the packets that we send ourselves, and for the reports that come back.
//!
//! The egress takes the secrets that DTLS agreed on, seals every packet in place in its send buffer, and opens the
//! receiver's RTCP. str0m keeps what it receives itself. Key schedules and HMAC keys are made once, nothing is allocated per
//! packet.
//!
//! A repeated (key, SSRC, index) gives the key stream away, and with GCM the authentication key too. So an index cannot be
//! named twice: [`SendKeys::stream`] hands out each SSRC once, [`SendStream::claim`] each index once, and
//! [`SendKeys::seal_rtp`] consumes what it returned. RTCP is numbered by [`SendKeys`] itself. str0m encrypts RTCP with the
//! same keys: its sender SSRC must not be one of ours.

mod aes_cm;
mod aes_gcm;
mod derivation;
#[cfg(test)]
mod tests;
mod window;

use std::collections::HashSet;
use std::fmt;

use aes_cm::AesCm;
use aes_gcm::AesGcm;
use derivation::{Label, MasterKey};
use window::Window;

/// RFC 3711 §3.2.1: 32 bits of rollover counter before the 16 of the sequence number.
const MAX_RTP_INDEX: u64 = (1 << 48) - 1;
/// RFC 3711 §3.4: 31 bits.
const MAX_RTCP_INDEX: u32 = (1 << 31) - 1;
/// In the last word of a packet: it is encrypted, not only authenticated (RFC 3711 §3.4).
const ENCRYPTED: u32 = 1 << 31;
/// What RTCP leaves clear: its first header word and the sender's SSRC.
const RTCP_CLEAR_LEN: usize = 8;

/// Words of a [`SendStream`]'s window: 1024 packets, half a second of the fastest video (2 kpps), in which a packet that
/// reached us late is still sent in its place. Later than that only a retransmission helps.
const SEND_WINDOW_WORDS: usize = 16;
/// Words of the replay list per sender of RTCP. RFC 3711 §3.3.2 asks for at least 64 packets.
const RTCP_WINDOW_WORDS: usize = 1;
/// Senders of RTCP whose replay lists are kept. A browser reports from one SSRC and from each it sends media with, a dozen
/// with simulcast and retransmissions; the one that was silent for longest is forgotten.
const MAX_RTCP_SENDERS: usize = 64;

/// A protection profile of DTLS-SRTP (RFC 5764 §4.1.2, RFC 7714 §14.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    AeadAes128Gcm,
    AeadAes256Gcm,
    AesCm128HmacSha1_80,
}

impl Profile {
    /// As in IANA's registry of DTLS-SRTP profiles, without the `SRTP_`.
    pub const fn name(self) -> &'static str {
        match self {
            Profile::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Profile::AeadAes256Gcm => "AEAD_AES_256_GCM",
            Profile::AesCm128HmacSha1_80 => "AES128_CM_HMAC_SHA1_80",
        }
    }

    /// Bytes of a master key.
    pub const fn key_len(self) -> usize {
        match self {
            Profile::AeadAes128Gcm | Profile::AesCm128HmacSha1_80 => 16,
            Profile::AeadAes256Gcm => 32,
        }
    }

    /// Bytes of a master salt.
    pub const fn salt_len(self) -> usize {
        match self {
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => 12,
            Profile::AesCm128HmacSha1_80 => 14,
        }
    }

    /// Bytes of keying material to export from DTLS (RFC 5764 §4.2).
    pub const fn keying_material_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }

    /// Bytes that an RTP packet grows by.
    pub const fn rtp_overhead(self) -> usize {
        match self {
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => 16,
            Profile::AesCm128HmacSha1_80 => 10,
        }
    }

    /// Bytes that an RTCP packet grows by: the tag and a word with the index.
    pub const fn rtcp_overhead(self) -> usize {
        self.rtp_overhead() + 4
    }
}

/// Which end of the DTLS handshake is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DtlsRole {
    Client,
    Server,
}

/// Key or salt are not as long as the profile wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the SRTP keys have a wrong length")]
pub struct WrongKeyLength;

/// The 2³¹ RTCP packets that one key may protect are used up: the connection needs a new handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the SRTP key has protected as many RTCP packets as it may")]
pub struct KeyExhausted;

/// The keys of both directions from what DTLS exported: both master keys, then both salts, the client's first
/// (RFC 5764 §4.2).
pub fn keys_from_dtls(
    profile: Profile,
    keying_material: &[u8],
    our_role: DtlsRole,
) -> Result<(SendKeys, ReceiveKeys), WrongKeyLength> {
    let (ours, _) = masters(profile, keying_material, our_role)?;
    let receive = receive_keys_from_dtls(profile, keying_material, our_role)?;
    Ok((SendKeys::new(profile, ours.0, ours.1)?, receive))
}

/// Those that open what the other end sends.
pub fn receive_keys_from_dtls(
    profile: Profile,
    keying_material: &[u8],
    our_role: DtlsRole,
) -> Result<ReceiveKeys, WrongKeyLength> {
    let (_, theirs) = masters(profile, keying_material, our_role)?;
    ReceiveKeys::new(profile, theirs.0, theirs.1)
}

/// A master key and its salt.
type Master<'a> = (&'a [u8], &'a [u8]);

/// Ours and theirs.
fn masters(
    profile: Profile,
    keying_material: &[u8],
    our_role: DtlsRole,
) -> Result<(Master<'_>, Master<'_>), WrongKeyLength> {
    if keying_material.len() != profile.keying_material_len() {
        return Err(WrongKeyLength);
    }
    let (keys, salts) = keying_material.split_at(2 * profile.key_len());
    let client = (&keys[..profile.key_len()], &salts[..profile.salt_len()]);
    let server = (&keys[profile.key_len()..], &salts[profile.salt_len()..]);
    Ok(match our_role {
        DtlsRole::Client => (client, server),
        DtlsRole::Server => (server, client),
    })
}

/// The cipher with the session keys of one direction and one of RTP and RTCP.
enum Cipher {
    Gcm(AesGcm),
    /// In a box because it is forty times the size of the other, which nearly everyone has.
    Cm(Box<AesCm>),
}

impl Cipher {
    fn rtp(profile: Profile, master: &MasterKey<'_>) -> Cipher {
        Cipher::new(profile, master, [Label::RtpEncryption, Label::RtpAuthentication, Label::RtpSalt])
    }

    fn rtcp(profile: Profile, master: &MasterKey<'_>) -> Cipher {
        Cipher::new(profile, master, [Label::RtcpEncryption, Label::RtcpAuthentication, Label::RtcpSalt])
    }

    fn new(profile: Profile, master: &MasterKey<'_>, [encryption, authentication, salt]: [Label; 3]) -> Cipher {
        match profile {
            Profile::AeadAes128Gcm => {
                Cipher::Gcm(AesGcm::new(&master.derive::<16>(encryption)[..], *master.derive(salt)))
            }
            Profile::AeadAes256Gcm => {
                Cipher::Gcm(AesGcm::new(&master.derive::<32>(encryption)[..], *master.derive(salt)))
            }
            Profile::AesCm128HmacSha1_80 => {
                let (key, authentication) = (master.derive(encryption), master.derive(authentication));
                Cipher::Cm(Box::new(AesCm::new(&key, &authentication, *master.derive(salt))))
            }
        }
    }
}

/// What encrypts everything that we send on one connection.
///
/// Make it once for each pair of master key and salt: its record of what was used begins empty.
pub struct SendKeys {
    profile: Profile,
    rtp: Cipher,
    rtcp: Cipher,
    /// Every SSRC that [`stream`](Self::stream) has given out.
    ssrcs: HashSet<u32>,
    next_rtcp_index: u32,
}

impl SendKeys {
    pub fn new(profile: Profile, master_key: &[u8], master_salt: &[u8]) -> Result<Self, WrongKeyLength> {
        let master = MasterKey::new(profile, master_key, master_salt)?;
        Ok(SendKeys {
            profile,
            rtp: Cipher::rtp(profile, &master),
            rtcp: Cipher::rtcp(profile, &master),
            ssrcs: HashSet::new(),
            next_rtcp_index: 0,
        })
    }

    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// The packet indices of one SSRC. `None` when it was asked for before, even if that stream is gone: a new one could
    /// repeat its indices.
    pub fn stream(&mut self, ssrc: u32) -> Option<SendStream> {
        self.ssrcs.insert(ssrc).then(|| SendStream { ssrc, sent: Window::new() })
    }

    /// Encrypts a packet where it lies. `packet` is header, payload, and room for the tag:
    /// [`Profile::rtp_overhead`] bytes whose content does not matter. The header has the SSRC and the sequence number of
    /// `index`.
    ///
    /// # Panics
    /// When `packet` is shorter than header and tag.
    pub fn seal_rtp(&self, packet: &mut [u8], header_len: usize, index: PacketIndex) {
        debug_assert_eq!(packet[2..4], index.sequence().to_be_bytes(), "the header's sequence number");
        debug_assert_eq!(packet[8..12], index.ssrc.to_be_bytes(), "the header's SSRC");
        match &self.rtp {
            Cipher::Gcm(gcm) => gcm.seal_rtp(packet, header_len, index.ssrc, index.index),
            Cipher::Cm(cm) => cm.seal_rtp(packet, header_len, index.ssrc, index.index),
        }
    }

    /// Encrypts a compound or reduced-size RTCP packet, which grows by [`Profile::rtcp_overhead`] bytes. With an error it
    /// stays as it is and must not be sent.
    ///
    /// # Panics
    /// When `packet` is shorter than a header and an SSRC, 8 bytes.
    pub fn seal_rtcp(&mut self, packet: &mut Vec<u8>) -> Result<(), KeyExhausted> {
        let index = self.next_rtcp_index;
        if index > MAX_RTCP_INDEX {
            return Err(KeyExhausted);
        }
        self.next_rtcp_index += 1;
        match &self.rtcp {
            Cipher::Gcm(gcm) => gcm.seal_rtcp(packet, index),
            Cipher::Cm(cm) => cm.seal_rtcp(packet, index),
        }
        Ok(())
    }
}

impl fmt::Debug for SendKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendKeys").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// Gives out the packet indices of one SSRC, each once.
#[derive(Debug)]
pub struct SendStream {
    ssrc: u32,
    sent: Window<SEND_WINDOW_WORDS>,
}

impl SendStream {
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// The index for the packet with this sequence number, extended to 64 bits. `None` when it was sent before, is more
    /// than 1023 packets older than the newest, or exceeds 48 bits.
    ///
    /// Receivers count rollovers from zero: begin below 65,536, best below 32,768 lest the first packets are lost
    /// around the first rollover (RFC 3711 §3.3.1).
    pub fn claim(&mut self, extended_sequence: u64) -> Option<PacketIndex> {
        let is_new = extended_sequence <= MAX_RTP_INDEX && self.sent.insert(extended_sequence);
        is_new.then_some(PacketIndex { ssrc: self.ssrc, index: extended_sequence })
    }
}

/// The right to encrypt one packet. Neither copied nor made anew.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct PacketIndex {
    ssrc: u32,
    index: u64,
}

impl PacketIndex {
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// What goes into the header.
    pub fn sequence(&self) -> u16 {
        self.index as u16
    }
}

/// What decrypts the packets of the other end.
pub struct ReceiveKeys {
    rtp: Cipher,
    rtcp: Cipher,
    /// By sender SSRC, the one heard last in front.
    rtcp_senders: Vec<(u32, Window<RTCP_WINDOW_WORDS>)>,
}

impl ReceiveKeys {
    pub fn new(profile: Profile, master_key: &[u8], master_salt: &[u8]) -> Result<Self, WrongKeyLength> {
        let master = MasterKey::new(profile, master_key, master_salt)?;
        Ok(ReceiveKeys {
            rtp: Cipher::rtp(profile, &master),
            rtcp: Cipher::rtcp(profile, &master),
            rtcp_senders: Vec::new(),
        })
    }

    /// Decrypts an RTP packet into `out`, replacing what was there. `header_len` and the sequence number, extended to 64
    /// bits, come from the clear header. `None` when it is not authentic.
    ///
    /// Keeps no replay list: for those who open one packet of many to see that they can, of each new stream the first.
    pub fn open_rtp(&self, packet: &[u8], header_len: usize, extended_sequence: u64, out: &mut Vec<u8>) -> Option<()> {
        let ssrc = u32::from_be_bytes(*packet.get(8..)?.first_chunk()?);
        match &self.rtp {
            Cipher::Gcm(gcm) => gcm.open_rtp(packet, header_len, ssrc, extended_sequence, out),
            Cipher::Cm(cm) => cm.open_rtp(packet, header_len, ssrc, extended_sequence, out),
        }
    }

    /// Decrypts an RTCP packet into `out`, replacing what was there. `None` when it is not authentic, not encrypted, or came
    /// before.
    pub fn open_rtcp(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let sender = rtcp_sender(packet)?;
        let index = match &self.rtcp {
            Cipher::Gcm(_) => AesGcm::rtcp_index(packet)?,
            Cipher::Cm(_) => AesCm::rtcp_index(packet)?,
        };
        let place = self.rtcp_senders.iter().position(|known| known.0 == sender);
        if place.is_some_and(|at| !self.rtcp_senders[at].1.accepts(index.into())) {
            return None;
        }
        match &self.rtcp {
            Cipher::Gcm(gcm) => gcm.open_rtcp(packet, index, out)?,
            Cipher::Cm(cm) => cm.open_rtcp(packet, index, out)?,
        }
        // Only now is it known that sender and index are genuine.
        self.remember(sender, place, index);
        Some(())
    }

    fn remember(&mut self, sender: u32, place: Option<usize>, index: u32) {
        let at = place.unwrap_or_else(|| {
            self.rtcp_senders.truncate(MAX_RTCP_SENDERS - 1);
            self.rtcp_senders.push((sender, Window::new()));
            self.rtcp_senders.len() - 1
        });
        self.rtcp_senders[at].1.insert(index.into());
        self.rtcp_senders[..=at].rotate_right(1);
    }
}

fn rtcp_sender(packet: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*packet.get(4..)?.first_chunk()?))
}

impl fmt::Debug for ReceiveKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveKeys").finish_non_exhaustive()
    }
}
