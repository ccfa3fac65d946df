//! Which frames of a stream go to this subscriber: those of the spatial and temporal layers that flow. Going down takes
//! effect with the next picture. Going up waits for a frame from which the higher layer can be decoded, so that every
//! frame sent has all it needs.
//!
//! Of a scalable stream, every spatial layer up to the highest wanted goes along, also where only key pictures need the
//! lower ones (`L3T3_KEY`): they cost a quarter of the bandwidth, and going down needs no keyframe, just when there is no
//! room for one.

use super::Selection;
use super::frames::Frames;
use super::incoming::{Dependency, Frame, Incoming, Switch};
use crate::rtp::ActiveTargets;
use crate::sfu::layer_selector::MAX_LAYERS;

/// What becomes of a packet, by its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Send,
    /// `news`: the frame was left out just now.
    Drop {
        news: bool,
    },
}

#[derive(Debug, Clone)]
pub struct Layers {
    /// The highest spatial layer that flows.
    spatial: u8,
    /// The highest temporal layer that flows, of each spatial layer.
    temporal: [u8; MAX_LAYERS],
    /// The highest spatial layer seen.
    tallest: u8,
    /// `None` when frames have no ids.
    frames: Option<Frames>,
    /// Timestamp of the newest picture.
    picture: u32,
    /// What became of the newest frame.
    last: Verdict,
    targets: Targets,
}

/// What the receiver was told of the decode targets that it gets.
#[derive(Debug, Clone, Default)]
struct Targets {
    told: u32,
    /// The layers changed since.
    stale: bool,
    /// The frame whose packets tell it, and what they tell.
    announcement: Option<(u16, ActiveTargets)>,
}

impl Layers {
    /// Begins with the key picture whose first packet this is.
    pub fn new(p: &Incoming, selection: Selection) -> Self {
        let mut layers = Layers {
            spatial: 0,
            temporal: [0; MAX_LAYERS],
            tallest: 0,
            frames: p.frame.id.map(Frames::new),
            picture: p.timestamp,
            last: Verdict::Send,
            targets: Targets::default(),
        };
        layers.start(selection);
        layers
    }

    pub fn spatial(&self) -> u8 {
        self.spatial
    }

    /// Decides about a packet; `late`: others that come after it were seen before.
    pub fn admit(&mut self, p: &Incoming, selection: Selection, late: bool) -> Verdict {
        let Some(id) = p.frame.id else {
            // Of frames without an id only the newest is known.
            if late || (p.timestamp == self.picture && p.frame.spatial == 0) {
                return if late { Verdict::Send } else { self.repeat() };
            }
            return self.decide_next(p, selection, None);
        };
        let frames = self.frames.get_or_insert_with(|| Frames::new(id));
        let extended = frames.extend(id);
        match frames.state(extended, id.layer) {
            Some(true) => return Verdict::Send,
            Some(false) => return Verdict::Drop { news: false },
            None => {}
        }
        if late {
            // Nothing of the frame was seen when its numbers went by, so it has numbers, whatever its layer.
            frames.record(extended, id.layer, true);
            return Verdict::Send;
        }
        if extended < frames.newest() {
            // Its encoder was set up anew.
            *frames = Frames::new(id);
            return self.decide_next(p, selection, None);
        }
        let verdict = self.decide_next(p, selection, Some(extended));
        if let Some(frames) = &mut self.frames {
            frames.record(extended, id.layer, verdict == Verdict::Send);
        }
        verdict
    }

    fn repeat(&self) -> Verdict {
        match self.last {
            Verdict::Send => Verdict::Send,
            Verdict::Drop { .. } => Verdict::Drop { news: false },
        }
    }

    fn decide_next(&mut self, p: &Incoming, selection: Selection, id: Option<u64>) -> Verdict {
        if p.timestamp != self.picture {
            self.picture = p.timestamp;
            self.go_down(selection);
        }
        let sent = self.decide(p, selection, id);
        self.last = if sent { Verdict::Send } else { Verdict::Drop { news: true } };
        self.last
    }

    fn decide(&mut self, p: &Incoming, selection: Selection, id: Option<u64>) -> bool {
        if p.keyframe_start {
            self.start(selection);
            return true;
        }
        let frame = &p.frame;
        self.tallest = self.tallest.max(frame.spatial);
        let complete = match (id, frame.id, &self.frames) {
            (Some(id), Some(name), Some(frames)) => frames.has_all(id, name.layer, &frame.references),
            _ => true,
        };
        complete && self.reaches_spatial(frame, selection) && self.reaches_temporal(frame, selection)
    }

