use std::io::{IsTerminal, Write};

use anyhow::Result;
use clap::Args;
use restow::catalogue::{Catalogue, Mode};
use restow::database::postgres::dsn::Dsn;
use restow::database::postgres::restore as postgres;
use restow::database::postgres::restore::{Check, Origin, RestoreOptions, Step, Verdict};
use restow::database::verify::catalogues;
use restow::database::without_password;
use restow::error::Error;
use restow::repository::Repository;
use restow::repository::snapshots::NamedSnapshot;
use restow::settings::{SourceConfig, SourceKind, ad_hoc};

use super::restore_other as other;
use crate::cli::{Global, interrupt, output, sources};

/// Where a database goes, and what of it.
#[derive(Args)]
#[command(next_help_heading = "Databases")]
pub struct IntoArgs {
    /// Put the database back into this server or file: postgres://…, mysql://… or sqlite:PATH
    #[arg(long, value_name = "DSN", conflicts_with = "target")]
    pub into: Option<String>,
    /// Of the snapshots of this source; without --into, back where it came from
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// The database to restore into, instead of the one that the address names
    #[arg(long, value_name = "NAME")]
    pub(super) database: Option<String>,
    /// Make the database first
    #[arg(long, conflicts_with = "clean")]
    pub(super) create: bool,
    /// Drop first what the snapshot holds; refused where something else depends on it. Tables whose rows
    /// the snapshot lacks stay as they are
    #[arg(long, conflicts_with_all = ["data_only", "into_schema"])]
    clean: bool,
    /// Only this table, SCHEMA.TABLE; * and ? stand for letters (may be given several times)
    #[arg(long, value_name = "TABLE")]
    pub(super) table: Vec<String>,
    /// Restore the tables into this schema, beside those that are there: rows, keys and indexes
    #[arg(
        long,
        value_name = "SCHEMA",
        requires = "table",
        conflicts_with_all = ["schema_only", "data_only"]
    )]
    into_schema: Option<String>,
    /// Definitions only
    #[arg(long, conflicts_with = "data_only")]
    pub(super) schema_only: bool,
    /// Rows only, into tables that are there; sequences never go back
    #[arg(long)]
    pub(super) data_only: bool,
    /// Tables loaded and indexes built at a time
    #[arg(short, long, value_name = "N", default_value = "2")]
    jobs: u16,
    /// The name of the database that may be overwritten; asked for on a terminal where it is needed
    #[arg(long, value_name = "NAME")]
    pub(super) yes_overwrite: Option<String>,
    /// The stream, where the snapshot has several dumps
    #[arg(long, value_name = "STREAM")]
    pub(super) stream: Option<String>,
}

/// Options that restores of files have as well.
#[derive(Clone, Copy)]
pub struct How {
    pub no_owner: bool,
    pub dry_run: bool,
}

impl IntoArgs {
    /// Refuses options that restores of an engine do not have: passing over them would do what was not
    /// asked for.
    pub(super) fn only(&self, engine: &str, known: &[&str]) -> Result<(), Error> {
        let given = [
            ("--database", self.database.is_some()),
            ("--create", self.create),
            ("--clean", self.clean),
            ("--table", !self.table.is_empty()),
            ("--into-schema", self.into_schema.is_some()),
            ("--schema-only", self.schema_only),
            ("--data-only", self.data_only),
        ];
        match given.iter().find(|(name, is_given)| *is_given && !known.contains(name)) {
            Some((name, _)) => {
                Err(Error::Usage(format!("{name} does not go with a restore of {engine}")))
            }
            None => Ok(()),
        }
    }

    /// The name of the source in snapshots, and these options with its repository.
    pub fn source(&self, global: &Global) -> Result<(Global, Option<String>)> {
        match &self.source {
            None => Ok((global.clone(), None)),
            Some(wanted) => match global.source(wanted) {
                Ok((name, _, global)) => Ok((global, Some(name))),
                // The configuration may be gone with the machine: the repository knows the name.
                Err(_) if global.repo.is_some() => Ok((global.clone(), Some(wanted.clone()))),
                Err(error) => Err(error),
            },
        }
    }

