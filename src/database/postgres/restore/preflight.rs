//! Whether the target of a restore is fit for it: looked at before anything is changed.

use std::collections::HashSet;

use super::plan::Plan;
use super::session::{Target, named};
use super::{Origin, RestoreOptions, content, roles};
use crate::database::Surroundings;
use crate::database::postgres::client::Client;
use crate::database::postgres::error::PgError;
use crate::database::postgres::inspect::literal;
use crate::database::postgres::tools::{self, major};
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

/// What was looked at so far.
pub struct Look<'a> {
    checks: Vec<Check>,
    /// What is asked for.
    pub options: &'a RestoreOptions,
}

impl Look<'_> {
    /// Adds how one thing turned out.
    pub fn say(&mut self, what: &'static str, verdict: Verdict, detail: impl Into<String>) {
        self.checks.push(Check { what, verdict, detail: detail.into() });
    }
}

/// Looks at the target. `there` are the numbers of the entries that it has already.
pub fn look(
    origin: &Origin<'_>,
    plan: &mut Plan,
    target: Target,
    there: &HashSet<i32>,
    options: &RestoreOptions,
    surroundings: &Surroundings,
) -> Result<()> {
    let database = options.database();
    let failed = |error: PgError| named(options, error);
    let mut look = Look { checks: Vec::new(), options };
    let Target { mut client, is_new } = target;
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
    extensions(&mut look, plan, &mut client).map_err(failed)?;
    roles::look(&mut look, plan, origin, &mut client).map_err(failed)?;
    space(&mut look, plan, &mut client);
    content::say_rows(&mut look, plan);
    if !is_new {
        content::links(&mut look, plan, there, &mut client).map_err(failed)?;
        content::look(&mut look, plan, origin, there, &mut client).map_err(failed)?;
    }
    plan.checks = look.checks;
    Ok(())
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

fn extensions(look: &mut Look<'_>, plan: &Plan, client: &mut Client) -> Result<(), PgError> {
    let entries =
        plan.archive.toc.entries.iter().filter(|entry| {
            entry.desc == "EXTENSION" && plan.choice.pre_data.contains(&entry.dump_id)
        });
    let needed: Vec<&str> = entries.map(|entry| entry.tag.as_str()).collect();
    if needed.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = needed.iter().map(|it| literal(it)).collect();
    let available = client.query(&format!(
        "SELECT name FROM pg_catalog.pg_available_extensions WHERE name IN ({})",
        names.join(", ")
    ))?;
    let has = |name: &str| available.iter().flatten().flatten().any(|it| it == name);
    let missing: Vec<&str> = needed.iter().copied().filter(|name| !has(name)).collect();
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
