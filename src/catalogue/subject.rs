//! Which table a statement of a PostgreSQL dump belongs to: its own definition, an index, a trigger,
//! a comment on its key, … read from the statement itself, for archives and SQL text alike.

use std::collections::HashMap;

use super::Table;
use super::tokens::{Token, Tokens, is_keyword};

/// A table, or another relation, by schema and name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// Its schema; empty where a dump does not say.
    pub schema: String,
    /// Its own name.
    pub name: String,
}

impl Name {
    /// From its parts.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }
}

/// Something that a statement names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// A table, a view, a foreign table.
    Table(Name),
    Sequence(Name),
    /// An index, also that of a key.
    Index(Name),
    Statistics(Name),
}

/// What a statement is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    /// What it belongs to.
    pub belongs: Target,
    /// What it gives a table, by which later statements refer to it.
    pub defines: Option<Target>,
    /// What else must be there: the table of a foreign key, the table or index attached to.
    pub other: Option<Target>,
}

impl Subject {
    fn of(belongs: Target) -> Self {
        Self { belongs, defines: None, other: None }
    }

    /// A table by name.
    pub fn table(name: Name) -> Self {
        Self::of(Target::Table(name))
    }
}

/// What `statement` is about; names without a schema are of `schema`. None where it is no part of a
/// table: functions, types, schemas.
pub(super) fn subject(statement: &str, schema: &str) -> Option<Subject> {
    let mut parser = Parser { tokens: Tokens::new(statement), schema };
    while parser.tokens.accept("SET") {
        parser.tokens.skip_statement();
    }
    let Some(Token::Word(verb)) = parser.tokens.token() else { return None };
    match verb.to_ascii_uppercase().as_str() {
        "CREATE" => parser.create(),
        "ALTER" => parser.alter(),
        "COMMENT" => parser.comment(),
        "SECURITY" => parser.tokens.skip_past("LABEL").then(|| parser.comment())?,
        "GRANT" | "REVOKE" => parser.grant(),
        "SELECT" => parser.set_value(),
        "REFRESH" => {
            parser.tokens.accept_all(&["MATERIALIZED", "VIEW"]).then(|| parser.of_table())?
        }
        "COPY" => parser.of_table(),
        "INSERT" => parser.tokens.accept("INTO").then(|| parser.of_table())?,
        _ => None,
    }
}

struct Parser<'a> {
    tokens: Tokens<'a>,
    schema: &'a str,
}

