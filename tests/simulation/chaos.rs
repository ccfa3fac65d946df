//! Calls in which everybody does anything, by a seed: join, leave, vanish, publish, mute, choose layers, unsubscribe,
//! restart ICE, lose signalling. In between all that was sent must be decodable, in the end everybody sees everybody, and
//! after the last one left nothing remains. `SIMULATION_SEEDS=1000..2000` tries other seeds than the committed ones.

use std::time::Duration;

use parlour::sfu::{MediaKind, Negotiation, Quality, TrackSettings};

use crate::chance::afresh;
use crate::client::{Browser, Request, Setup};
use crate::network::Conditions;
use crate::room::{all_leave, enter};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
const ACTIONS: usize = 60;
const MOST_PEOPLE: usize = 5;

/// A few that differ, and each that once found a mistake.
const SEEDS: [u64; 4] = [1, 2, 3, 4];

struct Chaos {
    world: World,
    rng: fastrand::Rng,
    joined: u64,
    /// What is lost is then not always repaired, but what is lost for good must be got over.
    lossy: bool,
}

impl Chaos {
    fn present(&self) -> Vec<usize> {
        let there = |index: &usize| {
            let client = &self.world.clients[*index];
            client.left.is_none() && client.publisher.rtc.is_alive()
        };
        (0..self.world.clients.len()).filter(there).collect()
    }

    fn act(&mut self) {
        let present = self.present();
        let kind = self.rng.u8(0..20);
        if present.len() < 2 || (kind < 3 && present.len() < MOST_PEOPLE) {
            return self.join();
        }
        let index = present[self.rng.usize(0..present.len())];
        let now = self.world.now;
        let tracks = self.world.clients[index].tracks.len();
        let track = if tracks == 0 { None } else { Some(self.rng.usize(0..tracks)) };
        match (kind, track) {
            (0..=3, _) => self.world.leave(index),
            (4, _) => {
                self.world.kill(index);
                let (now, id) = (self.world.clock(), self.world.clients[index].id);
                self.world.sfu.signal_lost(now, id);
            }
            (5, _) => self.world.clients[index].restart_ice(),
            (6, _) => self.world.clients[index].offer(),
            (7, _) => {
                let (now, id) = (self.world.clock(), self.world.clients[index].id);
                self.world.sfu.signal_lost(now, id);
                if self.world.sfu.info(id).is_some() {
                    self.world.sfu.signal_resumed(now, id);
                }
            }
            (8..=9, Some(track)) if self.world.clients[index].tracks[track].live => {
                self.world.clients[index].unpublish(track);
            }
            (10..=11, _) if tracks < 8 => {
                let simulcast = self.rng.bool();
                self.world.clients[index].publish_camera(now, simulcast);
            }
            (12..=14, Some(track)) => {
                let muted = self.rng.bool();
                self.world.clients[index].mute(track, muted);
            }
            _ => self.choose(index),
        }
    }

    fn join(&mut self) {
        self.joined += 1;
        let setup = Setup {
            negotiation: if self.rng.u8(0..3) == 0 { Negotiation::Dual } else { Negotiation::Single },
            browser: if self.rng.u8(0..3) == 0 { Browser::Firefox } else { Browser::Chromium },
            conditions: Conditions {
                latency: Duration::from_millis(self.rng.u64(18..60)),
                loss: if self.lossy { 0.03 } else { 0.0 },
                ..Conditions::GOOD
            },
            seed: self.joined,
            ..Setup::default()
        };
        // Sometimes somebody who is here already.
        let name = format!("user{}", self.rng.u8(0..8));
        enter(&mut self.world, &name, setup);
    }

    /// Changes what somebody wants to see.
    fn choose(&mut self, index: usize) {
        let client = &mut self.world.clients[index];
        let tracks: Vec<_> = client.known.values().flat_map(|p| &p.tracks).map(|t| t.sid.clone()).collect();
        if tracks.is_empty() {
            return;
        }
        let track = tracks[self.rng.usize(0..tracks.len())].clone();
        let on = self.rng.u8(0..3) > 0;
        let height = [0, 90, 180, 360, 720][self.rng.usize(0..5)];
        let settings = TrackSettings {
            disabled: !on,
            quality: Quality::High,
            width: height * 16 / 9,
            height,
            fps: 0,
            priority: 0,
        };
        client.outbox.push(match self.rng.bool() {
            true => Request::Subscribe { track, on },
            false => Request::Settings { track, settings },
        });
    }

