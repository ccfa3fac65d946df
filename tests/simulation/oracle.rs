//! What must be true of everything a client received, whatever happened on the way.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use parlour::sfu::{DataChannel, LineState, Quality, Sid, Speaker};
use str0m::rtp::RtpPacket;

use crate::media::{Stamp, Vp8Numbers, read_audio, read_video};
use crate::receiver::Receiver;

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

/// What a packet says before it is understood.
pub struct Arrival<'a> {
    /// Extended.
    pub sequence: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub payload: &'a [u8],
}

/// One SSRC as a client received it, in the order of arrival.
#[derive(Debug, Default)]
pub struct Stream {
    /// The track the section belonged to when the stream began.
    pub track: Option<String>,
    pub packets: Vec<Received>,
    /// Looks at a video as it comes.
    receiver: Option<Receiver>,
}

/// All that a client heard, for judging afterwards.
#[derive(Debug, Default)]
pub struct Diary {
    /// By section and SSRC.
    pub streams: BTreeMap<(String, u32), Stream>,
    pub speakers: Vec<(Instant, Vec<Speaker>)>,
    pub subscribed: Vec<Sid>,
    /// Videos that were paused (true) or went on.
    pub stream_states: Vec<(Instant, Sid, bool)>,
    /// How good lines are, its own included.
    pub lines: Vec<(Instant, LineState)>,
    /// What others want of this client's videos.
    pub qualities: Vec<(Instant, Sid, Option<Quality>)>,
    /// Subscriptions that could not be served.
    pub failed: Vec<Sid>,
    /// Tracks of its own that a moderator muted, as often as it was told.
    pub muted: Vec<Sid>,
    pub messages: Vec<(DataChannel, Vec<u8>)>,
    /// Packets that no camera or microphone of ours made.
    pub unreadable: u32,
    /// What the client thinks of its uplink, bits per second.
    pub estimates: Vec<u64>,
    /// How often the SFU asked this client's camera.
    pub keyframe_requests: u32,
    /// How often this client asked the SFU because nothing else helped.
    pub keyframes_asked: u32,
}

impl Diary {
    /// Whether the receiver of this packet would now ask for a keyframe.
    pub fn packet(&mut self, at: Instant, mid: String, track: Option<String>, packet: &RtpPacket) -> bool {
        let arrival = Arrival {
            sequence: *packet.seq_no,
            timestamp: packet.header.timestamp,
            marker: packet.header.marker,
            payload: &packet.payload,
        };
        self.arrival(at, (mid, *packet.header.ssrc), track, arrival)
    }

