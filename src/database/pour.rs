//! Pouring parts of a stream, and words of our own between them, into a program that loads them.

use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::catalogue::{Catalogue, Edit, Encoding, Range, Statements, Table};
use crate::error::{Error, Result};
use crate::format::snapshot::StreamEntry;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::restore::{StreamTarget, WriterTarget, copy_range, copy_stream};
use crate::store::pause::{Patience, Pause};

use super::postgres::inspect::quote;
use super::source_error;

/// A part of what is poured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The whole stream.
    Whole,
    /// Bytes of it.
    Part(Range),
    /// Words of our own.
    Text(String),
}

/// What to put in place of a line; none where it stays as it is.
pub type LineEdit<'a> = &'a dyn Fn(&[u8]) -> Option<Vec<u8>>;

/// What is changed on the way.
#[derive(Clone, Copy)]
pub enum Change<'a> {
    /// Nothing.
    Nothing,
    /// Statements of MariaDB.
    Statements(Edit<'a>),
    /// Lines, where they are not too long for that.
    Lines(LineEdit<'a>),
}

/// What a program that reads a dump, which may run what stands in it, need not know.
const SECRETS: [&str; 3] = ["RESTOW_PASSWORD", "RESTOW_FROM_PASSWORD", "RESTOW_TO_PASSWORD"];
/// How often it is looked whether to stop.
const LOOK: Duration = Duration::from_millis(100);
/// How much is kept of what a program says.
const MAX_SAID: u64 = 4096;

/// Pours pieces of a stream into a program, which must end well.
pub fn pour(
    repository: &Repository,
    stream: &StreamEntry,
    pieces: &[Piece],
    command: Command,
    change: Change<'_>,
    progress: &Progress,
) -> Result<()> {
    let program = command.get_program().display().to_string();
    let mut running = Running::start(command, &program)?;
    let pipe = running.take_stdin();
    let mut target = WriterTarget { writer: pipe, name: program.clone() };
    let fed = running.while_watched(progress, || match change {
        Change::Nothing => feed(repository, stream, pieces, &mut target, progress),
        Change::Lines(edit) => {
            let mut lines = Lines { target: &mut target, line: Vec::new(), is_long: false, edit };
            feed(repository, stream, pieces, &mut lines, progress).and_then(|()| lines.finish())
        }
        Change::Statements(edit) => {
            let mut edited =
                Edited { target: &mut target, statements: Statements::default(), edit };
            feed(repository, stream, pieces, &mut edited, progress)
                .and_then(|()| edited.target.write(&edited.statements.finish()))
        }
    });
    if fed.as_ref().is_err_and(|error| !matches!(error, Error::Io { .. })) {
        // It must not take what it has for all there is.
        running.kill();
        return fed;
    }
    drop(target);
    running.finish(&program, progress)?;
    // It said that all is well, but did not want all of it.
    fed.map_err(|_| source_error(&program, "ended before it had read everything"))
}

fn feed(
    repository: &Repository,
    stream: &StreamEntry,
    pieces: &[Piece],
    target: &mut dyn StreamTarget,
    progress: &Progress,
) -> Result<()> {
    for piece in pieces {
        match piece {
            Piece::Whole => copy_stream(repository, stream, target, progress).map(drop)?,
            Piece::Part(range) => copy_range(repository, stream, *range, target, progress)?,
            Piece::Text(text) => target.write(text.as_bytes())?,
        }
    }
    Ok(())
}

/// The pieces of a dump as SQL that restore some tables: what sets up the session, definitions, rows,
/// what comes after rows.
pub fn pieces_of(catalogue: &Catalogue, tables: &[&Table], schema_only: bool) -> Vec<Piece> {
    let mut pieces = vec![Piece::Part(catalogue.preamble)];
    let starts = |table: &Table| table.data.first().map_or(u64::MAX, |range| range.start);
    for table in tables {
        let before = table.definition.iter().filter(|range| range.start < starts(table));
        pieces.extend(before.map(|range| Piece::Part(*range)));
    }
    for table in tables.iter().filter(|_| !schema_only) {
        if table.encoding == Encoding::CopyInSql {
            let columns: Vec<String> = table.columns.iter().map(|column| quote(column)).collect();
            let columns = if columns.is_empty() {
                String::new()
            } else {
                format!(" ({})", columns.join(", "))
            };
            let name = format!("{}.{}", quote(&table.schema), quote(&table.name));
            pieces.push(Piece::Text(format!("\nCOPY {name}{columns} FROM stdin;\n")));
            pieces.extend(table.data.iter().map(|range| Piece::Part(*range)));
            pieces.push(Piece::Text("\\.\n\n".to_owned()));
        } else {
            pieces.extend(table.data.iter().map(|range| Piece::Part(*range)));
            pieces.push(Piece::Text("\n".to_owned()));
        }
    }
    for table in tables {
        let after = table.definition.iter().filter(|range| range.start >= starts(table));
        pieces.extend(after.map(|range| Piece::Part(*range)));
    }
    pieces.push(Piece::Part(catalogue.trailer));
    pieces
}

/// Passes statements on, some of them changed.
struct Edited<'a> {
    target: &'a mut dyn StreamTarget,
    statements: Statements,
    edit: Edit<'a>,
}

