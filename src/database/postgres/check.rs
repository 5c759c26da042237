//! Whether a role may read what a backup is to have, and what of it cannot be read well: looked at by every
//! backup before it begins, and by `source test`.

use super::client::Client;
use super::error::PgError;
use super::inspect::{self, Relation, literal, quote};
use crate::database::pattern::Patterns;
use crate::database::probe::{Finding, Findings};
use crate::settings::PostgresConfig;

/// The first version with the role that reads everything.
const READ_ALL_DATA: u32 = 140_000;

/// Whether a table's rows are wanted.
pub fn is_wanted(config: &PostgresConfig, relation: &Relation) -> bool {
    let fits = |patterns: &[String]| relation.fits(&Patterns::new(patterns));
    (config.tables.is_empty() || fits(&config.tables)) && !fits(&config.exclude_data)
}

/// Looks at a database through a session of the role that is to read it.
pub fn look(
    client: &mut Client,
    user: &str,
    relations: &[Relation],
    config: &PostgresConfig,
) -> Result<Vec<Finding>, PgError> {
    let mut found = Findings::default();
    look_at_patterns(relations, config, &mut found);
    let may_read_all = inspect::version_number(client)? >= READ_ALL_DATA;
    let grant = |schema: &str, kind: &str| {
        let user = quote(user);
        if may_read_all {
            return format!("GRANT pg_read_all_data TO {user}");
        }
        let schema = quote(schema);
        format!(
            "GRANT USAGE ON SCHEMA {schema} TO {user}; GRANT SELECT ON ALL {kind} IN SCHEMA {schema} TO {user}"
        )
    };
    // pg_dump locks also the tables whose rows are not wanted, which takes the same right.
    let hidden: Vec<&Relation> =
        relations.iter().filter(|it| !it.is_readable && it.is_lockable).collect();
    if let Some(first) = hidden.first() {
        found.problem(format!(
            "{user} may not read {} of {} tables, {} among them: run {}",
            hidden.len(),
            relations.len(),
            first.full_name(),
            grant(&first.schema, "TABLES")
        ));
    }
    let sequences = client.query(HIDDEN_SEQUENCES)?;
    if let Some([schema, name]) = first_two(&sequences) {
        found.problem(format!(
            "{user} may not read {} sequences, {schema}.{name} among them: run {}",
            sequences.len(),
            grant(schema, "SEQUENCES")
        ));
    }
    let is_filtered = |it: &&Relation| it.has_policies && is_wanted(config, it);
    if let Some(table) = relations.iter().find(is_filtered) {
        found.problem(format!(
            "policies hide rows of {} from {user}: run ALTER ROLE {} BYPASSRLS",
            table.full_name(),
            quote(user)
        ));
    }
    let objects = client.query(&HIDDEN_OBJECTS.replace("USER", &literal(user)))?;
    if let Some([number, count]) = first_two(&objects) {
        found.problem(format!(
            "{user} may not read {count} large objects, {number} among them: run GRANT SELECT ON LARGE \
             OBJECT {number} TO {} and the like for each, or let a superuser read them",
            quote(user)
        ));
    }
    Ok(found.into_vec())
}

fn look_at_patterns(relations: &[Relation], config: &PostgresConfig, found: &mut Findings) {
    let all = relations.iter().map(|it| (it.schema.as_str(), it.name.as_str()));
    for (option, patterns) in [("tables", &config.tables), ("exclude_data", &config.exclude_data)] {
        if let Some(pattern) = Patterns::new(patterns).unused(all.clone()) {
            let text = format!("{option}: '{pattern}' fits no table of the database");
            if option == "tables" { found.problem(text) } else { found.warning(text) }
        }
    }
}

fn first_two(rows: &[Vec<Option<String>>]) -> Option<[&str; 2]> {
    let row = rows.first()?;
    Some([row.first()?.as_deref()?, row.get(1)?.as_deref()?])
}

/// Sequences that `pg_dump` reads and the session's role may not. Those of extensions are not read.
const HIDDEN_SEQUENCES: &str = "SELECT n.nspname, c.relname
 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'S' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT (has_sequence_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE'))
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
     WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY 1, 2";

/// The first large object that the role may not read, and how many there are.
const HIDDEN_OBJECTS: &str = "SELECT min(m.oid::bigint), count(*)
 FROM pg_catalog.pg_largeobject_metadata m
 WHERE current_setting('lo_compat_privileges') = 'off' AND NOT pg_has_role(USER, m.lomowner, 'USAGE')
   AND NOT EXISTS (SELECT FROM aclexplode(m.lomacl) a WHERE a.privilege_type = 'SELECT'
     AND (a.grantee = 0 OR pg_has_role(USER, a.grantee, 'USAGE')))
 HAVING count(*) > 0";
