//! What is asked of a restored database, whatever engine it has: the tables and rows of the catalogue, the
//! user's assertions, the age of the newest row.

use super::{Check, Drill, FailureKind, Report, Stop};
use crate::catalogue::{Catalogue, Table};
use crate::settings::duration;

/// A restored database that can be asked for one value.
pub trait Ask {
    /// The first value of a query; NULL and no row are nothing.
    fn ask(&mut self, sql: &str) -> Result<Option<String>, String>;
    /// The number of rows of a table; `None` where there is no such table.
    fn count(&mut self, table: &Table) -> Result<Option<u64>, String>;
    /// Whether a table has rows that no backup has: those that an extension's script makes.
    fn has_more(&mut self, _table: &Table) -> Result<bool, String> {
        Ok(false)
    }
    /// A query that gives how many seconds ago the time was that `sql` gives.
    fn age(&self, sql: &str) -> String;
}

/// Asks everything.
pub fn check(
    drill: &Drill<'_>,
    catalogue: &Catalogue,
    database: &mut dyn Ask,
    report: &mut Report,
) -> Result<(), Stop> {
    tables(catalogue, database, report)?;
    assertions(drill, database, report)?;
    newest(drill, database, report)
}

fn tables(catalogue: &Catalogue, database: &mut dyn Ask, report: &mut Report) -> Result<(), Stop> {
    let failed = |error: String| Stop::failed(FailureKind::Tables, error);
    let mut rows = 0;
    let with_rows = catalogue.tables.iter().filter(|table| !table.stream.is_empty());
    for table in with_rows.clone() {
        let name = format!("{}.{}", table.schema, table.name);
        match database.count(table).map_err(failed)? {
            None => return Err(Stop::failed(FailureKind::Tables, format!("{name} is missing"))),
            Some(count) if count > table.rows && database.has_more(table).map_err(failed)? => {
                rows += count;
            }
            Some(count) if count != table.rows => {
                let text = format!("{name} has {count} rows, the snapshot has {}", table.rows);
                return Err(Stop::failed(FailureKind::Rows, text));
            }
            Some(count) => rows += count,
        }
    }
    report.tables = with_rows.count() as u64;
    report.rows = rows;
    let detail = format!("{} tables, {rows} rows, as they were read", report.tables);
    report.checks.push(Check { what: "tables".into(), detail });
    Ok(())
}

fn assertions(drill: &Drill<'_>, database: &mut dyn Ask, report: &mut Report) -> Result<(), Stop> {
    for assertion in &drill.config.assert {
        let sql = &assertion.sql;
        let failed =
            |detail: String| Stop::failed(FailureKind::Assertion, format!("{sql}: {detail}"));
        let value = database.ask(sql).map_err(failed)?;
        let value = value.unwrap_or_else(|| "NULL".to_owned());
        let holds = match &assertion.equals {
            Some(wanted) => value == *wanted,
            None => matches!(value.as_str(), "t" | "true" | "1"),
        };
        if !holds {
            let wanted = assertion.equals.as_deref().unwrap_or("true");
            return Err(failed(format!("is {value}, not {wanted}")));
        }
        report.checks.push(Check { what: "assertion".into(), detail: format!("{sql}: {value}") });
    }
    Ok(())
}

fn newest(drill: &Drill<'_>, database: &mut dyn Ask, report: &mut Report) -> Result<(), Stop> {
    let Some(sql) = &drill.config.newest else { return Ok(()) };
    let failed = |detail: String| Stop::failed(FailureKind::Rpo, format!("{sql}: {detail}"));
    let age = database.ask(&database.age(sql)).map_err(failed)?;
    let age = age.ok_or_else(|| failed("there is no newest row".into()))?;
    let age: f64 = age.parse().map_err(|_| failed(format!("'{age}' is no number of seconds")))?;
    report.newest_row_age_seconds = Some(age);
    let target = drill.config.rpo.as_deref().and_then(duration);
    if let Some(target) = target
        && age > target.as_secs_f64()
    {
        let target = target.as_secs();
        return Err(failed(format!("the newest row is {age:.0} s old, the target is {target} s")));
    }
    let detail = format!("the newest row is {age:.0} s old");
    report.checks.push(Check { what: "rpo".into(), detail });
    Ok(())
}
