//! Carrying out a plan, part by part, and saying how far it came where it fails.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::archive::temporary;
use super::clean::clean;
use super::load::{Loaded, load_all};
use super::plan::Plan;
use super::{
    Origin, RestoreOptions, RestoreReport, grants, links, moved, objects, properties, references,
};
use crate::catalogue::selection::list_text;
use crate::database::Surroundings;
use crate::database::pour::Running;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Carries out a plan.
pub fn execute(
    origin: &Origin<'_>,
    plan: &Plan,
    options: &RestoreOptions,
    surroundings: &Surroundings,
    progress: &Arc<Progress>,
) -> Result<RestoreReport> {
    if let Some(check) = plan.refusal() {
        return Err(Error::Conflict(format!("{}: {}", check.what, check.detail)));
    }
    let runner = Runner { plan, options, folder: &surroundings.temporary, progress };
    let mut report = RestoreReport::default();
    let loaded = Loaded::default();
    let mut done: Vec<&'static str> = Vec::new();
    let mut part = |name: &'static str, run: &mut dyn FnMut() -> Result<()>| -> Result<()> {
        if progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        let started = Instant::now();
        run().map_err(|error| with_state(error, name, &done, &loaded, plan, options))?;
        done.push(name);
        report.phases.push((name, started.elapsed().as_secs_f64()));
        Ok(())
    };
    let choice = &plan.choice;
    let mut warnings = choice.warnings.clone();
    if options.create {
        part("create", &mut || properties::create(plan, options))?;
    }
    if options.clean {
        part("clean", &mut || clean(plan, options))?;
    }
    let moved = options.into_schema.as_deref();
    if !choice.pre_data.is_empty() {
        part("definitions", &mut || definitions(&runner))?;
    } else if let Some(schema) = moved {
        part("definitions", &mut || moved::make(plan, options, schema, &["TABLE"]))?;
    }
    if !plan.loads.is_empty() {
        part("rows", &mut || load_all(origin, plan, options, progress, &loaded))?;
    }
    if !choice.data.is_empty() || !choice.forward.is_empty() {
        part("objects", &mut || objects::restore(origin, plan, options, &runner, progress))?;
    }
    if !choice.post_data.is_empty() {
        part("keys", &mut || keys(&runner))?;
    } else if let Some(schema) = moved {
        part("keys", &mut || moved::make(plan, options, schema, &["CONSTRAINT", "INDEX"]))?;
    }
    if !choice.links.is_empty() {
        part("links", &mut || links::tie(plan, options, &mut warnings))?;
    }
    if options.data_only && !plan.loads.is_empty() {
        part("references", &mut || references::check(plan, options))?;
    }
    if options.create && options.tables.is_empty() {
        part("properties", &mut || properties::set(plan, options, &mut warnings))?;
    }
    report.warnings = warnings;
    report.tables = loaded.tables.load(Ordering::Relaxed);
    report.rows = loaded.rows.load(Ordering::Relaxed);
    report.bytes = loaded.bytes.load(Ordering::Relaxed);
    Ok(report)
}

/// Makes what the rows go into.
fn definitions(runner: &Runner<'_>) -> Result<()> {
    let Runner { plan, options, .. } = runner;
    let is_part = !options.tables.is_empty();
    if is_part {
        moved::make_schemas(plan, options)?;
    }
    let how = if is_small_part(plan, options) { How::AllOrNothing } else { How::One };
    runner.restore(&plan.choice.pre_data, how)?;
    if !options.create && !options.no_owner {
        grants::forget(plan, options)?;
    }
    Ok(())
}

