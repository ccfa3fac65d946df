//! Calls in virtual time: participants come and go, delegate and delegate anew, our process and their homeserver stop and
//! start, in random order; a few rules hold throughout.

use super::*;
use proptest::prelude::*;

use crate::sfu::LeaveReason;

const SECOND: Duration = Duration::from_secs(1);

fn delegation(seat: u8, event: u32, delay: Duration) -> Delegation {
    Delegation {
        room: format!("room{}", seat / 2),
        identity: format!("identity{seat}"),
        user: format!("@user{seat}:{}.example.org", if seat.is_multiple_of(3) { "a" } else { "b" }),
        delay_id: format!("delay{event}"),
        delay,
    }
}

fn presence(seat: u8, session: u32, change: PresenceChange) -> Presence {
    let Delegation { room, identity, .. } = delegation(seat, 0, SECOND);
    Presence { room, identity, sid: sid(session), member: None, change }
}

fn sid(session: u32) -> Sid {
    Sid(format!("PA_{session:012}").into())
}

/// A delayed event at the homeserver.
#[derive(Debug, Clone)]
struct Event {
    delay: Duration,
    fires_at: Instant,
    sent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Quick,
    Slow,
    Limiting,
    Down,
}

/// A request on its way; the homeserver acts at once and its answer arrives later.
struct UnderWay {
    serial: Serial,
    server: String,
    answer: Answer,
    arrives: Instant,
}

/// What a seat's participant does, as the homeserver and the SFU see it.
#[derive(Debug, Clone, Default)]
struct Person {
    sessions: Vec<u32>,
    event: Option<u32>,
    left: Option<(Instant, LeaveReason)>,
}

struct World {
    now: Instant,
    delegations: Delegations,
    /// The disk.
    stored: HashMap<String, Delegation>,
    events: HashMap<u32, Event>,
    people: Vec<Person>,
    /// Who has delegated which event last.
    jobs: HashMap<Serial, (u8, u32)>,
    current: HashMap<u8, Serial>,
    holder: HashMap<u32, Serial>,
    under_way: Vec<UnderWay>,
    mood: Mood,
    ever_bad: bool,
    reloaded_at: Instant,
    sessions: u32,
}

const SEATS: u8 = 6;

impl World {
    fn new() -> World {
        let now = Instant::now();
        World {
            now,
            delegations: Delegations::default(),
            stored: HashMap::new(),
            events: HashMap::new(),
            people: vec![Person::default(); SEATS.into()],
            jobs: HashMap::new(),
            current: HashMap::new(),
            holder: HashMap::new(),
            under_way: Vec::new(),
            mood: Mood::Quick,
            ever_bad: false,
            reloaded_at: now,
            sessions: 0,
        }
    }

    fn join(&mut self, seat: u8) {
        self.sessions += 1;
        let session = self.sessions;
        self.people[seat as usize].sessions.push(session);
        self.delegations.note(self.now, &presence(seat, session, PresenceChange::Joined));
        self.run();
    }

    fn leave(&mut self, seat: u8, reason: LeaveReason) {
        let person = &mut self.people[seat as usize];
        if person.sessions.is_empty() {
            return;
        }
        let session = person.sessions.remove(0);
        if person.sessions.is_empty() {
            person.left = Some((self.now, reason));
        }
        self.delegations.note(self.now, &presence(seat, session, PresenceChange::Left(reason)));
        self.run();
    }

    /// As Element Call: schedules an event and hands it over.
    fn delegate(&mut self, seat: u8, delay_s: u64) {
        let event = u32::try_from(self.events.len()).unwrap();
        let delay = Duration::from_secs(delay_s);
        self.events.insert(event, Event { delay, fires_at: self.now + delay, sent: false });
        self.hand_over(seat, event);
    }

    fn hand_over(&mut self, seat: u8, event: u32) {
        let Event { delay, sent, .. } = self.events[&event];
        if sent {
            return;
        }
        let delegation = delegation(seat, event, delay);
        // By event, a seat's server may differ; only events of the same server are the same.
        if let Some(older) = self.holder.get(&event)
            && let Some((other, _)) = self.jobs.get(older)
            && server_of(&self::delegation(*other, event, delay).user) != delegation.server()
        {
            return;
        }
        assert_eq!(self.delegations.admit(&delegation), Ok(()));
        self.stored.insert(delegation.key(), delegation.clone());
        let serial = self.delegations.delegate(self.now, delegation, None);
        self.took(serial, seat, event);
        self.run();
    }

