//! What a caller costs who can take one stream only: decoding what he says, mixing, encoding what he hears.
//!
//! `cargo bench --bench mixer`; one core. A run is a tick, 20 ms of a room in which packets come as they should. `decode` and
//! `encode` are libopus alone, on the same sound and with the same settings: the floor.

use std::sync::Arc;
use std::time::Instant;

use divan::{AllocProfiler, Bencher, black_box};
use opus::{Application, Bitrate, Channels, Decoder, Encoder};
use parlour::mixer::{AudioPacket, FRAME, ListenerId, Mixer, SAMPLE_RATE, SourceId, Start, TICK};
use parlour::sfu::Codec;

/// What is said, over and over: ten seconds.
const PACKETS: usize = 500;

/// Ticks of a sample, so that frames that are cheap and dear to code are all in it.
const TICKS: u32 = 100;

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// A voice with syllables, overtones and breath.
fn voice(seed: u64) -> Vec<[f32; FRAME]> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let pitch = 110.0 + 17.0 * seed as f32;
    let mut phase = 0.0f32;
    let mut sample = |n: usize| {
        let time = n as f32 / SAMPLE_RATE as f32;
        phase += (pitch + 15.0 * (time * 5.0).sin()) / SAMPLE_RATE as f32 * std::f32::consts::TAU;
        let tones: f32 = (1..25).map(|k| (phase * k as f32).sin() / k as f32).sum();
        let syllable = (0.55 + 0.45 * (time * 22.0 + seed as f32).sin()).powi(2);
        0.08 * syllable * tones + 0.004 * (dice.f32() - 0.5)
    };
    (0..PACKETS).map(|frame| std::array::from_fn(|n| sample(frame * FRAME + n))).collect()
}

/// As browsers encode a microphone.
fn microphone(seed: u64) -> Vec<Arc<[u8]>> {
    let mut encoder = Encoder::new(SAMPLE_RATE, Channels::Mono, Application::Voip).expect("an encoder");
    encoder.set_bitrate(Bitrate::Bits(32_000)).expect("a rate");
    encoder.set_inband_fec(true).expect("a switch");
    encoder.set_packet_loss_perc(5).expect("a share");
    voice(seed).iter().map(|frame| encoder.encode_vec_float(frame, 1500).expect("a frame").into()).collect()
}

struct Room {
    mixer: Mixer,
    now: Instant,
    sources: Vec<(SourceId, Vec<Arc<[u8]>>)>,
    sequence: u64,
    /// Of all sources, −dBov.
    level: u8,
}

impl Room {
    /// `talking` callers, each with a stream that is mixed, and `quiet` ones who only listen.
    fn new(talking: u64, quiet: u64) -> Self {
        let now = Instant::now();
        let mut mixer = Mixer::new(now, 0);
        for _ in 0..quiet {
            mixer.add_listener(Start::default());
        }
        let source = |n| {
            let listener = mixer.add_listener(Start::default());
            (mixer.add_source(Some(listener)), microphone(n))
        };
        let sources = (0..talking).map(source).collect();
        Room { mixer, now, sources, sequence: 0, level: 25 }.settled()
    }

    /// `talking` sources of others, whom one caller hears.
    fn of_others(talking: u64, level: u8) -> Self {
        let now = Instant::now();
        let mut mixer = Mixer::new(now, 0);
        mixer.add_listener(Start::default());
        let sources = (0..talking).map(|n| (mixer.add_source(None), microphone(n))).collect();
        Room { mixer, now, sources, sequence: 0, level }.settled()
    }

    fn settled(mut self) -> Self {
        (0..2 * TICKS).for_each(|_| self.tick());
        self
    }

    fn listeners(&mut self) -> Vec<ListenerId> {
        let (mut listeners, mixer) = (Vec::new(), &mut self.mixer);
        self.now += TICK;
        mixer.tick(self.now, |id, _| listeners.push(id));
        listeners
    }

    fn tick(&mut self) {
        for (source, packets) in &self.sources {
            let packet = AudioPacket {
                codec: Codec::Opus,
                sequence: self.sequence,
                restarted: false,
                timestamp: (self.sequence as u32).wrapping_mul(FRAME as u32),
                payload: Arc::clone(&packets[self.sequence as usize % PACKETS]),
                level: Some(self.level),
                arrival: self.now,
            };
            self.mixer.push(*source, &packet);
        }
        self.sequence += 1;
        self.now += TICK;
        self.mixer.tick(self.now, |_, packet| {
            black_box(packet);
        });
    }
}

#[divan::bench(sample_size = TICKS)]
fn decode(bencher: Bencher) {
    let mut decoder = Decoder::new(SAMPLE_RATE, Channels::Mono).expect("a decoder");
    let (packets, mut pcm, mut n) = (microphone(0), [0.0; FRAME], 0);
    bencher.bench_local(|| {
        n += 1;
        decoder.decode_float(&packets[n % PACKETS], black_box(&mut pcm), false)
    });
}

/// `true` with in-band FEC.
#[divan::bench(sample_size = TICKS, args = [false, true])]
fn encode(bencher: Bencher, protected: bool) {
    let mut encoder = Encoder::new(SAMPLE_RATE, Channels::Mono, Application::Audio).expect("an encoder");
    encoder.set_bitrate(Bitrate::Bits(48_000)).expect("a rate");
    encoder.set_complexity(5).expect("a complexity");
    encoder.set_inband_fec(protected).expect("a switch");
    encoder.set_packet_loss_perc(if protected { 10 } else { 0 }).expect("a share");
    let (frames, mut packet, mut n) = (voice(0), [0; 1275], 0);
    bencher.bench_local(|| {
        n += 1;
        encoder.encode_float(&frames[n % PACKETS], black_box(&mut packet))
    });
}

/// One listener, who does not speak, of so many who do.
#[divan::bench(sample_size = TICKS, args = [1, 2, 6])]
fn heard(bencher: Bencher, sources: u64) {
    let mut room = Room::of_others(sources, 25);
    bencher.bench_local(|| room.tick());
}

/// One listener of a room where so many microphones are open and silent.
#[divan::bench(sample_size = TICKS, args = [50])]
fn silent(bencher: Bencher, sources: u64) {
    let mut room = Room::of_others(sources, 100);
    bencher.bench_local(|| room.tick());
}

/// So many callers who all talk at once: each is decoded, and each gets a mix of his own.
#[divan::bench(sample_size = TICKS, args = [1, 2, 6])]
fn talking(bencher: Bencher, callers: u64) {
    let mut room = Room::new(callers, 0);
    bencher.bench_local(|| room.tick());
}

/// The same on lines that lose a tenth.
#[divan::bench(sample_size = TICKS, args = [6])]
fn talking_over_loss(bencher: Bencher, callers: u64) {
    let mut room = Room::new(callers, 0);
    for listener in room.listeners() {
        (0..10).for_each(|_| room.mixer.set_loss(listener, 0.1));
    }
    let mut room = room.settled();
    bencher.bench_local(|| room.tick());
}

/// Two who talk, and so many who listen.
#[divan::bench(sample_size = TICKS, args = [8, 98])]
fn listening(bencher: Bencher, quiet: u64) {
    let mut room = Room::new(2, quiet);
    bencher.bench_local(|| room.tick());
}
