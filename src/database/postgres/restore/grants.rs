//! Rights that a target gives to whatever is made in it: what is restored has its own, which come last.

use super::RestoreOptions;
use super::plan::Plan;
use super::session::{named, session};
use crate::database::postgres::inspect::literal;
use crate::error::Result;

/// Takes away what default privileges of the target gave on tables, views and sequences.
pub fn forget(plan: &Plan, options: &RestoreOptions) -> Result<()> {
    let mut client = session(&plan.archive, options)?;
    let defaults = client.value("SELECT count(*) FROM pg_catalog.pg_default_acl");
    if defaults.map_err(|error| named(options, error))? == "0" {
        return Ok(());
    }
    let kinds = ["TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE"];
    let entries = plan.archive.toc.entries.iter().filter(|entry| {
        plan.choice.pre_data.contains(&entry.dump_id) && kinds.contains(&entry.desc.as_str())
    });
    let values: Vec<String> = entries
        .map(|entry| format!("({}, {})", literal(&entry.namespace), literal(&entry.tag)))
        .collect();
    if values.is_empty() {
        return Ok(());
    }
    let body = format!(
        "DECLARE made record; who oid; BEGIN
         FOR made IN SELECT c.oid, c.relowner, c.relacl,
             CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END || ' '
               || pg_catalog.format('%I.%I', n.nspname, c.relname) AS name
           FROM (VALUES {}) v(schema, name)
           JOIN pg_catalog.pg_namespace n ON n.nspname = v.schema
           JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = v.name
           WHERE c.relacl IS NOT NULL LOOP
         FOR who IN SELECT DISTINCT a.grantee FROM pg_catalog.aclexplode(made.relacl) a
             WHERE a.grantee <> made.relowner LOOP
           EXECUTE 'REVOKE ALL ON ' || made.name || ' FROM ' || CASE who WHEN 0 THEN 'PUBLIC'
             ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(who)) END; END LOOP;
         EXECUTE 'GRANT ALL ON ' || made.name || ' TO '
           || pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(made.relowner)); END LOOP; END",
        values.join(", ")
    );
    let sql = format!("DO {}", literal(&body));
    client.query(&sql).map(drop).map_err(|error| named(options, error))
}
