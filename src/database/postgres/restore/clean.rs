//! Dropping what a snapshot holds from the database that it is restored into.

use std::collections::HashSet;
use std::fmt::Display;

use super::RestoreOptions;
use super::drops::drops;
use super::plan::Plan;
use super::session::session;
use crate::database::postgres::error::PgError;
use crate::database::source_error;
use crate::error::Result;

/// Drops what the snapshot holds, the last made first, all or nothing. What it does not hold is never
/// dropped with it: where something else depends on it, that is named and nothing is changed.
pub fn clean(plan: &Plan, options: &RestoreOptions) -> Result<()> {
    let failed =
        |error: &dyn Display| source_error(&options.target.address(), format!("{KEPT}: {error}"));
    let server = |error: PgError| failed(&error);
    let mut client = session(&plan.archive, options)?;
    client.query("BEGIN").map_err(server)?;
    let before = client.query(RELATIONS).map_err(server)?;
    client.query(&drops(plan)).map_err(server)?;
    let after = client.query(RELATIONS).map_err(server)?;
    let after: HashSet<_> = after.into_iter().collect();
    let gone = before.into_iter().filter(|relation| !after.contains(relation));
    let names = gone.map(|relation| relation.into_iter().flatten().collect::<Vec<_>>());
    // Partitions go with their table, and the server does not ask.
    if let Some(lost) = names.into_iter().find(|name| !holds(plan, name)) {
        let text = format!("{} is not in the snapshot and would go as well", lost.join("."));
        return Err(failed(&text));
    }
    client.query("COMMIT").map_err(server)?;
    Ok(())
}

const KEPT: &str = "nothing was dropped";

/// What has rows or is made of them, but for what is an extension's.
const RELATIONS: &str = "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_'
    AND n.nspname <> 'information_schema' AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
      WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
        AND d.deptype = 'e')";

/// Whether the restore makes a relation of this schema and name.
fn holds(plan: &Plan, name: &[String]) -> bool {
    let kinds = ["TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE"];
    plan.archive.has(&plan.choice.pre_data, |entry| {
        kinds.contains(&entry.desc.as_str()) && [&entry.namespace, &entry.tag].into_iter().eq(name)
    })
}
