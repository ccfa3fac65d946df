//! Whole runs, small, against coturn and our own server. They assert counts, never times: the machine may be busy. Where coturn is not installed
//! those that need it say so and pass.

mod own;

use std::net::SocketAddr;
use std::time::Duration;

use parlour_loadtest::machine;
use parlour_loadtest::report::{Report, Stage};
use parlour_loadtest::server::process::Process;
use parlour_loadtest::server::{Spawned, coturn, parlour};
use parlour_loadtest::turn::{self, Direction, Peer, Plan, Settings, TurnError};

/// One thread, whose numbers everybody can follow.
const THREADS: usize = 1;

fn start_coturn() -> Option<(Spawned, SocketAddr)> {
    if coturn::installed().is_none() {
        eprintln!("skipped: coturn is not installed (Debian: apt-get install --no-install-recommends coturn)");
        return None;
    }
    Some(coturn::spawn(None, &machine::cores()[..1]).unwrap())
}

fn settings(server: SocketAddr) -> Settings {
    Settings {
        server,
        locals: Vec::new(),
        secret: coturn::SECRET.into(),
        user: "test".into(),
        per_user: 1,
        peer: Peer::Sink,
        direction: Direction::Both,
        payload: 400,
        rate: 50.0,
        burst: 5,
        at_once: 8,
        seed: 7,
        threads: THREADS,
        cores: machine::cores(),
    }
}

fn play(sizes: &[usize], change: impl FnOnce(&mut Settings)) -> Option<Result<Report, TurnError>> {
    let (server, address) = start_coturn()?;
    let mut settings = settings(address);
    change(&mut settings);
    let plan = Plan { sizes: sizes.into(), duration: Duration::from_secs(2), settle: Duration::from_millis(500) };
    let process = Process::new(server.pid()).unwrap();
    Some(turn::play("coturn", &plan, &settings, Some(&process), |_| ()))
}

/// What must be so whatever the load was.
fn check(stage: &Stage, size: u64, flows: u64) {
    let allocations = stage.allocations.as_ref().unwrap();
    assert_eq!((allocations.ready, stage.streams, stage.silent_streams), (size, flows, 0), "{stage:#?}");
    assert!(allocations.failures.is_empty(), "{stage:#?}");
    assert_eq!(allocations.per_s > 0.0, stage.join.count > 0, "{stage:#?}");
    assert_eq!((stage.unknown, stage.duplicates), (0, 0), "{stage:#?}");
    // Fifty a second in each flow; a busy machine may send fewer, never more.
    let most = flows as f64 * 50.0 * stage.seconds + flows as f64 * 10.0;
    assert!(stage.packets as f64 > most * 0.3 && stage.packets as f64 <= most, "{} of {most}", stage.packets);
    assert!(stage.loss < 1.0 && stage.delay.count == stage.packets, "{stage:#?}");
    assert!(stage.cpu.unwrap().rss > 1 << 20);
}

#[test]
fn data_goes_both_ways_between_clients_and_a_peer() {
    let Some(report) = play(&[10, 20, 5], |_| ()) else { return };
    let report = report.unwrap();
    for (stage, size) in report.stages.iter().zip([10, 20, 5]) {
        check(stage, size, 2 * size);
    }
    assert_eq!(report.stages.iter().map(|stage| stage.join.count).collect::<Vec<_>>(), [10, 10, 0]);
    assert_eq!(report.stages.len(), 3);
    assert!(Report::from_json(&report.to_json()).is_ok());
}

#[test]
fn two_clients_reach_each_other() {
    let change = |settings: &mut Settings| {
        (settings.peer, settings.direction) = (Peer::Pair, Direction::Up);
        (settings.per_user, settings.burst) = (2, 1);
        settings.locals = vec![[127, 0, 0, 1].into(), [127, 0, 0, 2].into()];
    };
    let Some(report) = play(&[8], change) else { return };
    check(&report.unwrap().stages[0], 8, 8);
}

#[test]
fn two_clients_reach_each_other_through_our_own_server() {
    let (_, address) = own::start();
    let mut settings = settings(address);
    (settings.peer, settings.direction) = (Peer::Pair, Direction::Up);
    settings.secret = parlour::SECRET.into();
    let plan = Plan { sizes: vec![8], duration: Duration::from_secs(2), settle: Duration::from_millis(500) };
    let report = turn::play("parlour", &plan, &settings, Some(&Process::this().unwrap()), |_| ());
    check(&report.unwrap().stages[0], 8, 8);
}

#[test]
fn packets_to_somebody_elses_address_are_counted_as_sent() {
    let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = peer.local_addr().unwrap();
    let change =
        |settings: &mut Settings| (settings.peer, settings.direction) = (Peer::Address(address), Direction::Up);
    let Some(report) = play(&[4], change) else { return };
    let stage = &report.unwrap().stages[0];
    assert!(stage.packets > 0 && stage.delay.count == 0 && stage.streams == 0, "{stage:#?}");
    peer.set_nonblocking(true).unwrap();
    let mut buffer = [0; 1500];
    assert_eq!(peer.recv(&mut buffer).unwrap(), 400);
}

#[test]
fn a_wrong_secret_is_named() {
    let Some(report) = play(&[3], |settings| settings.secret = "another".into()) else { return };
    let error = report.unwrap_err();
    assert!(matches!(error, TurnError::NoAllocation(_)) && error.to_string().contains("--secret"), "{error}");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let settings = settings(nobody.local_addr().unwrap());
    let plan = Plan { sizes: vec![1], duration: Duration::ZERO, settle: Duration::ZERO };
    let error = turn::play("nobody", &plan, &settings, None, |_| ()).unwrap_err();
    assert!(error.to_string().contains("no answer"), "{error}");
}
