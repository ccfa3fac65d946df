//! The command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use parlour::config::Config;
use parlour::serve;

/// Calls for Matrix rooms: signalling, media and tokens in one process beside a homeserver.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "Every key of the config can be overridden by the environment: media.udp by PARLOUR_MEDIA__UDP."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server until SIGTERM or Ctrl-C
    Serve {
        /// The config file; config/parlour.toml in the source is a commented sample
        #[arg(long, short, default_value = "/etc/parlour/parlour.toml")]
        config: PathBuf,
    },
    /// Read the config and explain every mistake in it; exits with 1 when there is one
    Check {
        /// The config file
        #[arg(long, short, default_value = "/etc/parlour/parlour.toml")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve { config } => run(&config),
        Command::Check { config } => check(&config),
    }
}

fn load(file: &Path) -> Option<Config> {
    match Config::load(file, std::env::vars()) {
        Ok(config) => {
            config.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
            Some(config)
        }
        Err(problems) => {
            eprintln!("{problems}");
            None
        }
    }
}

fn run(file: &Path) -> ExitCode {
    let Some(config) = load(file) else { return ExitCode::FAILURE };
    match serve::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("parlour: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check(file: &Path) -> ExitCode {
    let Some(config) = load(file) else { return ExitCode::FAILURE };
    println!("{} is fine.\n", file.display());
    print!("{}", serve::summary(&config));
    ExitCode::SUCCESS
}
