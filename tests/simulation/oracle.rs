//! What must be true of everything a client received, whatever happened on the way.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use parlour::sfu::{DataChannel, Sid, Speaker};
use str0m::rtp::RtpPacket;

use crate::media::{Stamp, Vp8Numbers, read_audio, read_video};

#[derive(Debug, Clone)]
pub struct Received {
    pub at: Instant,
    pub sequence: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub stamp: Stamp,
    /// `None`: audio.
    pub vp8: Option<Vp8Numbers>,
}

/// One SSRC as a client received it, in the order of arrival.
#[derive(Debug, Default)]
pub struct Stream {
    /// The track the section belonged to when the first packet came.
    pub track: Option<String>,
    pub packets: Vec<Received>,
}

/// All that a client heard, for judging afterwards.
#[derive(Debug, Default)]
pub struct Diary {
    /// By section and SSRC.
    pub streams: BTreeMap<(String, u32), Stream>,
    pub speakers: Vec<(Instant, Vec<Speaker>)>,
    pub subscribed: Vec<Sid>,
    pub messages: Vec<(DataChannel, Vec<u8>)>,
    pub keyframe_requests: u32,
}

impl Diary {
    pub fn packet(&mut self, at: Instant, mid: String, track: Option<String>, packet: &RtpPacket) {
        // Probes carry padding only.
        if packet.payload.is_empty() {
            return;
        }
        let (vp8, stamp) = match read_video(&packet.payload) {
            Some((numbers, stamp)) => (Some(numbers), stamp),
            None => (None, read_audio(&packet.payload).expect("payloads arrive untouched")),
        };
        let stream = self.streams.entry((mid, *packet.header.ssrc)).or_default();
        if stream.packets.is_empty() {
            stream.track = track;
        }
        stream.packets.push(Received {
            at,
            sequence: *packet.seq_no,
            timestamp: packet.header.timestamp,
            marker: packet.header.marker,
            stamp,
            vp8,
        });
    }

    pub fn digest(&self, digest: &mut impl Hasher, start: Instant) {
        for (key, stream) in &self.streams {
            key.hash(digest);
            for packet in &stream.packets {
                (packet.at - start, packet.sequence, packet.timestamp, packet.marker, packet.stamp).hash(digest);
            }
        }
    }

    /// The streams of one publisher.
    pub fn from(&self, publisher: usize, video: bool) -> Vec<&Stream> {
        let is = |s: &&Stream| s.packets.first().is_some_and(|p| usize::from(p.stamp.publisher) == publisher && p.vp8.is_some() == video);
        self.streams.values().filter(is).collect()
    }

    pub fn audio(&self, publisher: usize) -> &Stream {
        Self::only(self.from(publisher, false), publisher, "audio")
    }

    pub fn video(&self, publisher: usize) -> &Stream {
        Self::only(self.from(publisher, true), publisher, "video")
    }

    fn only<'a>(streams: Vec<&'a Stream>, publisher: usize, what: &str) -> &'a Stream {
        assert_eq!(streams.len(), 1, "one {what} stream of {publisher}");
        streams[0]
    }
}

/// What a stretch of a stream looked like to a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Playback {
    pub frames: usize,
    pub keyframes: usize,
    /// Changes of layer.
    pub switches: usize,
    /// The longest time between two frames that could be shown.
    pub longest_gap: Duration,
    pub first: Instant,
    pub last: Instant,
    pub last_layer: u8,
}

impl Stream {
    /// By sequence number, each once, up to the highest that arrived until `until`; panics when one number comes with
    /// two contents.
    fn in_order(&self, until: Instant) -> Vec<&Received> {
        let mut by_sequence: BTreeMap<u64, &Received> = BTreeMap::new();
        for packet in &self.packets {
            if let Some(before) = by_sequence.insert(packet.sequence, packet) {
                assert_eq!(before.stamp, packet.stamp, "sequence {} used twice", packet.sequence);
            }
        }
        let last = by_sequence.values().filter(|p| p.at <= until).map(|p| p.sequence).max();
        by_sequence.into_values().take_while(|p| Some(p.sequence) <= last).collect()
    }

    /// Missing numbers between the first and the last packet that arrived until `until`.
    pub fn holes(&self, until: Instant) -> Vec<u64> {
        self.in_order(until).windows(2).flat_map(|pair| pair[0].sequence + 1..pair[1].sequence).collect()
    }

