//! Restoring a SQLite database into a file that goes with the drill.

use std::time::Instant;

use rusqlite::Connection;
use rusqlite::types::Value;

use super::engine::{self, Ask};
use super::{Check, Drill, FailureKind, Report, Stop, add_phase, phase};
use crate::catalogue::{Catalogue, Table};
use crate::database::postgres::inspect::quote;
use crate::database::postgres::restore::Origin;
use crate::database::{leftover, sqlite};

/// Holds a drill of a SQLite database. Restoring it looks at its integrity.
pub fn hold(drill: &Drill<'_>, catalogue: &Catalogue, report: &mut Report) -> Result<(), Stop> {
    let folder = leftover::folder(&drill.surroundings.temporary, "restow-drill-sqlite-")
        .map_err(|error| Stop::failed(FailureKind::Start, error))?;
    let path = folder.path().join("database");
    let snapshot = &drill.snapshot.snapshot;
    let origin = Origin { repository: drill.repository, snapshot, catalogue };
    let restored = phase(report, "load", || {
        sqlite::restore(&origin, &path, None, drill.progress)
            .map_err(|error| Stop::during(FailureKind::Restore, error))
    })?;
    report.bytes = path.metadata().map_or(0, |metadata| metadata.len());
    report.server_version = rusqlite::version().to_owned();
    let detail = restored.unchecked.unwrap_or_else(|| "integrity_check: ok".to_owned());
    report.checks.push(Check { what: "integrity".into(), detail });
    let started = Instant::now();
    let connection = sqlite::open_copy(&path);
    let connection = connection.map_err(|error| Stop::failed(FailureKind::Restore, error))?;
    let checked = engine::check(drill, catalogue, &mut Database(connection), report);
    add_phase(report, "check", started.elapsed().as_secs_f64());
    checked
}

struct Database(Connection);

impl Ask for Database {
    fn ask(&mut self, sql: &str) -> Result<Option<String>, String> {
        let value = self.0.query_row(sql, [], |row| row.get::<_, Value>(0));
        match value {
            Ok(Value::Null) | Err(rusqlite::Error::QueryReturnedNoRows) => Ok(None),
            Ok(Value::Integer(number)) => Ok(Some(number.to_string())),
            Ok(Value::Real(number)) => Ok(Some(number.to_string())),
            Ok(Value::Text(text)) => Ok(Some(text)),
            Ok(Value::Blob(bytes)) => Ok(Some(hex::encode(bytes))),
            Err(error) => Err(error.to_string()),
        }
    }

    fn count(&mut self, table: &Table) -> Result<Option<u64>, String> {
        let there = self.0.query_row(
            "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1",
            [&table.name],
            |row| row.get::<_, i64>(0),
        );
        if there.map_err(|error| error.to_string())? == 0 {
            return Ok(None);
        }
        let count = self.ask(&format!("SELECT count(*) FROM {}", quote(&table.name)))?;
        Ok(count.and_then(|count| count.parse().ok()))
    }

    fn age(&self, sql: &str) -> String {
        let sql = sql.trim().trim_end_matches(';');
        format!("SELECT (julianday('now') - julianday(({sql}))) * 86400.0")
    }
}
