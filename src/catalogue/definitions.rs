//! What single statements of an archive of PostgreSQL say that a restore must know, and how they read for
//! another table or database.

use super::subject::{self, Name};
use super::toc::TocEntry;
use super::tokens::{Token, Tokens};

/// The position of a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The sequence, quoted as it must be.
    pub sequence: String,
    /// Its last value, …
    pub value: i64,
    /// … which was given out already.
    pub is_called: bool,
}

/// Whether a table has partitions, and so no rows of its own.
pub fn is_partitioned(definition: &str) -> bool {
    let mut tokens = Tokens::new(definition);
    while tokens.skip_past("PARTITION") {
        if tokens.accept("BY") {
            return true;
        }
    }
    false
}

/// Whether a table has columns from another one.
pub fn inherits(definition: &str) -> bool {
    let mut tokens = Tokens::new(definition);
    while tokens.skip_past("INHERITS") {
        if tokens.accept_sign('(') {
            return true;
        }
    }
    false
}

/// The statement that makes a table, an index or a key, for a table of another name and without those
/// that follow it: they would name what is live. `None` where it is of another table.
pub fn moved(definition: &str, schema: &str, name: &str, target: &str) -> Option<String> {
    let mut tokens = Tokens::new(definition);
    let at = |left: usize| definition.len() - left;
    if tokens.accept("ALTER") {
        tokens.accept("TABLE").then_some(())?;
        tokens.accept("ONLY");
    } else {
        tokens.accept("CREATE").then_some(())?;
        tokens.accept("UNLOGGED");
        tokens.accept("UNIQUE");
        if tokens.accept("INDEX") {
            tokens.identifier()?;
            tokens.accept("ON").then_some(())?;
            tokens.accept("ONLY");
        } else {
            tokens.accept("TABLE").then_some(())?;
        }
    }
    let start = at(tokens.left());
    if tokens.path()? != [schema, name] {
        return None;
    }
    let end = at(tokens.behind());
    tokens.skip_statement();
    let stop = at(tokens.behind());
    Some(format!("{}{target}{}", &definition[..start], &definition[end..stop]))
}

/// What stands behind `CREATE DATABASE … WITH`.
pub fn database_options(definition: &str) -> Option<&str> {
    let mut tokens = Tokens::new(definition);
    tokens.accept_all(&["CREATE", "DATABASE"]).then_some(())?;
    tokens.identifier()?;
    tokens.accept("WITH").then_some(())?;
    Some(definition[definition.len() - tokens.behind()..].trim().trim_end_matches(';'))
}

/// The position that a statement gives a sequence.
pub fn position(definition: &str) -> Option<Position> {
    let mut tokens = Tokens::new(definition);
    tokens.accept("SELECT").then_some(())?;
    let is_it = tokens.path()?.last()? == "setval" && tokens.accept_sign('(');
    let Some(Token::Text(sequence)) = tokens.token().filter(|_| is_it) else { return None };
    tokens.accept_sign(',').then_some(())?;
    let is_negative = tokens.accept_sign('-');
    let digits = tokens.identifier()?;
    let sign = if is_negative { "-" } else { "" };
    let value = format!("{sign}{digits}").parse().ok()?;
    tokens.accept_sign(',').then_some(())?;
    Some(Position { sequence, value, is_called: tokens.accept("true") })
}

/// The table that a statement adds to a publication.
pub(super) fn published(definition: &str) -> Option<Name> {
    let mut tokens = Tokens::new(definition);
    tokens.accept_all(&["ALTER", "PUBLICATION"]).then_some(())?;
    tokens.identifier()?;
    tokens.accept_all(&["ADD", "TABLE"]).then_some(())?;
    tokens.accept("ONLY");
    let mut path = tokens.path()?;
    let name = path.pop()?;
    Some(Name::new(path.pop()?, name))
}

/// Roles that an entry names besides its owner.
pub fn roles(entry: &TocEntry) -> Vec<String> {
    let mut found = Vec::new();
    let mut tokens = Tokens::new(&entry.defn);
    match entry.desc.as_str() {
        "ACL" | "DEFAULT ACL" | "POLICY" => subject::roles(&entry.defn, &mut found),
        "USER MAPPING" if tokens.accept_all(&["CREATE", "USER", "MAPPING", "FOR"]) => {
            found.extend(subject::role(&mut tokens));
        }
        "DATABASE PROPERTIES" => {
            found.extend(settings(&entry.defn).filter_map(|(role, _)| role));
        }
        _ => {}
    }
    found
}

