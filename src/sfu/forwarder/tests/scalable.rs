//! Layers: encoders with real descriptors, a network, a forwarder, and a receiver that believes only what it reads.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::encoder::{Encoded, Mode, Stream};
use super::*;
use crate::rtp::dependency_descriptor::{self, Descriptor, Structure};
use crate::rtp::{vp8, vp9};
use crate::sfu::frame_reader::FrameReader;
use crate::transport::MediaPacket;

const MODES: [Mode; 6] =
    [Mode::Vp8, Mode::Vp9Key, Mode::Vp9KeyDescribed, Mode::Av1Key, Mode::Av1Full, Mode::Av1Temporal];

/// What the receiver got: the forwarder's numbers, applied to the packet.
struct Received {
    out: Outgoing,
    payload: Vec<u8>,
    descriptor: Option<Vec<u8>>,
}

struct Run {
    /// Each arrival: stream, frame, whether anything of it goes out, and what.
    arrivals: Vec<(u8, usize, Option<Received>)>,
    /// What was wanted at each picture.
    wanted: Vec<Option<Selection>>,
}

/// What happens to the packets on the way to us, in percent.
#[derive(Debug, Clone, Copy)]
struct Loss {
    lost: u64,
    late: u64,
}

/// Sends the streams through a forwarder. `select` gives what is wanted at each picture.
fn run(
    random: &mut Random,
    streams: &[Stream],
    loss: Loss,
    mut select: impl FnMut(&mut Random, usize) -> Option<Selection>,
) -> Run {
    // (when, nth) orders the packets; late ones come some pictures later.
    let mut order: Vec<(u64, u8, &Encoded)> = Vec::new();
    for (n, stream) in streams.iter().enumerate() {
        for encoded in &stream.packets {
            let at = stream.frames[encoded.frame].picture as u64 * 100;
            if random.percent(loss.lost) {
                continue;
            }
            let delay = if random.percent(loss.late) { 50 + random.below(500) } else { 0 };
            order.push((at + delay, n as u8, encoded));
        }
    }
    order.sort_by_key(|(at, n, encoded)| (*at, *n, encoded.media.sequence));
    let mut reader = FrameReader::default();
    let mut forwarder = Forwarder::new(random.below(1 << 16) as u16, random.below(1 << 32) as u32);
    let (mut selection, mut picture) = (None, None);
    let (mut arrivals, mut wanted) = (Vec::new(), Vec::new());
    for (_, n, encoded) in order {
        let now = streams[usize::from(n)].frames[encoded.frame].picture;
        if picture.is_none_or(|picture| now > picture) {
            picture = Some(now);
            selection = select(random, now);
            wanted.resize(now + 1, selection);
        }
        let description = reader.read(&encoded.media);
        let incoming = description.of(&encoded.media);
        let out = forwarder.forward(selection, &incoming);
        arrivals.push((n, encoded.frame, out.map(|out| receive(out, &encoded.media))));
    }
    Run { arrivals, wanted }
}

fn receive(out: Outgoing, media: &MediaPacket) -> Received {
    let mut payload = media.payload[out.rewrite.range(media.payload.len())].to_vec();
    out.rewrite.apply(&mut payload);
    if !payload.is_empty() {
        let tail = |bytes: &[u8]| bytes[bytes.len() - 2..].to_vec();
        assert_eq!(tail(&payload), tail(&media.payload), "the frame was touched");
        assert_eq!(payload.len(), media.payload.len());
    }
    let descriptor = media.extensions.dependency_descriptor.as_ref().map(|bytes| match out.dependency {
        None => bytes.to_vec(),
        Some(change) => {
            let mut room = [0; 255];
            let len = dependency_descriptor::rewrite(bytes, change, &mut room).expect("a descriptor that was read");
            room[..len].to_vec()
        }
    });
    Received { out, payload, descriptor }
}

impl Run {
    fn sent(&self) -> impl Iterator<Item = (u8, usize, &Received)> {
        self.arrivals.iter().filter_map(|(stream, frame, sent)| Some((*stream, *frame, sent.as_ref()?)))
    }

    /// Packets with a payload, in the order of their numbers.
    fn media(&self) -> Vec<(u8, usize, &Received)> {
        let mut media: Vec<_> = self.sent().filter(|(_, _, r)| !r.payload.is_empty()).collect();
        media.sort_by_key(|(_, _, r)| r.out.sequence);
        media
    }