    fn took(&mut self, serial: Serial, seat: u8, event: u32) {
        self.jobs.insert(serial, (seat, event));
        self.current.insert(seat, serial);
        self.holder.insert(event, serial);
        let person = &mut self.people[seat as usize];
        (person.event, person.left) = (Some(event), None);
    }

    /// Killed and started again: what is on the disk is all we know, and everybody has lost the connection.
    fn crash(&mut self) {
        self.delegations = Delegations::default();
        self.under_way.clear();
        (self.jobs, self.current, self.holder) = Default::default();
        self.reloaded_at = self.now;
        for person in &mut self.people {
            person.sessions.clear();
            person.left = None;
        }
        for delegation in self.stored.values().cloned().collect::<Vec<_>>() {
            let seat: u8 = delegation.identity.trim_start_matches("identity").parse().unwrap();
            let event: u32 = delegation.delay_id.trim_start_matches("delay").parse().unwrap();
            let serial = self.delegations.reload(self.now, delegation);
            self.took(serial, seat, event);
        }
        self.run();
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = self.run();
            let answer = self.under_way.iter().map(|request| request.arrives).min();
            let next = [due, answer].into_iter().flatten().min().filter(|at| *at < end);
            let Some(next) = next else { break };
            assert!(next > self.now, "time goes on");
            self.now = next;
            self.deliver();
        }
        self.now = end;
        self.deliver();
        self.run();
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (arrived, still): (Vec<_>, Vec<_>) = self.under_way.drain(..).partition(|r| r.arrives <= now);
        self.under_way = still;
        for request in arrived {
            self.delegations.answered(now, request.serial, request.answer);
        }
    }

    fn run(&mut self) -> Option<Instant> {
        // Delays run out by themselves, for whoever is in or not.
        for (id, event) in &mut self.events {
            if !event.sent && event.fires_at <= self.now {
                event.sent = true;
                let in_call = self.people.iter().any(|p| p.event == Some(*id) && !p.sessions.is_empty());
                let ours = self.holder.get(id).is_some_and(|serial| self.delegations.jobs.contains_key(serial));
                assert!(self.ever_bad || !in_call || !ours, "event {id} ran out during the call");
            }
        }
        let due = self.delegations.advance(self.now);
        for effect in self.delegations.effects() {
            match effect {
                Effect::Forget { key, .. } => drop(self.stored.remove(&key)),
                Effect::Ask { serial, request, delay_id, user } => {
                    self.asked(serial, request, delay_id, server_of(&user).to_owned());
                }
            }
        }
        due
    }

    fn asked(&mut self, serial: Serial, request: Request, delay_id: String, server: String) {
        let now = self.now;
        let event_id: u32 = delay_id.trim_start_matches("delay").parse().unwrap();
        assert!(self.under_way.iter().all(|other| other.serial != serial), "one request at a time");
        let busy = self.under_way.iter().filter(|other| other.server == server).count();
        assert!(busy < MOST_UNDER_WAY, "{server} is asked too much at a time");
        let Some((seat, event)) = self.jobs.get(&serial).copied() else {
            let held = self.holder.get(&event_id).is_some_and(|serial| self.delegations.jobs.contains_key(serial));
            assert!(request == Request::Send && !held, "only the leave of a page that is no more");
            return self.obey(serial, request, event_id, server);
        };
        assert_eq!(event, event_id);
        let replaced = self.current[&seat] != serial || self.holder[&event_id] != serial;
        assert!(!replaced, "replaced jobs ask for nothing");
        let person = &self.people[seat as usize];
        if request == Request::Send {
            assert!(person.sessions.is_empty(), "never sent while the participant is in");
            match person.left {
                Some((at, LeaveReason::DuplicateIdentity | LeaveReason::ServerFault)) => {
                    assert!(now >= at + Duration::from_secs(60), "a takeover or a fault of ours is no leave");
                }
                Some((_, LeaveReason::ServerShutdown)) => panic!("our shutdown is no leave"),
                Some((at, LeaveReason::ClientInitiated)) => assert!(now >= at + 3 * SECOND),
                Some(_) => {}
                // It has not come since it delegated: no delay in these tests is shorter.
                None => assert!(now >= self.reloaded_at + 10 * SECOND),
            }
        }
        self.obey(serial, request, event_id, server);
    }

    fn obey(&mut self, serial: Serial, request: Request, event_id: u32, server: String) {
        let now = self.now;
        let event = self.events.get_mut(&event_id).unwrap();
        let (answer, latency) = match self.mood {
            Mood::Down => (Answer::Failed, 5000),
            Mood::Limiting => (Answer::Limited(2 * SECOND), 10),
            _ if event.sent => (Answer::Gone, 20),
            mood => {
                match request {
                    Request::Restart => event.fires_at = now + event.delay,
                    Request::Send => event.sent = true,
                }
                (Answer::Done, if mood == Mood::Slow { 1500 } else { 20 })
            }
        };
        self.under_way.push(UnderWay { serial, server, answer, arrives: now + Duration::from_millis(latency) });
    }
}

