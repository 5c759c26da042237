//! Dropping what a snapshot holds from the database that it is restored into.

use std::collections::HashSet;
use std::fmt::Display;

use super::RestoreOptions;
use super::plan::Plan;
use super::target::session;
use crate::catalogue::toc::TocEntry;
use crate::database::postgres::error::PgError;
use crate::database::postgres::inspect::literal;
use crate::database::source_error;
use crate::error::Result;

/// Drops what the snapshot holds, the last made first, all or nothing. What it does not hold is never
/// dropped with it: where something else depends on it, that is named and nothing is changed.
pub fn clean(plan: &Plan, options: &RestoreOptions) -> Result<()> {
    let failed =
        |error: &dyn Display| source_error(&options.target.address(), format!("{KEPT}: {error}"));
    let server = |error: PgError| failed(&error);
    let mut client = session(plan, options)?;
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
    plan.archive.has(&plan.pre_data, |entry| {
        kinds.contains(&entry.desc.as_str()) && [&entry.namespace, &entry.tag].into_iter().eq(name)
    })
}

/// The statements that drop it.
fn drops(plan: &Plan) -> String {
    let mut sql = String::new();
    // Keys, indexes and triggers go with their tables; these do not, or keep tables from going.
    let stays = ["FK CONSTRAINT", "PUBLICATION", "SUBSCRIPTION", "EVENT TRIGGER"];
    let wanted = |entry: &&TocEntry| {
        let is_after = stays.contains(&entry.desc.as_str());
        plan.pre_data.contains(&entry.dump_id)
            || (is_after && plan.post_data.contains(&entry.dump_id))
    };
    for entry in plan.archive.toc.entries.iter().rev().filter(wanted) {
        if entry.desc.starts_with("BLOB") {
            sql.push_str(&unlink(entry));
        }
        let verb = format!("DROP {} ", entry.desc);
        if let Some(rest) = entry.drop_stmt.trim().strip_prefix(&verb) {
            sql.push_str(&format!("{verb}IF EXISTS {rest}\n"));
        } else if entry.desc == "DEFAULT"
            && let Some(rest) = entry.drop_stmt.trim().strip_prefix("ALTER TABLE ")
        {
            // It keeps a sequence from going. The column may be gone, or have no default any more.
            let drop = format!(
                "BEGIN ALTER TABLE IF EXISTS {rest}
                 EXCEPTION WHEN undefined_column OR syntax_error THEN NULL; END"
            );
            sql.push_str(&format!("DO {};\n", literal(&drop)));
        } else if let Some(rest) = entry.drop_stmt.trim().strip_prefix("ALTER TABLE ")
            && let Some((table, constraint)) = rest.split_once(" DROP CONSTRAINT ")
        {
            let drop = format!("{table} DROP CONSTRAINT IF EXISTS {constraint}");
            sql.push_str(&format!("ALTER TABLE IF EXISTS {drop}\n"));
        }
    }
    sql
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
