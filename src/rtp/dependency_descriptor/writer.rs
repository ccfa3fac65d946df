//! Writes descriptors as an encoder does: for the tests of the parser and of the forwarder.

use super::super::bits::BitWriter;

/// One frame, or a template of such.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameSpec {
    pub spatial: u8,
    pub temporal: u8,
    /// For each decode target: `-` not present, `D` discardable, `S` switch, `R` required.
    pub indications: String,
    pub diffs: Vec<u16>,
    /// For each chain.
    pub chain_diffs: Vec<u8>,
}

/// A structure, and what its sender keeps in mind.
#[derive(Debug, Clone)]
pub struct StructureSpec {
    pub template_id_offset: u8,
    /// Sorted by layer.
    pub templates: Vec<FrameSpec>,
    /// For each decode target the chain that protects it; empty without chains.
    pub protected_by: Vec<u32>,
    pub resolutions: Vec<(u32, u32)>,
}

/// What else a packet says.
#[derive(Debug, Clone, Copy, Default)]
pub struct PacketSpec {
    pub frame_start: bool,
    pub frame_end: bool,
    pub frame_number: u16,
    pub with_structure: bool,
    pub active_targets: Option<u32>,
}

impl StructureSpec {
    pub fn targets(&self) -> usize {
        self.templates[0].indications.len()
    }

    pub fn chains(&self) -> u32 {
        self.protected_by.iter().max().map_or(0, |chain| chain + 1)
    }

    pub fn write(&self, packet: PacketSpec, frame: &FrameSpec) -> Vec<u8> {
        // The template that needs the fewest fields beside it.
        let custom = |t: &FrameSpec| {
            [t.indications != frame.indications, t.diffs != frame.diffs, t.chain_diffs != frame.chain_diffs]
        };
        let same_layer = |t: &FrameSpec| (t.spatial, t.temporal) == (frame.spatial, frame.temporal);
        let (index, template) = (self.templates.iter().enumerate())
            .filter(|(_, t)| same_layer(t))
            .min_by_key(|(_, t)| custom(t).into_iter().filter(|differs| *differs).count())
            .expect("a template of every layer");
        let [indications, diffs, chains] = custom(template);
        let mut bytes = vec![0; 600];
        let mut w = BitWriter::new(&mut bytes);
        let mut put = |value: u32, count: usize| w.write(value, count).unwrap();
        put(packet.frame_start.into(), 1);
        put(packet.frame_end.into(), 1);
        put((u32::from(self.template_id_offset) + index as u32) % 64, 6);
        put(packet.frame_number.into(), 16);
        let flags = [packet.with_structure, packet.active_targets.is_some(), indications, diffs, chains];
        if flags.contains(&true) {
            for flag in flags {
                put(flag.into(), 1);
            }
            if packet.with_structure {
                self.write_structure(&mut w);
            }
            if let Some(active) = packet.active_targets {
                w.write(active, self.targets()).unwrap();
            }
            if indications {
                write_indications(&frame.indications, &mut w);
            }
            if diffs {
                for diff in &frame.diffs {
                    let size = if *diff <= 16 {
                        1
                    } else if *diff <= 256 {
                        2
                    } else {
                        3
                    };
                    w.write(size, 2).unwrap();
                    w.write(u32::from(*diff) - 1, 4 * size as usize).unwrap();
                }
                w.write(0, 2).unwrap();
            }
            if chains {
                for diff in &frame.chain_diffs {
                    w.write(u32::from(*diff), 8).unwrap();
                }
            }
        }
        let len = w.finish();
        bytes.truncate(len);
        bytes
    }

    fn write_structure(&self, w: &mut BitWriter<'_>) {
        w.write(self.template_id_offset.into(), 6).unwrap();
        w.write(self.targets() as u32 - 1, 5).unwrap();
        for pair in self.templates.windows(2) {
            let next =
                if pair[1].spatial > pair[0].spatial { 2 } else { u32::from(pair[1].temporal > pair[0].temporal) };
            w.write(next, 2).unwrap();
        }
        w.write(3, 2).unwrap();
        for template in &self.templates {
            write_indications(&template.indications, w);
        }
        for template in &self.templates {
            for diff in &template.diffs {
                w.write(1, 1).unwrap();
                w.write(u32::from(*diff) - 1, 4).unwrap();
            }
            w.write(0, 1).unwrap();
        }
        w.write_below(self.chains(), self.targets() as u32 + 1).unwrap();
        for chain in &self.protected_by {
            w.write_below(*chain, self.chains()).unwrap();
        }
        for template in &self.templates {
            for diff in &template.chain_diffs {
                w.write(u32::from(*diff), 4).unwrap();
            }
        }
        w.write(u32::from(!self.resolutions.is_empty()), 1).unwrap();
        for (width, height) in &self.resolutions {
            w.write(width - 1, 16).unwrap();
            w.write(height - 1, 16).unwrap();
        }
    }
}

fn write_indications(indications: &str, w: &mut BitWriter<'_>) {
    for indication in indications.chars() {
        w.write("-DSR".find(indication).expect("one of the four") as u32, 2).unwrap();
    }
}
