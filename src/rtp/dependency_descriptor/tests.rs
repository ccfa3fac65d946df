use proptest::prelude::*;

use super::writer::{FrameSpec, PacketSpec, StructureSpec};
use super::*;

/// What Chromium 156 sends with a key frame of VP9 in the mode `L3T3_KEY`, 1280×720.
const CHROMIUM_KEY_FRAME: &[u8; 92] = include_bytes!("chromium-key-frame.bin");

fn frame(spatial: u8, temporal: u8, indications: &str, diffs: &[u16], chain_diffs: &[u8]) -> FrameSpec {
    FrameSpec {
        spatial,
        temporal,
        indications: indications.into(),
        diffs: diffs.to_vec(),
        chain_diffs: chain_diffs.to_vec(),
    }
}

/// One spatial layer, three temporal ones: what libwebrtc calls L1T3.
fn l1t3() -> StructureSpec {
    StructureSpec {
        template_id_offset: 60,
        templates: vec![
            frame(0, 0, "SSS", &[], &[0]),
            frame(0, 0, "SSS", &[4], &[4]),
            frame(0, 1, "-DS", &[2], &[2]),
            frame(0, 2, "--D", &[1], &[1]),
            frame(0, 2, "--D", &[1], &[3]),
        ],
        protected_by: vec![0, 0, 0],
        resolutions: vec![(1280, 720)],
    }
}

fn parsed(spec: &StructureSpec) -> Structure {
    let start = PacketSpec { frame_start: true, with_structure: true, ..PacketSpec::default() };
    *Descriptor::parse(&spec.write(start, &spec.templates[0]), None).unwrap().structure.unwrap()
}

fn indications(frame: &Frame, targets: usize) -> String {
    let letter = |n| match frame.indications.of(n) {
        Indication::NotPresent => '-',
        Indication::Discardable => 'D',
        Indication::Switch => 'S',
        Indication::Required => 'R',
    };
    (0..targets).map(letter).collect()
}

#[test]
fn reads_a_key_frame_and_what_follows() {
    let spec = l1t3();
    let structure = parsed(&spec);
    assert_eq!(structure.spatial_layers(), 1);
    assert_eq!(structure.resolutions, [(1280, 720)]);
    let target = |temporal| DecodeTarget { spatial: 0, temporal };
    assert_eq!(structure.targets(), [target(0), target(1), target(2)]);
    assert_eq!(structure.select(|t| t.temporal < 2), ActiveTargets { bits: 0b011, count: 3 });

    // The fourth template, as every later packet names it: three bytes. 60 + 3 does not yet wrap, 60 + 4 does.
    let end = PacketSpec { frame_end: true, frame_number: 0xabcd, ..PacketSpec::default() };
    let bytes = spec.write(end, &spec.templates[4]);
    assert_eq!(bytes, [0x40, 0xab, 0xcd]);
    let descriptor = Descriptor::parse(&bytes, Some(&structure)).unwrap();
    assert_eq!((descriptor.frame_start, descriptor.frame_end, descriptor.frame_number), (false, true, 0xabcd));
    let frame = descriptor.frame.unwrap();
    assert_eq!((frame.spatial, frame.temporal, frame.diffs.as_slice()), (0, 2, &[1][..]));
    assert_eq!(indications(&frame, 3), "--D");
    assert_eq!(frame.indications.of(40), Indication::NotPresent);
}

#[test]
fn reads_what_chromium_sends() {
    let key = Descriptor::parse(CHROMIUM_KEY_FRAME, None).unwrap();
    assert_eq!((key.frame_start, key.frame_end, key.frame_number), (true, false, 2));
    let structure = key.structure.unwrap();
    assert_eq!(structure.spatial_layers(), 3);
    assert_eq!(structure.resolutions, [(320, 180), (640, 360), (1280, 720)]);
    let target = |n: u8| DecodeTarget { spatial: n / 3, temporal: n % 3 };
    assert_eq!(structure.targets(), (0..9).map(target).collect::<Vec<_>>());
    // The frames of the key picture, then the next picture's: (bytes, layer, what it needs).
    for (bytes, layer, diffs) in [
        (&CHROMIUM_KEY_FRAME[..], (0, 0), &[][..]),
        (&[0x45, 0x00, 0x07], (1, 0), &[1]),
        (&[0x8a, 0x00, 0x08], (2, 0), &[1]),
        (&[0xc3, 0x00, 0x09], (0, 2), &[3]),
        (&[0xc8, 0x00, 0x0a], (1, 2), &[3]),
        (&[0x8d, 0x00, 0x0b], (2, 2), &[3]),
        (&[0xc2, 0x00, 0x0c], (0, 1), &[6]),
    ] {
        let frame = Descriptor::parse(bytes, Some(&structure)).unwrap().frame.unwrap();
        assert_eq!(((frame.spatial, frame.temporal), frame.diffs.as_slice()), (layer, diffs), "{bytes:x?}");
    }
}