    /// Everybody wants everything again.
    fn calm_down(&mut self) {
        self.world.run(2 * SECOND);
        for index in 0..self.world.clients.len() {
            if self.world.clients[index].dead {
                self.world.clients[index].outbox.push(Request::Leave);
            }
        }
        for index in self.present() {
            let client = &mut self.world.clients[index];
            for track in 0..client.tracks.len() {
                client.mute(track, false);
            }
            let others = client.known.values().filter(|p| p.leave_reason.is_none());
            let tracks: Vec<_> = others.flat_map(|p| &p.tracks).map(|t| t.sid.clone()).collect();
            let settings =
                TrackSettings { disabled: false, quality: Quality::High, width: 0, height: 0, fps: 0, priority: 0 };
            for track in tracks {
                client.outbox.push(Request::Subscribe { track: track.clone(), on: true });
                client.outbox.push(Request::Settings { track, settings });
            }
        }
        self.world.run(3 * SECOND);
    }

    fn check(&self) {
        let (world, present) = (&self.world, self.present());
        // A receiver waits half a second for a repair before it asks for a keyframe.
        let patience = if self.lossy { 2 * SECOND } else { SECOND / 2 };
        assert_eq!(world.sfu.counts().participants, present.len());
        let live = |index: usize| world.clients[index].tracks.iter().filter(|t| t.live);
        assert_eq!(world.sfu.counts().tracks, present.iter().map(|p| live(*p).count()).sum::<usize>());
        for viewer in &present {
            let client = &world.clients[*viewer];
            for other in present.iter().filter(|other| *other != viewer) {
                for track in live(*other) {
                    let (sid, name) = (track.sid.as_ref().expect("published").as_str(), &client.name);
                    let stream = client.diary.streams.values().rfind(|s| s.track.as_deref() == Some(sid));
                    let stream = stream.unwrap_or_else(|| panic!("{name} ({viewer}) never got {sid} of {other}"));
                    let fresh = client.diary.streams.values().filter(|s| s.track.as_deref() == Some(sid));
                    let last = fresh.filter_map(|s| s.packets.last()).map(|p| p.at).max().expect("some");
                    assert!(world.now - last < SECOND / 2, "{name} ({viewer}) gets {sid} of {other} no more");
                    if track.kind == MediaKind::Video && stream.packets.last().expect("some").at == last {
                        let shown = stream.play_video(world.now).last.expect("some");
                        assert!(world.now - shown < patience, "{name} ({viewer}) cannot show {sid} of {other}");
                    }
                }
            }
        }
        for client in &world.clients {
            for ((mid, _), stream) in &client.diary.streams {
                if stream.packets[0].vp8.is_none() || self.lossy {
                    continue;
                }
                let playback = stream.play_video(world.now);
                assert_eq!(playback.broken, 0, "{} section {mid}: {playback:?}", client.name);
                assert_eq!(stream.holes(world.now), Vec::<u64>::new(), "{} section {mid}", client.name);
            }
        }
    }
}

fn run(seed: u64) -> u64 {
    let mut chaos = Chaos {
        world: World::new(seed),
        rng: fastrand::Rng::with_seed(seed),
        joined: 0,
        lossy: seed.is_multiple_of(2),
    };
    for _ in 0..ACTIONS {
        chaos.act();
        let pause = chaos.rng.u64(0..400);
        chaos.world.run(Duration::from_millis(pause));
    }
    chaos.calm_down();
    chaos.check();
    let digest = chaos.world.digest();
    for index in chaos.present() {
        chaos.world.leave(index);
    }
    all_leave(&mut chaos.world);
    digest
}

#[test]
fn anything_may_happen() {
    let others = std::env::var("SIMULATION_SEEDS").ok().and_then(|range| {
        let (from, to) = range.split_once("..")?;
        Some((from.parse().ok()?..to.parse().ok()?).collect::<Vec<u64>>())
    });
    for seed in others.unwrap_or(SEEDS.to_vec()) {
        println!("seed {seed}");
        afresh(move || run(seed));
    }
}
