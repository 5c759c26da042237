//! Plain dumps of `pg_dump`: put back by `psql`, whole or table by table.

use std::process::Command;

use super::restore::RestoreOptions;
use super::tools;
use crate::catalogue::{Catalogue, Table};
use crate::database::pattern::Patterns;
use crate::database::pour::{Piece, pieces_of};
use crate::database::{Surroundings, source_error};
use crate::error::{Error, Result};

/// What of the dump goes into psql.
pub fn pieces(catalogue: &Catalogue, options: &RestoreOptions) -> Result<Vec<Piece>> {
    let patterns = Patterns::new(&options.tables);
    if options.clean || options.data_only || options.create || options.into_schema.is_some() {
        let text = "a plain dump goes into a database that is there: --create, --clean, --data-only and \
                    --into-schema need pg_dump -Fc -Z0 or a source";
        return Err(Error::Usage(text.into()));
    }
    if patterns.is_empty() && !options.schema_only {
        return Ok(vec![Piece::Whole]);
    }
    let names = catalogue.tables.iter().map(|it| (it.schema.as_str(), it.name.as_str()));
    if let Some(pattern) = patterns.unused(names) {
        return Err(Error::Usage(format!("no table of the snapshot fits '{pattern}'")));
    }
    let wanted = |it: &&Table| patterns.is_empty() || patterns.fit(&it.schema, &it.name);
    let tables: Vec<&Table> = catalogue.tables.iter().filter(wanted).collect();
    Ok(pieces_of(catalogue, &tables, options.schema_only))
}

/// The command, told to stop at the first error and to change nothing then.
pub fn psql(options: &RestoreOptions, surroundings: &Surroundings) -> Result<Command> {
    let dsn = options.dsn();
    let found = tools::installed(surroundings.path.as_deref());
    let tools = found.last().ok_or_else(|| source_error("psql", "is not installed"))?;
    let mut command = dsn.command(&tools.program("psql"));
    command.args(["--no-psqlrc", "--quiet", "--single-transaction"]);
    command.args(["--set", "ON_ERROR_STOP=1"]);
    Ok(command)
}
