//! Whole scenarios, small, against a real server in this process. They assert counts, never times: the machine may be busy.

mod own;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use parlour_loadtest::driver::Driver;
use parlour_loadtest::driver::livekit::LiveKit;
use parlour_loadtest::engine::{Engine, Settings};
use parlour_loadtest::media::Pacing;
use parlour_loadtest::report::{Report, Stage, html, table};
use parlour_loadtest::scenario::{Afresh, Plan, Population, Run, Scenario, Shape};
use parlour_loadtest::server::process::Process;
use parlour_loadtest::server::{LOOPBACK, StartError, parlour as server};
use parlour_loadtest::{driver::JoinError, machine};

/// Gives its URL.
fn start_server() -> String {
    format!("ws://{}", own::start().0)
}

fn driver(url: &str) -> Driver {
    Driver::LiveKit(LiveKit::new(url, server::KEY, server::SECRET, "room"))
}

/// A run against a server of its own: `change` makes it another one than two seconds of three receivers.
fn run(scenario: Scenario, publishers: usize, loss: f32, change: impl FnOnce(&mut Plan)) -> Run {
    let url = start_server();
    let engine = Engine::start(Settings {
        local: LOOPBACK,
        seed: 7,
        loss_down: loss,
        loss_up: loss,
        pacing: Pacing::Burst,
        threads: 1,
        cores: machine::cores(),
    });
    let engine = engine.unwrap();
    let mut plan = Plan {
        scenario,
        publishers,
        sizes: vec![3],
        sweep: None,
        duration: Duration::from_secs(2),
        settle: Duration::from_secs(2),
        churn_rate: 1.0,
        syscalls: false,
    };
    change(&mut plan);
    let shape = Shape { scenario, publishers, join_rate: 50.0, seed: 7 };
    let population = Population::new(shape, driver(&url), engine.clone());
    Run::new(plan, engine, population, Some(Process::this().unwrap()), 1).unwrap()
}

fn play_all(mut run: Run) -> Vec<Stage> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (stages, _) = runtime.block_on(run.play(|_| ())).unwrap();
    assert!(run.population.suite.starts_with("AEAD"), "{}", run.population.suite);
    stages
}

fn play(scenario: Scenario, publishers: usize, size: usize, loss: f32) -> Stage {
    let mut stages = play_all(run(scenario, publishers, loss, |plan| plan.sizes = vec![size]));
    assert_eq!(stages.len(), 1);
    let stage = stages.remove(0);
    assert_eq!((stage.silent_streams, stage.disconnected, stage.forged, stage.unknown), (0, 0, 0, 0), "{stage:#?}");
    assert_eq!((stage.join.count, stage.first_frame.count), (size as u64, size as u64), "{stage:#?}");
    assert!(stage.delay.count > 0 && stage.packets > 0);
    stage
}

#[test]
fn audio_reaches_every_listener() {
    let stage = play(Scenario::A, 2, 3, 0.0);
    assert_eq!(stage.streams, 6);
    // Two speakers, three listeners, 50 packets a second; a window is cut somewhere.
    let expected = 6.0 * 50.0 * stage.seconds;
    assert!((stage.packets as f64 - expected).abs() < expected * 0.2, "{} of {expected}", stage.packets);
    assert_eq!(stage.loss, 0.0);
}

#[test]
fn video_reaches_every_viewer() {
    let stage = play(Scenario::V, 1, 3, 0.0);
    assert_eq!(stage.streams, 3);
    let expected = 3.0 * 150.0 * stage.seconds;
    assert!((stage.packets as f64 - expected).abs() < expected * 0.3, "{} of {expected}", stage.packets);
    assert_eq!(stage.loss, 0.0);
    assert!(stage.cpu.unwrap().rss > 1 << 20);
}

#[test]
fn a_meeting_is_full_mesh() {
    let stage = play(Scenario::M, 0, 3, 0.0);
    assert_eq!(stage.streams, 12, "microphone and camera of two others, three times");
}

