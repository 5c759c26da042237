//! What a database holds, as its catalogs say under the snapshot of a session.

use serde::Deserialize;

use super::client::Client;
use super::error::PgError;
use crate::catalogue::{Extension, Position};
use crate::database::pattern::Patterns;

/// One relation that has rows of its own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Relation {
    /// Its number.
    pub oid: u64,
    /// It was dropped, emptied or rewritten since the snapshot of the session, which cannot see its rows then.
    pub is_rewritten: bool,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Bytes on disk, without indexes.
    pub bytes: u64,
    /// Columns that are not generated, in order.
    pub columns: Vec<String>,
    /// Columns of the primary key, in its order.
    pub key: Vec<String>,
    /// How well the rows lie in the order of the key's first column, 0 to 1000.
    pub correlation: u32,
    /// A permanent ordinary table that no extension owns: one that we may read ourselves.
    pub is_plain: bool,
    /// It can be locked: all but materialised views.
    pub is_lockable: bool,
    /// The session's role may read it.
    pub is_readable: bool,
    /// Policies hide rows from the session's role.
    pub has_policies: bool,
    /// The tables that it is a partition of, schema and name, the nearest first.
    pub ancestors: Vec<(String, String)>,
}

impl Relation {
    /// `"schema"."name"`, quoted.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }

    /// Whether a pattern fits it, or a table that it is a partition of.
    pub fn fits(&self, patterns: &Patterns) -> bool {
        let ancestors = self.ancestors.iter().map(|(schema, name)| (&**schema, &**name));
        let mut names = std::iter::once((&*self.schema, &*self.name)).chain(ancestors);
        names.any(|(schema, name)| patterns.fit(schema, name))
    }

    /// `schema.name`, for people.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// An identifier in quotes.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as a literal, whatever `standard_conforming_strings` says.
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') {
        format!(" E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// Settings under which rows look the same wherever they are read (as `pg_dump` sets them).
pub const SETTINGS: &str = "SET DateStyle = ISO; SET IntervalStyle = postgres;
    SET extra_float_digits = 3; SET bytea_output = hex; SET synchronize_seqscans = off;
    SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0;
    SET row_security = off; SET search_path = ''; SET client_min_messages = error;
    SET xmloption = content; SET jit = off; SET TimeZone = 'UTC'";

/// Makes a session fit for reading rows. The text encoding is the database's own, as in `pg_dump`.
pub fn prepare(client: &mut Client) -> Result<(), PgError> {
    client.query(SETTINGS)?;
    if version_number(client)? >= 170_000 {
        client.query("SET transaction_timeout = 0")?;
    }
    let encoding = client.value("SHOW server_encoding")?;
    client.query(&format!("SET client_encoding = {}", literal(&encoding)))?;
    Ok(())
}

/// The server's version as one number: 150008 for 15.8.
pub fn version_number(client: &mut Client) -> Result<u32, PgError> {
    let text = client.value("SHOW server_version_num")?;
    text.parse().map_err(|_| PgError::Protocol(format!("server_version_num is '{text}'")))
}

const RELATIONS: &str = "SELECT json_build_object(
  'oid', c.oid::bigint,
  'schema', n.nspname, 'name', c.relname, 'bytes', coalesce(pg_catalog.pg_table_size(c.oid), 0),
  'columns', coalesce((SELECT json_agg(a.attname ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''),
    '[]'),
  'key', coalesce((SELECT json_agg(a.attname ORDER BY k.place)
    FROM pg_catalog.pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY k(number, place),
      pg_catalog.pg_attribute a
    WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid AND k.place <= i.indnkeyatts
      AND a.attrelid = c.oid AND a.attnum = k.number), '[]'),
  'correlation', coalesce((SELECT (abs(s.correlation) * 1000)::int
    FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a
      ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
    JOIN pg_catalog.pg_stats s
      ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname
    WHERE i.indrelid = c.oid AND i.indisprimary AND NOT s.inherited LIMIT 1), 0),
  'is_plain', c.relkind = 'r' AND c.relpersistence = 'p' AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass
      AND d.objid = c.oid AND d.deptype = 'e'),
  'is_lockable', c.relkind <> 'm',
  'is_readable', coalesce(has_table_privilege(c.oid, 'SELECT')
    AND has_schema_privilege(n.oid, 'USAGE'), false),
  'is_rewritten', coalesce(c.relfilenode <> 0
    AND c.relfilenode IS DISTINCT FROM pg_catalog.pg_relation_filenode(c.oid), true),
  'has_policies', c.relrowsecurity AND pg_catalog.row_security_active(c.oid),
  'ancestors', coalesce((SELECT json_agg(json_build_array(pn.nspname, p.relname))
    FROM pg_catalog.pg_partition_ancestors(c.oid) a JOIN pg_catalog.pg_class p ON p.oid = a.relid
      JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
    WHERE c.relispartition AND p.oid <> c.oid), '[]'))
 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't'
   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
     WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
       AND d.refclassid = 'pg_catalog.pg_extension'::regclass
       AND c.oid <> ALL (coalesce(e.extconfig, '{}')))
 ORDER BY n.nspname, c.relname";

/// The tables and materialised views of the database, but for those that an extension makes and fills again.
pub fn relations(client: &mut Client) -> Result<Vec<Relation>, PgError> {
    let rows = client.query(RELATIONS)?;
    let texts = rows.into_iter().filter_map(|row| row.into_iter().next().flatten());
    texts
        .map(|text| {
            serde_json::from_str(&text)
                .map_err(|error| PgError::Protocol(format!("the list of tables: {error}")))
        })
        .collect()
}

/// Where a session's snapshot stands. What the role may not see is left out.
pub fn position(client: &mut Client, snapshot: String) -> Result<Position, PgError> {
    let mut ask = |sql: &str| -> Result<String, PgError> {
        client.query("SAVEPOINT ask")?;
        match client.value(sql) {
            Ok(value) => Ok(value),
            Err(PgError::Server(error)) if !error.is_fatal() => {
                client.query("ROLLBACK TO SAVEPOINT ask")?;
                Ok(String::new())
            }
            Err(error) => Err(error),
        }
    };
    let lsn = ask("SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
        ELSE pg_current_wal_lsn() END")?;
    let system_id = ask("SELECT system_identifier FROM pg_control_system()")?;
    Ok(Position { system_id, snapshot, lsn, ..Position::default() })
}

/// Extensions that are installed in the database, but for those that every database has.
pub fn extensions(client: &mut Client) -> Result<Vec<Extension>, PgError> {
    let rows = client.query(
        "SELECT extname, extversion FROM pg_catalog.pg_extension
         WHERE extname <> 'plpgsql' ORDER BY extname",
    )?;
    let extension = |row: Vec<Option<String>>| {
        let mut texts = row.into_iter().map(Option::unwrap_or_default);
        Some(Extension { name: texts.next()?, version: texts.next()? })
    };
    Ok(rows.into_iter().filter_map(extension).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_quoted() {
        assert_eq!(quote("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\'"), r" E'a\\'''");
    }
}
