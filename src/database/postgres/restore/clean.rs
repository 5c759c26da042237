//! Dropping what a snapshot holds from the database that it is restored into.

use super::RestoreOptions;
use super::plan::Plan;
use super::target::session;
use crate::catalogue::toc::TocEntry;
use crate::database::source_error;
use crate::error::Result;

/// Drops what the snapshot holds, the last made first, all or nothing. What it does not hold is never
/// dropped with it: the server refuses where something else depends on it, and nothing is changed.
pub fn clean(plan: &Plan, options: &RestoreOptions) -> Result<()> {
    let mut client = session(plan, options)?;
    let mut sql = String::from("BEGIN;\n");
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
            // It keeps a sequence from going.
            sql.push_str(&format!("ALTER TABLE IF EXISTS {rest}\n"));
        } else if let Some(rest) = entry.drop_stmt.trim().strip_prefix("ALTER TABLE ")
            && let Some((table, constraint)) = rest.split_once(" DROP CONSTRAINT ")
        {
            let drop = format!("{table} DROP CONSTRAINT IF EXISTS {constraint}");
            sql.push_str(&format!("ALTER TABLE IF EXISTS {drop}\n"));
        }
    }
    sql.push_str("COMMIT");
    client.query(&sql).map_err(|error| {
        let detail = format!("nothing was dropped: {error}");
        source_error(&options.target.address(), detail)
    })?;
    Ok(())
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
