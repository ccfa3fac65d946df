//! The command line; nothing else.

use std::fs::{OpenOptions, Permissions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use parlour::config::{self, Config, LogFormat, Problems};
use parlour::http::Tls;
use parlour::matrix::{OpenId, registration};
use parlour::operator::{self, Operator};
use parlour::serve::announcement;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Calls for Matrix rooms: signalling, TURN and SFU in one binary beside a homeserver.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server until SIGTERM or SIGINT.
    ///
    /// Prints at start what it listens on and what to add to the homeserver. The first signal ends calls in an orderly
    /// way, a second one at once.
    Serve(ConfigFile),
    /// Read the configuration and explain every mistake in it.
    ///
    /// Shows what it comes to and what to add to the homeserver. Changes nothing. Exits with 0 when `serve` would start with it, else with 1.
    Check(ConfigFile),
    /// See the calls of the running server, and end them.
    #[command(subcommand)]
    Calls(CallsCommand),
    /// Print the registration by which a homeserver takes Parlour for its application service.
    ///
    /// The homeserver then tells Parlour who is in which room. Says on standard error what to do with it. The tokens are made
    /// when there are none.
    Registration {
        #[command(flatten)]
        file: ConfigFile,
        /// Write it into this file, which only its owner can read, instead of printing it.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum CallsCommand {
    /// Show the calls there are, and who is in them.
    List {
        #[command(flatten)]
        file: ConfigFile,
        /// Print what the server says: JSON, as of GET /api/calls.
        #[arg(long)]
        json: bool,
    },
    /// End a call: everybody is sent out of it. They may start it anew.
    End {
        #[command(flatten)]
        file: ConfigFile,
        /// The Matrix room's id (quoted: shells read `!`), or the name that `list --json` gives as `room`.
        room: String,
    },
}

#[derive(clap::Args)]
struct ConfigFile {
    /// The configuration; `config/parlour.toml` in the source is the commented sample. Variables such as
    /// PARLOUR_HTTP__LISTEN override its keys.
    #[arg(long, value_name = "FILE", default_value = "/etc/parlour/parlour.toml")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(file) => serve(&file),
        Command::Check(file) => check(&file),
        Command::Calls(command) => calls(command),
        Command::Registration { file, output } => registration(&file, output.as_deref()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("{}", what.trim_end());
            ExitCode::FAILURE
        }
    }
}

fn serve(file: &ConfigFile) -> Result<(), String> {
    let config = load(file)?;
    start_log(&config);
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start: {e}"))?
        .block_on(parlour::serve::run(config))
}

fn check(file: &ConfigFile) -> Result<(), String> {
    let config = load(file)?;
    let has_key = config::existing_api_keys(&config).map_err(|problem| Problems::from(problem).to_string())?.is_some();
    let config = Arc::new(config);
    OpenId::new(config.clone())?;
    config.tls.as_ref().map(Tls::load).transpose()?;
    println!("{} is fine.", file.config.display());
    let has_tokens =
        config::existing_appservice_tokens(&config).map_err(|problem| Problems::from(problem).to_string())?;
    if config.appservice.enabled && has_tokens.is_none() {
        println!("Tokens of the application service will be generated there too: run `parlour registration`.");
    }
    if !has_key {
        println!("An API key will be generated into {} at the first start.", config.data_dir.display());
    }
    for warning in config.warnings() {
        println!("Warning: {warning}.");
    }
    print!("\n{}", announcement(&config));
    Ok(())
}

fn calls(command: CallsCommand) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| format!("cannot start: {e}"))?;
    match command {
        CallsCommand::List { file, json } => {
            let calls = runtime.block_on(Operator::new(&load(&file)?)?.calls())?;
            match json {
                true => println!("{}", serde_json::to_string_pretty(&calls).map_err(|e| e.to_string())?),
                false => print!("{}", operator::table(&calls.calls)),
            }
        }
        CallsCommand::End { file, room } => {
            let ended = runtime.block_on(Operator::new(&load(&file)?)?.end(&room))?.ended;
            println!("Ended {}.", ended.join(", "));
        }
    }
    Ok(())
}

fn registration(file: &ConfigFile, output: Option<&Path>) -> Result<(), String> {
    let config = load(file)?;
    let tokens = config::appservice_tokens(&config).map_err(|problem| Problems::from(problem).to_string())?;
    let yaml = registration::registration(&config, &tokens);
    let place = match output {
        Some(path) => {
            write_private(path, &yaml).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
            path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string()
        }
        None => {
            print!("{yaml}");
            registration::PROPOSED_FILE.to_owned()
        }
    };
    eprint!("{}", registration::instructions(&config, &place));
    Ok(())
}

/// A file that was there keeps its owner and group: the homeserver's, perhaps.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mode = file.metadata()?.permissions().mode();
    file.set_permissions(Permissions::from_mode(mode & 0o660))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn load(file: &ConfigFile) -> Result<Config, String> {
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Config::load(&file.config, variables).map_err(|problems| problems.to_string())
}

/// They warn of every malformed message, which anybody can send, and may tell keys.
const PARSERS_OF_STRANGERS: [&str; 3] = ["stun_types", "stun_proto", "turn_types"];

fn start_log(config: &Config) {
    // A lone level is ours: libraries tell addresses of users at info.
    let filter = match config.log.level.parse::<LevelFilter>() {
        Ok(level) => PARSERS_OF_STRANGERS
            .iter()
            .fold(Targets::new(), |targets, parser| targets.with_target(*parser, LevelFilter::OFF))
            .with_default(LevelFilter::WARN.min(level))
            .with_target("parlour", level),
        Err(_) => config.log.level.parse().unwrap_or_default(),
    };
    let layer =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let layer = match config.log.format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
}