/// Makes keys, indexes, triggers and what else comes after rows. Indexes of partitions are attached one after the
/// other, with nothing beside it: two at a time, or one beside a foreign key of the same table, wait for each
/// other's locks for ever, or leave the index of the whole table invalid.
fn keys(runner: &Runner<'_>) -> Result<()> {
    let Runner { plan, options, .. } = runner;
    let jobs = || How::Jobs(options.jobs);
    let all = &plan.choice.post_data;
    let of = |wanted: &dyn Fn(&str) -> bool| -> HashSet<i32> {
        let entries = plan.archive.toc.entries.iter().filter(|it| all.contains(&it.dump_id));
        entries.filter(|it| wanted(&it.desc)).map(|it| it.dump_id).collect()
    };
    let attached = of(&|kind| kind == "INDEX ATTACH");
    if attached.is_empty() {
        return runner.restore(all, jobs());
    }
    let is_index = |kind: &str| matches!(kind, "INDEX" | "CONSTRAINT");
    runner.restore(&of(&is_index), jobs())?;
    runner.restore(&attached, How::One)?;
    runner.restore(&of(&|kind| !is_index(kind) && kind != "INDEX ATTACH"), jobs())
}

/// Entries that a server has locks for in one transaction, however few it is set up for.
const SMALL: usize = 500;

fn is_small_part(plan: &Plan, options: &RestoreOptions) -> bool {
    !options.tables.is_empty() && plan.choice.pre_data.len() <= SMALL
}

/// An error with how far the restore came, and how to go on.
fn with_state(
    error: Error,
    failed: &str,
    done: &[&'static str],
    loaded: &Loaded,
    plan: &Plan,
    options: &RestoreOptions,
) -> Error {
    let tables = loaded.tables.load(Ordering::Relaxed);
    let is_whole = failed != "definitions" || is_small_part(plan, options);
    if done.is_empty() && tables == 0 && is_whole {
        return error;
    }
    let database = options.database();
    let done = if done.is_empty() { "nothing".to_owned() } else { done.join(", ") };
    let again = if options.data_only {
        loaded.rest(plan)
    } else if options.create {
        format!("to go on, drop the database {database}, which it made, and run it again")
    } else {
        format!("to go on, run it again with --clean --yes-overwrite {database}")
    };
    let state = format!("done: {done}; {tables} tables loaded; {again}");
    Error::HalfWay { part: failed.to_owned(), state, source: Box::new(error) }
}

/// How entries are restored.
enum How {
    /// One after the other.
    One,
    /// In one transaction: few enough for the server's locks.
    AllOrNothing,
    /// Several at a time.
    Jobs(usize),
}

/// Runs `pg_restore`.
pub struct Runner<'a> {
    plan: &'a Plan,
    options: &'a RestoreOptions,
    folder: &'a Path,
    progress: &'a Progress,
}

impl Runner<'_> {
    /// The command, told where to restore to and to stop at the first error.
    pub fn pg_restore(&self) -> Command {
        let program = self.plan.tools.as_ref().map(|tools| tools.program("pg_restore"));
        let mut command =
            self.options.dsn().command(&program.unwrap_or_else(|| "pg_restore".into()));
        command.arg("--exit-on-error");
        if self.options.no_owner {
            command.args(["--no-owner", "--no-privileges"]);
        }
        if self.options.no_tablespaces {
            command.arg("--no-tablespaces");
        }
        command
    }

    fn restore(&self, entries: &HashSet<i32>, how: How) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        // The whole head, and a list of what is wanted of it: several jobs must know what depends on what.
        let archive = &self.plan.archive;
        let file = archive.write(self.folder)?;
        let ids = archive.toc.entries.iter().map(|entry| entry.dump_id);
        let ids: Vec<i32> = ids.filter(|id| entries.contains(id)).collect();
        let list = temporary(self.folder, list_text(&ids).as_bytes())?;
        let mut command = self.pg_restore();
        match how {
            How::One => {}
            How::AllOrNothing => drop(command.arg("--single-transaction")),
            How::Jobs(jobs) => drop(command.arg(format!("--jobs={}", jobs.max(1)))),
        }
        command.arg("--use-list").arg(list.path()).arg(file.path());
        let mut running = Running::start(command, "pg_restore")?;
        drop(running.take_stdin());
        running.finish("pg_restore", self.progress)
    }
}