    /// A key picture: everything can be decoded from here.
    fn start(&mut self, selection: Selection) {
        self.set(selection.spatial, [selection.temporal; MAX_LAYERS]);
    }

    fn go_down(&mut self, selection: Selection) {
        let temporal = self.temporal.map(|temporal| temporal.min(selection.temporal));
        self.set(self.spatial.min(selection.spatial), temporal);
    }

    fn set(&mut self, spatial: u8, temporal: [u8; MAX_LAYERS]) {
        self.targets.stale |= (self.spatial, self.temporal) != (spatial, temporal);
        (self.spatial, self.temporal) = (spatial, temporal);
    }

    fn reaches_spatial(&mut self, frame: &Frame, selection: Selection) -> bool {
        if frame.spatial <= self.spatial {
            return true;
        }
        let next = frame.spatial == self.spatial + 1 && usize::from(frame.spatial) < MAX_LAYERS;
        if !(next && frame.independent && frame.spatial <= selection.spatial) {
            return false;
        }
        let mut temporal = self.temporal;
        temporal[usize::from(frame.spatial)] = frame.temporal.min(selection.temporal);
        self.set(frame.spatial, temporal);
        true
    }

    fn reaches_temporal(&mut self, frame: &Frame, selection: Selection) -> bool {
        // Layers above those we count are never selected one by one: they follow the last that is.
        let layer = usize::from(frame.spatial).min(MAX_LAYERS - 1);
        let current = self.temporal[layer];
        // Where several spatial layers flow, all have to go up with the same picture: else the end of a lower one would
        // be taken for the end of the picture. Frames that flow in any case come of all of them.
        let flows = frame.temporal <= current || self.tallest.min(self.spatial) == 0;
        let reachable = match frame.switch {
            Switch::UpTo(top) if flows => top,
            Switch::Own if flows && frame.temporal <= current + 1 => frame.temporal,
            Switch::UpTo(_) | Switch::Own | Switch::No => 0,
        };
        let raised = current.max(reachable.min(selection.temporal));
        if raised != current {
            let mut temporal = self.temporal;
            temporal[layer] = raised;
            self.set(self.spatial, temporal);
        }
        frame.temporal <= raised
    }

    /// Whether nothing of the frame's picture comes after the frame: then the receiver must be told that it is complete.
    pub fn ends_picture(&self, frame: &Frame) -> bool {
        let flows = |spatial: &u8| self.temporal.get(usize::from(*spatial)).is_some_and(|t| *t >= frame.temporal);
        frame.end && Some(frame.spatial) == (0..=self.spatial.min(MAX_LAYERS as u8 - 1)).rev().find(flows)
    }

    /// How many pictures after this one were left out.
    pub fn dropped_after(&self, frame: &Frame) -> u16 {
        match (&self.frames, frame.id) {
            (Some(frames), Some(id)) => frames.dropped_after(frames.extend(id)),
            _ => 0,
        }
    }

    /// What to tell the receiver with this packet about the decode targets that it gets.
    pub fn announce(&mut self, dependency: &Dependency) -> Option<ActiveTargets> {
        let structure = dependency.structure?;
        let news = self.targets.stale || dependency.has_structure || dependency.has_active_targets;
        if news {
            let flows = structure.select(|t| {
                t.spatial <= self.spatial
                    && self.temporal.get(usize::from(t.spatial)).is_some_and(|temporal| t.temporal <= *temporal)
            });
            let sent = ActiveTargets { bits: flows.bits & dependency.active_targets, ..flows };
            let believed = match (dependency.has_active_targets, dependency.has_structure) {
                (true, _) => dependency.active_targets,
                (false, true) => structure.select(|_| true).bits,
                (false, false) => self.targets.told,
            };
            self.targets = Targets { told: sent.bits, stale: false, announcement: None };
            if sent.bits != believed {
                self.targets.announcement = Some((dependency.frame_number, sent));
            }
        }
        self.targets.announcement.filter(|(frame, _)| *frame == dependency.frame_number).map(|(_, targets)| targets)
    }
}
