//! The statements that drop what the entries of an archive make.

use super::plan::Plan;
use crate::catalogue::toc::TocEntry;
use crate::database::postgres::inspect::{literal, quote};

/// The statements that drop what is restored, the last made first. What is not there is passed by.
pub fn drops(plan: &Plan) -> String {
    let choice = &plan.choice;
    let wanted = |entry: &&TocEntry| {
        let id = &entry.dump_id;
        choice.pre_data.contains(id)
            || choice.post_data.contains(id)
            || choice.incoming.contains(id)
            || choice.data.contains(id) && entry.desc.starts_with("BLOB")
    };
    let is_later = |entry: &TocEntry| !choice.pre_data.contains(&entry.dump_id);
    let entries = plan.archive.toc.entries.iter().rev().filter(wanted);
    entries.filter_map(|entry| drop_of(entry, is_later(entry))).collect()
}

/// How one entry is dropped. What comes after the rows goes with its table in the end: it is dropped
/// first because it may keep others from going, and where it cannot be, the table decides.
fn drop_of(entry: &TocEntry, is_later: bool) -> Option<String> {
    let drop = entry.drop_stmt.trim();
    match entry.desc.as_str() {
        kind if kind.starts_with("BLOB") => return unlink(entry),
        "SUBSCRIPTION" => return Some(unsubscribe(entry)),
        // It keeps a sequence from going. The column may be gone, or have no default any more.
        "DEFAULT" => {
            let rest = drop.strip_prefix("ALTER TABLE ")?;
            let conditions = "undefined_column OR syntax_error";
            return Some(passing(&format!("ALTER TABLE IF EXISTS {rest}"), conditions));
        }
        "RULE" if drop.starts_with("CREATE OR REPLACE VIEW ") => return Some(hollow(entry, drop)),
        _ => {}
    }
    let one = if let Some(rest) = drop.strip_prefix(&format!("DROP {} ", entry.desc)) {
        let rest = rest.trim_end_matches(';').trim_end();
        let guard = rest.strip_suffix(" CASCADE").map(|name| guard(name, &entry.desc));
        format!("{}DROP {} IF EXISTS {rest};\n", guard.unwrap_or_default(), entry.desc)
    } else {
        let (table, constraint) = drop.split_once(" DROP CONSTRAINT ")?;
        let (verb, table) = ["ALTER TABLE ", "ALTER DOMAIN "]
            .iter()
            .find_map(|verb| Some((verb, table.strip_prefix(verb)?)))?;
        // A domain has no "if it is there".
        let exists = if *verb == "ALTER TABLE " { "IF EXISTS " } else { "" };
        format!("{verb}{exists}{table} DROP CONSTRAINT IF EXISTS {constraint}\n")
    };
    let conditions = "dependent_objects_still_exist OR invalid_table_definition
        OR undefined_object OR invalid_schema_name";
    Some(if is_later { passing(one.trim_end(), conditions) } else { one })
}

/// A statement that may fail for some reasons.
fn passing(statement: &str, conditions: &str) -> String {
    let body = format!("BEGIN {statement} EXCEPTION WHEN {conditions} THEN NULL; END");
    format!("DO {};\n", literal(&body))
}

/// Takes a view's query away, as `pg_dump` does where views and keys depend on each other.
fn hollow(entry: &TocEntry, replace: &str) -> String {
    let view = entry.tag.strip_suffix(" _RETURN").unwrap_or(&entry.tag);
    let drop = format!("DROP VIEW {}.{}", quote(&entry.namespace), quote(view));
    let body = format!(
        "BEGIN IF EXISTS (SELECT FROM pg_catalog.pg_views WHERE schemaname = {} AND viewname = {})
         THEN {replace} END IF;
         EXCEPTION WHEN invalid_table_definition THEN {drop}; END",
        literal(&entry.namespace),
        literal(view)
    );
    format!("DO {};\n", literal(&body))
}

