//! The command line of the load generator; see `parlour-loadtest --help`.

use std::process::ExitCode;

use clap::Parser;
use parlour_loadtest::args::{Cli, Command};
use parlour_loadtest::command;

/// A limit was broken: the load test has failed, not the program.
const LIMIT_BROKEN: u8 = 2;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => command::run(&args),
        Command::Turn(args) => command::turn(&args),
        Command::Scoreboard(args) => command::scoreboard(&args).map(|()| Vec::new()),
    };
    match done {
        Ok(broken) if broken.is_empty() => ExitCode::SUCCESS,
        Ok(broken) => {
            for sentence in broken {
                eprintln!("limit broken: {sentence}");
            }
            ExitCode::from(LIMIT_BROKEN)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
