//! What the program does: puts server, engine and scenario together, and writes down what came out.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::args::{Kind, Load, Output, RunArgs, ScoreboardArgs, Spawn, Target};
use crate::driver::Driver;
use crate::driver::janus::Janus;
use crate::driver::livekit::LiveKit;
use crate::engine::{self, Engine};
use crate::machine::{self, Cores, Machine};
use crate::report::{Report, compare, html, table};
use crate::scenario::scoreboard::{Scoreboard, Trial};
use crate::scenario::{Afresh, Population, Run, RunError, Scenario, Shape};
use crate::server::process::Process;
use crate::server::{self, Spawned, StartError};
use crate::turn;
use crate::turn::args::{Relay, TurnArgs};

/// The room of every run; a server that runs on keeps nothing of it.
const ROOM: &str = "loadtest";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Turn(#[from] turn::TurnError),
    #[error("cannot read process {0}: {1}; is --pid the server's process, and is it on this machine?")]
    Pid(u32, io::Error),
    #[error("{0}: {1}")]
    File(String, String),
    #[error("{0}")]
    Url(String),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A server to test.
struct Tested {
    name: String,
    driver: Driver,
    process: Option<Process>,
    /// Where clients are, to reach it.
    local: IpAddr,
    /// Ends with this value.
    spawned: Option<Spawned>,
}

/// Plays one scenario. Gives the limits that were broken.
pub fn run(args: &RunArgs) -> Result<Vec<String>, Error> {
    // Before the run, which takes minutes.
    let old = args.output.compare.as_deref().map(read_report).transpose()?;
    machine::raise_open_files();
    let cores = generator_cores(args.target.spawn.map(|_| args.target.server_core))?;
    let report = play(args.scenario, &args.target, &args.load, &cores)?;
    write_report(&args.output, &report)?;
    if let Some(old) = old {
        println!("\n{}", compare::render(&old, &report));
    }
    Ok(args.limits.broken(&report.stages))
}

/// Fills a TURN server. Gives the limits that were broken.
pub fn turn(args: &TurnArgs) -> Result<Vec<String>, Error> {
    let old = args.output.compare.as_deref().map(read_report).transpose()?;
    machine::raise_open_files();
    let target = &args.target;
    let cores = generator_cores(target.spawn.map(|_| target.server_core))?;
    let process = |pid: u32| Process::new(pid).map_err(|error| Error::Pid(pid, error));
    let (binary, core) = (target.server_binary.clone(), [target.server_core]);
    // The one that is started ends with `_spawned`.
    let (name, server, secret, pid, _spawned) = match (target.spawn, target.server) {
        (Some(Relay::Parlour), _) => {
            let (spawned, _, server) = server::parlour::spawn(binary, &core)?;
            ("parlour".into(), server, server::parlour::SECRET, Some(spawned.pid()), Some(spawned))
        }
        (Some(Relay::Coturn), _) => {
            let (spawned, server) = server::coturn::spawn(binary, &core)?;
            ("coturn".into(), server, server::coturn::SECRET, Some(spawned.pid()), Some(spawned))
        }
        (None, Some(server)) => {
            (server.to_string(), server, target.secret.as_deref().unwrap_or_default(), target.pid, None)
        }
        (None, None) => return Err(Error::Url("name a server with --spawn or --server".into())),
    };
    let process = pid.map(process).transpose()?;
    let settings = args.load.settings(server, secret, &cores);
    let mut lines = table::Lines::default();
    let report =
        turn::play(&name, &args.load.plan(), &settings, process.as_ref(), |stage| print!("{}", lines.next(stage)))?;
    println!("\n{}\n{}", table::title(&report), table::render(&report.stages));
    write_report(&args.output, &report)?;
    if let Some(old) = old {
        println!("\n{}", compare::render(&old, &report));
    }
    Ok(args.limits.broken(&report.stages))
}

/// Plays scenarios against several servers in turns.
pub fn scoreboard(args: &ScoreboardArgs) -> Result<(), Error> {
    machine::raise_open_files();
    let cores = generator_cores(Some(args.server_core))?;
    let mut board = Scoreboard {
        machine: Machine::this(),
        pacing: format!("{:?}", args.load.pacing()).to_lowercase(),
        trials: Vec::new(),
    };
    for entry in &args.entries {
        for trial in 1..=args.trials {
            for server in &args.servers {
                println!("== {:?}={}, trial {trial} of {}, {server:?}", entry.scenario, entry.size, args.trials);
                let load = Load { sizes: vec![entry.size], sweep: None, ..args.load.clone() };
                let report = play(entry.scenario, &args.target(*server), &load, &cores)?;
                let Report { server, scenario, publishers, suite, stages, .. } = report;
                board.trials.extend(stages.into_iter().map(|stage| Trial {
                    server: server.clone(),
                    scenario,
                    publishers,
                    suite: suite.clone(),
                    stage,
                }));
            }
        }
    }
    let text = board.markdown();
    println!("\n{text}");
    let write = |file: &Option<PathBuf>, text: &str| file.as_deref().map_or(Ok(()), |file| write_file(file, text));
    write(&args.markdown, &text)?;
    write(&args.json, &serde_json::to_string_pretty(&board).expect("plain data"))
}

/// Plays one scenario and prints it.
fn play(scenario: Scenario, target: &Target, load: &Load, cores: &Cores) -> Result<Report, Error> {
    let tested = Rc::new(RefCell::new(tested(target)?));
    let afresh = afresh(target, &tested);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(play_on(scenario, load, &tested, afresh, cores));
    if report.is_err()
        && let Some(server) = &tested.borrow().spawned
    {
        eprintln!("the end of the server's log:\n{}", server.log_end());
    }
    report
}

/// A server that was started for this run is replaced; one that ran before is waited for.
fn afresh(target: &Target, tested: &Rc<RefCell<Tested>>) -> Afresh {
    let Some(kind) = target.spawn else { return Afresh::Wait };
    let (target, tested) = (target.clone(), Rc::clone(tested));
    Afresh::Restart(Box::new(move || {
        // The old one first: two would share the core.
        tested.borrow_mut().spawned = None;
        let new = spawned(&target, kind)?;
        let reached = (new.driver.clone(), new.process.clone().ok_or(io::Error::other("it has no process"))?);
        *tested.borrow_mut() = new;
        Ok(reached)
    }))
}

/// The generator's cores, on which this thread and all it starts will stay. A server that is started gets one of its own.
fn generator_cores(server: Option<usize>) -> Result<Cores, Error> {
    let all = machine::cores();
    if let Some(core) = server
        && !all.contains(&core)
    {
        return Err(Error::Url(format!("--server-core {core}: this process may use the cores {all:?}")));
    }
    let own: Cores = all.iter().copied().filter(|core| Some(*core) != server).collect();
    // One core for both: the numbers are bad, but they are numbers.
    let own = if own.is_empty() { all } else { own };
    machine::pin_thread(&own)?;
    Ok(own)
}

fn tested(target: &Target) -> Result<Tested, Error> {
    if let Some(kind) = target.spawn {
        return Ok(spawned(target, kind)?);
    }
    let Some(url) = &target.url else { return Err(Error::Url("name a server with --spawn or --url".into())) };
    if !url.starts_with("ws://") {
        return Err(Error::Url(format!("--url {url}: must start with ws://, the port without TLS")));
    }
    let driver = match target.driver {
        Kind::Livekit => Driver::LiveKit(LiveKit::new(url, &target.key, &target.secret, ROOM)),
        Kind::Janus => Driver::Janus(Janus::new(url)),
    };
    let local = target.local_address.unwrap_or_else(|| address_towards(url));
    let process = |pid: u32| Process::new(pid).map_err(|error| Error::Pid(pid, error));
    let process = target.pid.map(process).transpose()?;
    Ok(Tested { name: url.clone(), driver, process, local, spawned: None })
}

/// Starts a server for this run.
fn spawned(target: &Target, kind: Spawn) -> Result<Tested, StartError> {
    let (binary, server_core) = (target.server_binary.clone(), [target.server_core]);
    let (name, local, server, driver) = match kind {
        Spawn::Parlour => {
            let (server, url, _) = server::parlour::spawn(binary, &server_core)?;
            let driver = LiveKit::new(&url, server::parlour::KEY, server::parlour::SECRET, ROOM);
            ("parlour", target.local_address.unwrap_or(server::LOOPBACK), server, Driver::LiveKit(driver))
        }
        Spawn::Janus => {
            // libnice knows no loopback; between addresses of one machine packets take the same way.
            let local = target.local_address.unwrap_or_else(machine::own_address);
            let (server, url) = server::janus::spawn(binary, &server_core, target.janus_loops, local)?;
            ("janus", local, server, Driver::Janus(Janus::new(&url)))
        }
    };
    let process = Some(Process::new(server.pid())?);
    Ok(Tested { name: name.into(), driver, process, local, spawned: Some(server) })
}

/// From where this machine sends to the host of a `ws://` URL; loopback when it cannot tell, and joining will say why.
fn address_towards(url: &str) -> IpAddr {
    let host = url.trim_start_matches("ws://").split('/').next().unwrap_or_default();
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let find = || {
        let there = host.to_socket_addrs().ok()?.find(|address| address.is_ipv4())?;
        machine::address_towards(there)
    };
    find().unwrap_or(server::LOOPBACK)
}

async fn play_on(
    scenario: Scenario,
    load: &Load,
    tested: &RefCell<Tested>,
    afresh: Afresh,
    cores: &Cores,
) -> Result<Report, Error> {
    let (name, driver, process, local) = {
        let tested = tested.borrow();
        (tested.name.clone(), tested.driver.clone(), tested.process.clone(), tested.local)
    };
    let plan = load.plan(scenario);
    let (loss_down, loss_up) = load.losses(scenario);
    let engine = Engine::start(engine::Settings {
        local,
        seed: load.seed,
        loss_down,
        loss_up,
        pacing: load.pacing(),
        threads: cores.len(),
        cores: cores.clone(),
    })?;
    let shape = Shape { scenario, publishers: plan.publishers, join_rate: load.join_rate.max(0.1), seed: load.seed };
    let population = Population::new(shape, driver, engine.clone());
    let mut report = Report {
        server: name,
        scenario,
        suite: String::new(),
        machine: Machine::this(),
        seed: load.seed,
        pacing: format!("{:?}", load.pacing()).to_lowercase(),
        publishers: plan.publishers,
        stages: Vec::new(),
        knee: None,
    };
    let mut run = Run::new(plan, engine, population, process, cores.len())?;
    run.afresh = afresh;
    let mut lines = table::Lines::default();
    let (stages, knee) = run.play(|stage| print!("{}", lines.next(stage))).await?;
    report.suite = run.population.suite.into();
    (report.stages, report.knee) = (stages, knee);
    println!("\n{}\n{}", table::title(&report), table::render(&report.stages));
    if let Some(knee) = report.knee {
        println!("the server bears {knee}");
    }
    Ok(report)
}

fn read_report(file: &Path) -> Result<Report, Error> {
    let failed = |why: String| Error::File(file.display().to_string(), why);
    let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    Report::from_json(&text).map_err(failed)
}

fn write_report(output: &Output, report: &Report) -> Result<(), Error> {
    if let Some(file) = &output.json {
        write_file(file, &report.to_json())?;
    }
    if let Some(file) = &output.html {
        write_file(file, &html::render(report))?;
    }
    Ok(())
}

fn write_file(file: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(file, text).map_err(|error| Error::File(file.display().to_string(), error.to_string()))
}