/// Refuses where somebody else depends on a type that is dropped with all that does: its functions do, and
/// it does on them.
fn guard(name: &str, kind: &str) -> String {
    let body = format!(
        "DECLARE other text; BEGIN
         WITH own AS (SELECT t.oid, t.typarray, ARRAY[t.typinput, t.typoutput, t.typreceive, t.typsend,
             t.typmodin, t.typmodout, t.typanalyze]::oid[] AS io
           FROM pg_catalog.pg_type t WHERE t.oid = pg_catalog.to_regtype({}))
         SELECT string_agg(pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid), ', ')
         INTO other FROM own, pg_catalog.pg_depend d
         WHERE d.deptype NOT IN ('i', 'e')
           AND (d.refclassid = 'pg_catalog.pg_type'::regclass AND d.refobjid IN (own.oid, own.typarray)
             OR d.refclassid = 'pg_catalog.pg_proc'::regclass AND d.refobjid = ANY (own.io))
           AND NOT (d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = own.oid)
           AND NOT (d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = ANY (own.io));
         IF other IS NOT NULL THEN
           RAISE EXCEPTION '% % is needed by %', {}, {}, other; END IF; END",
        literal(name),
        literal(&kind.to_lowercase()),
        literal(name)
    );
    format!("DO {};\n", literal(&body))
}

/// Drops a subscription and leaves its slot to the publisher: what is restored goes on with it.
fn unsubscribe(entry: &TocEntry) -> String {
    let name = literal(&entry.tag);
    let body = format!(
        "BEGIN IF EXISTS (SELECT FROM pg_catalog.pg_subscription s
           JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
           WHERE s.subname = {name} AND d.datname = pg_catalog.current_database()) THEN
         EXECUTE pg_catalog.format('ALTER SUBSCRIPTION %I DISABLE', {name});
         EXECUTE pg_catalog.format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', {name});
         EXECUTE pg_catalog.format('DROP SUBSCRIPTION %I', {name}); END IF; END"
    );
    format!("DO {};\n", literal(&body))
}

/// Removes large objects, those that are there.
fn unlink(entry: &TocEntry) -> Option<String> {
    let numbers = large_objects(entry);
    (!numbers.is_empty()).then(|| {
        format!(
            "SELECT pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata
             WHERE oid = ANY ('{{{}}}'::pg_catalog.oid[]);\n",
            numbers.join(",")
        )
    })
}

/// The large objects that an entry makes: one by its tag, or up to a thousand by their list (PostgreSQL
/// 17).
pub fn large_objects(entry: &TocEntry) -> Vec<&str> {
    let text = match entry.desc.as_str() {
        "BLOB" => &entry.tag,
        "BLOB METADATA" => &entry.defn,
        _ => return Vec::new(),
    };
    let numbers = text.split(|letter: char| !letter.is_ascii_digit());
    numbers.filter(|number| !number.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(desc: &str, drop_stmt: &str) -> TocEntry {
        TocEntry { desc: desc.into(), drop_stmt: drop_stmt.into(), ..TocEntry::default() }
    }

    #[test]
    fn what_is_not_there_is_passed_by() {
        let drop = |desc: &str, text: &str| drop_of(&entry(desc, text), false).unwrap();
        assert_eq!(drop("TABLE", "DROP TABLE s.t;\n"), "DROP TABLE IF EXISTS s.t;\n");
        let key = "ALTER TABLE ONLY s.t DROP CONSTRAINT k;";
        let expected = "ALTER TABLE IF EXISTS ONLY s.t DROP CONSTRAINT IF EXISTS k;\n";
        assert_eq!(drop("FK CONSTRAINT", key), expected);
        let trigger = drop_of(&entry("TRIGGER", "DROP TRIGGER a ON s.t;"), true).unwrap();
        assert!(trigger.starts_with("DO 'BEGIN DROP TRIGGER IF EXISTS a ON s.t;"), "{trigger}");
    }

    #[test]
    fn nothing_goes_with_a_type_unasked() {
        let drop = drop_of(&entry("TYPE", "DROP TYPE s.point CASCADE;\n"), false).unwrap();
        assert!(drop.contains("is needed by") && drop.ends_with("EXISTS s.point CASCADE;\n"));
        assert!(drop_of(&entry("ACL", ""), false).is_none());
    }
}
