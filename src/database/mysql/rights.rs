//! What a user may do, by what the server says it was granted. A dump program that lacks a right sees
//! less, and says nothing.

use super::{Flavor, Session, identifier, literal};
use crate::catalogue::name_at;

/// What is needed to read tables, views, triggers and events of a database.
const RIGHTS: [&str; 4] = ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"];
/// Each shows the names of all routines of a database; a body that cannot be read ends the dump.
const SEE_ROUTINES: [&str; 3] = ["EXECUTE", "ALTER ROUTINE", "SHOW CREATE ROUTINE"];

/// What was granted to a user.
#[derive(Debug, Default)]
pub struct Grants(Vec<Grant>);

#[derive(Debug, PartialEq, Eq)]
struct Grant {
    rights: Vec<String>,
    place: Place,
    is_revoked: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    Everywhere,
    /// A name in which `%` and `_` stand for letters.
    Database(String),
    Table(String, String),
}

impl Session {
    /// What the user of this session was granted, by roles as well.
    pub fn grants(&self) -> Result<Grants, String> {
        let mut sql = "SHOW GRANTS".to_owned();
        if self.flavor == Flavor::MySql {
            // It does not tell what the roles in use are granted unless it is asked for them.
            let roles = self.value("SELECT CURRENT_ROLE()").unwrap_or_default();
            if !matches!(roles.as_str(), "" | "NONE") {
                sql = format!("SHOW GRANTS FOR CURRENT_USER() USING {roles}");
            }
        }
        let lines = self.query(&sql)?;
        Ok(Grants(lines.iter().filter_map(|line| grant(line)).collect()))
    }

    /// What is missing to read all of some databases, each with what to do about it.
    pub fn missing_rights(&self, databases: &[String]) -> Result<Vec<String>, String> {
        let grants = self.grants()?;
        let user = self.value("SELECT CURRENT_USER()")?;
        let (name, host) = user.rsplit_once('@').unwrap_or((&user, "%"));
        let user = format!("{}@{}", literal(name), literal(host));
        let mut missing = Vec::new();
        for database in databases {
            for right in RIGHTS.into_iter().filter(|right| !grants.has(right, database)) {
                let place = identifier(database);
                missing.push(format!(
                    "the right {right} on {database} is missing: GRANT {right} ON {place}.* TO {user}"
                ));
            }
            if !grants.show_routines(database) {
                let all = match self.flavor {
                    Flavor::MariaDb => "SELECT ON mysql.proc",
                    Flavor::MySql => "SHOW_ROUTINE ON *.*",
                };
                let place = identifier(database);
                missing.push(format!(
                    "routines of {database} would not be seen: GRANT EXECUTE ON {place}.* TO {user}, and \
                     GRANT {all} TO {user}"
                ));
            }
        }
        Ok(missing)
    }
}

impl Grants {
    /// Whether a right holds for all of a database.
    pub fn has(&self, right: &str, database: &str) -> bool {
        let gives = |grant: &&Grant| {
            grant.rights.iter().any(|it| it == right || it == "ALL PRIVILEGES" || it == "ALL")
        };
        let granted = self.0.iter().filter(gives);
        let on = |place: &Place| match place {
            Place::Everywhere => true,
            Place::Database(pattern) => self.counts(pattern, database),
            Place::Table(..) => false,
        };
        let mut granted = granted.filter(|grant| on(&grant.place)).peekable();
        granted.peek().is_some() && granted.all(|grant| !grant.is_revoked)
    }

    /// Where a database is named itself, patterns that fit it do not count.
    fn counts(&self, pattern: &str, database: &str) -> bool {
        let is_named = |place: &Place| matches!(place, Place::Database(it) if plain(it).as_deref() == Some(database));
        match plain(pattern) {
            Some(name) => name == database,
            None => fits(pattern, database) && !self.0.iter().any(|it| is_named(&it.place)),
        }
    }

    fn show_routines(&self, database: &str) -> bool {
        let reads_all = |grant: &Grant| match &grant.place {
            Place::Table(schema, table) => {
                schema == "mysql" && table == "proc" && grant.rights.iter().any(|it| it == "SELECT")
            }
            _ => false,
        };
        SEE_ROUTINES.iter().any(|right| self.has(right, database))
            || self.has("SELECT", "mysql")
            || self.has("SHOW_ROUTINE", "mysql")
            || self.0.iter().any(reads_all)
    }

    /// Whether all databases of the server are seen.
    pub fn show_databases(&self) -> bool {
        let wanted = ["SHOW DATABASES", "SELECT", "ALL PRIVILEGES"];
        let shows = |grant: &Grant| {
            let mut rights = grant.rights.iter();
            grant.place == Place::Everywhere && rights.any(|it| wanted.contains(&it.as_str()))
        };
        self.0.iter().any(shows)
    }
}