    /// No number is used twice, and none is missing but for what the network lost.
    fn check_sequences(&self, lost: usize) {
        let mut numbers: Vec<u64> = self.sent().map(|(_, _, r)| r.out.sequence).collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count, "a number was used twice");
        if let (Some(first), Some(last)) = (numbers.first(), numbers.last()) {
            let missing = (last - first + 1) as usize - numbers.len();
            assert!(missing <= lost, "{missing} numbers are missing");
        }
    }

    /// Frames are sent whole, and none without those it needs: a packet that arrived is never withheld from them. But
    /// for frames that nothing was seen of when their turn was: they go out whatever they are.
    fn check_decodable(&self, streams: &[Stream]) {
        let mut sent: HashMap<(u8, usize), (usize, usize)> = HashMap::new();
        let mut newest = 0;
        let mut late = BTreeSet::new();
        for (stream, frame, received) in &self.arrivals {
            newest = newest.max(*frame);
            if *frame < newest && !sent.contains_key(&(*stream, *frame)) {
                late.insert(*frame);
            }
            let counts = sent.entry((*stream, *frame)).or_default();
            counts.0 += 1;
            counts.1 += usize::from(received.as_ref().is_some_and(|r| !r.payload.is_empty()));
        }
        for ((stream, frame), (came, went)) in &sent {
            if *went == 0 {
                continue;
            }
            assert_eq!(came, went, "frame {frame} of {stream} was cut");
            if late.contains(frame) {
                continue;
            }
            let model = &streams[usize::from(*stream)].frames[*frame];
            for reference in &model.references {
                let (came, went) = sent.get(&(*stream, *reference)).copied().unwrap_or_default();
                assert_eq!(came, went, "{model:?} was sent without all of {reference}");
            }
        }
    }

    /// Every picture ends with a marker, and nothing of it comes after; but where a spatial layer begins between key
    /// pictures, which nobody knows when the layer below ends.
    fn check_markers(&self, streams: &[Stream]) {
        let mut pictures: BTreeMap<(usize, u8), (Vec<bool>, u8)> = BTreeMap::new();
        for (stream, frame, r) in self.media() {
            let model = &streams[usize::from(stream)].frames[frame];
            let (markers, spatial) = pictures.entry((model.picture, stream)).or_default();
            markers.push(r.out.marker);
            *spatial = (*spatial).max(model.spatial);
        }
        for (picture, (markers, spatial)) in &pictures {
            let ends = markers.iter().filter(|m| **m).count();
            // It was not wanted before, at some picture since the last of the base layer.
            let before = &self.wanted[picture.0.saturating_sub(4)..picture.0];
            let begins = before.iter().any(|before| before.is_none_or(|before| before.spatial < *spatial));
            assert!(ends == 1 || (ends > 0 && begins), "{picture:?}: {markers:?}");
            assert_eq!(markers.last(), Some(&true), "{picture:?}");
        }
    }

    /// A receiver of dependency descriptors: by what it reads, it can decode everything.
    fn check_descriptors(&self) {
        let mut structure: Option<Box<Structure>> = None;
        let mut have: BTreeSet<u16> = BTreeSet::new();
        let mut newest: Option<u16> = None;
        let mut active = 0u32;
        for (_, _, r) in self.media() {
            let Some(bytes) = &r.descriptor else { continue };
            let descriptor = Descriptor::parse(bytes, structure.as_deref()).expect("a readable descriptor");
            let number = descriptor.frame_number;
            if let Some(new) = descriptor.structure {
                active = new.select(|_| true).bits;
                structure = Some(new);
            }
            active = descriptor.active_targets.unwrap_or(active);
            let frame = descriptor.frame.expect("the structure comes first");
            let step = number.wrapping_sub(newest.unwrap_or(number));
            assert!(step < 500, "frame numbers go from {newest:?} to {number}");
            newest = Some(number);
            for diff in frame.diffs.as_slice() {
                let needed = number.wrapping_sub(*diff);
                assert!(have.contains(&needed), "frame {number} needs {needed}");
            }
            have.insert(number);
            let structure = structure.as_deref().unwrap();
            let (spatial, temporal) = (frame.spatial, frame.temporal);
            let own = structure.select(|t| t.spatial >= spatial && t.temporal >= temporal);
            assert!(own.bits & active != 0, "a frame of ({spatial}, {temporal}) with targets {active:b}");
        }
    }

    fn check_vp8(&self) {
        let mut before: Option<vp8::Descriptor> = None;
        for (_, _, r) in self.media() {
            let now = vp8::Descriptor::parse(&r.payload).unwrap();
            if let Some(last) = before {
                let step = |now: u16, last: u16| now.wrapping_sub(last) & 0x7fff;
                let pictures = step(now.picture_id.unwrap().value, last.picture_id.unwrap().value);
                assert_eq!(pictures, u16::from(now.starts_frame()), "{now:?} after {last:?}");
                let groups = now.tl0_picture_index.unwrap().wrapping_sub(last.tl0_picture_index.unwrap());
                assert_eq!(groups, u8::from(now.starts_frame() && now.temporal_layer == Some(0)), "{now:?}");
            }
            before = Some(now);
        }
    }

    /// A receiver of VP9 in flexible mode.
    fn check_vp9(&self) {
        let mut have: BTreeSet<(u16, u8)> = BTreeSet::new();
        for (_, _, r) in self.media() {
            let d = vp9::Descriptor::parse(&r.payload).unwrap();
            let id = d.picture_id.unwrap().value;
            for diff in d.references.into_iter().filter(|diff| *diff > 0) {
                let needed = (id.wrapping_sub(u16::from(diff)) & 0x7fff, d.spatial());
                assert!(have.contains(&needed), "{id} of {} needs {}", d.spatial(), needed.0);
            }
            if d.layer.unwrap().inter_layer {
                assert!(have.contains(&(id, d.spatial() - 1)), "{id} of {} needs the layer below", d.spatial());
            }
            have.insert((id, d.spatial()));
        }
    }

    fn check(&self, mode: Mode, streams: &[Stream], loss: Loss) {
        let total: usize = streams.iter().map(|s| s.packets.len()).sum();
        self.check_sequences(total - self.arrivals.len());
        self.check_decodable(streams);
        if loss.lost + loss.late == 0 {
            self.check_markers(streams);
            match mode {
                Mode::Vp8 => self.check_vp8(),
                Mode::Vp9Key => self.check_vp9(),
                Mode::Vp9KeyDescribed => {
                    self.check_vp9();
                    self.check_descriptors();
                }
                Mode::Av1Key | Mode::Av1Full | Mode::Av1Temporal => self.check_descriptors(),
            }
        }
    }

    /// The highest layers that go out of each picture of a stream.
    fn layers(&self, streams: &[Stream]) -> BTreeMap<usize, (u8, u8)> {
        let mut layers: BTreeMap<usize, (u8, u8)> = BTreeMap::new();
        for (stream, frame, _) in self.media() {
            let model = &streams[usize::from(stream)].frames[frame];
            let (spatial, temporal) = layers.entry(model.picture).or_default();
            *spatial = (*spatial).max(model.spatial);
            *temporal = (*temporal).max(model.temporal);
        }
        layers
    }
}