#[derive(Debug, Clone)]
enum Happening {
    Join(u8),
    Leave(u8, LeaveReason),
    TakeOver(u8),
    Delegate(u8, u64),
    /// The same event for another identity, as when a client tries both dialects.
    Again(u8, u8),
    Pass(u64),
    Mood(Mood),
    Crash,
    /// In order, with a while until the next process starts.
    Restart(u64),
}

fn happening(bad_days: bool) -> impl Strategy<Value = Happening> {
    let seat = 0..SEATS;
    let reason = prop::sample::select(vec![
        LeaveReason::ClientInitiated,
        LeaveReason::ConnectionTimeout,
        LeaveReason::StateMismatch,
        LeaveReason::Removed,
        LeaveReason::RoomDeleted,
        LeaveReason::JoinTimeout,
        LeaveReason::SignalClosed,
        LeaveReason::ServerFault,
    ]);
    let mood = if bad_days {
        prop::sample::select(vec![Mood::Quick, Mood::Slow, Mood::Limiting, Mood::Down])
    } else {
        prop::sample::select(vec![Mood::Quick])
    };
    prop_oneof![
        3 => seat.clone().prop_map(Happening::Join),
        3 => (seat.clone(), reason).prop_map(|(seat, reason)| Happening::Leave(seat, reason)),
        1 => seat.clone().prop_map(Happening::TakeOver),
        3 => (seat.clone(), prop::sample::select(vec![10, 18, 60, 3600])).prop_map(|(seat, s)| Happening::Delegate(seat, s)),
        1 => (seat.clone(), seat).prop_map(|(from, to)| Happening::Again(from, to)),
        4 => prop_oneof![1u64..200, 1000u64..20_000, 20_000u64..4_000_000].prop_map(Happening::Pass),
        1 => mood.prop_map(Happening::Mood),
        1 => Just(Happening::Crash),
        1 => (0u64..10_000).prop_map(Happening::Restart),
    ]
}

fn live_through(happenings: Vec<Happening>) -> World {
    let mut world = World::new();
    for happening in happenings {
        match happening {
            Happening::Join(seat) => world.join(seat),
            Happening::Leave(seat, reason) => world.leave(seat, reason),
            Happening::TakeOver(seat) if world.people[seat as usize].sessions.is_empty() => {}
            Happening::TakeOver(seat) => {
                // Either may be told of first.
                if world.sessions.is_multiple_of(2) {
                    world.join(seat);
                    world.leave(seat, LeaveReason::DuplicateIdentity);
                } else {
                    world.leave(seat, LeaveReason::DuplicateIdentity);
                    world.join(seat);
                }
            }
            Happening::Delegate(seat, delay_s) => world.delegate(seat, delay_s),
            Happening::Again(from, to) => {
                if let Some(event) = world.people[from as usize].event {
                    world.hand_over(to, event);
                }
            }
            Happening::Pass(ms) => world.pass(Duration::from_millis(ms)),
            Happening::Mood(mood) => {
                world.ever_bad |= mood != Mood::Quick;
                world.mood = mood;
            }
            Happening::Crash => world.crash(),
            Happening::Restart(ms) => {
                for seat in 0..SEATS {
                    while !world.people[seat as usize].sessions.is_empty() {
                        world.leave(seat, LeaveReason::ServerShutdown);
                    }
                }
                world.pass(Duration::from_millis(ms));
                world.crash();
            }
        }
    }
    world
}