    /// The programs that the source is read with: they fit what they wrote.
    fn source_bin_dir(&self, global: &Global) -> Option<std::path::PathBuf> {
        let (_, source, _) = global.source(self.source.as_deref()?).ok()?;
        match source.kind {
            SourceKind::Postgres(config) => config.bin_dir,
            _ => None,
        }
    }

    /// Where it goes: the address, or the source itself.
    fn destination(&self, global: &Global) -> Result<SourceKind> {
        if let Some(into) = &self.into {
            let bad = || {
                let into = without_password(into);
                Error::Usage(format!("--into {into}: write postgres://…, mysql://… or sqlite:PATH"))
            };
            return Ok(ad_hoc(into).ok_or_else(bad)?);
        }
        let source = self.source.as_deref().unwrap_or_default();
        let (_, SourceConfig { kind, .. }, _) = global.source(source)?;
        Ok(kind)
    }
}

/// Restores into a database.
pub fn run(
    global: &Global,
    repository: &Repository,
    named: &NamedSnapshot,
    args: &IntoArgs,
    how: How,
) -> Result<u8> {
    let destination = args.destination(global)?;
    let all = catalogues(repository, &named.snapshot)?;
    if let SourceKind::Command(config) = &destination {
        return other::command(global, repository, named, &config.restore, args, how);
    }
    let catalogue = choose(named, &all, args)?;
    let origin = Origin { repository, snapshot: &named.snapshot, catalogue };
    match (&destination, catalogue.engine.as_str()) {
        (SourceKind::Postgres(config), "postgres") => {
            let surroundings = sources::surroundings();
            let target = restow::database::postgres::backup::dsn("--into", config, &surroundings)?;
            let bin_dir = config.bin_dir.clone().or_else(|| args.source_bin_dir(global));
            let options = options(target, args, how, bin_dir);
            match catalogue.mode {
                Mode::Sql => other::psql(global, &origin, options, how),
                _ => into_postgres(global, &origin, options, how),
            }
        }
        (SourceKind::Sqlite(config), "sqlite") => other::sqlite(global, &origin, config, args, how),
        (SourceKind::Mysql(config), "mysql" | "mariadb") => {
            other::mysql(global, &origin, config, args, how)
        }
        (_, engine) => {
            let text = format!("a snapshot of {engine} cannot be restored into that");
            Err(Error::Usage(text).into())
        }
    }
}

pub(super) fn say(global: &Global, text: impl std::fmt::Display) -> Result<()> {
    if !global.quiet {
        output::line(text)?;
    }
    Ok(())
}

fn choose<'a>(
    named: &NamedSnapshot,
    all: &'a [Catalogue],
    args: &IntoArgs,
) -> Result<&'a Catalogue> {
    let id = named.name.short();
    let fits = |it: &&Catalogue| args.stream.as_ref().is_none_or(|name| it.schema_stream == *name);
    let mut fitting = all.iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => {
            let text = format!(
                "snapshot {id} holds no database that can be put back; 'restow restore {id} --target \
                 FOLDER' gives its files"
            );
            Err(Error::Usage(text).into())
        }
        _ => {
            let names: Vec<&str> = all.iter().map(|it| it.schema_stream.as_str()).collect();
            let text = format!("the snapshot holds {}: name one by --stream", names.join(", "));
            Err(Error::Usage(text).into())
        }
    }
}

fn options(
    target: Dsn,
    args: &IntoArgs,
    how: How,
    bin_dir: Option<std::path::PathBuf>,
) -> RestoreOptions {
    RestoreOptions {
        database: args.database.clone(),
        create: args.create,
        clean: args.clean,
        tables: args.table.clone(),
        into_schema: args.into_schema.clone(),
        schema_only: args.schema_only,
        data_only: args.data_only,
        no_owner: how.no_owner,
        jobs: usize::from(args.jobs.max(1)),
        overwrite: args.yes_overwrite.clone(),
        bin_dir,
        ..RestoreOptions::new(target)
    }
}

