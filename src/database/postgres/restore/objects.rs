//! What is neither definition nor rows of tables: positions of sequences and large objects. `pg_restore`
//! reads them from an archive that is put together for it, through a pipe.

use std::io::Write;

use super::archive::stream;
use super::drops::large_objects;
use super::plan::Plan;
use super::session::{named, session};
use super::target::Runner;
use super::{Origin, RestoreOptions};
use crate::catalogue::definitions::{Position, position};
use crate::catalogue::toc::{TocEntry, synthetic_head};
use crate::database::postgres::inspect::literal;
use crate::database::pour::Running;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::restore::{WriterTarget, copy_range};

/// Restores them.
pub fn restore(
    origin: &Origin<'_>,
    plan: &Plan,
    options: &RestoreOptions,
    runner: &Runner<'_>,
    progress: &Progress,
) -> Result<()> {
    let data = &plan.choice.data;
    let is_object = |entry: &TocEntry| entry.desc.starts_with("BLOB");
    let has_objects = plan.archive.has(data, |entry| is_object(entry) && !is_metadata(entry));
    if options.data_only && has_objects {
        make_room(plan, options)?;
    }
    if !data.is_empty() {
        pour(origin, plan, runner, has_objects, progress)?;
    }
    forward(plan, options)
}

fn is_metadata(entry: &TocEntry) -> bool {
    entry.desc.ends_with("METADATA")
}

fn pour(
    origin: &Origin<'_>,
    plan: &Plan,
    runner: &Runner<'_>,
    with_blocks: bool,
    progress: &Progress,
) -> Result<()> {
    let (toc, head) = (&plan.archive.toc, &plan.archive.head);
    let mut child = Running::start(runner.pg_restore(), "pg_restore")?;
    let pipe = child.take_stdin();
    let mut target = WriterTarget { writer: pipe, name: "pg_restore".into() };
    let keep = |id: i32| plan.choice.data.contains(&id);
    let head = synthetic_head(head, toc, |entry| keep(entry.dump_id));
    let mut feed = || -> Result<()> {
        let io = |source| Error::Io { action: "write to", path: "pg_restore".into(), source };
        target.writer.write_all(&head).map_err(io)?;
        if with_blocks {
            let entry = stream(origin, &origin.catalogue.schema_stream)?;
            for range in &origin.catalogue.objects {
                copy_range(origin.repository, entry, *range, &mut target, progress)?;
            }
        }
        Ok(())
    };
    let fed = feed();
    drop(target);
    // Where it ended early, it says why.
    child.finish("sequences and large objects", progress)?;
    fed
}

/// Makes large objects that are not there, and empties the others: what is written to one that is longer
/// would leave its end.
fn make_room(plan: &Plan, options: &RestoreOptions) -> Result<()> {
    let mut client = session(&plan.archive, options)?;
    for entry in &plan.archive.toc.entries {
        let numbers = large_objects(entry);
        if numbers.is_empty() {
            continue;
        }
        // INV_WRITE of libpq/libpq-fs.h.
        let sql = format!(
            "BEGIN; SELECT CASE WHEN m.oid IS NULL THEN pg_catalog.lo_create(v.oid)::int
               ELSE pg_catalog.lo_truncate(pg_catalog.lo_open(v.oid, x'20000'::int), 0) END
             FROM unnest('{{{}}}'::pg_catalog.oid[]) v(oid)
             LEFT JOIN pg_catalog.pg_largeobject_metadata m ON m.oid = v.oid; COMMIT",
            numbers.join(",")
        );
        client.query(&sql).map_err(|error| named(options, error))?;
    }
    Ok(())
}

/// Moves sequences that are there up to where they stood, never back: their numbers are in rows since.
fn forward(plan: &Plan, options: &RestoreOptions) -> Result<()> {
    if plan.choice.forward.is_empty() {
        return Ok(());
    }
    let mut client = session(&plan.archive, options)?;
    let entries = plan.choice.forward.iter().filter_map(|id| plan.entry(*id));
    for Position { sequence, value, is_called } in entries.filter_map(|it| position(&it.defn)) {
        let name = literal(&sequence);
        let increment = client.value(&format!(
            "SELECT seqincrement FROM pg_catalog.pg_sequence
             WHERE seqrelid = pg_catalog.to_regclass({name})"
        ));
        let increment = increment.map_err(|error| named(options, error))?;
        if increment.is_empty() {
            continue;
        }
        let sign = if increment.starts_with('-') { "-" } else { "" };
        let sql = format!(
            "SELECT pg_catalog.setval({name}, {value}, {is_called}) FROM {sequence} s
             WHERE ROW({sign}({value}), {is_called}) > ROW({sign}s.last_value, s.is_called)"
        );
        client.query(&sql).map_err(|error| named(options, error))?;
    }
    Ok(())
}