/// Reads a line of `SHOW GRANTS`; none where it grants a role or a single routine.
fn grant(line: &str) -> Option<Grant> {
    let (is_revoked, rest) = match line.strip_prefix("REVOKE ") {
        Some(rest) => (true, rest),
        None => (false, line.strip_prefix("GRANT ")?),
    };
    let (mut rights, mut word, mut depth, mut quoted) = (Vec::new(), String::new(), 0, false);
    let mut place = None;
    for (at, letter) in rest.char_indices() {
        match letter {
            '`' => quoted = !quoted,
            _ if quoted => {}
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                rights.push(std::mem::take(&mut word));
                continue;
            }
            ' ' if depth == 0 && rest[at..].starts_with(" ON ") => {
                rights.push(std::mem::take(&mut word));
                place = Some(&rest[at + " ON ".len()..]);
                break;
            }
            _ => {}
        }
        word.push(letter);
    }
    // One on columns is none on the table.
    let rights = rights.iter().map(|right| right.trim()).filter(|right| !right.contains('('));
    let rights = rights.map(str::to_owned).collect();
    Some(Grant { rights, place: read_place(place?)?, is_revoked })
}

fn read_place(text: &str) -> Option<Place> {
    let text = text.strip_prefix("TABLE ").unwrap_or(text);
    if text.starts_with("*.*") {
        return Some(Place::Everywhere);
    }
    let (database, rest) = name_at(text)?;
    let rest = rest.strip_prefix('.')?;
    if rest.starts_with('*') {
        return Some(Place::Database(database));
    }
    Some(Place::Table(database, name_at(rest)?.0))
}

/// The name that a pattern without letters that stand for others is.
fn plain(pattern: &str) -> Option<String> {
    let (mut name, mut letters) = (String::new(), pattern.chars());
    while let Some(letter) = letters.next() {
        match letter {
            '%' | '_' => return None,
            '\\' => name.push(letters.next().unwrap_or('\\')),
            other => name.push(other),
        }
    }
    Some(name)
}

fn fits(pattern: &str, name: &str) -> bool {
    let mut letters = pattern.chars();
    let Some(first) = letters.next() else { return name.is_empty() };
    let rest = letters.as_str();
    let mut behind = name.chars();
    match first {
        '%' => fits(rest, name) || behind.next().is_some() && fits(pattern, behind.as_str()),
        '_' => behind.next().is_some() && fits(rest, behind.as_str()),
        '\\' => {
            let escaped = letters.next();
            escaped.is_some() && behind.next() == escaped && fits(letters.as_str(), behind.as_str())
        }
        letter => behind.next() == Some(letter) && fits(rest, behind.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(lines: &[&str]) -> Grants {
        Grants(lines.iter().filter_map(|line| grant(line)).collect())
    }

    #[test]
    fn rights_hold_where_they_were_granted() {
        let it = grants(&[
            "GRANT USAGE ON *.* TO `a`@`localhost`",
            "GRANT `r` TO `a`@`localhost`",
            "GRANT SELECT, SHOW VIEW ON `shop`.* TO `a`@`localhost`",
            "GRANT SELECT (`on, ON x`), TRIGGER ON `other`.`t` TO `a`@`localhost`",
            "GRANT EXECUTE ON FUNCTION `other`.`f` TO `a`@`localhost`",
        ]);
        assert!(it.has("SELECT", "shop") && it.has("SHOW VIEW", "shop"));
        assert!(
            !it.has("TRIGGER", "shop") && !it.has("SELECT", "other") && !it.has("EXECUTE", "other")
        );
        assert!(!it.show_routines("shop") && !it.show_databases());
        let it = grants(&["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION"]);
        assert!(it.has("EVENT", "x") && it.show_routines("x") && it.show_databases());
        let it = grants(&["GRANT SELECT ON `mysql`.`proc` TO `a`@`%`"]);
        assert!(it.show_routines("x") && !it.has("SELECT", "mysql"));
        let it = grants(&["GRANT SELECT ON *.* TO `a`@`%`", "REVOKE SELECT ON `x`.* FROM `a`@`%`"]);
        assert!(it.has("SELECT", "y") && !it.has("SELECT", "x"));
    }

    #[test]
    fn names_of_databases_in_grants_are_patterns() {
        let it = grants(&[
            "GRANT SELECT ON `my\\_shop`.* TO a",
            "GRANT TRIGGER ON `my%`.* TO a",
            "GRANT EVENT ON `w``_x`.* TO a",
        ]);
        assert!(it.has("SELECT", "my_shop") && !it.has("SELECT", "myxshop"));
        // The server takes the grant on the very name alone.
        assert!(it.has("TRIGGER", "myxshop") && !it.has("TRIGGER", "my_shop"));
        assert!(it.has("EVENT", "w`1x") && !it.has("EVENT", "w`x"));
    }
}
