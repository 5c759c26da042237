//! What stands in the target of a restore already: what is in the way, what would be harmed, what stays.

use std::collections::HashSet;

use super::Origin;
use super::plan::Plan;
use super::preflight::{Look, Verdict};
use super::present::{CONTENT, SCHEMA};
use crate::catalogue::Name;
use crate::catalogue::toc::TocEntry;
use crate::database::postgres::client::{Client, Rows};
use crate::database::postgres::error::PgError;
use crate::database::postgres::inspect::literal;

/// Names that are written out.
const SHOWN: usize = 5;

/// Says which tables the snapshot has no rows of.
pub fn say_rows(look: &mut Look<'_>, plan: &Plan) {
    let choice = &plan.choice;
    if !choice.kept.is_empty() {
        let text = format!(
            "{} tables keep their rows: their rows are not in the snapshot ({})",
            choice.kept.len(),
            names(&choice.kept)
        );
        look.say("rows", Verdict::Warning, text);
    }
    if !choice.emptied.is_empty() && !look.options.schema_only {
        let what = if look.options.data_only { "get no rows" } else { "are made without rows" };
        let text = format!(
            "{} tables {what}: their rows are not in the snapshot ({})",
            choice.emptied.len(),
            names(&choice.emptied)
        );
        look.say("rows", Verdict::Warning, text);
    }
    if !choice.absent.is_empty() {
        let text = format!(
            "the tables need {}, which the target does not have: restore it as well",
            choice.absent.join(", ")
        );
        look.say("needs", Verdict::Bad, text);
    }
}

fn names(all: &[Name]) -> String {
    let shown = all.iter().take(SHOWN).map(|name| format!("{}.{}", name.schema, name.name));
    let more = if all.len() > SHOWN { ", …" } else { "" };
    shown.collect::<Vec<_>>().join(", ") + more
}

/// Foreign keys to tables that are dropped, of tables that stay: the schema and the name of the table,
/// the key, its definition.
const INCOMING: &str =
    "SELECT cn.nspname, c.relname, k.conname, pg_catalog.pg_get_constraintdef(k.oid)
 FROM (VALUES TABLES) v(schema, name)
 JOIN pg_catalog.pg_namespace n ON n.nspname = v.schema
 JOIN pg_catalog.pg_class t ON t.relnamespace = n.oid AND t.relname = v.name
 JOIN pg_catalog.pg_constraint k ON k.confrelid = t.oid AND k.contype = 'f' AND k.conparentid = 0
 JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
 JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace";

/// Looks at foreign keys of other tables, which are dropped and made again: they must be those of the
/// snapshot. Those of tables that are not there are left out. Says which links are.
pub fn links(
    look: &mut Look<'_>,
    plan: &mut Plan,
    there: &HashSet<i32>,
    client: &mut Client,
) -> Result<(), PgError> {
    let toc = &plan.archive.toc;
    let made = toc.entries.iter().filter(|entry| plan.choice.pre_data.contains(&entry.dump_id));
    let made: HashSet<(&str, &str)> =
        made.filter(|it| it.desc == "TABLE").map(|it| (&*it.namespace, &*it.tag)).collect();
    let mut warnings = Vec::new();
    let mut away = Vec::new();
    if look.options.clean {
        warnings = unpublished(plan, client, &made)?;
        if plan.choice.wanted.is_some() || !plan.choice.kept.is_empty() {
            foreign_keys(look, plan, client, &made)?;
        }
        let is_away =
            |entry: &&TocEntry| !entry.dependencies.iter().all(|id| is_here(plan, there, *id));
        let incoming = plan.choice.incoming.iter().filter_map(|id| toc.entry(*id));
        for entry in incoming.filter(is_away) {
            away.push(entry.dump_id);
            warnings.push(format!(
                "the foreign key {}.{} is left out: its table is not there",
                entry.namespace, entry.tag
            ));
        }
    }
    plan.choice.links.retain(|id| !away.contains(id));
    plan.choice.incoming.retain(|id| !away.contains(id));
    plan.choice.warnings.extend(warnings);
    for warning in &plan.choice.warnings {
        look.say("links", Verdict::Warning, warning);
    }
    Ok(())
}

