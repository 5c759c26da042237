use std::io::IsTerminal;

use anyhow::Result;
use restow::database::postgres::restore::{Origin, RestoreOptions};
use restow::database::postgres::sql;
use restow::database::{mysql, pour, sqlite};
use restow::error::Error;
use restow::repository::Repository;
use restow::repository::snapshots::NamedSnapshot;
use restow::settings::{MysqlConfig, SqliteConfig};

use super::restore_into::{How, IntoArgs, print_checks, say, typed_name};
use crate::cli::{Global, interrupt, output, sources};

const OF_MYSQL: [&str; 5] = ["--database", "--create", "--table", "--schema-only", "--data-only"];

/// Into a MariaDB or MySQL server.
pub fn mysql(
    global: &Global,
    origin: &Origin<'_>,
    config: &MysqlConfig,
    args: &IntoArgs,
    how: How,
) -> Result<u8> {
    args.only("MariaDB or MySQL", &OF_MYSQL)?;
    let mut options = mysql::RestoreOptions {
        database: args.database.clone(),
        create: args.create,
        tables: args.table.clone(),
        schema_only: args.schema_only,
        data_only: args.data_only,
        overwrite: args.yes_overwrite.clone(),
    };
    let surroundings = sources::surroundings();
    let mut plan = mysql::plan(origin, config, &options, &surroundings);
    if let Err(error) = &plan
        && may_ask(error, args, how)
    {
        options.overwrite = Some(confirmed(error)?);
        plan = mysql::plan(origin, config, &options, &surroundings);
    }
    let plan = plan?;
    let text = plan.describe();
    if how.dry_run {
        output::line(text)?;
        output::line("dry run: nothing was changed")?;
        return Ok(0);
    }
    let progress = interrupt::progress();
    let shown = output::Display::start(global, &progress);
    mysql::restore(origin, plan, &progress)?;
    drop(shown);
    say(global, format!("restored {text}"))?;
    Ok(0)
}

/// Whether a refusal may be answered: somebody is there to do so.
fn may_ask(error: &Error, args: &IntoArgs, how: How) -> bool {
    let asks = matches!(error, Error::Conflict(text) if text.contains("--yes-overwrite"));
    asks && args.yes_overwrite.is_none() && !how.dry_run && std::io::stdin().is_terminal()
}

fn confirmed(error: &Error) -> Result<String> {
    eprintln!("{error}");
    typed_name()
}

/// Into a database file.
pub fn sqlite(
    global: &Global,
    origin: &Origin<'_>,
    config: &SqliteConfig,
    args: &IntoArgs,
    how: How,
) -> Result<u8> {
    if !args.table.is_empty() {
        let text = "a table of SQLite cannot be restored alone: write it with 'restow dump SNAPSHOT TABLE \
                    --format sql', or restore the file beside the live one and copy its rows with ATTACH";
        return Err(Error::Usage(text.into()).into());
    }
    args.only("SQLite", &[])?;
    let path = config.path.display().to_string();
    let mut overwrite = args.yes_overwrite.clone();
    if let Err(error) = sqlite::refuse(&config.path, overwrite.as_deref()) {
        if !may_ask(&error, args, how) {
            return Err(error.into());
        }
        overwrite = Some(confirmed(&error)?);
    }
    let tables = origin.catalogue.tables.len();
    if how.dry_run {
        output::line(format!("{path}: {tables} tables"))?;
        output::line("dry run: nothing was changed")?;
        return Ok(0);
    }
    let progress = interrupt::progress();
    let shown = output::Display::start(global, &progress);
    let restored = sqlite::restore(origin, &config.path, overwrite.as_deref(), &progress)?;
    drop(shown);
    let tables = restored.tables;
    let checked = restored.unchecked.as_deref().unwrap_or("integrity_check ok");
    say(global, format!("{path} restored: {tables} tables, {checked}"))?;
    Ok(0)
}

/// Into the command that the source says.
pub fn command(
    global: &Global,
    repository: &Repository,
    named: &NamedSnapshot,
    argv: &[String],
    args: &IntoArgs,
    how: How,
) -> Result<u8> {
    args.only("the output of a command", &[])?;
    let is_own = !argv.is_empty();
    let recorded = named.snapshot.source.as_ref().map_or(&[][..], |source| &source.restore);
    // Whoever holds a write-only key may have written that one.
    let argv = if argv.is_empty() && !named.snapshot.sealed { recorded } else { argv };
    let Some((program, rest)) = argv.split_first() else {
        let text = "this source has no restore command: add restore = […] to it";
        return Err(Error::Usage(text.into()).into());
    };
    let is_catalogue = |name| named.snapshot.catalogue.as_ref() == Some(name);
    let mut streams = named.snapshot.streams.iter().filter(|stream| !is_catalogue(&stream.name));
    let stream = match &args.stream {
        Some(name) => streams.find(|stream| stream.name.as_bytes() == name.as_bytes()),
        None => streams.next(),
    };
    let wanted = args.stream.as_deref().unwrap_or("of the command");
    let stream = stream.ok_or_else(|| Error::Missing { what: format!("stream {wanted}") })?;
    let text = format!("{} ({}) into {}", stream.name, output::bytes(stream.size), argv.join(" "));
    if how.dry_run {
        output::line(text)?;
        output::line("dry run: nothing was run")?;
        return Ok(0);
    }
    let source = named.snapshot.source.as_ref().map_or("", |source| source.name.as_str());
    if !is_own && args.yes_overwrite.as_deref() != Some(source) {
        let words = argv.join(" ");
        let text = format!(
            "the snapshot, not the configuration, says to run '{words}': confirm it with --yes-overwrite \
             {source}"
        );
        return Err(Error::Conflict(text).into());
    }
    let mut command = std::process::Command::new(program);
    command.args(rest);
    let progress = interrupt::progress();
    let shown = output::Display::start(global, &progress);
    let whole = [pour::Piece::Whole];
    pour::pour(repository, stream, &whole, command, pour::Change::Nothing, &progress)?;
    drop(shown);
    say(global, text)?;
    Ok(0)
}

/// A plain dump goes through psql.
pub fn psql(
    global: &Global,
    origin: &Origin<'_>,
    mut options: RestoreOptions,
    how: How,
) -> Result<u8> {
    let surroundings = sources::surroundings();
    let mut plan = sql::plan(origin, &options, &surroundings)?;
    if how.dry_run {
        let refused = plan.refusal().is_some();
        print_checks(&plan.checks)?;
        let database = options.database();
        output::line(format!("{} tables would go through psql into {database}", plan.tables))?;
        output::line(if refused {
            "dry run: it would be refused"
        } else {
            "dry run: nothing was changed"
        })?;
        return Ok(if refused { 11 } else { 0 });
    }
    let asks = plan.refusal().filter(|it| it.detail.contains("--yes-overwrite"));
    if let Some(check) = asks
        && options.overwrite.is_none()
        && std::io::stdin().is_terminal()
    {
        eprintln!("{}", check.detail);
        options.overwrite = Some(typed_name()?);
        plan = sql::plan(origin, &options, &surroundings)?;
    }
    let progress = interrupt::progress();
    let shown = output::Display::start(global, &progress);
    sql::restore(origin, &plan, &options, &progress)?;
    drop(shown);
    say(global, format!("{} restored by psql", options.database()))?;
    Ok(0)
}