fn into_postgres(
    global: &Global,
    origin: &Origin<'_>,
    mut options: RestoreOptions,
    how: How,
) -> Result<u8> {
    let surroundings = sources::surroundings();
    let mut plan = postgres::plan(origin, &options, &surroundings)?;
    if how.dry_run {
        return print_plan(global, &plan);
    }
    let needs_name = plan.refusal().is_some_and(|it| it.detail.contains("--yes-overwrite"));
    if needs_name && options.overwrite.is_none() && std::io::stdin().is_terminal() {
        options.overwrite = Some(ask_name(&plan)?);
        plan = postgres::plan(origin, &options, &surroundings)?;
    }
    let progress = interrupt::progress();
    let shown = output::Display::start(global, &progress);
    let report = postgres::execute(origin, &plan, &options, &surroundings, &progress)?;
    drop(shown);
    for warning in &report.warnings {
        output::warning(warning);
    }
    if global.json {
        let phases: serde_json::Map<_, _> =
            report.phases.iter().map(|(name, took)| ((*name).to_owned(), (*took).into())).collect();
        output::json(&serde_json::json!({
            "message_type": "restored_database", "database": options.database(),
            "tables": report.tables, "rows": report.rows, "bytes": report.bytes, "phases": phases,
            "warnings": report.warnings,
        }))?;
        return Ok(0);
    }
    let phases: Vec<String> = report
        .phases
        .iter()
        .map(|(name, took)| format!("{name} {}", output::seconds(*took)))
        .collect();
    say(
        global,
        format!(
            "{} restored: {} tables, {} rows, {} ({})",
            options.database(),
            report.tables,
            report.rows,
            output::bytes(report.bytes),
            phases.join(", ")
        ),
    )?;
    Ok(0)
}

fn ask_name(plan: &postgres::Plan) -> Result<String> {
    if let Some(check) = plan.refusal() {
        eprintln!("{}", check.detail);
    }
    typed_name()
}

/// Asks for the name of what is to be overwritten.
pub(super) fn typed_name() -> Result<String> {
    eprint!("type the name of the database to overwrite: ");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// Prints what was looked at before a restore.
pub(super) fn print_checks(checks: &[Check]) -> Result<()> {
    for check in checks {
        let mark = match check.verdict {
            Verdict::Good => "ok     ",
            Verdict::Warning => "warning",
            Verdict::Bad => "problem",
        };
        output::line(format!("{mark}  {}: {}", check.what, check.detail))?;
    }
    Ok(())
}

fn print_plan(global: &Global, plan: &postgres::Plan) -> Result<u8> {
    let refused = plan.refusal().is_some();
    if global.json {
        let tables: Vec<_> = plan
            .loads
            .iter()
            .map(|it| {
                serde_json::json!({
                    "schema": it.table.schema, "name": it.table.name, "rows": it.table.rows,
                    "bytes": it.table.bytes,
                })
            })
            .collect();
        output::json(&serde_json::json!({
            "message_type": "restore_plan", "checks": plan.checks, "tables": tables,
            "bytes": plan.bytes(), "seconds_estimated": plan.seconds(), "refused": refused,
        }))?;
        return Ok(if refused { 11 } else { 0 });
    }
    print_checks(&plan.checks)?;
    for (number, step) in plan.steps.iter().enumerate() {
        let text = match step {
            Step::Create(name) => format!("make the database {name}"),
            Step::Clean(count) => format!("drop what is there of {count} objects"),
            Step::Definitions(count) => format!("restore {count} definitions"),
            Step::Rows(count, bytes) => {
                format!("load {count} tables, {}", output::bytes(*bytes))
            }
            Step::Objects => "set sequences, restore large objects".to_owned(),
            Step::Keys(count) => format!("restore {count} keys, indexes, triggers and grants"),
            Step::Links(count) => format!("tie them to what stays, {count} times"),
        };
        output::line(format!("{}. {text}", number + 1))?;
    }
    for load in &plan.loads {
        let table = format!("{}.{}", load.table.schema, load.table.name);
        output::line(format!(
            "   {table}: {} rows, {}",
            load.table.rows,
            output::bytes(load.table.bytes)
        ))?;
    }
    output::line(format!(
        "about {} in all, by size alone",
        output::seconds(plan.seconds() as f64)
    ))?;
    output::line(if refused {
        "dry run: it would be refused"
    } else {
        "dry run: nothing was changed"
    })?;
    Ok(if refused { 11 } else { 0 })
}