fn foreign_keys(
    look: &mut Look<'_>,
    plan: &Plan,
    client: &mut Client,
    made: &HashSet<(&str, &str)>,
) -> Result<(), PgError> {
    for key in &incoming(client, made)? {
        let [Some(schema), Some(table), Some(name), Some(definition)] = key.as_slice() else {
            continue;
        };
        if made.contains(&(schema, table)) {
            continue;
        }
        let tag = format!("{table} {name}");
        let known = plan.choice.incoming.iter().filter_map(|id| plan.entry(*id));
        let mut known = known.filter(|it| it.namespace == *schema && it.tag == tag);
        // One that rows did not fit once is the same.
        let bare = |text: &str| text.trim_end_matches(" NOT VALID").to_owned();
        let is_same = |it: &TocEntry| {
            let made = bare(it.defn.trim_end().trim_end_matches(';'));
            made.ends_with(&format!(" {}", bare(definition)))
        };
        if !known.any(is_same) {
            let text = format!(
                "the foreign key {name} of {schema}.{table} refers to what would be dropped, and the \
                 snapshot does not have it so: drop it first"
            );
            look.say("links", Verdict::Bad, text);
        }
    }
    Ok(())
}

/// Tables by publication: a table that is dropped is no longer in it, and the server does not ask.
const PUBLISHED: &str =
    "SELECT n.nspname, c.relname, p.pubname FROM pg_catalog.pg_publication_rel r
 JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
 JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";

/// Publications of tables that are dropped, which the snapshot does not have them in.
fn unpublished(
    plan: &Plan,
    client: &mut Client,
    made: &HashSet<(&str, &str)>,
) -> Result<Vec<String>, PgError> {
    let choice = &plan.choice;
    let entries = plan.archive.toc.entries.iter().filter(|entry| {
        let id = &entry.dump_id;
        entry.desc == "PUBLICATION TABLE"
            && (choice.post_data.contains(id) || choice.links.contains(id))
    });
    let known: HashSet<(&str, &str)> = entries.map(|it| (&*it.namespace, &*it.tag)).collect();
    let mut warnings = Vec::new();
    for row in client.query(PUBLISHED)? {
        let [Some(schema), Some(table), Some(publication)] = row.as_slice() else { continue };
        let tag = format!("{publication} {table}");
        if made.contains(&(schema, table)) && !known.contains(&(schema, &tag)) {
            warnings.push(format!(
                "{schema}.{table} is in the publication {publication}, which the snapshot does not \
                 have it in: add it again"
            ));
        }
    }
    Ok(warnings)
}

/// Whether an entry is a table that is neither there nor made.
fn is_here(plan: &Plan, there: &HashSet<i32>, id: i32) -> bool {
    let is_table = plan.entry(id).is_some_and(|entry| entry.desc == "TABLE");
    !is_table || there.contains(&id) || plan.choice.pre_data.contains(&id)
}

fn incoming(client: &mut Client, made: &HashSet<(&str, &str)>) -> Result<Rows, PgError> {
    let values: Vec<String> = made
        .iter()
        .map(|(schema, name)| format!("({}, {})", literal(schema), literal(name)))
        .collect();
    if values.is_empty() {
        return Ok(Rows::new());
    }
    client.query(&INCOMING.replace("TABLES", &values.join(", ")))
}

/// Looks at what is there.
pub fn look(
    look: &mut Look<'_>,
    plan: &Plan,
    origin: &Origin<'_>,
    there: &HashSet<i32>,
    client: &mut Client,
) -> Result<(), PgError> {
    let options = look.options;
    let database = options.database();
    let rows = client.query(CONTENT)?;
    if options.data_only {
        return look_at_filled(look, plan, origin, &rows, client);
    }
    if options.clean {
        let mut what = "what the snapshot holds is dropped first".to_owned();
        if options.schema_only {
            what.push_str(", with its rows, which are not restored");
        }
        return match rows.is_empty() {
            true => {
                look.say("content", Verdict::Good, format!("nothing is in {database}"));
                Ok(())
            }
            false => consent(look, origin, client, &what),
        };
    }
    let is_partial = !options.tables.is_empty();
    match clash(plan, there, &rows, options.into_schema.as_deref()) {
        Some(name) if is_partial => {
            let how = match options.schema_only {
                true => "rename it first, or drop it with its rows",
                false => "--clean drops it first, --into-schema restores beside it",
            };
            look.say("content", Verdict::Bad, format!("{database} holds {name} already: {how}"));
        }
        None if rows.is_empty() || is_partial || !has_relations(&rows) => {
            look.say("content", Verdict::Good, format!("nothing in {database} is in the way"));
        }
        found => {
            let name = found.map_or(String::new(), |name| format!(", {name} among them"));
            let text = format!(
                "{database} is not empty ({} tables, views, functions and the like{name}): restore into \
                 a new one with --database NEW --create, or drop what is in the way with --clean",
                rows.len()
            );
            look.say("content", Verdict::Bad, text);
        }
    }
    Ok(())
}