/// Everybody has gone, the homeserver works: nobody may stay in the room for long, nor a job in the store.
fn goes_home(mut world: World) {
    world.mood = Mood::Quick;
    let held: Vec<u32> =
        world.jobs.iter().filter(|(s, _)| world.delegations.jobs.contains_key(s)).map(|(_, (_, e))| *e).collect();
    for seat in 0..SEATS {
        while !world.people[seat as usize].sessions.is_empty() {
            world.leave(seat, LeaveReason::ConnectionTimeout);
        }
    }
    world.pass(Duration::from_secs(3600 + 120));
    assert_eq!(world.delegations.count(), 0, "all jobs are done");
    assert!(world.stored.is_empty(), "none is left in the store: {:?}", world.stored);
    for event in held {
        assert!(world.events[&event].sent, "event {event} was sent or ran out");
    }
    let Delegations { by_seat, by_event, per_user, sessions, timers, queues, under_way, .. } = &world.delegations;
    assert!(by_seat.is_empty() && by_event.is_empty() && per_user.is_empty() && sessions.is_empty());
    assert!(timers.is_empty() && under_way.is_empty() && queues.values().all(Queue::is_empty));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_rules_hold_whatever_happens(happenings in prop::collection::vec(happening(true), 0..60)) {
        goes_home(live_through(happenings));
    }

    #[test]
    fn with_a_homeserver_that_answers_no_delay_runs_out_during_a_call(
        happenings in prop::collection::vec(happening(false), 0..60),
    ) {
        goes_home(live_through(happenings));
    }
}

#[test]
fn a_killed_browser_is_out_of_the_room_seconds_after_it_is_out_of_the_call() {
    let mut world = World::new();
    world.join(0);
    world.delegate(0, 3600);
    world.pass(Duration::from_secs(7200));
    assert!(!world.events[&0].sent);
    world.leave(0, LeaveReason::ConnectionTimeout);
    world.pass(4 * SECOND);
    assert!(world.events[&0].sent && world.stored.is_empty());
}

#[test]
fn a_client_that_leaves_and_joins_anew_stays_in_the_room() {
    let mut world = World::new();
    world.join(0);
    world.delegate(0, 3600);
    for _ in 0..5 {
        world.leave(0, LeaveReason::ClientInitiated);
        world.pass(2 * SECOND);
        world.join(0);
        world.pass(60 * SECOND);
    }
    assert!(!world.events[&0].sent);
}

#[test]
fn the_end_of_a_session_that_was_taken_over_is_no_leave_of_the_new_one() {
    let mut world = World::new();
    world.join(0);
    world.delegate(0, 3600);
    world.join(0);
    world.leave(0, LeaveReason::DuplicateIdentity);
    world.pass(300 * SECOND);
    assert!(!world.events[&0].sent);
    world.leave(0, LeaveReason::ConnectionTimeout);
    world.pass(4 * SECOND);
    assert!(world.events[&0].sent, "that of the new one is");
}

#[test]
fn a_page_that_was_reloaded_is_out_of_the_room_when_the_new_one_delegates() {
    for reason in [LeaveReason::ClientInitiated, LeaveReason::DuplicateIdentity] {
        let mut world = World::new();
        world.join(0);
        world.delegate(0, 3600);
        world.delegate(0, 3600);
        world.pass(SECOND);
        assert!(!world.events[&0].sent, "the same page may delegate anew");
        world.leave(0, reason);
        world.pass(2 * SECOND);
        world.join(0);
        world.pass(SECOND);
        world.delegate(0, 3600);
        world.pass(SECOND);
        assert!(world.events[&1].sent && !world.events[&2].sent && world.delegations.count() == 1);
    }
}

#[test]
fn the_same_event_for_another_identity_moves_the_job() {
    let mut world = World::new();
    world.delegate(1, 3600);
    world.join(2);
    world.hand_over(2, 0);
    assert_eq!((world.delegations.count(), world.stored.len()), (1, 1));
    world.pass(Duration::from_secs(3 * 3600));
    assert!(!world.events[&0].sent, "the first identity never came, and that does not matter any more");
}

