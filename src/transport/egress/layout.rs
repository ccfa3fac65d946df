//! How packets of one section look on the wire: which header extensions the client understands there, under which ids.

use crate::rtp::DependencyRewrite;
use crate::rtp::dependency_descriptor::rewrite;
use crate::rtp::header::{Form, Header, HeaderWriter};
use crate::transport::Extensions;
use crate::transport::codecs::HeaderExtension;
use crate::transport::sdp::ExtMap;

/// What the length byte of the two-byte form can tell (RFC 8285 §4.3).
const MAX_ELEMENT_BYTES: usize = 255;

/// The header extensions of one section; `None`: not negotiated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExtensionIds {
    mid: Option<u8>,
    transport_cc: Option<u8>,
    abs_send_time: Option<u8>,
    audio_level: Option<u8>,
    video_orientation: Option<u8>,
    abs_capture_time: Option<u8>,
    playout_delay: Option<u8>,
    dependency_descriptor: Option<u8>,
}

impl ExtensionIds {
    pub fn new(negotiated: &[ExtMap]) -> Self {
        let id = |wanted: HeaderExtension| negotiated.iter().find(|ext| ext.uri == wanted.uri()).map(|ext| ext.id);
        ExtensionIds {
            mid: id(HeaderExtension::Mid),
            transport_cc: id(HeaderExtension::TransportCc),
            abs_send_time: id(HeaderExtension::AbsSendTime),
            audio_level: id(HeaderExtension::AudioLevel),
            video_orientation: id(HeaderExtension::VideoOrientation),
            abs_capture_time: id(HeaderExtension::AbsCaptureTime),
            playout_delay: id(HeaderExtension::PlayoutDelay),
            dependency_descriptor: id(HeaderExtension::DependencyDescriptor),
        }
    }

    /// Whether packets are numbered across the connection's streams.
    pub fn is_numbered(&self) -> bool {
        self.transport_cc.is_some()
    }
}

/// What a header says beside the publisher's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Stamp<'a> {
    /// The section's id, until the receiver is known to have found the stream.
    pub mid: Option<&'a str>,
    /// Across all streams; only where [`ExtensionIds::is_numbered`].
    pub number: u16,
    /// As [`NtpTime::absolute_send_time`](crate::rtp::ntp::NtpTime::absolute_send_time) gives it.
    pub send_time: [u8; 3],
}

/// Appends a header, and gives its length.
pub fn write_header(
    out: &mut Vec<u8>,
    ids: &ExtensionIds,
    header: Header,
    stamp: &Stamp<'_>,
    extensions: &Extensions,
    dependency: Option<DependencyRewrite>,
) -> usize {
    let mut room = [0; MAX_ELEMENT_BYTES];
    let descriptor = ids.dependency_descriptor.zip(extensions.dependency_descriptor.as_deref());
    let descriptor = descriptor.and_then(|(id, bytes)| match dependency {
        None => Some((id, bytes)),
        // What the forwarder read can be rewritten.
        Some(change) => rewrite(bytes, change, &mut room).map(|len| (id, &room[..len])),
    });
    // Who negotiated a descriptor reads the form that a long one needs.
    let form = descriptor.map_or(Form::OneByte, |(id, bytes)| Form::OneByte.with(id, bytes.len()));
    let mut writer = HeaderWriter::new(out, header, form);
    if let Some(id) = ids.transport_cc {
        writer.element(id, &stamp.number.to_be_bytes());
    }
    if let Some(id) = ids.abs_send_time {
        writer.element(id, &stamp.send_time);
    }
    if let Some((id, mid)) = ids.mid.zip(stamp.mid) {
        writer.element(id, mid.as_bytes());
    }
    if let Some((id, audio)) = ids.audio_level.zip(extensions.audio_level) {
        writer.element(id, &[u8::from(audio.voice) << 7 | audio.level & 0x7f]);
    }
    if let Some((id, orientation)) = ids.video_orientation.zip(extensions.video_orientation) {
        writer.element(id, &[orientation]);
    }
    if let Some((id, time)) = ids.abs_capture_time.zip(extensions.abs_capture_time) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&time.captured.to_be_bytes());
        bytes[8..].copy_from_slice(&time.clock_offset.unwrap_or_default().to_be_bytes());
        writer.element(id, if time.clock_offset.is_some() { &bytes } else { &bytes[..8] });
    }
    if let Some((id, delay)) = ids.playout_delay.zip(extensions.playout_delay) {
        let [_, a, b, c] = (u32::from(delay.min & 0xfff) << 12 | u32::from(delay.max & 0xfff)).to_be_bytes();
        writer.element(id, &[a, b, c]);
    }
    if let Some((id, bytes)) = descriptor {
        writer.element(id, bytes);
    }
    writer.finish()
}
