//! Roles that a restore needs: owners, grantees, those that policies and mappings name.

use std::collections::BTreeSet;

use super::choice::is_ours;
use super::plan::Plan;
use super::preflight::{Look, Verdict};
use super::{Origin, RestoreOptions};
use crate::catalogue::definitions;
use crate::catalogue::toc::TocEntry;
use crate::database::postgres::client::Client;
use crate::database::postgres::error::PgError;
use crate::database::postgres::inspect::{literal, version_number};

/// Looks whether they are there, and whether the session may give things to their owners.
pub fn look(
    look: &mut Look<'_>,
    plan: &Plan,
    origin: &Origin<'_>,
    client: &mut Client,
) -> Result<(), PgError> {
    let options = look.options;
    if options.data_only || options.into_schema.is_some() {
        return Ok(());
    }
    let (owners, others) = needed(plan, options);
    let rows = client.query("SELECT rolname FROM pg_catalog.pg_roles")?;
    let is_there = |name: &str| rows.iter().flatten().flatten().any(|it| it == name);
    let all = owners.iter().chain(&others);
    let missing: BTreeSet<&str> = all.map(String::as_str).filter(|it| !is_there(it)).collect();
    let foreign = foreign(client, &owners)?;
    if !missing.is_empty() {
        let names = missing.into_iter().collect::<Vec<_>>().join(", ");
        let how = if options.no_owner {
            "policies and mappings of users name them: make them".to_owned()
        } else {
            let stream = &origin.catalogue.globals_stream;
            let has = if stream.is_empty() { "".into() } else { format!(" ({stream} has them)") };
            format!("make them{has}, or leave out owners and grants with --no-owner")
        };
        look.say("roles", Verdict::Bad, format!("missing on the target: {names}; {how}"));
    } else if let Some(owner) = foreign.first() {
        let user = client.value("SELECT current_user")?;
        let text = format!(
            "{user} cannot give anything to {}: GRANT {owner} TO {user}, or leave out owners and grants \
             with --no-owner",
            foreign.join(", ")
        );
        look.say("roles", Verdict::Bad, text);
    } else {
        look.say("roles", Verdict::Good, "all owners and grantees are there");
    }
    Ok(())
}

/// Owners, and roles that are named otherwise.
fn needed(plan: &Plan, options: &RestoreOptions) -> (BTreeSet<String>, BTreeSet<String>) {
    let choice = &plan.choice;
    let is_database = options.create && options.tables.is_empty();
    let is_taken = |entry: &&TocEntry| {
        let id = &entry.dump_id;
        choice.pre_data.contains(id)
            || choice.data.contains(id)
            || choice.post_data.contains(id)
            || is_database && is_ours(entry) && entry.desc != "TABLE DATA"
    };
    let (mut owners, mut others) = (BTreeSet::new(), BTreeSet::new());
    for entry in plan.archive.toc.entries.iter().filter(is_taken) {
        let is_always = ["POLICY", "USER MAPPING"].contains(&entry.desc.as_str());
        if is_always || !options.no_owner {
            others.extend(definitions::roles(entry));
        }
        // Those of other kinds own nothing: what they say is of another entry.
        let is_made =
            !["ACL", "DEFAULT ACL", "COMMENT", "DATABASE PROPERTIES"].contains(&&*entry.desc);
        if !options.no_owner && is_made && !entry.owner.is_empty() {
            owners.insert(entry.owner.clone());
        }
    }
    (owners, others)
}

/// Owners whose role the session's is no member of, unless it may do anything.
fn foreign(client: &mut Client, owners: &BTreeSet<String>) -> Result<Vec<String>, PgError> {
    if owners.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = owners.iter().map(|name| format!("({})", literal(name))).collect();
    // 16 tells a member that may become the role from one that may not.
    let right = if version_number(client)? >= 160_000 { "SET" } else { "MEMBER" };
    let rows = client.query(&format!(
        "SELECT r.rolname FROM (VALUES {}) v(name) JOIN pg_catalog.pg_roles r ON r.rolname = v.name
         WHERE NOT (SELECT s.rolsuper FROM pg_catalog.pg_roles s WHERE s.rolname = current_user)
           AND NOT pg_catalog.pg_has_role(current_user, r.oid, '{right}') ORDER BY 1",
        names.join(", ")
    ))?;
    Ok(rows.into_iter().flatten().flatten().collect())
}