/// Whether there is more than functions, types and empty schemas.
fn has_relations(rows: &Rows) -> bool {
    let is_other = |name: &str| name.ends_with("()") || name.starts_with("type ");
    rows.iter().any(|row| {
        let name = row.get(1).and_then(Option::as_deref).unwrap_or_default();
        !is_other(name) && name != SCHEMA
    })
}

/// Something that would be made and is there.
fn clash(plan: &Plan, there: &HashSet<i32>, rows: &Rows, moved: Option<&str>) -> Option<String> {
    if let Some(schema) = moved {
        let is_there = |name: &str| {
            rows.iter()
                .any(|row| row[0].as_deref() == Some(schema) && row[1].as_deref() == Some(name))
        };
        let mut tables = plan.loads.iter().map(|load| &load.table);
        return tables.find(|it| is_there(&it.name)).map(|it| format!("{schema}.{}", it.name));
    }
    // These are made only where they are not there.
    let replaced = ["EXTENSION", "PROCEDURAL LANGUAGE", "SHELL TYPE"];
    let choice = &plan.choice;
    let is_made = |entry: &&TocEntry| {
        let id = &entry.dump_id;
        (choice.pre_data.contains(id) || choice.post_data.contains(id))
            && there.contains(id)
            && !replaced.contains(&entry.desc.as_str())
            && entry.defn.trim_start().starts_with("CREATE ")
    };
    let found = plan.archive.toc.entries.iter().find(is_made)?;
    let dot = if found.namespace.is_empty() { "" } else { "." };
    let kind = match found.desc.as_str() {
        "TABLE" => String::new(),
        kind => format!("the {} ", kind.to_lowercase()),
    };
    Some(format!("{kind}{}{dot}{}", found.namespace, found.tag))
}

/// Rows go into tables that must be there.
fn look_at_filled(
    look: &mut Look<'_>,
    plan: &Plan,
    origin: &Origin<'_>,
    rows: &Rows,
    client: &mut Client,
) -> Result<(), PgError> {
    let there = |schema: &str, name: &str| {
        rows.iter().any(|row| row[0].as_deref() == Some(schema) && row[1].as_deref() == Some(name))
    };
    let mut tables = plan.loads.iter().map(|load| &load.table);
    match tables.find(|it| !there(&it.schema, &it.name)) {
        Some(table) => {
            let text = format!("{}.{} is not there to be filled", table.schema, table.name);
            look.say("content", Verdict::Bad, text);
            Ok(())
        }
        None => {
            let has_objects = plan.archive.has(&plan.choice.data, |it| it.desc.starts_with("BLOB"));
            let more = if has_objects { ", large objects take the place of theirs" } else { "" };
            let what = format!("rows are added to tables that are there{more}");
            consent(look, origin, client, &what)
        }
    }
}

/// What harms a database needs its name.
fn consent(
    look: &mut Look<'_>,
    origin: &Origin<'_>,
    client: &mut Client,
    what: &str,
) -> Result<(), PgError> {
    let options = look.options;
    let database = options.database();
    let system_id = client.value("SELECT system_identifier FROM pg_catalog.pg_control_system()");
    let is_source = system_id.is_ok_and(|id| id == origin.catalogue.position.system_id)
        && database == origin.catalogue.database;
    let live = if is_source { " This is the database that the snapshot was made of." } else { "" };
    if options.overwrite.as_deref() == Some(database) {
        look.say("content", Verdict::Warning, format!("{what}.{live}"));
    } else {
        let text = format!("{what}.{live} Confirm it with --yes-overwrite {database}");
        look.say("content", Verdict::Bad, text);
    }
    Ok(())
}
