//! The database itself: made before a restore, and given what is set on it after.

use super::RestoreOptions;
use super::plan::Plan;
use super::session::{maintenance, named, session};
use crate::catalogue::definitions::{database_options, settings};
use crate::catalogue::toc::TocEntry;
use crate::database::postgres::inspect::quote;
use crate::error::Result;

/// Makes it.
pub fn create(plan: &Plan, options: &RestoreOptions) -> Result<()> {
    let mut client = maintenance(options).map_err(|error| named(options, error))?;
    let entry = plan.archive.toc.entries.iter().find(|entry| entry.desc == "DATABASE");
    // CREATE DATABASE shop WITH TEMPLATE = template0 ENCODING = …
    let rest = entry.and_then(|entry| database_options(&entry.defn));
    let rest = rest.unwrap_or("TEMPLATE = template0");
    // It stands last.
    let place = rest.find(" TABLESPACE = ").filter(|_| options.no_tablespaces);
    let rest = &rest[..place.unwrap_or(rest.len())];
    let sql = format!("CREATE DATABASE {} WITH {rest}", quote(options.database()));
    client.query(&sql).map_err(|error| named(options, error))?;
    Ok(())
}

/// What is set on the database itself, under its new name: owner, grants, comment, settings. Settings for
/// roles that are not there are left out, and told.
pub fn set(plan: &Plan, options: &RestoreOptions, warnings: &mut Vec<String>) -> Result<()> {
    let mut entries = plan.archive.toc.entries.iter();
    let Some(made) = entries.find(|entry| entry.desc == "DATABASE") else { return Ok(()) };
    let mut client = session(&plan.archive, options)?;
    let new = quote(options.database());
    let mut sql = Vec::new();
    if !options.no_owner && !made.owner.is_empty() {
        sql.push(format!("ALTER DATABASE {new} OWNER TO {}", quote(&made.owner)));
    }
    let own = |entry: &&TocEntry| match entry.desc.as_str() {
        "DATABASE PROPERTIES" => true,
        "COMMENT" | "SECURITY LABEL" => entry.tag.starts_with("DATABASE "),
        "ACL" => entry.tag.starts_with("DATABASE ") && !options.no_owner,
        _ => false,
    };
    let roles = client.query("SELECT rolname FROM pg_catalog.pg_roles");
    let roles = roles.map_err(|error| named(options, error))?;
    let has = |role: &str| roles.iter().flatten().flatten().any(|it| it == role);
    for entry in plan.archive.toc.entries.iter().filter(own) {
        for (role, statement) in settings(&entry.defn) {
            match role.filter(|role| !has(role)) {
                Some(role) => {
                    warnings.push(format!("settings of {role}, who is not there, are left out"));
                }
                None => sql.push(renamed(statement, &made.tag, &new)),
            }
        }
    }
    for sql in sql {
        client.query(&sql).map_err(|error| named(options, error))?;
    }
    Ok(())
}

/// Statements about a database, one a line, about another one: only the first name of a line is its,
/// others stand in texts.
fn renamed(definition: &str, old: &str, new: &str) -> String {
    let spellings = [old.to_owned(), quote(old)].map(|old| format!(" DATABASE {old} "));
    let line = |line: &str| {
        let found = spellings.iter().filter_map(|it| line.split_once(it.as_str()));
        match found.min_by_key(|(before, _)| before.len()) {
            Some((before, after)) => format!("{before} DATABASE {new} {after}"),
            None => line.to_owned(),
        }
    };
    definition.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_about_a_database_name_the_new_one() {
        let sql = "REVOKE ALL ON DATABASE shop FROM PUBLIC;\nGRANT ALL ON DATABASE shop TO x;\n";
        let expected =
            "REVOKE ALL ON DATABASE \"n\" FROM PUBLIC;\nGRANT ALL ON DATABASE \"n\" TO x;\n";
        assert_eq!(renamed(sql, "shop", "\"n\""), expected);
        let sql = "COMMENT ON DATABASE \"a b\" IS 'the DATABASE a b is old';";
        let expected = "COMMENT ON DATABASE n IS 'the DATABASE a b is old';";
        assert_eq!(renamed(sql, "a b", "n"), expected);
    }
}