const NO_LOSS: Loss = Loss { lost: 0, late: 0 };

fn one(random: &mut Random, mode: Mode, pictures: usize, keys: &[usize]) -> Vec<Stream> {
    vec![Stream::new(random, mode, 0, pictures, keys, Instant::now())]
}

fn layers(spatial: u8, temporal: u8) -> Option<Selection> {
    Some(Selection { stream: 0, spatial, temporal })
}

#[test]
fn the_layers_that_are_wanted_flow() {
    for mode in MODES {
        for (spatial, temporal) in [(0, 0), (0, 2), (1, 1), (2, 0), (2, 3)] {
            let mut random = Random(7);
            let streams = one(&mut random, mode, 40, &[17]);
            let run = run(&mut random, &streams, NO_LOSS, |_, _| layers(spatial, temporal));
            run.check(mode, &streams, NO_LOSS);
            let spatial = spatial.min(mode.spatial_layers() - 1);
            let expected = streams[0].frames.iter().filter(|f| f.spatial <= spatial && f.temporal <= temporal).count();
            let sent: BTreeSet<usize> = run.media().iter().map(|(_, frame, _)| *frame).collect();
            assert_eq!(sent.len(), expected, "{mode:?} {spatial} {temporal}");
        }
    }
}

#[test]
fn going_down_takes_effect_with_the_next_picture() {
    for mode in MODES {
        let mut random = Random(8);
        let streams = one(&mut random, mode, 40, &[]);
        let wanted = |picture| if picture < 21 { (2, 2) } else { (1, 0) };
        let run = run(&mut random, &streams, NO_LOSS, |_, picture| {
            let (spatial, temporal) = wanted(picture);
            layers(spatial, temporal)
        });
        run.check(mode, &streams, NO_LOSS);
        for (picture, (spatial, temporal)) in run.layers(&streams) {
            let (most, fastest) = wanted(picture);
            assert!(spatial <= most && temporal <= fastest, "{mode:?}: picture {picture} has {spatial} {temporal}");
        }
        assert!(run.layers(&streams).len() >= 25, "the base layer goes on");
    }
}

