use anyhow::Result;
use clap::{Args, Subcommand};
use restow::database::probe::{Finding, probe};
use restow::error::Error;
use restow::settings::SourceKind;

use crate::cli::{Global, output, sources};

/// List the sources of the configuration file, or test one
#[derive(Args)]
pub struct SourceArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List the sources of the configuration file
    List,
    /// Connect to a source and look whether a backup of it would work: versions, rights, programs, tables
    /// that are a problem, how large it is
    Test {
        /// Its name in the configuration file, or postgres://…, mysql://…, sqlite:PATH
        source: String,
    },
}

/// Lists or tests.
pub fn run(global: &Global, args: SourceArgs) -> Result<u8> {
    match args.action {
        Action::List => list(global),
        Action::Test { source } => test(global, &source),
    }
}

fn list(global: &Global) -> Result<u8> {
    let Some(settings) = global.settings()? else {
        return Err(Error::Usage(
            "no configuration file: give --config or set RESTOW_CONFIG".into(),
        )
        .into());
    };
    if global.json {
        for (name, source) in &settings.sources {
            let (kind, address) = describe(&source.kind);
            output::json(&serde_json::json!({
                "message_type": "source", "name": name, "type": kind, "address": address,
                "repo": source.common.repo,
            }))?;
        }
        return Ok(0);
    }
    let mut rows = vec![["Name", "Type", "Repository", "What"].map(str::to_owned).to_vec()];
    for (name, source) in &settings.sources {
        let (kind, address) = describe(&source.kind);
        let repo = source.common.repo.clone().unwrap_or_default();
        rows.push(vec![name.clone(), kind.to_owned(), repo, address]);
    }
    output::table(&rows)?;
    Ok(0)
}

/// The kind of a source, and what it is of; without secrets.
fn describe(kind: &SourceKind) -> (&'static str, String) {
    match kind {
        SourceKind::Sqlite(config) => ("sqlite", config.path.display().to_string()),
        SourceKind::Postgres(config) => {
            let dsn = restow::database::postgres::dsn::Dsn::parse(&config.dsn, &|name| {
                std::env::var(name).ok()
            });
            ("postgres", dsn.map_or_else(|error| error, |dsn| dsn.address()))
        }
        SourceKind::Mysql(config) => ("mysql", restow::database::without_password(&config.dsn)),
        SourceKind::Command(config) => ("command", config.command.join(" ")),
        SourceKind::Files(config) => {
            let paths = config.paths.iter().map(|path| path.display().to_string());
            ("files", paths.collect::<Vec<_>>().join(" "))
        }
    }
}

fn test(global: &Global, wanted: &str) -> Result<u8> {
    let (name, config, _) = global.source(wanted)?;
    let findings = probe(&name, &config.kind, &sources::surroundings())?;
    let failed = findings.iter().any(|finding| matches!(finding, Finding::Problem { .. }));
    if global.json {
        for finding in &findings {
            output::json(finding)?;
        }
    } else {
        for finding in &findings {
            output::line(match finding {
                Finding::Fact { what } => format!("ok       {what}"),
                Finding::Warning { what } => format!("warning  {what}"),
                Finding::Problem { what } => format!("problem  {what}"),
            })?;
        }
    }
    if failed {
        let text = format!("{name} cannot be backed up as it is");
        return Err(Error::Source { source_name: name, detail: text }.into());
    }
    Ok(0)
}