    /// Timestamps never go back, and follow the clock.
    pub fn check_timestamps(&self, clock_rate: u32, tolerance: Duration, until: Instant) {
        for pair in self.in_order(until).windows(2) {
            let (a, b) = (pair[0], pair[1]);
            let step = b.timestamp.wrapping_sub(a.timestamp);
            assert!(step < 1 << 31, "timestamp goes back at sequence {}: {} after {}", b.sequence, b.timestamp, a.timestamp);
            let same_frame = a.vp8.is_some() && a.vp8.map(|v| v.picture_id) == b.vp8.map(|v| v.picture_id);
            assert_eq!(same_frame, step == 0, "sequence {}: one timestamp, one frame", b.sequence);
            let shown = Duration::from_secs_f64(f64::from(step) / f64::from(clock_rate));
            let arrived = b.at.saturating_duration_since(a.at);
            // What was sent again says nothing about the clock.
            let error = shown.abs_diff(arrived);
            assert!(error <= tolerance, "sequence {}: {shown:?} on the media clock, {arrived:?} apart", b.sequence);
        }
    }

    /// Decodes the whole of it. What a decoder needs: whole frames, one after the other on a layer, a layer change only
    /// at a keyframe, a keyframe at the start, VP8 numbers of one encoder.
    pub fn play_video(&self, until: Instant) -> Playback {
        assert_eq!(self.holes(until), Vec::<u64>::new(), "everything arrives at last");
        let mut frames: Vec<Vec<&Received>> = Vec::new();
        for packet in self.in_order(until) {
            match frames.last_mut() {
                Some(frame) if frame[0].timestamp == packet.timestamp => frame.push(packet),
                _ => frames.push(vec![packet]),
            }
        }
        // The last one may be on its way still.
        frames.pop();
        // A frame that a change of layer cut short is dropped by decoders: the keyframe that follows needs nothing of it.
        let cut = |pair: &[Vec<&Received>]| {
            let (stamp, next) = (pair[0][0].stamp, pair[1][0].stamp);
            next.key && next.layer != stamp.layer && pair[0].len() < usize::from(stamp.parts)
        };
        let cuts: Vec<bool> = frames.windows(2).map(cut).chain([false]).collect();
        let mut playback: Option<Playback> = None;
        let mut before: Option<(Stamp, Vp8Numbers)> = None;
        let mut shown = self.packets[0].at;
        for (frame, cut) in frames.iter().zip(cuts) {
            let (stamp, numbers) = (frame[0].stamp, frame[0].vp8.expect("video"));
            let sequence = frame[0].sequence;
            assert!(cut || frame.len() == usize::from(stamp.parts), "the frame at {sequence} is whole: {frame:?}");
            for (part, packet) in (0u8..).zip(frame) {
                assert_eq!(packet.stamp, Stamp { part, ..stamp }, "the frame at {sequence} is one frame");
                assert_eq!(packet.marker, part + 1 == stamp.parts, "the marker ends the frame at {sequence}");
                let own = packet.vp8.expect("video");
                assert_eq!(own, Vp8Numbers { start: part == 0, ..numbers }, "one descriptor in the frame at {sequence}");
            }
            match before {
                None => assert!(stamp.key, "the first frame is a keyframe"),
                Some((last, last_numbers)) => {
                    let follows = stamp.layer == last.layer && stamp.frame == last.frame + 1;
                    assert!(follows || stamp.key, "the frame at {sequence} ({stamp:?}) cannot be decoded after {last:?}");
                    assert_eq!(numbers.picture_id, (last_numbers.picture_id + 1) & 0x7fff, "picture ids at {sequence}");
                    assert_eq!(numbers.tl0picidx, last_numbers.tl0picidx.wrapping_add(1), "tl0picidx at {sequence}");
                    assert_eq!(numbers.keyidx != last_numbers.keyidx, stamp.key, "keyidx at {sequence}");
                }
            }
            let last = before.replace((stamp, numbers)).map(|(last, _)| last);
            if cut {
                continue;
            }
            let arrived = frame.iter().map(|p| p.at).max().expect("not empty");
            let playable = shown.max(arrived);
            let gap = if playback.is_some() { playable - shown } else { Duration::ZERO };
            let play = playback.get_or_insert(Playback {
                frames: 0,
                keyframes: 0,
                switches: 0,
                longest_gap: Duration::ZERO,
                first: playable,
                last: playable,
                last_layer: stamp.layer,
            });
            play.frames += 1;
            play.keyframes += usize::from(stamp.key);
            play.switches += usize::from(last.is_some_and(|last| last.layer != stamp.layer));
            play.longest_gap = play.longest_gap.max(gap);
            play.last = playable;
            play.last_layer = stamp.layer;
            shown = playable;
        }
        playback.expect("at least one frame")
    }

    /// The longest time without a packet, and how many came.
    pub fn play_audio(&self) -> (usize, Duration) {
        let gaps = self.packets.windows(2).map(|pair| pair[1].at.saturating_duration_since(pair[0].at));
        (self.packets.len(), gaps.max().unwrap_or_default())
    }
}