impl StreamTarget for Edited<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let out = self.statements.push(bytes, self.edit);
        self.target.write(&out)
    }
}

/// Passes whole lines on, some of them changed.
struct Lines<'a> {
    target: &'a mut dyn StreamTarget,
    line: Vec<u8>,
    /// The current line is so long that its start was passed on already.
    is_long: bool,
    edit: LineEdit<'a>,
}

/// Longer lines are never changed.
const MAX_LINE: usize = 4096;

impl Lines<'_> {
    fn finish(&mut self) -> Result<()> {
        let line = std::mem::take(&mut self.line);
        match (self.edit)(&line) {
            None => self.target.write(&line),
            Some(other) => self.target.write(&other),
        }
    }
}

impl StreamTarget for Lines<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.is_long {
                self.target.write(part)?;
            } else {
                self.line.extend_from_slice(part);
            }
            if part.ends_with(b"\n") {
                self.is_long = false;
                self.finish()?;
            } else if self.line.len() > MAX_LINE {
                self.is_long = true;
                let line = std::mem::take(&mut self.line);
                self.target.write(&line)?;
            }
        }
        Ok(())
    }
}

/// A program at work; killed where it is dropped before its end.
pub(super) struct Running {
    child: Child,
    said: Option<JoinHandle<String>>,
}

impl Running {
    /// Starts it. What it says is kept for when it fails.
    pub fn start(mut command: Command, program: &str) -> Result<Self> {
        for secret in SECRETS {
            command.env_remove(secret);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| Error::Io {
            action: "start",
            path: program.to_owned(),
            source,
        })?;
        let mut errors = child.stderr.take().expect("it is a pipe");
        let said = std::thread::spawn(move || {
            use std::io::Read;
            let mut said = Vec::new();
            let _ = errors.by_ref().take(MAX_SAID).read_to_end(&mut said);
            let _ = std::io::copy(&mut errors, &mut std::io::sink());
            String::from_utf8_lossy(&said).into_owned()
        });
        Ok(Self { child, said: Some(said) })
    }

    /// Its standard input.
    pub fn take_stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("it is a pipe")
    }

    /// Does something that may wait for the program: the wish to stop ends the program, and so the wait.
    fn while_watched<T>(&self, progress: &Progress, run: impl FnOnce() -> T) -> T {
        let id = Pid::from_child(&self.child);
        let (done, is_done) = channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while is_done.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                    if progress.is_interrupted() {
                        let _ = kill_process(id, Signal::KILL);
                        return;
                    }
                }
            });
            let result = run();
            drop(done);
            result
        })
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.said = None;
    }

    /// Waits for its end, or for the wish to stop, which ends it.
    pub fn finish(mut self, program: &str, progress: &Progress) -> Result<()> {
        let io = |source| Error::Io { action: "wait for", path: program.to_owned(), source };
        let waiter = Patience::new(|| progress.is_interrupted());
        let mut wait = Duration::from_millis(1);
        let status = loop {
            if let Some(status) = self.child.try_wait().map_err(io)? {
                break status;
            }
            if !waiter.pause(wait) {
                return Err(Error::Interrupted);
            }
            wait = (wait * 2).min(Duration::from_millis(50));
        };
        let said = self.said.take().and_then(|said| said.join().ok()).unwrap_or_default();
        if !status.success() && progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        match (status.success(), said.trim()) {
            (true, _) => Ok(()),
            (false, "") => Err(source_error(program, status)),
            (false, said) => Err(source_error(program, said)),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.said.is_some() {
            self.kill();
        }
    }
}
