//! One SFU, its clients, and the clock: everything that is due happens, then time jumps to what is due next.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parlour::sfu::{
    AddTrackError, Event, EventKind, JoinError, JoinOptions, LeaveReason, Limits, Negotiation, Now, ParticipantId,
    Permissions, RoomOptions, Sfu,
};
use parlour::transport::{Datagram, Protocol, Route, Settings};

use crate::client::{Client, Request, Setup};
use crate::network::Packet;

pub const ROOM: &str = "room";
/// How long a signalling message travels.
const SIGNALLING_DELAY: Duration = Duration::from_millis(15);
/// Steps at one moment before we say that something spins.
const MAX_STEPS_PER_MOMENT: u32 = 2_000;

enum Message {
    ToServer(usize, Request),
    ToClient(usize, EventKind),
    Published(usize, String, parlour::sfu::Sid),
}

pub struct World {
    pub sfu: Sfu,
    /// Further workers, each at its own address.
    pub more: Vec<Sfu>,
    /// The room that is joined next, and its worker.
    pub lobby: (String, usize),
    /// The worker of each client.
    workers: Vec<usize>,
    pub clients: Vec<Client>,
    start: Instant,
    pub now: Instant,
    signalling: BTreeMap<(Instant, u64), Message>,
    messages: u64,
    by_id: BTreeMap<(usize, ParticipantId), usize>,
    digest: DefaultHasher,
    /// Moments at which something happened.
    pub moments: u64,
    /// Tracks that the server refused, by client.
    pub errors: Vec<(usize, AddTrackError)>,
    /// Addresses of ours that packets do not get to.
    pub unreachable: Vec<SocketAddr>,
    /// What clients send, when somebody watches.
    pub record: Option<Vec<Packet>>,
    /// Bytes that the server sent, by destination.
    pub sent: BTreeMap<SocketAddr, u64>,
    /// What participants were told that joined by hand, without a client.
    pub told: BTreeMap<ParticipantId, Vec<EventKind>>,
    /// Where media for the SFU is collected, with the time it comes, instead of being given to it.
    pub held: Option<Vec<(Now, Packet)>>,
    /// What goes to participants that joined by hand and have a machine of another make.
    pub astray: Option<Vec<Packet>>,
    /// Called with true before the SFU takes or drives media, with false after it.
    pub meter: fn(bool),
}

/// Worker `n` listens `n` ports above this.
const WORKER_PORTS: u16 = 4000;

pub fn server(protocol: Protocol) -> SocketAddr {
    let port = if protocol == Protocol::Udp { 3478 } else { 3479 };
    SocketAddr::from(([10, 0, 0, 1], port))
}

pub fn options(identity: &str, negotiation: Negotiation) -> JoinOptions {
    JoinOptions {
        identity: identity.into(),
        name: identity.to_uppercase(),
        metadata: String::new(),
        attributes: BTreeMap::new(),
        permissions: Permissions {
            can_publish: true,
            can_subscribe: true,
            can_publish_data: true,
            can_publish_sources: vec![],
            can_update_metadata: true,
            hidden: false,
        },
        negotiation,
        auto_subscribe: true,
        adaptive_stream: false,
        client_protocol: 16,
        create_room: true,
    }
}

impl World {
    pub fn new(seed: u64) -> World {
        Self::with_options(seed, RoomOptions::default())
    }

    pub fn with_options(seed: u64, room: RoomOptions) -> World {
        Self::with_addresses(seed, room, [Protocol::Udp, Protocol::Tcp].map(|p| (p, server(p))).to_vec())
    }