#[test]
fn those_who_left_a_meeting_are_not_silent() {
    let stages = play_all(run(Scenario::M, 0, 0.0, |plan| plan.sizes = vec![6, 3]));
    assert_eq!((stages[0].streams, stages[0].silent_streams), (60, 0), "{:#?}", stages[0]);
    assert_eq!((stages[1].streams, stages[1].silent_streams), (12, 0), "{:#?}", stages[1]);
    assert_eq!(stages[1].loss_after_repair, 0.0);
}

#[test]
fn a_sweep_starts_afresh_after_a_size_that_was_too_much() {
    // Audio is not repaired: with this loss no size is borne.
    let mut run = run(Scenario::A, 1, 0.2, |plan| (plan.sizes, plan.sweep) = (vec![4], Some(4)));
    let restarted = Rc::new(Cell::new(0));
    let count = Rc::clone(&restarted);
    run.afresh = Afresh::Restart(Box::new(move || {
        count.set(count.get() + 1);
        Ok((driver(&start_server()), Process::this().map_err(StartError::Io)?))
    }));
    let stages = play_all(run);
    let joins: Vec<(usize, u64)> = stages.iter().map(|stage| (stage.size, stage.join.count)).collect();
    assert_eq!(joins, [(4, 4), (2, 2), (1, 1)], "everybody joins anew");
    assert!(stages.iter().all(|stage| stage.loss > 1.0 && stage.disconnected == 0), "{stages:#?}");
    assert_eq!(restarted.get(), 2, "not before the first, not after the last");
}

#[test]
fn a_sweep_waits_until_a_server_that_goes_on_is_idle() {
    let mut run = run(Scenario::A, 1, 0.2, |plan| (plan.sizes, plan.sweep) = (vec![2], Some(2)));
    // The process of the tests is never idle; without one there is only the time to wait.
    run.process = None;
    let stages = play_all(run);
    let joins: Vec<(usize, u64)> = stages.iter().map(|stage| (stage.size, stage.join.count)).collect();
    assert_eq!(joins, [(2, 2), (1, 1)], "everybody joins anew");
}

#[test]
fn losses_are_repaired() {
    let stage = play(Scenario::X, 1, 3, 0.05);
    assert!(stage.loss > 1.0 && stage.nacks_sent > 0 && stage.recovery.count > 0, "{stage:#?}");
    assert!(stage.loss_after_repair < stage.loss / 2.0, "{stage:#?}");
}

#[test]
fn a_wrong_secret_is_named() {
    let url = start_server();
    let engine = Engine::start(Settings {
        local: LOOPBACK,
        seed: 1,
        loss_down: 0.0,
        loss_up: 0.0,
        pacing: Pacing::Burst,
        threads: 1,
        cores: machine::cores(),
    });
    let engine = engine.unwrap();
    let join = |url: &str, secret: &str| {
        let driver = Driver::LiveKit(LiveKit::new(url, server::KEY, secret, "room"));
        let shape = Shape { scenario: Scenario::V, publishers: 1, join_rate: 1.0, seed: 1 };
        let mut population = Population::new(shape, driver, engine.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(population.start()).unwrap_err()
    };
    let refused = join(&url, "another-secret-0123456789-0123456789");
    assert!(matches!(refused, JoinError::Refused { status: 401, .. }), "{refused}");
    assert!(refused.to_string().contains("--secret"));
    let unreachable = join("ws://127.0.0.1:1", server::SECRET);
    assert!(matches!(unreachable, JoinError::Unreachable { .. }), "{unreachable}");
}

#[test]
fn a_run_can_be_written_down() {
    let stage = Stage { size: 3, ..Stage::default() };
    assert!(table::render(std::slice::from_ref(&stage)).lines().count() == 3);
    let report = Report {
        server: "x".into(),
        scenario: Scenario::A,
        suite: "none".into(),
        machine: machine::Machine::this(),
        seed: 1,
        pacing: "burst".into(),
        publishers: 1,
        stages: vec![stage],
        knee: None,
    };
    assert!(html::render(&Report::from_json(&report.to_json()).unwrap()).ends_with("</html>\n"));
}
