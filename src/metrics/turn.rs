//! What the TURN server tells about itself.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::{counter, counters, gauge};
use crate::turn::{Counts, Relayed};

pub(super) struct TurnMetrics {
    allocations: IntGauge,
    allocated: IntCounter,
    bindings: IntCounter,
    /// By way: `to_peer`, `in_process` (to our own media or relayed addresses) and `to_client`.
    packets: IntCounterVec,
    bytes: IntCounterVec,
    /// Requests that got an error, by its code.
    refused: IntCounterVec,
    /// What got no answer or was not relayed, by reason.
    dropped: IntCounterVec,
}

impl TurnMetrics {
    pub fn new(r: &Registry) -> TurnMetrics {
        TurnMetrics {
            allocations: gauge(r, "parlour_turn_allocations", "TURN allocations"),
            allocated: counter(r, "parlour_turn_allocated_total", "TURN allocations ever made"),
            bindings: counter(r, "parlour_stun_bindings_total", "STUN binding requests answered"),
            packets: counters(r, "parlour_turn_packets_total", "Packets relayed, by way", &["way"]),
            bytes: counters(r, "parlour_turn_bytes_total", "Bytes of their payloads, by way", &["way"]),
            refused: counters(r, "parlour_turn_refused_total", "TURN requests refused, by error code", &["code"]),
            dropped: counters(
                r,
                "parlour_turn_dropped_total",
                "Messages to the TURN server that went nowhere, by reason",
                &["reason"],
            ),
        }
    }

    /// Takes over what a worker counted since `before`.
    pub fn count(&self, now: &Counts, before: &Counts) {
        self.allocations.add(now.allocations as i64 - before.allocations as i64);
        self.allocated.inc_by(now.allocated - before.allocated);
        self.bindings.inc_by(now.bindings - before.bindings);
        let way = |way: &str, now: Relayed, before: Relayed| {
            self.packets.with_label_values(&[way]).inc_by(now.packets - before.packets);
            self.bytes.with_label_values(&[way]).inc_by(now.bytes - before.bytes);
        };
        way("to_peer", now.to_peers, before.to_peers);
        way("in_process", now.in_process, before.in_process);
        way("to_client", now.to_clients, before.to_clients);
        for ((refusal, count), (_, known)) in now.refused().zip(before.refused()) {
            self.refused.with_label_values(&[&refusal.code().to_string()]).inc_by(count - known);
        }
        for ((dropped, count), (_, known)) in now.dropped().zip(before.dropped()) {
            self.dropped.with_label_values(&[dropped.name()]).inc_by(count - known);
        }
    }
}