impl Parser<'_> {
    fn name(&mut self) -> Option<Name> {
        let path = self.tokens.path()?;
        self.resolve(path)
    }

    fn resolve(&self, mut path: Vec<String>) -> Option<Name> {
        let name = path.pop()?;
        let schema = path.pop().unwrap_or_else(|| self.schema.to_owned());
        Some(Name { schema, name })
    }

    fn table(&mut self) -> Option<Target> {
        self.tokens.accept_all(&["IF", "NOT", "EXISTS"]);
        self.tokens.accept_all(&["IF", "EXISTS"]);
        self.tokens.accept("ONLY");
        self.name().map(Target::Table)
    }

    fn of_table(&mut self) -> Option<Subject> {
        self.table().map(Subject::of)
    }

    fn create(&mut self) -> Option<Subject> {
        loop {
            let Some(Token::Word(kind)) = self.tokens.token() else { return None };
            match kind.to_ascii_uppercase().as_str() {
                "OR" | "REPLACE" | "UNIQUE" | "UNLOGGED" | "FOREIGN" | "MATERIALIZED"
                | "CONSTRAINT" | "RECURSIVE" | "TEMPORARY" | "TEMP" => {}
                "TABLE" | "VIEW" => return self.of_table(),
                "SEQUENCE" => return self.name().map(|name| Subject::of(Target::Sequence(name))),
                "INDEX" => return self.create_index(),
                "TRIGGER" | "POLICY" => {
                    self.tokens.identifier()?;
                    return self.tokens.skip_past("ON").then(|| self.of_table())?;
                }
                "RULE" => {
                    self.tokens.identifier()?;
                    return self.tokens.skip_past("TO").then(|| self.of_table())?;
                }
                "STATISTICS" => return self.create_statistics(),
                _ => return None,
            }
        }
    }

    fn create_index(&mut self) -> Option<Subject> {
        self.tokens.accept("CONCURRENTLY");
        let name = self.tokens.identifier()?;
        let table = self.tokens.accept("ON").then(|| self.table())??;
        Some(self.defining(table, |schema| Target::Index(Name::new(schema, name))))
    }

    fn create_statistics(&mut self) -> Option<Subject> {
        let name = self.name()?;
        let table = self.tokens.skip_past("FROM").then(|| self.table())??;
        Some(self.defining(table, |_| Target::Statistics(name)))
    }

    fn defining(&self, table: Target, defined: impl FnOnce(&str) -> Target) -> Subject {
        let schema = match &table {
            Target::Table(name) => name.schema.as_str(),
            _ => self.schema,
        };
        let defines = Some(defined(schema));
        Subject { defines, ..Subject::of(table) }
    }

    fn alter(&mut self) -> Option<Subject> {
        self.tokens.accept("FOREIGN");
        self.tokens.accept("MATERIALIZED");
        let Some(Token::Word(kind)) = self.tokens.token() else { return None };
        match kind.to_ascii_uppercase().as_str() {
            "TABLE" | "VIEW" => {
                let table = self.table()?;
                self.alter_table(table)
            }
            "SEQUENCE" => {
                let sequence = Target::Sequence(self.name()?);
                if !self.tokens.accept_all(&["OWNED", "BY"]) {
                    return Some(Subject::of(sequence));
                }
                let table = Target::Table(self.column()?);
                Some(Subject { defines: Some(sequence), ..Subject::of(table) })
            }
            "INDEX" => {
                let index = Target::Index(self.name()?);
                if !self.tokens.accept_all(&["ATTACH", "PARTITION"]) {
                    return Some(Subject::of(index));
                }
                let child = Target::Index(self.name()?);
                Some(Subject { other: Some(index), ..Subject::of(child) })
            }
            "STATISTICS" => self.name().map(|name| Subject::of(Target::Statistics(name))),
            _ => None,
        }
    }

    fn alter_table(&mut self, table: Target) -> Option<Subject> {
        if self.tokens.accept_all(&["ATTACH", "PARTITION"]) {
            let child = Target::Table(self.name()?);
            return Some(Subject { other: Some(table), ..Subject::of(child) });
        }
        if self.tokens.accept_all(&["ALTER", "COLUMN"]) {
            self.tokens.identifier()?;
            let identity = self.tokens.accept_all(&["ADD", "GENERATED"])
                && self.tokens.skip_past("IDENTITY")
                && self.tokens.accept_sign('(')
                && self.tokens.accept_all(&["SEQUENCE", "NAME"]);
            let defines = if identity { self.name().map(Target::Sequence) } else { None };
            return Some(Subject { defines, ..Subject::of(table) });
        }
        if !self.tokens.accept_all(&["ADD", "CONSTRAINT"]) {
            return Some(Subject::of(table));
        }
        let constraint = self.tokens.identifier()?;
        if self.tokens.accept("FOREIGN") {
            let referenced = self.tokens.skip_past("REFERENCES").then(|| self.table())??;
            return Some(Subject { other: Some(referenced), ..Subject::of(table) });
        }
        if ["PRIMARY", "UNIQUE", "EXCLUDE"].iter().any(|kind| self.tokens.accept(kind)) {
            return Some(
                self.defining(table, |schema| Target::Index(Name::new(schema, constraint))),
            );
        }
        Some(Subject::of(table))
    }

    /// The table of a column's name.
    fn column(&mut self) -> Option<Name> {
        let mut path = self.tokens.path()?;
        path.pop()?;
        self.resolve(path)
    }

    fn comment(&mut self) -> Option<Subject> {
        if !self.tokens.skip_past("ON") {
            return None;
        }
        self.tokens.accept("FOREIGN");
        self.tokens.accept("MATERIALIZED");
        let Some(Token::Word(kind)) = self.tokens.token() else { return None };
        let target = match kind.to_ascii_uppercase().as_str() {
            "TABLE" | "VIEW" => Target::Table(self.name()?),
            "COLUMN" => Target::Table(self.column()?),
            "INDEX" => Target::Index(self.name()?),
            "SEQUENCE" => Target::Sequence(self.name()?),
            "STATISTICS" => Target::Statistics(self.name()?),
            "CONSTRAINT" | "TRIGGER" | "RULE" | "POLICY" => {
                self.tokens.identifier()?;
                if !self.tokens.accept("ON") || self.tokens.accept("DOMAIN") {
                    return None;
                }
                Target::Table(self.name()?)
            }
            _ => return None,
        };
        Some(Subject::of(target))
    }

    fn grant(&mut self) -> Option<Subject> {
        if !self.tokens.skip_past("ON") {
            return None;
        }
        if self.tokens.accept("SEQUENCE") {
            return self.name().map(|name| Subject::of(Target::Sequence(name)));
        }
        if self.tokens.accept("TABLE") {
            return self.of_table();
        }
        // Grants on tables of old dumps do not say TABLE; those on other kinds say which.
        let name = self.name()?;
        let whole = matches!(self.tokens.peek(), Some(Token::Word(word))
            if ["TO", "FROM"].iter().any(|end| word.eq_ignore_ascii_case(end)));
        whole.then(|| Subject::table(name))
    }

    /// `SELECT pg_catalog.setval('schema.sequence', …)`
    fn set_value(&mut self) -> Option<Subject> {
        if self.tokens.path()?.last()? != "setval" || !self.tokens.accept_sign('(') {
            return None;
        }
        let Some(Token::Text(sequence)) = self.tokens.token() else { return None };
        let path = Tokens::new(&sequence).path()?;
        self.resolve(path).map(|name| Subject::of(Target::Sequence(name)))
    }
}

