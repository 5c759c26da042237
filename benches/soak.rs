//! Real processes on one repository for as long as you like: four writers, two prunes and a forget,
//! killed at random; after each round `check --read-data` is clean and every snapshot is what went
//! in. `cargo bench --bench soak -- [-r REPOSITORY] [--rounds N] [--seconds N] [--seed N]`
//!
//! Without `-r` the repository is a local one that is made for it. One that is given must not exist
//! yet; its credentials come from the environment, as the program takes them.
#![allow(missing_docs, clippy::unwrap_used, reason = "benches")]

#[path = "../tests/it/soak/processes.rs"]
mod processes;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use processes::{Soak, local};

fn argument(name: &str) -> Option<String> {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == name)?;
    arguments.get(at + 1).cloned()
}

fn number(name: &str, default: u64) -> u64 {
    argument(name).and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() -> ExitCode {
    let folder = tempfile::tempdir().unwrap();
    let soak = Soak {
        program: Path::new(env!("CARGO_BIN_EXE_restow")).to_owned(),
        repository: argument("-r").unwrap_or_else(|| local(folder.path())),
        folder: folder.path().to_owned(),
        writers: number("--writers", 4),
        prunes: number("--prunes", 2),
        round: Duration::from_secs(number("--seconds", 10)),
        kill_one_in: number("--kill-one-in", 4),
        seed: number("--seed", 1),
    };
    match rounds(&soak, number("--rounds", 3)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("seed {}: {fault}; left in {}", soak.seed, folder.keep().display());
            ExitCode::FAILURE
        }
    }
}

fn rounds(soak: &Soak, count: u64) -> Result<(), String> {
    soak.init()?;
    let mut done = vec![0; soak.writers as usize];
    for number in 0..count {
        let round = soak.run(number, &mut done)?;
        println!("round {number}: {round:?}, clean");
    }
    soak.converge()?;
    println!("{count} rounds: nothing lost, nothing left over");
    Ok(())
}
