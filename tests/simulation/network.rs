//! The wire between a client and the SFU: a `str0m-netem` link in each direction, in virtual time, with a seed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parlour::transport::Protocol;
use str0m_netem::{Bitrate, DataSize, Input, Netem, NetemConfig, Output, Probability, RandomLoss};

#[derive(Debug, Clone)]
pub struct Packet {
    pub protocol: Protocol,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub bytes: Vec<u8>,
}

impl AsRef<[u8]> for Packet {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// How bad a client's network is. Both directions alike.
#[derive(Debug, Clone, Copy)]
pub struct Conditions {
    pub latency: Duration,
    pub jitter: Duration,
    /// 0.0 … 1.0 of the packets.
    pub loss: f32,
    /// Every n-th packet overtakes the one before it; 0 = none.
    pub reorder_every: u32,
    /// 0.0 … 1.0 of the packets come twice.
    pub duplicates: f32,
    /// Bits per second that fit through; 0 = all.
    pub rate: u64,
}

impl Conditions {
    /// A wired home line.
    pub const GOOD: Conditions = Conditions {
        latency: Duration::from_millis(20),
        jitter: Duration::from_millis(2),
        loss: 0.0,
        reorder_every: 0,
        duplicates: 0.0,
        rate: 0,
    };

    /// A line with a queue of a third of a second before it, as home routers have.
    pub fn narrow(rate: u64) -> Conditions {
        Conditions { rate, ..Conditions::GOOD }
    }

    pub fn lossy(loss: f32) -> Conditions {
        Conditions { loss, ..Conditions::GOOD }
    }
}

/// One direction of a wire.
pub struct Link {
    netem: Netem<Packet>,
}

impl Link {
    pub fn new(conditions: Conditions, seed: u64) -> Link {
        Link { netem: Netem::new(config(conditions, seed)) }
    }

    pub fn set(&mut self, conditions: Conditions, seed: u64) {
        self.netem.set_config(config(conditions, seed));
    }

    pub fn send(&mut self, now: Instant, packet: Packet) {
        self.netem.handle_input(Input::Packet(now, packet));
    }

    /// When the next packet comes out.
    pub fn next(&self) -> Option<Instant> {
        (!self.netem.is_empty()).then(|| self.netem.poll_timeout())
    }

    pub fn receive(&mut self, now: Instant) -> Option<Packet> {
        self.netem.handle_input(Input::Timeout(now));
        match self.netem.poll_output() {
            Some(Output::Packet(packet)) => Some(packet),
            Some(Output::Timeout(_)) | None => None,
        }
    }
}

fn config(conditions: Conditions, seed: u64) -> NetemConfig {
    let mut config = NetemConfig::new()
        .latency(conditions.latency)
        .jitter(conditions.jitter)
        .loss(RandomLoss::new(Probability::new(conditions.loss)))
        .duplicate(Probability::new(conditions.duplicates))
        .seed(seed);
    if conditions.reorder_every > 0 {
        config = config.reorder_gap(conditions.reorder_every);
    }
    if conditions.rate > 0 {
        let buffer = i64::try_from(conditions.rate / 8 / 3).expect("a rate of this world");
        config = config.link(Bitrate::bps(conditions.rate), DataSize::bytes(buffer));
    }
    config
}