/// Which table a sequence, an index, … belongs to.
#[derive(Debug, Default)]
pub(super) struct Ties {
    tables: HashMap<Target, Name>,
}

impl Ties {
    /// From all statements of a dump.
    pub fn new<'a>(subjects: impl Iterator<Item = &'a Subject>) -> Self {
        let mut tables = HashMap::new();
        for subject in subjects {
            if let (Some(defined), Target::Table(table)) = (&subject.defines, &subject.belongs) {
                tables.entry(defined.clone()).or_insert_with(|| table.clone());
            }
        }
        Self { tables }
    }

    /// The table of something named; a relation that is no part of another is its own.
    pub fn table<'a>(&'a self, target: &'a Target) -> Option<&'a Name> {
        match target {
            Target::Table(name) => Some(name),
            _ => self.tables.get(target),
        }
    }
}

/// A table of which only the name is known.
pub(super) fn new_table(name: &Name) -> Table {
    Table { schema: name.schema.clone(), name: name.name.clone(), ..Table::default() }
}

/// The columns of `COPY table (…) FROM` or `INSERT INTO table (…) VALUES`.
pub(super) fn columns(statement: &str) -> Vec<String> {
    let mut tokens = Tokens::new(statement);
    if !tokens.accept("COPY") && !tokens.accept_all(&["INSERT", "INTO"]) {
        return Vec::new();
    }
    match tokens.path() {
        Some(_) => tokens.names(),
        None => Vec::new(),
    }
}

/// The columns of the primary key that a statement adds to a table.
pub(super) fn primary_key(statement: &str) -> Option<Vec<String>> {
    let mut tokens = Tokens::new(statement);
    let found = tokens.accept_all(&["ALTER", "TABLE"])
        && tokens.skip_past("ADD")
        && tokens.accept("CONSTRAINT")
        && tokens.identifier().is_some()
        && tokens.accept_all(&["PRIMARY", "KEY"]);
    found.then(|| tokens.names())
}