    pub fn with_addresses(seed: u64, room: RoomOptions, addresses: Vec<(Protocol, SocketAddr)>) -> World {
        // str0m draws SSRCs and ids from this thread's generator.
        fastrand::seed(seed);
        let start = Instant::now();
        let settings = Settings::new(addresses);
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_be_bytes());
        let mut world = World {
            sfu: Sfu::new(settings, Limits { max_participants: 250, max_rooms: 10 }, key),
            more: Vec::new(),
            lobby: (ROOM.into(), 0),
            workers: Vec::new(),
            clients: Vec::new(),
            start,
            now: start,
            signalling: BTreeMap::new(),
            messages: 0,
            by_id: BTreeMap::new(),
            digest: DefaultHasher::new(),
            moments: 0,
            errors: Vec::new(),
            unreachable: Vec::new(),
            record: None,
            sent: BTreeMap::new(),
            told: BTreeMap::new(),
            held: None,
            astray: None,
            meter: |_| {},
        };
        let now = world.clock();
        world.sfu.create_room(now, ROOM, room).expect("room for a room");
        world
    }

    /// One more worker, which the clients of other workers cannot reach.
    pub fn add_worker(&mut self) {
        let number = self.more.len() + 1;
        let mut address = server(Protocol::Udp);
        address.set_port(WORKER_PORTS + number as u16);
        let settings = Settings::new(vec![(Protocol::Udp, address)]);
        self.more.push(Sfu::new(settings, Limits { max_participants: 250, max_rooms: 10 }, [number as u8; 32]));
    }

    fn worker(&mut self, number: usize) -> &mut Sfu {
        if number == 0 { &mut self.sfu } else { &mut self.more[number - 1] }
    }

    pub fn clock(&self) -> Now {
        Now { instant: self.now, unix_ms: 1_700_000_000_000 + self.elapsed().as_millis() as u64 }
    }

    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// What happened so far, in one number.
    pub fn digest(&self) -> u64 {
        let mut digest = self.digest.clone();
        self.clients.iter().for_each(|c| c.diary.digest(&mut digest, self.start));
        digest.finish()
    }

    // --- people ---------------------------------------------------------------------------------------------------

    pub fn join(&mut self, name: &str) -> usize {
        self.join_with(name, Setup::default())
    }

    pub fn join_with(&mut self, name: &str, setup: Setup) -> usize {
        self.try_join(options(name, setup.negotiation), setup).expect("may join")
    }

    pub fn try_join(&mut self, options: JoinOptions, setup: Setup) -> Result<usize, JoinError> {
        let name = options.identity.clone();
        let (now, (room, worker)) = (self.clock(), self.lobby.clone());
        let sfu = self.worker(worker);
        let id = sfu.join(now, &room, options)?;
        let (own, others) = (sfu.info(id).expect("just joined"), sfu.others(id));
        let index = self.clients.len();
        let mut client = Client::new(self.now, index as u8, &name, id, setup);
        client.learn(own);
        others.into_iter().for_each(|other| client.learn(other));
        self.clients.push(client);
        self.workers.push(worker);
        self.by_id.insert((worker, id), index);
        Ok(index)
    }

    /// Somebody with signalling and nothing behind it.
    pub fn join_by_hand(&mut self, name: &str, negotiation: Negotiation) -> ParticipantId {
        self.sfu.join(self.clock(), ROOM, options(name, negotiation)).expect("may join")
    }

    pub fn leave(&mut self, index: usize) {
        self.clients[index].outbox.push(Request::Leave);
    }

    /// The client's machine dies: nothing goes in or out any more.
    pub fn kill(&mut self, index: usize) {
        self.clients[index].dead = true;
        self.clients[index].tracks.iter_mut().for_each(|t| t.live = false);
        self.clients[index].publisher.rtc.disconnect();
        if let Some(subscriber) = &mut self.clients[index].subscriber {
            subscriber.rtc.disconnect();
        }
    }

    pub fn inject(&mut self, protocol: Protocol, source: SocketAddr, bytes: &[u8]) {
        let now = self.clock();
        (self.meter)(true);
        self.sfu.receive(now, Datagram { protocol, source, destination: server(protocol), bytes });
        (self.meter)(false);
        while self.drive(0) {
            self.send(0);
        }
    }

    // --- time -----------------------------------------------------------------------------------------------------

    pub fn run(&mut self, duration: Duration) {
        self.run_until(|_| false, duration);
    }

    /// Runs until `done`; gives how long it took, `None` when it did not happen within `limit`.
    pub fn run_until(&mut self, done: impl Fn(&World) -> bool, limit: Duration) -> Option<Duration> {
        let began = self.now;
        let end = self.now + limit;
        loop {
            self.settle();
            if done(self) {
                return Some(self.now - began);
            }
            match self.next().filter(|at| *at <= end) {
                Some(at) => {
                    assert!(at > self.now, "something is due at {:?} and does not do it", self.elapsed());
                    self.now = at;
                    self.moments += 1;
                }
                None => {
                    self.now = end;
                    self.settle();
                    return None;
                }
            }
        }
    }

    pub fn next(&self) -> Option<Instant> {
        let signalling = self.signalling.keys().next().map(|(at, _)| *at);
        let clients = self.clients.iter().filter_map(Client::next).min();
        let workers = std::iter::once(&self.sfu).chain(&self.more).filter_map(Sfu::next_timeout).min();
        [signalling, clients, workers].into_iter().flatten().min()
    }

    fn settle(&mut self) {
        let mut steps = 0;
        while self.step() {
            steps += 1;
            let spinning = || {
                let wait = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(self.now));
                let clients: Vec<_> = self.clients.iter().map(|c| wait(c.next())).collect();
                format!("{:?}: sfu wants {:?}, clients {clients:?}", self.elapsed(), wait(self.sfu.next_timeout()))
            };
            assert!(steps < MAX_STEPS_PER_MOMENT, "spins at {}", spinning());
        }
    }

    /// Everything that is due now, once. Whether there was anything.
    fn step(&mut self) -> bool {
        let mut busy = self.deliver();
        for index in 0..self.clients.len() {
            busy |= self.clients[index].run(self.now);
            for request in std::mem::take(&mut self.clients[index].outbox) {
                self.post(Message::ToServer(index, request));
            }
            let client = &mut self.clients[index];
            let mut arrived: Vec<Packet> = Vec::new();
            for peer in [Some(&mut client.publisher), client.subscriber.as_mut()].into_iter().flatten() {
                arrived.extend(std::iter::from_fn(|| peer.uplink.receive(self.now)));
            }
            let now = self.clock();
            for packet in arrived {
                busy = true;
                if let Some(record) = &mut self.record {
                    record.push(packet.clone());
                }
                if self.unreachable.contains(&packet.destination) {
                    continue;
                }
                match &mut self.held {
                    Some(held) if is_media(&packet.bytes) => held.push((now, packet)),
                    _ => self.receive(now, &packet),
                }
            }
        }
        for worker in 0..=self.more.len() {
            let now = self.now;
            busy |= self.worker(worker).next_timeout().is_some_and(|at| at <= now);
            while self.drive(worker) {
                busy |= self.send(worker);
            }
            busy |= self.drain(worker);
        }
        busy
    }

    pub fn receive(&mut self, now: Now, packet: &Packet) {
        let Packet { protocol, source, destination, ref bytes } = *packet;
        let worker = usize::from(destination.port().saturating_sub(WORKER_PORTS));
        (self.meter)(true);
        self.worker(worker).receive(now, Datagram { protocol, source, destination, bytes });
        (self.meter)(false);
    }

    fn drive(&mut self, worker: usize) -> bool {
        let now = self.clock();
        (self.meter)(true);
        let more = self.worker(worker).drive(now);
        (self.meter)(false);
        more
    }

    fn drain(&mut self, worker: usize) -> bool {
        let mut busy = self.send(worker);
        while let Some(event) = self.worker(worker).poll_event() {
            busy = true;
            self.on_event(worker, event);
        }
        busy
    }

    /// Puts what the server sends on the way to the clients.
    fn send(&mut self, worker: usize) -> bool {
        let sfu = if worker == 0 { &mut self.sfu } else { &mut self.more[worker - 1] };
        let busy = !sfu.outbox().is_empty();
        for (route, packets) in sfu.outbox().runs() {
            let bytes = self.sent.entry(route.destination).or_default();
            *bytes += packets.clone().map(|p| p.len() as u64).sum::<u64>();
            let mut peers = self
                .clients
                .iter_mut()
                .flat_map(|c| [Some(&mut c.publisher), c.subscriber.as_mut()].into_iter().flatten());
            let mut peer = peers.find(|p| p.public == route.destination);
            for bytes in packets {
                let Route { protocol, source, destination } = route;
                let packet = Packet { protocol, source, destination, bytes: bytes.to_vec() };
                if let Some(peer) = &mut peer {
                    peer.seals.watch(bytes);
                    peer.downlink.send(self.now, packet);
                } else if let Some(astray) = &mut self.astray {
                    astray.push(packet);
                }
            }
        }
        sfu.outbox().clear();
        busy
    }

    fn on_event(&mut self, worker: usize, event: Event) {
        let Some(index) = self.by_id.get(&(worker, event.to)).copied() else {
            self.told.entry(event.to).or_default().push(event.kind);
            return;
        };
        self.elapsed().hash(&mut self.digest);
        index.hash(&mut self.digest);
        hash_event(&event.kind, &mut self.digest);
        match event.kind {
            // The front door routes data; ours gives it to everybody else.
            EventKind::DataReceived { channel, message } => {
                let sfu = self.worker(worker);
                for (other, _, _) in sfu.ids_in_room_of(event.to) {
                    if other != event.to {
                        sfu.send_data(other, channel, &message);
                    }
                }
            }
            kind => self.post(Message::ToClient(index, kind)),
        }
    }

    // --- signalling -------------------------------------------------------------------------------------------------

    fn post(&mut self, message: Message) {
        self.messages += 1;
        self.signalling.insert((self.now + SIGNALLING_DELAY, self.messages), message);
    }

    fn deliver(&mut self) -> bool {
        let mut busy = false;
        while let Some(entry) = self.signalling.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            busy = true;
            match entry.remove() {
                Message::ToServer(index, request) => self.request(index, request),
                Message::ToClient(index, event) => self.clients[index].on_event(self.now, event),
                Message::Published(index, cid, sid) => self.clients[index].track_published(&cid, sid),
            }
        }
        busy
    }

    fn request(&mut self, index: usize, request: Request) {
        let (now, id) = (self.clock(), self.clients[index].id);
        let sfu = self.worker(self.workers[index]);
        match request {
            Request::AddTrack(track) => {
                let cid = track.cid.clone();
                match sfu.add_track(now, id, track) {
                    Ok(info) => self.post(Message::Published(index, cid, info.sid)),
                    Err(error) => self.errors.push((index, error)),
                }
            }
            Request::Offer { id: offer, sdp } => sfu.offer(now, id, offer, &sdp),
            Request::Answer { id: offer, sdp } => sfu.answer(now, id, offer, &sdp),
            Request::Mute { track, muted } => {
                sfu.set_muted(now, id, &track, muted);
            }
            Request::Subscribe { track, on } => sfu.subscribe(now, id, &[track], on),
            Request::Settings { track, settings } => sfu.track_settings(now, id, &[track], settings),
            Request::Leave => sfu.leave(now, id, LeaveReason::ClientInitiated),
        }
    }
}

/// RTP that is no RTCP (RFC 5761 §4).
fn is_media(bytes: &[u8]) -> bool {
    matches!(bytes, [first, kind, ..] if first >> 6 == 2 && !(192..=223).contains(kind))
}

/// Everything but the certificate, which no seed makes.
fn hash_event(event: &EventKind, digest: &mut DefaultHasher) {
    for line in format!("{event:?}").split("\\r\\n").filter(|l| !l.starts_with("a=fingerprint")) {
        line.hash(digest);
    }
}
