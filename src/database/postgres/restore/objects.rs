//! What is neither definition nor rows of tables: positions of sequences and large objects. `pg_restore`
//! reads them from an archive that is put together for it, through a pipe.

use std::io::Write;

use super::Origin;
use super::archive::stream;
use super::plan::Plan;
use super::target::Runner;
use crate::catalogue::toc::synthetic_head;
use crate::database::pour::Running;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::restore::{WriterTarget, copy_range};

/// Restores them.
pub fn restore(
    origin: &Origin<'_>,
    plan: &Plan,
    runner: &Runner<'_>,
    progress: &Progress,
) -> Result<()> {
    let (toc, head) = (&plan.archive.toc, &plan.archive.head);
    let is_object = |desc: &str| desc.starts_with("BLOB") && !desc.ends_with("METADATA");
    let with_blocks = plan.archive.has(&plan.data, |entry| is_object(&entry.desc));
    let mut child = Running::start(runner.pg_restore(), "pg_restore")?;
    let pipe = child.take_stdin();
    let mut target = WriterTarget { writer: pipe, name: "pg_restore".into() };
    let keep = |id: i32| plan.data.contains(&id);
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
