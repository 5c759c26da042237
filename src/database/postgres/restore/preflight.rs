//! Whether the target of a restore is fit for it: looked at before anything is changed.

use super::plan::Plan;
use super::{Origin, RestoreOptions};
use crate::database::postgres::client::Client;
use crate::database::postgres::error::PgError;
use crate::database::postgres::inspect::literal;
use crate::database::postgres::tools::{self, major};
use crate::database::{Surroundings, source_error};
use crate::error::Result;

/// How one thing turned out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Worth knowing.
    Warning,
    /// The restore would fail, or do harm.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Check {
    /// What.
    pub what: &'static str,
    /// How it turned out.
    pub verdict: Verdict,
    /// What was found, and what to do about it.
    pub detail: String,
}

struct Look<'a> {
    checks: Vec<Check>,
    options: &'a RestoreOptions,
}

impl Look<'_> {
    fn say(&mut self, what: &'static str, verdict: Verdict, detail: impl Into<String>) {
        self.checks.push(Check { what, verdict, detail: detail.into() });
    }
}

/// Looks at the target.
pub fn look(
    origin: &Origin<'_>,
    plan: &mut Plan,
    options: &RestoreOptions,
    surroundings: &Surroundings,
) -> Result<()> {
    let database = options.database();
    let failed = |error: PgError| source_error(&options.dsn().address(), error);
    let exists = connect(options, database);
    let mut look = Look { checks: Vec::new(), options };
    let (mut client, is_new) = match exists {
        Ok(client) => (client, false),
        // 3D000: there is no such database.
        Err(error) if error.code() == "3D000" => (maintenance(options).map_err(failed)?, true),
        Err(error) => return Err(failed(error)),
    };
    match (is_new, options.create) {
        (true, true) => look.say("database", Verdict::Good, format!("{database} will be made")),
        (true, false) => look.say(
            "database",
            Verdict::Bad,
            format!("there is no database {database}: --create makes it"),
        ),
        (false, true) => look.say(
            "database",
            Verdict::Bad,
            format!("{database} is there already: leave out --create, or name another"),
        ),
        (false, false) => look.say("database", Verdict::Good, format!("{database} is there")),
    }
    let version = client.parameter("server_version").to_owned();
    versions(&mut look, plan, origin, &version, surroundings);
    extensions(&mut look, origin, &mut client).map_err(failed)?;
    roles(&mut look, origin, &mut client).map_err(failed)?;
    space(&mut look, plan, &mut client);
    if !is_new {
        content(&mut look, plan, origin, &mut client).map_err(failed)?;
    }
    plan.checks = look.checks;
    Ok(())
}

fn connect(options: &RestoreOptions, database: &str) -> Result<Client, PgError> {
    Client::connect(&options.target.clone().with_database(database))
}

/// A session in a database that is always there.
pub fn maintenance(options: &RestoreOptions) -> Result<Client, PgError> {
    connect(options, "postgres").or_else(|_| connect(options, "template1"))
}

fn versions(
    look: &mut Look<'_>,
    plan: &mut Plan,
    origin: &Origin<'_>,
    version: &str,
    surroundings: &Surroundings,
) {
    let from = &origin.catalogue.server_version;
    if major(version) < major(from) {
        let text = format!("the snapshot is of PostgreSQL {from}, the target is {version}: older");
        look.say("version", Verdict::Bad, text);
    } else {
        look.say("version", Verdict::Good, format!("from {from} into {version}"));
    }
    let dumped_by = &plan.archive.toc.dump_version;
    let path = surroundings.path.as_deref();
    match tools::choose(look.options.bin_dir.as_deref(), path, dumped_by) {
        Ok(tools) => {
            let text = format!("pg_restore {} in {}", tools.version, tools.folder.display());
            look.say("programs", Verdict::Good, text);
            plan.tools = Some(tools);
        }
        Err(_) => {
            let text = format!("no pg_restore of version {dumped_by} or newer is installed");
            look.say("programs", Verdict::Bad, text);
        }
    }
}

fn extensions(
    look: &mut Look<'_>,
    origin: &Origin<'_>,
    client: &mut Client,
) -> Result<(), PgError> {
    let needed = &origin.catalogue.extensions;
    if needed.is_empty() || !look.options.tables.is_empty() || look.options.data_only {
        return Ok(());
    }
    let names: Vec<String> = needed.iter().map(|it| literal(&it.name)).collect();
    let available = client.query(&format!(
        "SELECT name FROM pg_catalog.pg_available_extensions WHERE name IN ({})",
        names.join(", ")
    ))?;
    let has = |name: &str| available.iter().flatten().flatten().any(|it| it == name);
    let missing: Vec<&str> =
        needed.iter().map(|it| it.name.as_str()).filter(|name| !has(name)).collect();
    match missing.is_empty() {
        true => look.say("extensions", Verdict::Good, format!("{} available", needed.len())),
        false => look.say(
            "extensions",
            Verdict::Bad,
            format!("not available on the target: {}", missing.join(", ")),
        ),
    }
    Ok(())
}

