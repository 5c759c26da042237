//! Carrying out a plan, part by part, and saying how far it came where it fails.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::load::{Loaded, load_all};
use super::plan::Plan;
use super::{Origin, RestoreOptions, RestoreReport, objects, preflight};
use crate::catalogue::toc::TocEntry;
use crate::database::postgres::client::Client;
use crate::database::postgres::error::PgError;
use crate::database::postgres::inspect::quote;
use crate::database::pour::Running;
use crate::database::{Surroundings, source_error};
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
        run().map_err(|error| with_state(error, name, &done, &loaded, options))?;
        done.push(name);
        report.phases.push((name, started.elapsed().as_secs_f64()));
        Ok(())
    };
    if options.create {
        part("create", &mut || create(plan, options))?;
    }
    if options.clean {
        part("clean", &mut || clean(plan, options))?;
    }
    let moved = options.into_schema.as_deref();
    if !plan.pre_data.is_empty() {
        part("definitions", &mut || runner.restore(&plan.pre_data, 1))?;
    } else if let Some(schema) = moved {
        part("definitions", &mut || moved_tables(plan, options, schema, &["TABLE"]))?;
    }
    if !plan.loads.is_empty() {
        part("rows", &mut || load_all(origin, plan, options, progress, &loaded))?;
    }
    if !plan.data.is_empty() {
        part("objects", &mut || objects::restore(origin, plan, &runner, progress))?;
    }
    if !plan.post_data.is_empty() {
        part("keys", &mut || runner.restore(&plan.post_data, options.jobs))?;
    } else if let Some(schema) = moved {
        part("keys", &mut || moved_tables(plan, options, schema, &["CONSTRAINT", "INDEX"]))?;
    }
    report.tables = loaded.tables.load(Ordering::Relaxed);
    report.rows = loaded.rows.load(Ordering::Relaxed);
    report.bytes = loaded.bytes.load(Ordering::Relaxed);
    Ok(report)
}

