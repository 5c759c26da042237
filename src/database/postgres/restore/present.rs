//! Which entries of an archive name something that the target of a restore has already.

use std::collections::HashSet;

use crate::catalogue::toc::TocEntry;
use crate::database::postgres::client::Client;
use crate::database::postgres::error::PgError;
use crate::database::postgres::inspect::literal;

/// Kinds of entries; the catalog that holds them; how the catalog spells what the entry is called; the
/// schema, where it has one.
const KINDS: [(&[&str], &str, &str, &str); 20] = [
    (
        &["TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE"],
        "pg_class",
        "relname",
        "relnamespace",
    ),
    (&["TYPE", "DOMAIN", "SHELL TYPE"], "pg_type", "typname", "typnamespace"),
    (
        &["FUNCTION", "PROCEDURE"],
        "pg_proc",
        "o.proname || '(' || pg_catalog.oidvectortypes(o.proargtypes) || ')'",
        "pronamespace",
    ),
    (
        &["AGGREGATE"],
        "pg_proc",
        "o.proname || '(' || CASE WHEN o.pronargs = 0 THEN '*'
           ELSE pg_catalog.oidvectortypes(o.proargtypes) END || ')'",
        "pronamespace",
    ),
    (
        &["OPERATOR"],
        "pg_operator",
        "pg_catalog.format('DROP OPERATOR %I.%s (%s, %s);', n.nspname, o.oprname,
           coalesce(pg_catalog.format_type(nullif(o.oprleft, 0), NULL), 'NONE'),
           coalesce(pg_catalog.format_type(nullif(o.oprright, 0), NULL), 'NONE'))",
        "oprnamespace",
    ),
    (
        &["CAST"],
        "pg_cast",
        "pg_catalog.format('CAST (%s AS %s)', pg_catalog.format_type(o.castsource, NULL),
           pg_catalog.format_type(o.casttarget, NULL))",
        "",
    ),
    (&["COLLATION"], "pg_collation", "collname", "collnamespace"),
    (&["CONVERSION"], "pg_conversion", "conname", "connamespace"),
    (&["OPERATOR CLASS"], "pg_opclass", "opcname", "opcnamespace"),
    (&["OPERATOR FAMILY"], "pg_opfamily", "opfname", "opfnamespace"),
    (&["TEXT SEARCH CONFIGURATION"], "pg_ts_config", "cfgname", "cfgnamespace"),
    (&["TEXT SEARCH DICTIONARY"], "pg_ts_dict", "dictname", "dictnamespace"),
    (&["TEXT SEARCH PARSER"], "pg_ts_parser", "prsname", "prsnamespace"),
    (&["TEXT SEARCH TEMPLATE"], "pg_ts_template", "tmplname", "tmplnamespace"),
    (&["SCHEMA"], "pg_namespace", "nspname", ""),
    (&["EXTENSION"], "pg_extension", "extname", ""),
    (&["PROCEDURAL LANGUAGE"], "pg_language", "lanname", ""),
    (&["ACCESS METHOD"], "pg_am", "amname", ""),
    (&["FOREIGN DATA WRAPPER"], "pg_foreign_data_wrapper", "fdwname", ""),
    (&["SERVER"], "pg_foreign_server", "srvname", ""),
];
/// The same, of what comes after the rows.
const LATER: [(&[&str], &str, &str, &str); 2] = [
    (&["PUBLICATION"], "pg_publication", "pubname", ""),
    (&["EVENT TRIGGER"], "pg_event_trigger", "evtname", ""),
];

/// Whether entries of a kind are looked up.
pub fn is_known(kind: &str) -> bool {
    KINDS.iter().chain(&LATER).any(|(kinds, ..)| kinds.contains(&kind))
}

/// The numbers of those entries that are there. Kinds that are not looked up are not.
pub fn present<'a>(
    client: &mut Client,
    entries: impl Iterator<Item = &'a TocEntry> + Clone,
) -> Result<HashSet<i32>, PgError> {
    let mut found = HashSet::new();
    for (kinds, catalog, name, schema) in KINDS.iter().chain(&LATER) {
        let of_kind = entries.clone().filter(|entry| kinds.contains(&entry.desc.as_str()));
        let values: Vec<String> = of_kind.map(values).collect();
        if values.is_empty() {
            continue;
        }
        let name = if name.contains("o.") { (*name).to_owned() } else { format!("o.{name}") };
        let in_schema = match schema.is_empty() {
            true => String::new(),
            false => format!(
                "JOIN pg_catalog.pg_namespace n ON n.nspname = v.schema AND n.oid = o.{schema}"
            ),
        };
        let sql = format!(
            "SELECT v.id FROM (VALUES {}) v(id, schema, name) CROSS JOIN pg_catalog.{catalog} o
             {in_schema} WHERE {name} = v.name",
            values.join(", ")
        );
        let rows = client.query(&sql)?;
        found.extend(rows.into_iter().flatten().flatten().filter_map(|id| id.parse::<i32>().ok()));
    }
    Ok(found)
}

fn values(entry: &TocEntry) -> String {
    let name = if entry.desc == "OPERATOR" { entry.drop_stmt.trim() } else { &entry.tag };
    format!("({}, {}, {})", entry.dump_id, literal(&entry.namespace), literal(name))
}

/// What [`CONTENT`] calls a schema.
pub const SCHEMA: &str = "the schema";

/// What somebody made in a database, extensions aside: tables and the like, functions, types, schemas,
/// large objects; the schema and what it is called.
pub const CONTENT: &str = "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c
   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND n.nspname !~ '^pg_'
   AND n.nspname <> 'information_schema' AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
     WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
 UNION ALL SELECT n.nspname, p.proname || '()' FROM pg_catalog.pg_proc p
   JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
     WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
 UNION ALL SELECT n.nspname, 'type ' || t.typname FROM pg_catalog.pg_type t
   JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND t.typelem = 0
   AND (t.typrelid = 0 OR EXISTS (SELECT FROM pg_catalog.pg_class c
     WHERE c.oid = t.typrelid AND c.relkind = 'c'))
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
     WHERE d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = t.oid
       AND d.deptype IN ('e', 'i') AND d.refclassid <> 'pg_catalog.pg_class'::regclass)
 UNION ALL SELECT n.nspname, 'the schema' FROM pg_catalog.pg_namespace n
 WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'public')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
     WHERE d.classid = 'pg_catalog.pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e')
 UNION ALL SELECT 'large object', m.oid::text FROM pg_catalog.pg_largeobject_metadata m";