/// The statements of the properties of a database, each with the role that it is for, if it is for one.
pub fn settings(definition: &str) -> impl Iterator<Item = (Option<String>, &str)> {
    statements(definition).map(|statement| {
        let mut tokens = Tokens::new(statement);
        let role = tokens.accept_all(&["ALTER", "ROLE"]).then(|| tokens.identifier()).flatten();
        (role, statement)
    })
}

/// Single statements of a definition.
pub fn statements(definition: &str) -> impl Iterator<Item = &str> {
    let mut rest = definition;
    std::iter::from_fn(move || {
        let mut tokens = Tokens::new(rest);
        let start = rest.len() - tokens.left();
        tokens.skip_statement();
        let (statement, after) = rest.split_at(rest.len() - tokens.behind());
        rest = after;
        Some(statement.get(start..)?.trim()).filter(|statement| !statement.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_moved() {
        let sql = "CREATE TABLE public.orders (\n    id integer\n);";
        let to = "\"new\".\"orders\"";
        let expected = "CREATE TABLE \"new\".\"orders\" (\n    id integer\n);";
        assert_eq!(moved(sql, "public", "orders", to).as_deref(), Some(expected));
        assert_eq!(moved(sql, "public", "order", to), None);
        let sql = "CREATE INDEX i ON public.\"Or (\nders\" USING btree (x);";
        let expected = "CREATE INDEX i ON x USING btree (x);";
        assert_eq!(moved(sql, "public", "Or (\nders", "x").as_deref(), Some(expected));
        let sql = "ALTER TABLE ONLY public.a\n    ADD CONSTRAINT b PRIMARY KEY (c);";
        let expected = "ALTER TABLE ONLY x\n    ADD CONSTRAINT b PRIMARY KEY (c);";
        assert_eq!(moved(sql, "public", "a", "x").as_deref(), Some(expected));
        let sql = "CREATE UNLOGGED TABLE s.a (\n    b text DEFAULT ';\n'::text\n);\n\
            ALTER TABLE s.a ALTER b SET STORAGE MAIN;";
        let expected = "CREATE UNLOGGED TABLE x (\n    b text DEFAULT ';\n'::text\n);";
        assert_eq!(moved(sql, "s", "a", "x").as_deref(), Some(expected));
    }

    #[test]
    fn tables_tell_what_they_are_made_of() {
        let plain = "CREATE TABLE s.partition (\n    by text DEFAULT '\nINHERITS (a'::text\n);";
        assert!(!is_partitioned(plain) && !inherits(plain));
        assert!(is_partitioned("CREATE TABLE s.t (\n    a integer\n)\nPARTITION BY RANGE (a);"));
        assert!(inherits("CREATE TABLE s.t (\n    a integer\n)\nINHERITS (s.base);"));
    }

    #[test]
    fn databases_are_known_by_any_name() {
        let sql = "CREATE DATABASE \"a WITH b\" WITH TEMPLATE = template0 ENCODING = 'UTF8';";
        assert_eq!(database_options(sql), Some("TEMPLATE = template0 ENCODING = 'UTF8'"));
        let sql =
            "ALTER DATABASE a SET x TO 'b;\n';\nALTER ROLE \"R s\" IN DATABASE a SET y TO '1';\n";
        let found: Vec<_> = settings(sql).collect();
        assert_eq!(found[0], (None, "ALTER DATABASE a SET x TO 'b;\n';"));
        assert_eq!(found[1].0.as_deref(), Some("R s"));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn positions_of_sequences_are_read() {
        let read = position("SELECT pg_catalog.setval('s.\"A b\"', -7, true);\n").unwrap();
        let expected = Position { sequence: "s.\"A b\"".into(), value: -7, is_called: true };
        assert_eq!(read, expected);
        assert!(!position("SELECT pg_catalog.setval('s.a', 1, false);").unwrap().is_called);
    }

    #[test]
    fn roles_are_found_whatever_tables_are_called() {
        let named = |desc: &str, defn: &str| {
            roles(&TocEntry { desc: desc.into(), defn: defn.into(), ..TocEntry::default() })
        };
        assert_eq!(named("ACL", "GRANT ALL ON TABLE s.role TO a;"), ["a"]);
        assert_eq!(named("USER MAPPING", "CREATE USER MAPPING FOR \"b c\" SERVER s;"), ["b c"]);
        assert!(named("USER MAPPING", "CREATE USER MAPPING FOR public SERVER s;").is_empty());
        let policy = "CREATE POLICY role ON s.t FOR SELECT TO d USING ((x FROM y));";
        assert_eq!(named("POLICY", policy), ["d"]);
    }
}
