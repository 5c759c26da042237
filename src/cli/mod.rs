//! The command line. Parses, calls one function of the library, prints; holds no backup logic.

mod commands;
mod exit;
mod interrupt;
mod local;
mod location;
mod open;
mod output;
mod sources;
mod trace;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

pub use open::Global;

/// Backups of databases and files: deduplicated, delta-compressed, encrypted.
///
/// Incrementals cost what changed; every snapshot restores alone.
#[derive(Parser)]
#[command(
    name = "restow",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 ok, 1 failed, 2 usage, 3 incomplete backup, 4 drill did not pass, \
                  10 no repository, 11 conflict or refused, 12 wrong password, 130 interrupted."
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: commands::Command,
}

impl Cli {
    /// The command line's description, for completions and man pages.
    pub fn describe() -> clap::Command {
        Self::command()
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and succeed; a closed pipe is no failure.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    trace::install();
    interrupt::install();
    let ran = match cli.command.needs_repository() {
        true => cli.global.clone().configured(),
        false => Ok(cli.global.clone()),
    };
    match ran.and_then(|global| commands::run(&global, cli.command)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => exit::report(&error, &cli.global),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_consistent() {
        Cli::describe().debug_assert();
    }
}