    /// The same of a packet that another implementation of RTP read. `stream`: its section and SSRC.
    pub fn arrival(
        &mut self,
        at: Instant,
        stream: (String, u32),
        track: Option<String>,
        Arrival { sequence, timestamp, marker, payload }: Arrival<'_>,
    ) -> bool {
        // Probes carry padding only.
        if payload.is_empty() {
            return false;
        }
        let (vp8, stamp) = match read_video(payload) {
            Some((numbers, stamp)) => (Some(numbers), stamp),
            None => match read_audio(payload) {
                Some(stamp) => (None, stamp),
                None => {
                    self.unreadable += 1;
                    return false;
                }
            },
        };
        let stream = self.streams.entry(stream).or_default();
        // Media may overtake the description that names it.
        if stream.track.is_none() {
            stream.track = track;
        }
        stream.packets.push(Received { at, sequence, timestamp, marker, stamp, vp8 });
        let stuck = vp8.is_some() && stream.receiver.get_or_insert_with(Receiver::new).packet(at, sequence, stamp);
        self.keyframes_asked += u32::from(stuck);
        stuck
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
        let is = |s: &&Stream| {
            s.packets.first().is_some_and(|p| usize::from(p.stamp.publisher) == publisher && p.vp8.is_some() == video)
        };
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

/// What a stream looked like to a decoder.
#[derive(Debug, Clone, Copy, Default)]
pub struct Playback {
    pub frames: usize,
    pub keyframes: usize,
    /// Changes of layer.
    pub switches: usize,
    /// How often something was missing for good.
    pub broken: usize,
    /// The longest time between two frames that could be shown.
    pub longest_gap: Duration,
    /// When the last one was shown.
    pub last: Option<Instant>,
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
            assert!(
                step < 1 << 31,
                "timestamp goes back at sequence {}: {} after {}",
                b.sequence,
                b.timestamp,
                a.timestamp
            );
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
    /// at a keyframe, a keyframe at the start, VP8 numbers of one encoder. After a hole it goes on at the next keyframe.
    pub fn play_video(&self, until: Instant) -> Playback {
        self.play(None, until)
    }

    /// The same; only what is shown from `since` on is judged.
    pub fn play_video_since(&self, since: Instant, until: Instant) -> Playback {
        self.play(Some(since), until)
    }

    fn play(&self, since: Option<Instant>, until: Instant) -> Playback {
        let mut frames: Vec<Vec<&Received>> = Vec::new();
        for packet in self.in_order(until) {
            match frames.last_mut() {
                Some(frame) if frame[0].timestamp == packet.timestamp => frame.push(packet),
                _ => frames.push(vec![packet]),
            }
        }
        let mut playback = Playback::default();
        let mut before: Option<&[&Received]> = None;
        let mut shown: Option<Instant> = None;
        // Nothing can be shown before the next keyframe.
        let mut blind = true;
        // The last one may be on its way still.
        for (index, frame) in frames.iter().enumerate().take(frames.len().saturating_sub(1)) {
            let first = frame[0];
            let numbers = first.vp8.expect("video");
            let whole = check_frame(frame);
            let gapless = before.map(|last| last[last.len() - 1].sequence + 1 == first.sequence);
            if let (Some(last), Some(true)) = (before, gapless) {
                check_numbers(numbers, last[0].vp8.expect("video"), first);
            }
            let last_stamp = before.replace(frame).map(|last| last[0].stamp);
            // A frame that a change of layer or a pause cut short is dropped by decoders: the keyframe that follows needs
            // nothing of it.
            let changes = |next: &Vec<&Received>| next[0].stamp.key && next[0].stamp.part == 0;
            if first.stamp.part == 0 && !whole && frames.get(index + 1).is_some_and(changes) {
                continue;
            }
            let follows =
                last_stamp.is_some_and(|last| first.stamp.layer == last.layer && first.stamp.frame == last.frame + 1);
            if !whole || (gapless == Some(false) && !first.stamp.key) {
                playback.broken += usize::from(!blind || last_stamp.is_none());
                blind = true;
                continue;
            }
            assert!(
                first.stamp.key || follows || blind,
                "the frame at {} ({:?}) cannot be decoded after {last_stamp:?}",
                first.sequence,
                first.stamp
            );
            playback.broken += usize::from(last_stamp.is_none() && !first.stamp.key);
            blind &= !first.stamp.key;
            if blind {
                continue;
            }
            let arrived = frame.iter().map(|p| p.at).max().expect("not empty");
            let at = shown.map_or(arrived, |shown| shown.max(arrived));
            if since.is_some_and(|since| at < since) {
                shown = Some(at);
                playback.last_layer = first.stamp.layer;
                continue;
            }
            if let Some(shown) = shown.max(since) {
                playback.longest_gap = playback.longest_gap.max(at - shown);
                playback.switches += usize::from(playback.last_layer != first.stamp.layer);
            }
            playback.frames += 1;
            playback.keyframes += usize::from(first.stamp.key);
            playback.last_layer = first.stamp.layer;
            playback.last = Some(at);
            shown = Some(at);
        }
        playback
    }

    /// The longest time without a packet, and how many came.
    pub fn play_audio(&self) -> (usize, Duration) {
        let gaps = self.packets.windows(2).map(|pair| pair[1].at.saturating_duration_since(pair[0].at));
        (self.packets.len(), gaps.max().unwrap_or_default())
    }
}

/// Whether all of the frame's packets are there; panics when they contradict each other.
fn check_frame(frame: &[&Received]) -> bool {
    let (sequence, stamp, numbers) = (frame[0].sequence, frame[0].stamp, frame[0].vp8.expect("video"));
    for packet in frame {
        let own = packet.stamp;
        assert_eq!(own, Stamp { part: own.part, ..stamp }, "the frame at {sequence} is one frame");
        assert_eq!(packet.marker, own.part + 1 == stamp.parts, "the marker ends the frame at {sequence}");
        let descriptor = Vp8Numbers { start: own.part == 0, ..numbers };
        assert_eq!(packet.vp8, Some(descriptor), "one descriptor in the frame at {sequence}");
        let place = u64::from(own.part) - u64::from(stamp.part);
        assert_eq!(packet.sequence - sequence, place, "the frame at {sequence} is in order");
    }
    frame.len() == usize::from(stamp.parts)
}

/// The numbers of two frames without a hole between.
fn check_numbers(numbers: Vp8Numbers, last: Vp8Numbers, frame: &Received) {
    let sequence = frame.sequence;
    assert_eq!(numbers.picture_id, (last.picture_id + 1) & 0x7fff, "picture ids at {sequence}");
    assert_eq!(numbers.tl0picidx, last.tl0picidx.wrapping_add(1), "tl0picidx at {sequence}");
    assert_eq!(numbers.keyidx != last.keyidx, frame.stamp.key, "keyidx at {sequence}");
}
