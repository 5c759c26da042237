//! Loading the rows of tables by `COPY`, several tables at a time, each in a transaction of its own.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::plan::{Plan, TableLoad};
use super::{Origin, RestoreOptions, session};
use crate::database::postgres::client::Client;
use crate::database::postgres::error::PgError;
use crate::database::rows::copy_rows;
use crate::database::source_error;
use crate::error::{Error, Result};
use crate::progress::{Part, Progress};
use crate::restore::StreamTarget;

/// What was loaded.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Tables.
    pub tables: AtomicU64,
    /// Rows of them.
    pub rows: AtomicU64,
    /// Bytes of those.
    pub bytes: AtomicU64,
    /// Where the tables go that are complete.
    done: Mutex<HashSet<String>>,
}

impl Loaded {
    /// How to load what is missing, and nothing twice.
    pub fn rest(&self, plan: &Plan) -> String {
        let done = self.done.lock().expect("no panics here");
        let left = plan.loads.iter().filter(|load| !done.contains(&load.target));
        let words: Vec<String> = left
            .map(|it| format!("--table '{}.{}'", it.table.schema, it.table.name).replace('\n', " "))
            .collect();
        format!(
            "tables that were loaded are complete, and would be doubled; to go on, run it again with {}",
            words.join(" ")
        )
    }
}

/// Loads all tables of a plan. The first error stops the others.
pub fn load_all(
    origin: &Origin<'_>,
    plan: &Plan,
    options: &RestoreOptions,
    progress: &Progress,
    loaded: &Loaded,
) -> Result<()> {
    progress.total_bytes.store(plan.bytes(), Ordering::Relaxed);
    progress.total_parts.store(plan.loads.len() as u64, Ordering::Relaxed);
    let queue = Mutex::new(plan.loads.iter());
    let failed = AtomicBool::new(false);
    let worker = || {
        let work = || -> Result<()> {
            let mut client = open(plan, options)?;
            while !failed.load(Ordering::Relaxed) {
                let Some(load) = queue.lock().expect("no panics here").next() else { break };
                one(origin, &mut client, load, progress, loaded)?;
            }
            Ok(())
        };
        work().inspect_err(|_| failed.store(true, Ordering::Relaxed))
    };
    let workers = options.jobs.clamp(1, plan.loads.len().max(1));
    let mut ended: Vec<Result<()>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<()>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    });
    ended.sort_by_key(|it| matches!(it, Err(Error::Interrupted)));
    ended.into_iter().collect()
}

fn open(plan: &Plan, options: &RestoreOptions) -> Result<Client> {
    let dsn = options.dsn();
    let mut client = session::session(&plan.archive, options)?;
    if options.data_only {
        // Foreign keys and triggers must not look at rows that are only half there. Only superusers may.
        client.query("SET session_replication_role = replica").map_err(|error| {
            let why = "--data-only must keep triggers from changing rows, which this role may not";
            source_error(&dsn.address(), format!("{why}: {error}"))
        })?;
    }
    Ok(client)
}

fn one(
    origin: &Origin<'_>,
    client: &mut Client,
    load: &TableLoad,
    progress: &Progress,
    loaded: &Loaded,
) -> Result<()> {
    let table = format!("{}.{}", load.table.schema, load.table.name);
    let failed = |error: PgError| source_error(&table, error);
    client.query("BEGIN").map_err(failed)?;
    let mut copy = load.copy.clone();
    if load.is_new {
        // The server need not log rows of a table that is new in the same transaction, nor look at
        // them again later.
        client.query(&format!("TRUNCATE TABLE ONLY {}", load.target)).map_err(failed)?;
        copy.push_str(" WITH (FREEZE)");
    }
    client.copy_in(&copy).map_err(failed)?;
    let part = progress.part(table.clone());
    let mut rows = Rows { client, target: &load.target, bytes: 0, part: &part };
    let copied = copy_rows(origin, &load.table, &mut rows, progress);
    let bytes = rows.bytes;
    if let Err(error) = copied {
        let _ = client.copy_fail("the rows could not be read from the repository");
        let _ = client.query("ROLLBACK");
        return Err(error);
    }
    let count = client.copy_done().map_err(failed)?;
    if count != load.table.rows {
        let _ = client.query("ROLLBACK");
        let text = format!("the server took {count} rows, the snapshot has {}", load.table.rows);
        return Err(source_error(&table, text));
    }
    client.query("COMMIT").map_err(failed)?;
    loaded.done.lock().expect("no panics here").insert(load.target.clone());
    loaded.tables.fetch_add(1, Ordering::Relaxed);
    loaded.rows.fetch_add(count, Ordering::Relaxed);
    loaded.bytes.fetch_add(bytes, Ordering::Relaxed);
    Ok(())
}

/// Rows on their way into a `COPY`.
struct Rows<'a> {
    client: &'a mut Client,
    target: &'a str,
    bytes: u64,
    part: &'a Part<'a>,
}

impl StreamTarget for Rows<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.part.add(bytes.len() as u64);
        self.client.copy_write(bytes).map_err(|error| {
            // What the server has to say stands at the end of the conversation.
            let said = match error {
                PgError::Server(_) => error,
                other => self.client.copy_done().err().unwrap_or(other),
            };
            source_error(self.target, said)
        })
    }
}
