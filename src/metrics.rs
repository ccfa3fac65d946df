//! Every number Parlour tells about itself, by name: one instance, shared by the front doors and the media workers.
//!
//! No label ever holds a user, a room or an address: labels are words fixed in this program, so the number of time series
//! is bounded. Counters of the packet path are plain fields, without a look-up per packet.

use std::time::Duration;

use prometheus::{
    Counter, CounterVec, Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::livekit::DroppedCounts;
use crate::net::Traffic;
use crate::sfu::{Counts, WorkerId};
use turn::TurnMetrics;

mod turn;

/// Seconds; fine below one second, where a good join ends, up to the time-outs of clients.
const JOIN_BUCKETS: &[f64] = &[0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0];

/// Seconds; from a homeserver on the same machine to the deadline of discovery.
const OPENID_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

pub struct Metrics {
    registry: Registry,

    /// How joins ended, by verdict: `connected`, a refusal at the door (`room-missing`, `token-expired`, …) or a
    /// [`FailureReason`](crate::sfu::FailureReason).
    pub joins: IntCounterVec,
    /// Seconds from the WebSocket request until media could flow.
    pub join_seconds: Histogram,
    /// Requests for access tokens, by route and outcome.
    pub token_requests: IntCounterVec,
    /// Verifications of OpenID tokens, by result.
    pub openid: IntCounterVec,
    pub openid_seconds: Histogram,
    /// Delayed leaves of members that we are to send when they are gone.
    pub delayed_leaves: IntGauge,
    /// Those that are over, by how they ended.
    pub delayed_leaves_ended: IntCounterVec,
    /// Requests to homeservers about them, by what was asked and the result.
    pub delayed_leave_requests: IntCounterVec,
    /// Decisions on who may be in a call, when it asks for a token and when it connects: `let-in` or why not.
    pub admission: IntCounterVec,
    /// Participants who were removed and calls that were ended because the Matrix room wanted it, by reason.
    pub removals: IntCounterVec,
    /// HTTP answers by class: `2xx`, `4xx`, …
    pub http_responses: IntCounterVec,
    pub http_connections: IntGauge,
    /// Connections of the TLS listener, by what came of them: `http`, `turn` or `failed`.
    pub tls_connections: IntCounterVec,
    /// WebSockets that are open.
    pub signal_connections: IntGauge,
    /// Messages of clients that could not be used, by reason.
    pub signal_dropped: IntCounterVec,

    pub rooms: IntGauge,
    pub participants: IntGauge,
    pub tracks: IntGauge,

    pub packets_received: IntCounter,
    pub packets_sent: IntCounter,
    pub bytes_received: IntCounter,
    pub bytes_sent: IntCounter,
    /// Media packets on their way to one subscriber each.
    pub packets_forwarded: IntCounter,
    pub keyframes_requested: IntCounter,
    /// Subscribers that were shown a keyframe out of the cache.
    pub keyframes_cached: IntCounter,
    /// Packets that receivers asked for again, by outcome: `sent`, or `expired` when they were not kept any more.
    pub retransmissions: IntCounterVec,
    /// Packets that waited a few milliseconds so as not to leave in a burst.
    pub packets_paced: IntCounter,
    /// Packets that went nowhere, by reason.
    pub packets_dropped: IntCounterVec,

    /// System calls of the media workers, by name.
    syscalls: IntCounterVec,
    /// Messages to the kernel, and the UDP packets in them, up to ten each.
    messages_sent: IntCounter,
    udp_packets_sent: IntCounter,
    /// Packets that came to another worker's socket than that of their room.
    packets_handed_over: IntCounter,
    turn: TurnMetrics,
    /// How often a media worker panicked and started anew.
    pub worker_panics: IntCounter,
    worker_participants: IntGaugeVec,
    worker_busy: CounterVec,
}

/// What each media worker tells of itself. As many as there are cores.
pub struct WorkerMeter {
    pub participants: IntGauge,
    /// Seconds that the thread did not wait: at one per second its core is full.
    pub busy_seconds: Counter,
}

impl Metrics {
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let r = &registry;
        Metrics {
            joins: counters(r, "parlour_joins_total", "Joins by verdict", &["verdict"]),
            join_seconds: histogram(
                r,
                "parlour_join_seconds",
                "Time from the request to join until media could flow",
                JOIN_BUCKETS,
            ),
            token_requests: counters(
                r,
                "parlour_token_requests_total",
                "Requests for access tokens",
                &["route", "outcome"],
            ),
            openid: counters(r, "parlour_openid_verifications_total", "Verifications of OpenID tokens", &["result"]),
            openid_seconds: histogram(
                r,
                "parlour_openid_seconds",
                "Duration of verifications of OpenID tokens",
                OPENID_BUCKETS,
            ),
            delayed_leaves: gauge(r, "parlour_delayed_leaves", "Delayed leaves delegated to us"),
            delayed_leaves_ended: counters(
                r,
                "parlour_delayed_leaves_ended_total",
                "Delegated delayed leaves that are over, by how they ended",
                &["end"],
            ),
            delayed_leave_requests: counters(
                r,
                "parlour_delayed_leave_requests_total",
                "Requests to homeservers about delayed leaves",
                &["request", "result"],
            ),
            admission: counters(r, "parlour_admission_total", "Decisions on who may be in a call", &["verdict"]),
            removals: counters(
                r,
                "parlour_removals_total",
                "Participants removed and calls ended because the Matrix room wanted it",
                &["reason"],
            ),
            http_responses: counters(r, "parlour_http_responses_total", "HTTP answers by class of status", &["class"]),
            tls_connections: counters(
                r,
                "parlour_tls_connections_total",
                "TLS connections by what came of them",
                &["outcome"],
            ),
            http_connections: gauge(r, "parlour_http_connections", "Open HTTP connections that are no WebSockets"),
            signal_connections: gauge(r, "parlour_signal_connections", "Open signalling WebSockets"),
            signal_dropped: counters(
                r,
                "parlour_signal_dropped_total",
                "Signalling messages that could not be used",
                &["reason"],
            ),
            rooms: gauge(r, "parlour_rooms", "Rooms"),
            participants: gauge(r, "parlour_participants", "Participants"),
            tracks: gauge(r, "parlour_tracks", "Published tracks"),
            packets_received: counter(r, "parlour_packets_received_total", "Packets received on the media ports"),
            packets_sent: counter(r, "parlour_packets_sent_total", "Packets sent from the media ports"),
            bytes_received: counter(r, "parlour_bytes_received_total", "Bytes received on the media ports"),
            bytes_sent: counter(r, "parlour_bytes_sent_total", "Bytes sent from the media ports"),
            packets_forwarded: counter(r, "parlour_packets_forwarded_total", "Media packets forwarded, per subscriber"),
            keyframes_requested: counter(r, "parlour_keyframes_requested_total", "Keyframes asked of publishers"),
            keyframes_cached: counter(r, "parlour_keyframes_cached_total", "Keyframes sent again out of the cache"),
            retransmissions: counters(
                r,
                "parlour_retransmissions_total",
                "Packets that receivers asked for again, by outcome",
                &["outcome"],
            ),
            packets_paced: counter(r, "parlour_packets_paced_total", "Packets held back so as not to leave in a burst"),
            packets_dropped: counters(r, "parlour_packets_dropped_total", "Packets that went nowhere", &["reason"]),
            syscalls: counters(r, "parlour_media_syscalls_total", "System calls of the media workers", &["call"]),
            messages_sent: counter(
                r,
                "parlour_udp_messages_sent_total",
                "Messages to the kernel, each with one or more packets for it to cut",
            ),
            udp_packets_sent: counter(r, "parlour_udp_packets_sent_total", "Packets in messages to the kernel"),
            packets_handed_over: counter(
                r,
                "parlour_packets_handed_over_total",
                "Packets that one media worker received for another",
            ),
            turn: TurnMetrics::new(r),
            worker_panics: counter(r, "parlour_worker_panics_total", "Panics of media workers, which end their rooms"),
            worker_participants: register(
                r,
                IntGaugeVec::new(Opts::new("parlour_worker_participants", "Participants by media worker"), &["worker"]),
            ),
            worker_busy: register(
                r,
                CounterVec::new(
                    Opts::new("parlour_worker_busy_seconds_total", "Time that media workers did not wait"),
                    &["worker"],
                ),
            ),
            registry,
        }
    }

    pub fn join_connected(&self, after: Duration) {
        self.joins.with_label_values(&["connected"]).inc();
        self.join_seconds.observe(after.as_secs_f64());
    }

    /// `reason`: one of [`FailureReason`](crate::sfu::FailureReason)'s words.
    pub fn join_failed(&self, reason: &str) {
        self.joins.with_label_values(&[reason]).inc();
    }

    /// Takes over what a worker counted since `before`.
    pub fn sfu(&self, now: &Counts, before: &Counts) {
        self.rooms.add(now.rooms as i64 - before.rooms as i64);
        self.participants.add(now.participants as i64 - before.participants as i64);
        self.tracks.add(now.tracks as i64 - before.tracks as i64);
        self.packets_received.inc_by(now.packets_received - before.packets_received);
        self.bytes_received.inc_by(now.bytes_received - before.bytes_received);
        self.packets_sent.inc_by(now.packets_sent - before.packets_sent);
        self.bytes_sent.inc_by(now.bytes_sent - before.bytes_sent);
        self.packets_forwarded.inc_by(now.packets_forwarded - before.packets_forwarded);
        self.keyframes_requested.inc_by(now.keyframes_requested - before.keyframes_requested);
        self.keyframes_cached.inc_by(now.pictures_replayed - before.pictures_replayed);
        self.retransmissions.with_label_values(&["sent"]).inc_by(now.packets_resent - before.packets_resent);
        self.retransmissions.with_label_values(&["expired"]).inc_by(now.packets_expired - before.packets_expired);
        self.packets_paced.inc_by(now.packets_paced - before.packets_paced);
        self.packets_dropped.with_label_values(&["unknown"]).inc_by(now.packets_unknown - before.packets_unknown);
        self.packets_dropped.with_label_values(&["oversized"]).inc_by(now.packets_oversized - before.packets_oversized);
    }

    /// Takes over what a worker's sockets did since `before`.
    pub fn traffic(&self, now: &Traffic, before: &Traffic) {
        for (call, now, before) in [
            ("epoll_wait", now.waits, before.waits),
            ("recvmmsg", now.receive_calls, before.receive_calls),
            ("sendmmsg", now.send_calls, before.send_calls),
            ("wake", now.wakes, before.wakes),
        ] {
            self.syscalls.with_label_values(&[call]).inc_by(now - before);
        }
        self.messages_sent.inc_by(now.messages_sent - before.messages_sent);
        self.udp_packets_sent.inc_by(now.packets_sent - before.packets_sent);
        self.packets_handed_over.inc_by(now.handed_over - before.handed_over);
        for (reason, now, before) in [
            ("send-buffer-full", now.send_overflowed, before.send_overflowed),
            ("send-refused", now.send_refused, before.send_refused),
            ("worker-busy", now.hand_over_overflowed, before.hand_over_overflowed),
        ] {
            self.packets_dropped.with_label_values(&[reason]).inc_by(now - before);
        }
    }

    /// Takes over what a worker's TURN server counted since `before`.
    pub fn turn(&self, now: &crate::turn::Counts, before: &crate::turn::Counts) {
        self.turn.count(now, before);
    }

    /// What the worker with this number writes to.
    pub fn worker(&self, worker: WorkerId) -> WorkerMeter {
        let label = worker.index().to_string();
        WorkerMeter {
            participants: self.worker_participants.with_label_values(&[&label]),
            busy_seconds: self.worker_busy.with_label_values(&[&label]),
        }
    }

    /// Takes over what signalling dropped since `before`.
    pub fn signalling(&self, now: &DroppedCounts, before: &DroppedCounts) {
        for ((reason, count), (_, known)) in now.iter().zip(before.iter()) {
            self.signal_dropped.with_label_values(&[reason.as_str()]).inc_by(count - known);
        }
    }

    /// The Prometheus text format.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("writing to memory");
        String::from_utf8(text).expect("names and labels are ours")
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::new(name, help))
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(name, help))
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    register(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
}

fn register<T: prometheus::core::Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<T>) -> T {
    let metric = made.expect("a fixed, valid name");
    registry.register(Box::new(metric.clone())).expect("every name is used once");
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered() {
        let metrics = Metrics::new();
        metrics.joins.with_label_values(&["room-missing"]).inc();
        metrics.participants.set(3);
        metrics.join_seconds.observe(0.3);
        let text = metrics.render();
        for line in [
            "parlour_joins_total{verdict=\"room-missing\"} 1",
            "parlour_participants 3",
            "parlour_join_seconds_bucket{le=\"0.35\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} not in {text}");
        }
    }
}
