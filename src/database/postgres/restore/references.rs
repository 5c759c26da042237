//! Foreign keys after rows were loaded into tables that are there: the server did not look at them.

use super::RestoreOptions;
use super::plan::Plan;
use super::session::{named, session};
use crate::database::postgres::inspect::literal;
use crate::database::source_error;
use crate::error::Result;

/// Foreign keys of some tables that should hold: the constraint with its table, and a query that has a
/// row where they do not. Columns that are NULL refer to nothing; keys of periods may refer to several rows.
const KEYS: &str = "SELECT pg_catalog.format('%s of %s', k.conname, k.conrelid::regclass),
   pg_catalog.format('SELECT 1 FROM ONLY %s c WHERE %s AND NOT EXISTS (SELECT FROM %s p WHERE %s) LIMIT 1',
     k.conrelid::regclass, string_agg(pg_catalog.format('c.%I IS NOT NULL', a.attname), ' AND '),
     k.confrelid::regclass,
     string_agg(pg_catalog.format('p.%I OPERATOR(%I.%s) c.%I', b.attname, s.nspname, o.oprname, a.attname),
       ' AND '))
 FROM (VALUES TABLES) v(schema, name)
 JOIN pg_catalog.pg_namespace n ON n.nspname = v.schema
 JOIN pg_catalog.pg_class t ON t.relnamespace = n.oid AND t.relname = v.name
 JOIN pg_catalog.pg_constraint k ON k.conrelid = t.oid AND k.contype = 'f' AND k.convalidated
 JOIN pg_catalog.pg_class r ON r.oid = k.confrelid
 CROSS JOIN LATERAL unnest(k.conkey, k.confkey, k.conpfeqop) x(ours, theirs, equals)
 JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = x.ours
 JOIN pg_catalog.pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = x.theirs
 JOIN pg_catalog.pg_operator o ON o.oid = x.equals
 JOIN pg_catalog.pg_namespace s ON s.oid = o.oprnamespace
 WHERE pg_catalog.to_jsonb(k) ->> 'conperiod' IS DISTINCT FROM 'true'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint up WHERE up.oid = k.conparentid
   AND up.conrelid = k.conrelid)
 GROUP BY k.oid, k.conname, k.conrelid, k.confrelid";

/// Looks whether all rows of the tables that were loaded refer to rows that are there.
pub fn check(plan: &Plan, options: &RestoreOptions) -> Result<()> {
    let values: Vec<String> = plan
        .loads
        .iter()
        .map(|load| format!("({}, {})", literal(&load.table.schema), literal(&load.table.name)))
        .collect();
    let mut client = session(&plan.archive, options)?;
    let sql = KEYS.replace("TABLES", &values.join(", "));
    let keys = client.query(&sql).map_err(|error| named(options, error))?;
    let mut broken = Vec::new();
    for key in keys {
        let [Some(name), Some(query)] = key.as_slice() else { continue };
        let found = client.query(query).map_err(|error| named(options, error))?;
        if !found.is_empty() {
            broken.push(name.clone());
        }
    }
    if broken.is_empty() {
        return Ok(());
    }
    let text = format!("rows refer to others that are not there: {}", broken.join(", "));
    Err(source_error(&options.target.address(), text))
}