#[test]
fn going_up_in_time_waits_for_a_frame_that_lets_it() {
    for mode in MODES {
        let mut random = Random(9);
        let streams = one(&mut random, mode, 48, &[]);
        let run = run(&mut random, &streams, NO_LOSS, |_, picture| layers(2, if picture < 19 { 0 } else { 2 }));
        run.check(mode, &streams, NO_LOSS);
        let all = run.layers(&streams);
        // A group of pictures later everything flows; VP8 needs two, as its layers are in step every other group only.
        let later = if mode == Mode::Vp8 { 19 + 10 } else { 19 + 4 };
        let missing: Vec<usize> = (later..48).filter(|picture| !all.contains_key(picture)).collect();
        assert!(missing.is_empty(), "{mode:?} without {missing:?}");
    }
}

#[test]
fn going_up_in_size_waits_for_a_key_picture() {
    for mode in [Mode::Vp9Key, Mode::Vp9KeyDescribed, Mode::Av1Key, Mode::Av1Full] {
        let mut random = Random(10);
        let streams = one(&mut random, mode, 40, &[22]);
        let run = run(&mut random, &streams, NO_LOSS, |_, picture| layers(if picture < 10 { 0 } else { 2 }, 2));
        run.check(mode, &streams, NO_LOSS);
        for (picture, (spatial, _)) in run.layers(&streams) {
            assert_eq!(spatial, if picture < 22 { 0 } else { 2 }, "{mode:?}: picture {picture}");
        }
    }
}

#[test]
fn the_receiver_is_told_which_targets_it_gets() {
    let mut random = Random(11);
    let streams = one(&mut random, Mode::Av1Key, 40, &[]);
    let run = run(&mut random, &streams, NO_LOSS, |_, picture| layers(if picture < 20 { 2 } else { 1 }, 2));
    run.check(Mode::Av1Key, &streams, NO_LOSS);
    let told: Vec<(usize, u32)> = run
        .media()
        .iter()
        .filter_map(|(_, frame, r)| Some((streams[0].frames[*frame].picture, r.out.dependency?.active_targets?.bits)))
        .collect();
    assert!(!told.is_empty());
    assert!(told.iter().all(|(picture, bits)| (*picture, *bits) == (20, 0b000_111_111)), "{told:?}");
}

#[test]
fn frames_that_come_late_keep_their_fate() {
    // The middle packet of a dropped frame is lost and comes when its number is waited for: it is filled.
    let mut random = Random(12);
    let mut streams = one(&mut random, Mode::Vp8, 12, &[]);
    let frames = &streams[0].frames;
    let dropped = frames.iter().find(|f| f.temporal == 2).unwrap().index;
    let packets = &mut streams[0].packets;
    let at = packets.iter().position(|p| p.frame == dropped).unwrap();
    let mut shift = 0;
    // Three packets for that frame.
    while packets[at + 1 + shift].frame == dropped {
        shift += 1;
    }
    assert!(shift > 0, "the seed gives it more than one packet");
    let late = packets.remove(at + 1);
    let end = packets.len();
    packets.insert(end, late);
    let mut reader = FrameReader::default();
    let mut forwarder = Forwarder::new(0, 0);
    let outs: Vec<Option<Outgoing>> = packets
        .iter()
        .map(|p| {
            let description = reader.read(&p.media);
            let incoming = description.of(&p.media);
            forwarder.forward(layers(0, 0), &incoming)
        })
        .collect();
    let filler = outs.last().unwrap().unwrap();
    assert_eq!(filler.rewrite, Rewrite::Empty);
    let numbers: BTreeSet<u64> = outs.iter().flatten().map(|o| o.sequence).collect();
    assert_eq!(numbers.len(), outs.iter().flatten().count());
    assert_eq!(numbers.last().unwrap() + 1, numbers.len() as u64, "no number is left open");
}