fn roles(look: &mut Look<'_>, origin: &Origin<'_>, client: &mut Client) -> Result<(), PgError> {
    if look.options.no_owner || look.options.data_only || look.options.into_schema.is_some() {
        return Ok(());
    }
    let rows = client.query("SELECT rolname FROM pg_catalog.pg_roles")?;
    let has = |name: &str| {
        name.eq_ignore_ascii_case("public") || rows.iter().flatten().flatten().any(|it| it == name)
    };
    let roles = origin.catalogue.roles.iter().map(String::as_str);
    let missing: Vec<&str> = roles.filter(|name| !name.is_empty() && !has(name)).collect();
    match missing.is_empty() {
        true => look.say("roles", Verdict::Good, "all owners and grantees are there"),
        false => look.say(
            "roles",
            Verdict::Bad,
            format!(
                "missing on the target: {}; make them (the stream {} has them), or leave out owners \
                 and grants with --no-owner",
                missing.join(", "),
                origin.catalogue.globals_stream
            ),
        ),
    }
    Ok(())
}

/// Free space can be told only where the server is on this machine and lets us look.
fn space(look: &mut Look<'_>, plan: &Plan, client: &mut Client) {
    let folder = client.value("SHOW data_directory").unwrap_or_default();
    let is_here = look.options.target.socket().is_some();
    let free = rustix::fs::statvfs(folder.as_str()).ok().filter(|_| is_here && !folder.is_empty());
    let need = plan.bytes() * 2;
    match free.map(|it| it.f_bavail * it.f_frsize) {
        Some(free) if free < need => look.say(
            "space",
            Verdict::Warning,
            format!("{} MB are free in {folder}, about {} MB are needed", mb(free), mb(need)),
        ),
        Some(free) => look.say(
            "space",
            Verdict::Good,
            format!("{} MB are free, about {} MB are needed", mb(free), mb(need)),
        ),
        None => look.say(
            "space",
            Verdict::Warning,
            format!("about {} MB are needed; how much is free cannot be told", mb(need)),
        ),
    }
}

fn mb(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}

/// What stands in the target already.
fn content(
    look: &mut Look<'_>,
    plan: &Plan,
    origin: &Origin<'_>,
    client: &mut Client,
) -> Result<(), PgError> {
    let options = look.options;
    let database = options.database();
    let rows = client.query(
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND n.nspname !~ '^pg_'
           AND n.nspname <> 'information_schema' AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
             WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid
               AND d.deptype = 'e')",
    )?;
    let there = |schema: &str, name: &str| {
        rows.iter().any(|row| row[0].as_deref() == Some(schema) && row[1].as_deref() == Some(name))
    };
    let schema_of = |table: &str| options.into_schema.clone().unwrap_or_else(|| table.to_owned());
    let mut tables = plan.loads.iter().map(|load| &load.table);
    let clash = tables.clone().find(|it| there(&schema_of(&it.schema), &it.name));
    if options.data_only {
        match tables.find(|it| !there(&it.schema, &it.name)) {
            Some(table) => {
                let text = format!("{}.{} is not there to be filled", table.schema, table.name);
                look.say("content", Verdict::Bad, text);
            }
            None => consent(look, origin, client, "rows are added to tables that are there")?,
        }
        return Ok(());
    }
    if options.clean && !rows.is_empty() {
        return consent(look, origin, client, "what the snapshot holds is dropped first");
    }
    let is_partial = !options.tables.is_empty();
    match clash {
        Some(table) => look.say(
            "content",
            Verdict::Bad,
            format!(
                "{database} holds {}.{} already: --clean drops it first, --into-schema restores beside \
                 it",
                schema_of(&table.schema),
                table.name
            ),
        ),
        None if rows.is_empty() || is_partial => {
            look.say("content", Verdict::Good, format!("nothing in {database} is in the way"));
        }
        None => look.say(
            "content",
            Verdict::Bad,
            format!(
                "{database} is not empty ({} tables, views and sequences): restore into a new one with \
                 --database NEW --create, or drop what is in the way with --clean",
                rows.len()
            ),
        ),
    }
    Ok(())
}

/// What harms a database needs its name.
fn consent(
    look: &mut Look<'_>,
    origin: &Origin<'_>,
    client: &mut Client,
    what: &str,
) -> Result<(), PgError> {
    let options = look.options;
    let database = options.database();
    let system_id = client.value("SELECT system_identifier FROM pg_catalog.pg_control_system()");
    let is_source = system_id.is_ok_and(|id| id == origin.catalogue.position.system_id)
        && database == origin.catalogue.database;
    let live = if is_source { " This is the database that the snapshot was made of." } else { "" };
    if options.overwrite.as_deref() == Some(database) {
        look.say("content", Verdict::Warning, format!("{what}.{live}"));
    } else {
        let text = format!("{what}.{live} Confirm it with --yes-overwrite {database}");
        look.say("content", Verdict::Bad, text);
    }
    Ok(())
}
