//! Two snapshots compared table by table, from their catalogues alone.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::catalogue::{Catalogue, Table};

/// How a table differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TableChange {
    /// Only the newer one has it.
    Added,
    /// Only the older one has it.
    Removed,
    /// Rows or definition differ.
    Changed,
    /// Nothing differs.
    Unchanged,
}

/// One table in both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableDiff {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// How it differs.
    pub change: TableChange,
    /// Its definition differs, or that of an index, a constraint, a trigger.
    pub schema_changed: bool,
    /// The rows differ; not known where they are compared by number and bytes only.
    pub rows_changed: bool,
    /// Rows in the older one.
    pub old_rows: u64,
    /// Rows in the newer one.
    pub new_rows: u64,
    /// Their bytes in the older one.
    pub old_bytes: u64,
    /// Their bytes in the newer one.
    pub new_bytes: u64,
}

/// Compares the tables of two snapshots, sorted by schema and name.
pub fn compare(old: &[Catalogue], new: &[Catalogue]) -> Vec<TableDiff> {
    let tables = |all: &[Catalogue]| -> BTreeMap<(String, String), Table> {
        let tables = all.iter().flat_map(|catalogue| &catalogue.tables);
        tables.map(|it| ((it.schema.clone(), it.name.clone()), it.clone())).collect()
    };
    let (old, new) = (tables(old), tables(new));
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    names.into_iter().map(|name| one(old.get(name), new.get(name))).collect()
}

fn one(old: Option<&Table>, new: Option<&Table>) -> TableDiff {
    let any = old.or(new).cloned().unwrap_or_default();
    let count = |table: Option<&Table>| table.map_or((0, 0), |it| (it.rows, it.bytes));
    let ((old_rows, old_bytes), (new_rows, new_bytes)) = (count(old), count(new));
    let (schema_changed, rows_changed) = match (old, new) {
        (Some(old), Some(new)) => {
            let hashes = (&old.rows_hash, &new.rows_hash);
            let rows = if hashes.0.is_empty() || hashes.1.is_empty() {
                (old_rows, old_bytes) != (new_rows, new_bytes)
            } else {
                hashes.0 != hashes.1
            };
            (old.schema_hash != new.schema_hash, rows)
        }
        _ => (true, old_rows + new_rows > 0),
    };
    let change = match (old, new) {
        (None, _) => TableChange::Added,
        (_, None) => TableChange::Removed,
        _ if schema_changed || rows_changed => TableChange::Changed,
        _ => TableChange::Unchanged,
    };
    TableDiff {
        schema: any.schema,
        name: any.name,
        change,
        schema_changed,
        rows_changed,
        old_rows,
        new_rows,
        old_bytes,
        new_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_compared_by_what_is_known_of_them() {
        let table = |name: &str, rows: u64, schema_hash: &str, rows_hash: &str| Table {
            schema: "s".into(),
            name: name.into(),
            rows,
            schema_hash: schema_hash.into(),
            rows_hash: rows_hash.into(),
            ..Table::default()
        };
        let of = |tables: Vec<Table>| vec![Catalogue { tables, ..Catalogue::default() }];
        let old = of(vec![
            table("gone", 1, "a", "x"),
            table("same", 1, "a", "x"),
            table("rows", 1, "a", "x"),
            table("definition", 1, "a", "x"),
        ]);
        let new = of(vec![
            table("new", 2, "a", "x"),
            table("same", 1, "a", "x"),
            table("rows", 1, "a", "y"),
            table("definition", 1, "b", "x"),
        ]);
        let found: Vec<_> = compare(&old, &new)
            .into_iter()
            .map(|it| (it.name, it.change, it.schema_changed, it.rows_changed))
            .collect();
        let expected = [
            ("definition", TableChange::Changed, true, false),
            ("gone", TableChange::Removed, true, true),
            ("new", TableChange::Added, true, true),
            ("rows", TableChange::Changed, false, true),
            ("same", TableChange::Unchanged, false, false),
        ];
        let expected: Vec<_> =
            expected.map(|(name, a, b, c)| (name.to_owned(), a, b, c)).into_iter().collect();
        assert_eq!(found, expected);
    }
}
