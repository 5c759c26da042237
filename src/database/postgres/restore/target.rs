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
use super::{Origin, RestoreOptions, RestoreReport, objects, preflight};
use crate::catalogue::selection::list_text;
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
        part("definitions", &mut || {
            if !options.tables.is_empty() {
                make_schemas(plan, options)?;
            }
            runner.restore(&plan.pre_data, 1)
        })?;
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
    if options.create && options.tables.is_empty() {
        part("properties", &mut || set_properties(plan, options))?;
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
    let tables = loaded.tables.load(Ordering::Relaxed);
    if done.is_empty() && tables == 0 && failed != "definitions" {
        return error;
    }
    let database = options.database();
    let done = if done.is_empty() { "nothing".to_owned() } else { done.join(", ") };
    let again = if options.data_only {
        "tables that were loaded are complete: name the others with --table".to_owned()
    } else {
        format!(
            "to go on, run it again with --clean --yes-overwrite {database}{}",
            if options.create { " instead of --create" } else { "" }
        )
    };
    let state = format!("done: {done}; {tables} tables loaded; {again}");
    Error::HalfWay { part: failed.to_owned(), state, source: Box::new(error) }
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

pub fn named(options: &RestoreOptions, error: PgError) -> Error {
    source_error(&options.target.address(), error)
}

/// A session in the target, in the encoding of the definitions.
pub fn session(plan: &Plan, options: &RestoreOptions) -> Result<Client> {
    let mut client = Client::connect(&options.dsn()).map_err(|error| named(options, error))?;
    let encoding = plan.archive.encoding();
    client.query(encoding).map_err(|error| named(options, error))?;
    Ok(client)
}

/// What is set on the database itself, under its new name: owner, grants, comment, settings.
fn set_properties(plan: &Plan, options: &RestoreOptions) -> Result<()> {
    let mut entries = plan.archive.toc.entries.iter();
    let Some(made) = entries.find(|entry| entry.desc == "DATABASE") else { return Ok(()) };
    let mut client = session(plan, options)?;
    let new = quote(options.database());
    let mut sql = Vec::new();
    if !options.no_owner && !made.owner.is_empty() {
        sql.push(format!("ALTER DATABASE {new} OWNER TO {}", quote(&made.owner)));
    }
    let own = |entry: &&TocEntry| match entry.desc.as_str() {
        "DATABASE PROPERTIES" => true,
        "COMMENT" | "SECURITY LABEL" => entry.tag.starts_with("DATABASE "),
        "ACL" => entry.tag.starts_with("DATABASE ") && !options.no_owner,
        _ => false,
    };
    for entry in plan.archive.toc.entries.iter().filter(own) {
        sql.push(renamed(&entry.defn, &made.tag, &new));
    }
    for sql in sql {
        client.query(&sql).map_err(|error| named(options, error))?;
    }
    Ok(())
}

/// Statements about a database, one a line, about another one: only the first name of a line is its,
/// others stand in texts.
fn renamed(definition: &str, old: &str, new: &str) -> String {
    let spellings = [old.to_owned(), quote(old)].map(|old| format!(" DATABASE {old} "));
    let line = |line: &str| {
        let found = spellings.iter().filter_map(|it| line.split_once(it.as_str()));
        match found.min_by_key(|(before, _)| before.len()) {
            Some((before, after)) => format!("{before} DATABASE {new} {after}"),
            None => line.to_owned(),
        }
    };
    definition.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Makes the schemas of tables that are restored alone.
fn make_schemas(plan: &Plan, options: &RestoreOptions) -> Result<()> {
    let mut client = session(plan, options)?;
    let schemas: std::collections::BTreeSet<&str> =
        plan.loads.iter().map(|load| load.table.schema.as_str()).collect();
    for schema in schemas {
        let make = format!("CREATE SCHEMA IF NOT EXISTS {}", quote(schema));
        client.query(&make).map_err(|error| named(options, error))?;
    }
    Ok(())
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
            let definition = first_statement(&entry.defn);
            if let Some(sql) = moved(definition, of, name, &load.target) {
                if definition.contains("\nINHERITS (") {
                    let text = format!(
                        "{of}.{name} inherits from another table: it cannot be restored \
                                        into another schema"
                    );
                    return Err(Error::Usage(text));
                }
                client.query(&sql).map_err(|error| named(options, error))?;
            }
        }
    }
    Ok(())
}

/// The statement that makes something, without those that change it afterwards: they would name what is live.
fn first_statement(definition: &str) -> &str {
    definition.find(";\n").map_or(definition, |end| &definition[..=end])
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

    fn restore(&self, entries: &HashSet<i32>, jobs: usize) -> Result<()> {
        // The whole head, and a list of what is wanted of it: several jobs must know what depends on what.
        let archive = &self.plan.archive;
        let file = archive.write(self.folder)?;
        let ids = archive.toc.entries.iter().map(|entry| entry.dump_id);
        let ids: Vec<i32> = ids.filter(|id| entries.contains(id)).collect();
        let list = temporary(self.folder, list_text(&ids).as_bytes())?;
        let mut command = self.pg_restore();
        if jobs > 1 {
            command.arg(format!("--jobs={jobs}"));
        }
        command.arg("--use-list").arg(list.path()).arg(file.path());
        let mut running = Running::start(command, "pg_restore")?;
        drop(running.take_stdin());
        running.finish("pg_restore", self.progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_about_a_database_name_the_new_one() {
        let sql = "REVOKE ALL ON DATABASE shop FROM PUBLIC;\nGRANT ALL ON DATABASE shop TO x;\n";
        let expected =
            "REVOKE ALL ON DATABASE \"n\" FROM PUBLIC;\nGRANT ALL ON DATABASE \"n\" TO x;\n";
        assert_eq!(renamed(sql, "shop", "\"n\""), expected);
        let sql = "COMMENT ON DATABASE \"a b\" IS 'the DATABASE a b is old';";
        let expected = "COMMENT ON DATABASE n IS 'the DATABASE a b is old';";
        assert_eq!(renamed(sql, "a b", "n"), expected);
    }

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