/// The extension that a statement makes, with its version where that is said.
pub(super) fn extension(statement: &str) -> Option<super::Extension> {
    let mut tokens = Tokens::new(statement);
    if !tokens.accept_all(&["CREATE", "EXTENSION"]) {
        return None;
    }
    tokens.accept_all(&["IF", "NOT", "EXISTS"]);
    let name = tokens.identifier()?;
    let version = match tokens.skip_past("VERSION").then(|| tokens.token()).flatten() {
        Some(Token::Text(version) | Token::Quoted(version) | Token::Word(version)) => version,
        _ => String::new(),
    };
    Some(super::Extension { name, version })
}

/// Roles that grants and default privileges name.
pub(super) fn roles(statement: &str, roles: &mut Vec<String>) {
    let mut tokens = Tokens::new(statement);
    let (mut depth, mut before) = (0usize, None);
    while let Some(token) = tokens.token() {
        // Words that are no names but where they stand so: a table may be called "role".
        let follows = |word: &str| before.as_ref().is_some_and(|it| is_keyword(it, word));
        let mut more = match &token {
            Token::Sign('(') => {
                depth += 1;
                false
            }
            Token::Sign(')') => {
                depth = depth.saturating_sub(1);
                false
            }
            _ if depth > 0 => false,
            _ if is_keyword(&token, "AUTHORIZATION") => follows("SESSION"),
            _ if is_keyword(&token, "ROLE") => follows("FOR"),
            _ => is_keyword(&token, "TO") || is_keyword(&token, "FROM"),
        };
        before = Some(token);
        while std::mem::take(&mut more) {
            roles.extend(role(&mut tokens));
            more = tokens.accept_sign(',');
        }
    }
}