#[test]
fn tells_only_the_number_while_the_structure_is_not_known() {
    let descriptor = Descriptor::parse(&[0xc1, 0x12, 0x34], None).unwrap();
    assert_eq!((descriptor.frame_number, descriptor.frame), (0x1234, None));
    assert_eq!(Descriptor::parse(&[0xc1, 0x12], None), None);
    // A template that the structure does not have.
    assert_eq!(Descriptor::parse(&[0xc1 + 10, 0, 0], Some(&parsed(&l1t3()))), None);
}

#[test]
fn refuses_more_references_than_it_keeps() {
    let mut spec = l1t3();
    spec.templates[1].diffs = vec![1; MAX_FRAME_DIFFS];
    parsed(&spec);
    spec.templates[1].diffs.push(1);
    let start = PacketSpec { with_structure: true, ..PacketSpec::default() };
    assert_eq!(Descriptor::parse(&spec.write(start, &spec.templates[0]), None), None);
}

#[test]
fn a_structure_has_at_most_64_templates() {
    let mut spec = l1t3();
    spec.templates = vec![frame(0, 0, "S", &[], &[]); MAX_TEMPLATES];
    spec.protected_by.clear();
    let start = PacketSpec { with_structure: true, ..PacketSpec::default() };
    assert!(Descriptor::parse(&spec.write(start, &spec.templates[0]), None).is_some());
    spec.templates.push(spec.templates[0].clone());
    assert_eq!(Descriptor::parse(&spec.write(start, &spec.templates[0]), None), None);
}

fn arbitrary_spec() -> impl Strategy<Value = StructureSpec> {
    (1usize..=MAX_DECODE_TARGETS, 0u32..4).prop_flat_map(|(targets, chains)| {
        let chains = chains.min(targets as u32);
        let frame = (
            prop::collection::vec(0usize..4, targets),
            prop::collection::vec(1u16..=16, 0..=4),
            prop::collection::vec(0u8..16, chains as usize),
        );
        let protected_by = prop::collection::vec(0..chains.max(1), targets).prop_map(move |mut list: Vec<u32>| {
            if chains == 0 {
                list.clear();
            } else {
                list[0] = chains - 1;
            }
            list
        });
        let resolutions = prop::collection::vec((1u32..=65536, 1u32..=65536), 4);
        (0u8..64, prop::collection::vec((frame, 0u8..4), 1..12), protected_by, any::<bool>(), resolutions).prop_map(
            |(template_id_offset, frames, protected_by, sized, mut resolutions)| {
                let (mut spatial, mut temporal) = (0, 0);
                let mut templates = Vec::new();
                for ((indications, diffs, chain_diffs), step) in frames {
                    let indications = indications.into_iter().map(|i| ['-', 'D', 'S', 'R'][i]).collect();
                    templates.push(FrameSpec { spatial, temporal, indications, diffs, chain_diffs });
                    match step {
                        1 if temporal < 3 => temporal += 1,
                        2 if spatial < 2 => (spatial, temporal) = (spatial + 1, 0),
                        _ => {}
                    }
                }
                resolutions.truncate(usize::from(templates.last().unwrap().spatial) + 1);
                if !sized {
                    resolutions.clear();
                }
                StructureSpec { template_id_offset, templates, protected_by, resolutions }
            },
        )
    })
}