/// An error with how far the restore came, and how to go on.
fn with_state(
    error: Error,
    failed: &str,
    done: &[&'static str],
    loaded: &Loaded,
    options: &RestoreOptions,
) -> Error {
    if matches!(error, Error::Interrupted) && done.is_empty() {
        return error;
    }
    let database = options.database();
    let tables = loaded.tables.load(Ordering::Relaxed);
    let done = if done.is_empty() { "nothing".to_owned() } else { done.join(", ") };
    let again = if options.data_only {
        "tables that were loaded are complete: name the others with --table".to_owned()
    } else {
        format!(
            "to go on, run it again with --clean --yes-overwrite {database}{}",
            if options.create { " instead of --create" } else { "" }
        )
    };
    source_error(
        &options.dsn().address(),
        format!("{failed} failed: {error} (done: {done}; {tables} tables loaded; {again})"),
    )
}

fn create(plan: &Plan, options: &RestoreOptions) -> Result<()> {
    let mut client = preflight::maintenance(options).map_err(|error| named(options, error))?;
    let entry = plan.archive.toc.entries.iter().find(|entry| entry.desc == "DATABASE");
    // CREATE DATABASE shop WITH TEMPLATE = template0 ENCODING = …
    let rest = entry.and_then(|entry| entry.defn.split_once(" WITH ")).map(|(_, rest)| rest);
    let rest = rest.map_or("TEMPLATE = template0", |rest| rest.trim().trim_end_matches(';'));
    // It stands last.
    let place = rest.find(" TABLESPACE = ").filter(|_| options.no_tablespaces);
    let rest = &rest[..place.unwrap_or(rest.len())];
    let sql = format!("CREATE DATABASE {} WITH {rest}", quote(options.database()));
    client.query(&sql).map_err(|error| named(options, error))?;
    Ok(())
}

fn named(options: &RestoreOptions, error: PgError) -> Error {
    source_error(&options.target.address(), error)
}

fn session(plan: &Plan, options: &RestoreOptions) -> Result<Client> {
    let mut client = Client::connect(&options.dsn()).map_err(|error| named(options, error))?;
    let encoding = plan.archive.encoding();
    client.query(encoding).map_err(|error| named(options, error))?;
    Ok(client)
}

/// Drops what the snapshot holds, the last made first, all or nothing.
fn clean(plan: &Plan, options: &RestoreOptions) -> Result<()> {
    let mut client = session(plan, options)?;
    let mut sql = String::from("BEGIN;\n");
    let wanted = |entry: &&TocEntry| plan.pre_data.contains(&entry.dump_id);
    for entry in plan.archive.toc.entries.iter().rev().filter(wanted) {
        if entry.desc.starts_with("BLOB") {
            sql.push_str(&unlink(entry));
        }
        let verb = format!("DROP {} ", entry.desc);
        if let Some(rest) = entry.drop_stmt.trim().strip_prefix(&verb) {
            let rest = rest.trim_end_matches(';');
            sql.push_str(&format!("{verb}IF EXISTS {rest} CASCADE;\n"));
        }
    }
    sql.push_str("COMMIT");
    client.query(&sql).map_err(|error| named(options, error))?;
    Ok(())
}

/// Removes large objects, those that are there: one by its tag, or up to a thousand by their list
/// (PostgreSQL 17).
fn unlink(entry: &TocEntry) -> String {
    let text = if entry.desc == "BLOB" { &entry.tag } else { &entry.defn };
    let numbers = text.split(|letter: char| !letter.is_ascii_digit());
    let numbers: Vec<&str> = numbers.filter(|number| !number.is_empty()).collect();
    if numbers.is_empty() || entry.desc == "BLOBS" {
        return String::new();
    }
    format!(
        "SELECT pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata
         WHERE oid = ANY ('{{{}}}'::pg_catalog.oid[]);\n",
        numbers.join(",")
    )
}

/// Makes tables, or their keys, in another schema.
fn moved_tables(plan: &Plan, options: &RestoreOptions, schema: &str, kinds: &[&str]) -> Result<()> {
    let mut client = session(plan, options)?;
    let make = format!("CREATE SCHEMA IF NOT EXISTS {}", quote(schema));
    client.query(&make).map_err(|error| named(options, error))?;
    for load in &plan.loads {
        for entry in &plan.archive.toc.entries {
            let (name, of) = (&load.table.name, &load.table.schema);
            if !kinds.contains(&entry.desc.as_str()) || entry.namespace != *of {
                continue;
            }
            if let Some(sql) = moved(&entry.defn, of, name, &load.target) {
                client.query(&sql).map_err(|error| named(options, error))?;
            }
        }
    }
    Ok(())
}

/// A definition of a table, or of something on it, about a table of another name. `None` where it is of
/// another table.
fn moved(definition: &str, schema: &str, name: &str, target: &str) -> Option<String> {
    let spellings = |part: &str| [part.to_owned(), quote(part)];
    let head = definition.find(['(', '\n']).unwrap_or(definition.len());
    for schema in spellings(schema) {
        for name in spellings(name) {
            let whole = format!(" {schema}.{name}");
            let Some(at) = definition[..head].find(&whole) else { continue };
            let after = definition[at + whole.len()..].chars().next();
            if after.is_none_or(|letter| letter.is_whitespace() || letter == '(') {
                let rest = &definition[at + whole.len()..];
                return Some(format!("{} {target}{rest}", &definition[..at]));
            }
        }
    }
    None
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
        let mut command = Command::new(program.unwrap_or_else(|| "pg_restore".into()));
        let dsn = self.options.dsn();
        command.arg("--dbname").arg(dsn.words()).args(["--no-password", "--exit-on-error"]);
        if self.options.no_owner {
            command.args(["--no-owner", "--no-privileges"]);
        }
        if self.options.no_tablespaces {
            command.arg("--no-tablespaces");
        }
        if let Some(password) = dsn.password() {
            command.env("PGPASSWORD", password.as_str());
        }
        command
    }

    fn restore(&self, entries: &HashSet<i32>, jobs: usize) -> Result<()> {
        let keep = |entry: &TocEntry| entries.contains(&entry.dump_id);
        let file = self.plan.archive.write(self.folder, keep)?;
        let mut command = self.pg_restore();
        if jobs > 1 {
            command.arg(format!("--jobs={jobs}"));
        }
        command.arg(file.path());
        let mut running = Running::start(command, "pg_restore")?;
        drop(running.take_stdin());
        running.finish("pg_restore", self.progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_moved() {
        let sql = "CREATE TABLE public.orders (\n    id integer\n);";
        let to = "\"new\".\"orders\"";
        let expected = "CREATE TABLE \"new\".\"orders\" (\n    id integer\n);";
        assert_eq!(moved(sql, "public", "orders", to).as_deref(), Some(expected));
        assert_eq!(moved(sql, "public", "order", to), None);
        let sql = "CREATE INDEX i ON public.\"Or ders\" USING btree (x);";
        let expected = "CREATE INDEX i ON x USING btree (x);";
        assert_eq!(moved(sql, "public", "Or ders", "x").as_deref(), Some(expected));
        let sql = "ALTER TABLE ONLY public.a\n    ADD CONSTRAINT b PRIMARY KEY (c);";
        assert!(
            moved(sql, "public", "a", "x").is_some_and(|it| it.starts_with("ALTER TABLE ONLY x"))
        );
    }
}
