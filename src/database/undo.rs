//! The SQL that makes rows what they were, in an order in which it runs: a value that may stand in one row
//! alone is free again before the row that had it gets it back.
//!
//! Deletions are written as they come; what follows them waits in temporary files, which nobody else
//! sees. Memory does not grow with the rows.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::Path;

use super::rows_diff::{RowChange, RowDiff};
use crate::error::{Error, Result};

/// However the session is set up that runs it.
const BEGIN: &str = "SET client_encoding = 'UTF8';\nBEGIN;\nSET CONSTRAINTS ALL DEFERRED;";

/// A transaction that is being written: deletions, then updates, then insertions.
pub struct Undo<W: Write> {
    out: W,
    updates: BufWriter<File>,
    insertions: BufWriter<File>,
}

impl<W: Write> Undo<W> {
    /// Begins one. Constraints that can wait do so until its end.
    pub fn new(mut out: W, temporary: &Path) -> Result<Self> {
        let spool = || tempfile::tempfile_in(temporary).map(BufWriter::new);
        let spool = || spool().map_err(|source| failed("make a file in", temporary, source));
        let (updates, insertions) = (spool()?, spool()?);
        writeln!(out, "{BEGIN}").map_err(write)?;
        Ok(Self { out, updates, insertions })
    }

    /// Adds the statement of one row.
    pub fn push(&mut self, row: &RowDiff) -> Result<()> {
        let place: &mut dyn Write = match row.change {
            RowChange::Added => &mut self.out,
            RowChange::Changed => &mut self.updates,
            RowChange::Removed => &mut self.insertions,
        };
        writeln!(place, "{}", row.sql).map_err(write)
    }

    /// Writes what waits, and the end. Without it nothing of the script lasts: it does not commit.
    pub fn finish(mut self) -> Result<()> {
        for spool in [self.updates, self.insertions] {
            let mut file = spool.into_inner().map_err(|error| write(error.into_error()))?;
            file.rewind().map_err(write)?;
            io::copy(&mut file, &mut self.out).map_err(write)?;
        }
        writeln!(self.out, "COMMIT;").map_err(write)?;
        self.out.flush().map_err(write)
    }
}

fn write(source: io::Error) -> Error {
    failed("write", Path::new("the SQL"), source)
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { action, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_before_others_change_and_come_back_last() {
        let row = |change, sql: &str| RowDiff {
            change,
            key: Vec::new(),
            columns: Vec::new(),
            sql: sql.to_owned(),
        };
        let mut out = Vec::new();
        let mut undo = Undo::new(&mut out, &std::env::temp_dir()).unwrap();
        undo.push(&row(RowChange::Removed, "INSERT 1;")).unwrap();
        undo.push(&row(RowChange::Changed, "UPDATE 2;")).unwrap();
        undo.push(&row(RowChange::Added, "DELETE 3;")).unwrap();
        undo.push(&row(RowChange::Changed, "UPDATE 4;")).unwrap();
        undo.finish().unwrap();
        let expected = "DELETE 3;\nUPDATE 2;\nUPDATE 4;\nINSERT 1;\nCOMMIT;\n";
        assert_eq!(String::from_utf8(out).unwrap(), format!("{BEGIN}\n{expected}"));
    }
}