/// The next name, unless it is that of everybody.
pub(super) fn role(tokens: &mut Tokens<'_>) -> Option<String> {
    let quoted = matches!(tokens.peek(), Some(Token::Quoted(_)));
    let role = tokens.identifier()?;
    (quoted || !role.eq_ignore_ascii_case("PUBLIC")).then_some(role)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> Target {
        Target::Table(Name::new("s", name))
    }

    fn belongs(statement: &str) -> Option<Target> {
        subject(statement, "s").map(|subject| subject.belongs)
    }

    #[test]
    fn statements_belong_to_their_tables() {
        let statements = [
            "CREATE UNLOGGED TABLE s.\"T.x\" (\n    a int\n)",
            "CREATE TABLE \"T.x\" (a int)",
            "CREATE UNIQUE INDEX i ON ONLY s.\"T.x\" USING btree (a)",
            "CREATE CONSTRAINT TRIGGER \"on\" AFTER INSERT OR UPDATE OF \"on\", b ON s.\"T.x\" FOR EACH ROW",
            "CREATE RULE r AS\n    ON INSERT TO s.\"T.x\" DO INSTEAD NOTHING;",
            "CREATE POLICY \"p ON q\" ON s.\"T.x\" FOR SELECT TO me USING (true);",
            "CREATE STATISTICS s.st (ndistinct) ON a, (b + 1) FROM s.\"T.x\";",
            "ALTER TABLE ONLY s.\"T.x\"\n    ADD CONSTRAINT c CHECK ((a > 0)) NOT VALID;",
            "ALTER TABLE s.\"T.x\" ENABLE ROW LEVEL SECURITY;",
            "ALTER TABLE ONLY s.\"T.x\" ALTER COLUMN a SET DEFAULT nextval('s.q'::regclass);",
            "ALTER SEQUENCE s.q OWNED BY s.\"T.x\".a;",
            "ALTER TABLE ONLY s.p ATTACH PARTITION s.\"T.x\" FOR VALUES IN ('a');",
            "COMMENT ON TABLE s.\"T.x\" IS 'it''s; ON s.y';",
            "COMMENT ON COLUMN s.\"T.x\".\"c.d\" IS 'x';",
            "COMMENT ON CONSTRAINT c ON s.\"T.x\" IS 'x';",
            "SECURITY LABEL FOR p ON TABLE s.\"T.x\" IS 'x';",
            "SET SESSION AUTHORIZATION a;\nGRANT SELECT(a),INSERT(b) ON TABLE s.\"T.x\" TO me;",
            "REVOKE ALL ON \"T.x\" FROM PUBLIC;",
            "COPY s.\"T.x\" (a) FROM stdin;",
            "INSERT INTO s.\"T.x\" VALUES (1);",
            "-- a comment\n/* another */ REFRESH MATERIALIZED VIEW s.\"T.x\";",
        ];
        for statement in statements {
            assert_eq!(belongs(statement), Some(table("T.x")), "{statement}");
        }
    }

    #[test]
    fn other_statements_belong_to_none() {
        let statements = [
            "CREATE FUNCTION s.f() RETURNS int AS $$ SELECT ON s.t $$",
            "GRANT USAGE ON SCHEMA s TO me;",
            "GRANT ALL ON FUNCTION s.f(a integer) TO me;",
            "COMMENT ON CONSTRAINT c ON DOMAIN s.d IS 'x';",
            "COMMENT ON EXTENSION x IS 'y';",
            "CREATE",
            "\"TABLE\"",
            "",
        ];
        for statement in statements {
            assert_eq!(belongs(statement), None, "{statement}");
        }
    }

    #[test]
    fn sequences_and_indexes_lead_to_tables() {
        let subjects: Vec<Subject> = [
            "ALTER TABLE s.t ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (\n    SEQUENCE NAME s.\"q 1\"\n);",
            "ALTER TABLE ONLY s.t\n    ADD CONSTRAINT pk PRIMARY KEY (id);",
            "CREATE INDEX i ON s.u (a)",
        ]
        .iter()
        .filter_map(|statement| subject(statement, ""))
        .collect();
        let ties = Ties::new(subjects.iter());
        let leads = |statement: &str| {
            let belongs = subject(statement, "s")?.belongs;
            ties.table(&belongs).map(|table| table.name.clone())
        };
        assert_eq!(leads("SELECT pg_catalog.setval('s.\"q 1\"', 3, true);"), Some("t".into()));
        assert_eq!(leads("COMMENT ON SEQUENCE s.\"q 1\" IS '';"), Some("t".into()));
        assert_eq!(leads("COMMENT ON INDEX s.pk IS '';"), Some("t".into()));
        assert_eq!(leads("ALTER INDEX s.x ATTACH PARTITION s.i;"), Some("u".into()));
        assert_eq!(leads("CREATE SEQUENCE s.other"), None);
    }

    #[test]
    fn foreign_keys_name_the_other_table() {
        let text = "ALTER TABLE ONLY s.t\n ADD CONSTRAINT fk FOREIGN KEY (\"REFERENCES\") REFERENCES s.u(id);";
        assert_eq!(subject(text, "").and_then(|subject| subject.other), Some(table("u")));
    }

    #[test]
    fn columns_keys_extensions_and_roles_are_read() {
        assert_eq!(columns("COPY s.t (a, \"b,\"\"c\") FROM stdin;"), ["a", "b,\"c"]);
        assert!(columns("COPY s.t FROM stdin;").is_empty());
        let key = "ALTER TABLE ONLY s.t ADD CONSTRAINT c PRIMARY KEY (id, p WITHOUT OVERLAPS)";
        assert_eq!(primary_key(key), Some(vec!["id".into(), "p".into()]));
        assert_eq!(primary_key("ALTER TABLE s.t ADD CONSTRAINT c UNIQUE (id)"), None);
        let made = extension("CREATE EXTENSION IF NOT EXISTS \"a-b\" WITH SCHEMA s VERSION '1.2';");
        let made = made.expect("an extension");
        assert_eq!((made.name.as_str(), made.version.as_str()), ("a-b", "1.2"));
        let mut found = Vec::new();
        roles(
            "REVOKE ALL ON TABLE s.t FROM PUBLIC;\nGRANT SELECT ON TABLE s.t TO a WITH GRANT OPTION;",
            &mut found,
        );
        roles(
            "ALTER DEFAULT PRIVILEGES FOR ROLE b IN SCHEMA s GRANT ALL ON TABLES TO \"C d\";",
            &mut found,
        );
        roles(
            "CREATE POLICY p ON s.t TO e, \"PUBLIC\" USING ((x = (SELECT 1 FROM f)));",
            &mut found,
        );
        assert_eq!(found, ["a", "b", "C d", "e", "PUBLIC"]);
    }
}
