//! `pg_dump` as an input that has begun: with its first byte it holds all its locks.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};

use super::client::Client;
use super::error::PgError;
use super::link::Stopped;
use crate::progress::Progress;
use crate::source::StreamInput;
use crate::source::command::CommandInput;
use crate::source::unpacking::{PeekedInput, peek};

/// How often a wait looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// Starts pg_dump and waits for its first byte. `client` is the session that holds the snapshot.
pub fn start(
    command: Command,
    client: &mut Client,
    progress: &Arc<Progress>,
) -> Result<PeekedInput, PgError> {
    let input = CommandInput::start_quiet(command);
    let input = input.map_err(|error| PgError::Program(format!("start pg_dump: {error}")))?;
    let stopper = input.stopper();
    let (sender, receiver) = bounded(1);
    std::thread::spawn(move || {
        let _ = sender.send(peek(Box::new(input)));
    });
    let peeked = loop {
        match receiver.recv_timeout(LOOK) {
            Ok(peeked) => break peeked,
            Err(RecvTimeoutError::Timeout) if progress.is_interrupted() => {
                if let Some(stopper) = stopper {
                    stopper.stop();
                }
                return Err(PgError::Stopped(Stopped));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(PgError::Program("pg_dump could not be read".into()));
            }
        }
    };
    let (mut input, _) = peeked?;
    if !input.is_empty() {
        return Ok(input);
    }
    let said = input.finish().err().unwrap_or_else(|| "pg_dump gave nothing".into());
    // What the server says of a lock is in its own language: whether somebody waits for us is not.
    let waiting = client.value(
        "SELECT count(*) FROM pg_catalog.pg_locks l WHERE NOT l.granted
           AND l.mode = 'AccessExclusiveLock'
           AND pg_catalog.pg_backend_pid() = ANY (pg_catalog.pg_blocking_pids(l.pid))",
    );
    match waiting.as_deref() {
        Ok("0") | Err(_) => Err(PgError::Program(said)),
        Ok(_) => Err(PgError::Locked(said)),
    }
}