#[test]
fn after_a_crash_everybody_has_a_minute_to_come_back() {
    let mut world = World::new();
    for seat in 0..2 {
        world.join(seat);
        world.delegate(seat, 18);
    }
    world.pass(20 * SECOND);
    world.crash();
    world.pass(40 * SECOND);
    world.join(0);
    world.pass(25 * SECOND);
    assert_eq!((world.events[&0].sent, world.events[&1].sent), (false, true));
}

#[test]
fn a_stopped_homeserver_throws_nobody_out() {
    let mut world = World::new();
    world.join(0);
    world.delegate(0, 3600);
    world.pass(SECOND);
    (world.mood, world.ever_bad) = (Mood::Down, true);
    // Its clock stands still too, as far as delays go.
    world.events.get_mut(&0).unwrap().fires_at += Duration::from_secs(5 * 3600);
    world.pass(Duration::from_secs(5 * 3600));
    world.mood = Mood::Quick;
    world.pass(Duration::from_secs(3 * 3600));
    assert!(!world.events[&0].sent);
}

#[test]
fn the_most_urgent_goes_first_and_a_limit_stops_all() {
    let mut delegations = Delegations::default();
    let now = Instant::now();
    let user = |n: usize| Delegation { user: "@u:x".into(), ..delegation(0, u32::try_from(n).unwrap(), 3600 * SECOND) };
    let seats: Vec<Delegation> = (0..10).map(|n| Delegation { identity: format!("i{n}"), ..user(n) }).collect();
    for seat in &seats {
        delegations.delegate(now, seat.clone(), None);
    }
    delegations.advance(now);
    let asks = |delegations: &mut Delegations| -> Vec<Serial> {
        let effects = delegations.effects();
        effects.iter().map(|e| if let Effect::Ask { serial, .. } = e { *serial } else { panic!("{e:?}") }).collect()
    };
    assert_eq!(asks(&mut delegations), [1, 2, 3, 4]);
    delegations.answered(now, 3, Answer::Limited(SECOND));
    delegations.answered(now, 1, Answer::Limited(2 * SECOND));
    delegations.answered(now, 2, Answer::Done);
    assert_eq!(delegations.advance(now), Some(now + SECOND));
    assert_eq!(delegations.advance(now + SECOND), Some(now + 2 * SECOND), "the longer wait counts");
    assert_eq!(asks(&mut delegations), [0; 0]);
    delegations.advance(now + 2 * SECOND);
    assert_eq!(asks(&mut delegations), [1, 3, 5], "one more is still under way");
}

#[test]
fn no_number_of_a_homeserver_or_a_client_is_too_large() {
    let mut delegations = Delegations::default();
    let now = Instant::now();
    let serial = delegations.delegate(now, delegation(0, 0, Duration::MAX), None);
    delegations.advance(now);
    delegations.answered(now, serial, Answer::Limited(Duration::MAX));
    assert_eq!(delegations.advance(now), Some(now + LONGEST_LIMIT));
}

#[test]
fn a_user_can_delegate_so_many_and_no_more() {
    let mut delegations = Delegations::default();
    let now = Instant::now();
    let nth = |n: usize| Delegation {
        identity: format!("i{n}"),
        delay_id: format!("d{n}"),
        ..delegation(1, 0, 3600 * SECOND)
    };
    for n in 0..MOST_PER_USER {
        assert_eq!(delegations.admit(&nth(n)), Ok(()));
        delegations.delegate(now, nth(n), Some(now));
    }
    assert_eq!(delegations.admit(&nth(MOST_PER_USER)), Err(TooMany::OfUser));
    assert_eq!(delegations.admit(&nth(0)), Ok(()), "a job may be replaced");
    assert_eq!(delegations.admit(&delegation(0, 0, SECOND)), Ok(()), "others have room");
}

#[test]
fn what_is_stored_is_readable_json() {
    let stored = serde_json::to_value(delegation(0, 7, 18 * SECOND)).unwrap();
    let expected = serde_json::json!({
        "room": "room0", "identity": "identity0", "user": "@user0:a.example.org", "delay_id": "delay7", "delay_ms": 18000
    });
    assert_eq!(stored, expected);
    assert_eq!(serde_json::from_value::<Delegation>(stored).unwrap(), delegation(0, 7, 18 * SECOND));
    assert_eq!(delegation(0, 7, SECOND).key(), r#"["room0","identity0"]"#);
}
