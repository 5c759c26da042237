use anyhow::Result;
use clap::Args;
use restow::catalogue::Catalogue;
use restow::database::verify::catalogues;
use restow::error::Error;
use restow::repository::Repository;
use restow::repository::snapshots::{Filter, NamedSnapshot};

use super::FilterArgs;
use crate::cli::{Global, output, sources};

/// List the tables of a snapshot: rows, bytes, where they stand
#[derive(Args)]
pub struct TablesArgs {
    /// Id of the snapshot, its first digits, or `latest`
    #[arg(default_value = "latest")]
    snapshot: String,
    /// Only snapshots of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
}

/// The catalogues of a snapshot; an error where it has none.
pub fn of(repository: &Repository, named: &NamedSnapshot) -> Result<Vec<Catalogue>> {
    let found = catalogues(repository, &named.snapshot)?;
    if found.is_empty() {
        let id = named.name.short();
        let text = format!("snapshot {id} tells no tables: no database was recognised in it");
        return Err(Error::Usage(text).into());
    }
    Ok(found)
}

/// The snapshot that a command about one database means: `latest` alone would be of whatever source came
/// last, where there are several.
pub fn snapshot(
    repository: &Repository,
    wanted: &str,
    source: Option<String>,
    filter: Filter,
) -> Result<NamedSnapshot> {
    let filter = Filter { source: source.or(filter.source), ..filter };
    if wanted == "latest" && filter.source.is_none() {
        refuse_any(repository, &filter)?;
    }
    Ok(repository.find_snapshot(wanted, &filter)?)
}

fn refuse_any(repository: &Repository, filter: &Filter) -> Result<()> {
    let mut names = std::collections::BTreeSet::new();
    for named in repository.snapshots(filter)? {
        if named.snapshot.catalogue.is_some() {
            let streams = named.snapshot.streams.first().map(|stream| stream.name.to_string());
            let source = named.snapshot.source.map(|source| source.name);
            names.extend(source.or(streams));
        }
    }
    if names.len() < 2 {
        return Ok(());
    }
    let names: Vec<String> = names.into_iter().collect();
    let text =
        format!("of what? Name a snapshot, or one by --source or --path: {}", names.join(", "));
    Err(Error::Usage(text).into())
}

/// Lists.
pub fn run(global: &Global, args: TablesArgs) -> Result<u8> {
    let repository = global.open_read_only()?;
    let source = args.source.as_deref().map(sources::name_in_snapshots).transpose()?;
    let filter = Filter { source, ..args.filter.filter() };
    let named = repository.find_snapshot(&args.snapshot, &filter)?;
    let found = of(&repository, &named)?;
    if global.json {
        for catalogue in &found {
            output::json(catalogue)?;
        }
        return Ok(0);
    }
    for catalogue in &found {
        let Catalogue { engine, server_version, database, .. } = catalogue;
        output::line(format!("{engine} {server_version}, database {database}"))?;
        let mut rows =
            vec![["Table", "Rows", "Bytes", "Key", "Stream"].map(str::to_owned).to_vec()];
        for table in &catalogue.tables {
            let dot = if table.schema.is_empty() { "" } else { "." };
            rows.push(vec![
                format!("{}{dot}{}", table.schema, table.name),
                table.rows.to_string(),
                output::bytes(table.bytes),
                table.key.join(", "),
                table.stream.clone(),
            ]);
        }
        output::table(&rows)?;
    }
    Ok(0)
}