/// A packet of a frame that differs from its template in any way.
fn arbitrary_packet() -> impl Strategy<Value = (StructureSpec, PacketSpec, FrameSpec)> {
    let packet = (any::<bool>(), any::<bool>(), any::<u16>(), any::<bool>(), any::<Option<u32>>());
    let change = (any::<prop::sample::Index>(), any::<[bool; 3]>(), prop::collection::vec(1u16..=4096, 0..=8));
    (arbitrary_spec(), packet, change).prop_map(|(spec, packet, (pick, [dtis, diffs, chains], other))| {
        let (frame_start, frame_end, frame_number, with_structure, active) = packet;
        let mut frame = pick.get(&spec.templates).clone();
        if dtis {
            frame.indications = frame.indications.chars().rev().collect();
        }
        if diffs {
            frame.diffs = other;
        }
        if chains {
            frame.chain_diffs.iter_mut().for_each(|diff| *diff += 100);
        }
        let active_targets = active.map(|bits| bits & ((1u64 << spec.targets()) - 1) as u32);
        (spec, PacketSpec { frame_start, frame_end, frame_number, with_structure, active_targets }, frame)
    })
}

proptest! {
    #[test]
    fn what_was_written_is_read((spec, packet, frame) in arbitrary_packet()) {
        let known = parsed(&spec);
        let bytes = spec.write(packet, &frame);
        let descriptor = Descriptor::parse(&bytes, Some(&known)).unwrap();
        prop_assert_eq!(descriptor.frame_start, packet.frame_start);
        prop_assert_eq!(descriptor.frame_end, packet.frame_end);
        prop_assert_eq!(descriptor.frame_number, packet.frame_number);
        prop_assert_eq!(descriptor.active_targets, packet.active_targets);
        prop_assert_eq!(descriptor.structure.is_some(), packet.with_structure);
        prop_assert!(descriptor.structure.is_none_or(|structure| *structure == known));
        let read = descriptor.frame.unwrap();
        prop_assert_eq!((read.spatial, read.temporal), (frame.spatial, frame.temporal));
        prop_assert_eq!(read.diffs.as_slice(), &frame.diffs);
        prop_assert_eq!(indications(&read, spec.targets()), frame.indications);
        prop_assert_eq!(&known.resolutions, &spec.resolutions);
    }

    /// A rewritten descriptor differs in what was to change, and in nothing else.
    #[test]
    fn a_rewrite_changes_what_it_should(
        (spec, packet, frame) in arbitrary_packet(),
        number: u16,
        active: Option<u32>,
        room in 0usize..300,
    ) {
        let known = parsed(&spec);
        let bytes = spec.write(packet, &frame);
        let mask = ((1u64 << spec.targets()) - 1) as u32;
        let active_targets = active.map(|bits| ActiveTargets { bits: bits & mask, count: spec.targets() as u8 });
        let change = DependencyRewrite { frame_number: number, active_targets };
        let mut out = vec![0xaa; room];
        let Some(len) = rewrite(&bytes, change, &mut out) else {
            prop_assert!(room < bytes.len() + 5 || bytes.len() + 5 > MAX_BYTES);
            return Ok(());
        };
        prop_assert!(len <= bytes.len() + 5 && len <= MAX_BYTES.max(bytes.len()));
        let mut expected = Descriptor::parse(&bytes, Some(&known)).unwrap();
        expected.frame_number = number;
        expected.active_targets = active_targets.map(|targets| targets.bits).or(expected.active_targets);
        prop_assert_eq!(Descriptor::parse(&out[..len], Some(&known)), Some(expected));
    }

    #[test]
    fn no_bytes_break_it(
        (spec, packet, frame) in arbitrary_packet(),
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        bits: u32,
        count: u8,
    ) {
        let known = parsed(&spec);
        let mut bytes = spec.write(packet, &frame);
        for (at, byte) in noise {
            *at.get_mut(&mut bytes) = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        let _ = Descriptor::parse(&bytes, Some(&known));
        let _ = Descriptor::parse(&bytes, None);
        let change =
            DependencyRewrite { frame_number: 1, active_targets: Some(ActiveTargets { bits, count: count % 33 }) };
        let _ = rewrite(&bytes, change, &mut [0; 255]);
    }
}