proptest! {
    #[test]
    fn every_frame_sent_can_be_decoded(
        seed: u64,
        mode in prop::sample::select(&MODES[..]),
        keys in prop::collection::vec(1usize..60, 0..4),
        lossy: bool,
        lost in 0..10u64,
        late in 0..20u64,
    ) {
        let loss = if lossy { Loss { lost, late } } else { NO_LOSS };
        let mut random = Random(seed);
        let streams = one(&mut random, mode, 60, &keys);
        let mut wanted = layers(2, 2);
        let run = run(&mut random, &streams, loss, |random, _| {
            if random.percent(15) {
                // What is late when the pause ends is of before: no fault of the forwarder's, but hard to tell.
                wanted = if !lossy && random.percent(10) { None } else { layers(random.below(3) as u8, random.below(3) as u8) };
            }
            wanted
        });
        run.check(mode, &streams, loss);
    }

    /// Three streams of one codec, each with temporal layers: numbers go on from one to the next.
    #[test]
    fn streams_with_layers_are_spliced(
        seed: u64,
        mode in prop::sample::select(&[Mode::Vp8, Mode::Av1Temporal][..]),
        keys in prop::collection::vec(1usize..60, 0..12),
        lossy: bool,
        lost in 0..10u64,
        late in 0..20u64,
    ) {
        let loss = if lossy { Loss { lost, late } } else { NO_LOSS };
        let mut random = Random(seed);
        let start = Instant::now();
        let streams: Vec<Stream> =
            (0..3).map(|layer| Stream::new(&mut random, mode, layer, 60, &keys, start)).collect();
        let mut wanted = Some(Selection { stream: 0, spatial: 2, temporal: 2 });
        let run = run(&mut random, &streams, loss, |random, _| {
            if random.percent(15) {
                let (stream, temporal) = (random.below(3) as u8, random.below(3) as u8);
                wanted = Some(Selection { stream, spatial: 2, temporal });
            }
            wanted
        });
        // What comes late of a stream that was left is of no use any more.
        run.check_sequences(if lossy { usize::MAX } else { 0 });
        if !lossy {
            match mode {
                Mode::Vp8 => run.check_vp8(),
                _ => run.check_descriptors(),
            }
        }
    }

    /// Whatever descriptors say, nothing breaks and no number is used twice.
    #[test]
    fn no_descriptor_breaks_it(
        seed: u64,
        mode in prop::sample::select(&MODES[..]),
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u16>(), any::<u8>()), 0..60),
    ) {
        let mut random = Random(seed);
        let mut streams = one(&mut random, mode, 40, &[9, 20]);
        for (packet, at, byte) in noise {
            let media = &mut packet.get_mut(&mut streams[0].packets).media;
            let mut payload = media.payload.to_vec();
            let end = payload.len() - 2;
            payload[usize::from(at) % end] = byte;
            media.payload = payload.into();
            if let Some(bytes) = &media.extensions.dependency_descriptor {
                let mut bytes = bytes.to_vec();
                let at = usize::from(at) % bytes.len();
                bytes[at] = byte;
                media.extensions.dependency_descriptor = Some(bytes.into());
            }
        }
        let mut reader = FrameReader::default();
        let mut forwarder = Forwarder::new(0, 0);
        let mut numbers = BTreeSet::new();
        for packet in &streams[0].packets {
            let description = reader.read(&packet.media);
            let incoming = description.of(&packet.media);
            let wanted = layers(random.below(3) as u8, random.below(3) as u8);
            if let Some(out) = forwarder.forward(wanted, &incoming) {
                prop_assert!(numbers.insert(out.sequence));
                let mut payload = packet.media.payload[out.rewrite.range(packet.media.payload.len())].to_vec();
                out.rewrite.apply(&mut payload);
                if let (Some(bytes), Some(change)) = (&packet.media.extensions.dependency_descriptor, out.dependency) {
                    let _ = dependency_descriptor::rewrite(bytes, change, &mut [0; 255]);
                }
            }
        }
    }
}

#[test]
fn a_forwarder_stays_small() {
    // One for each subscription of each track: ten thousand in a room of a hundred.
    assert!(size_of::<Forwarder>() <= 1024, "{} bytes", size_of::<Forwarder>());
}

#[test]
fn pauses_keep_the_receivers_clock() {
    let mut random = Random(13);
    let streams = one(&mut random, Mode::Av1Key, 60, &[40]);
    let run =
        run(&mut random, &streams, NO_LOSS, |_, picture| if (20..35).contains(&picture) { None } else { layers(2, 2) });
    run.check(Mode::Av1Key, &streams, NO_LOSS);
    let media = run.media();
    let stamp = |picture: usize| {
        media.iter().find(|(_, f, _)| streams[0].frames[*f].picture == picture).map(|(_, _, r)| r.out.timestamp)
    };
    assert_eq!((stamp(25), stamp(38)), (None, None), "until the next key picture");
    let elapsed = stamp(40).unwrap().wrapping_sub(stamp(19).unwrap());
    assert!(elapsed.abs_diff(21 * 3000) < 10, "{:?}", Duration::from_secs_f64(f64::from(elapsed) / 90e3));
}
