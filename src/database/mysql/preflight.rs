//! What is looked at before a restore: is the database there, would something be overwritten unasked,
//! would triggers fire, does the server take the longest statement.

use super::restore::RestoreOptions;
use super::{Session, identifier, literal};
use crate::catalogue::{Catalogue, Table};
use crate::database::source_error;
use crate::error::{Error, Result};

/// A restore that is looked at.
pub struct Preflight<'a> {
    /// The server.
    pub session: &'a Session,
    /// What is asked for.
    pub options: &'a RestoreOptions,
    /// The tables that are to come back.
    pub tables: &'a [&'a Table],
    /// The databases that they go into.
    pub databases: &'a [String],
    /// The dump makes its databases itself.
    pub makes_databases: bool,
}

impl Preflight<'_> {
    /// Whether a database is yet to be made; refuses where it is, or must not be touched.
    pub fn database(&self, database: &str) -> Result<bool> {
        let name = literal(database);
        let found = self.value(&format!(
            "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = {name}"
        ))?;
        if found == "0" {
            if !self.makes_databases && !self.options.create {
                let text = format!("there is no database {database}: --create makes it");
                return Err(Error::Conflict(text));
            }
            return Ok(true);
        }
        if self.options.data_only {
            self.triggers(database)?;
            return Ok(false);
        }
        let there = self.content(&name)?;
        if !there.is_empty() && !self.is_confirmed(database) {
            return Err(Error::Conflict(format!(
                "{database} is not empty ({there} is there): name another with --database, or confirm with \
                 --yes-overwrite '{database}' that what the snapshot holds is replaced there"
            )));
        }
        Ok(false)
    }

    /// Something that a database holds and the dump may replace; nothing where there is none.
    fn content(&self, name: &str) -> Result<String> {
        let tables = "SELECT table_name FROM information_schema.tables WHERE table_schema";
        if !self.options.tables.is_empty() {
            let names: Vec<String> = self.tables.iter().map(|it| literal(&it.name)).collect();
            let names = names.join(", ");
            return self.value(&format!("{tables} = {name} AND table_name IN ({names}) LIMIT 1"));
        }
        for query in [
            tables,
            "SELECT routine_name FROM information_schema.routines WHERE routine_schema",
            "SELECT event_name FROM information_schema.events WHERE event_schema",
        ] {
            let there = self.value(&format!("{query} = {name} LIMIT 1"))?;
            if !there.is_empty() {
                return Ok(there);
            }
        }
        Ok(String::new())
    }

    /// A name may hold the comma that stands between names.
    fn is_confirmed(&self, database: &str) -> bool {
        let Some(confirmed) = &self.options.overwrite else { return false };
        *confirmed == database
            || *confirmed == self.databases.join(",")
            || confirmed.split(',').any(|it| it == database)
    }

    /// Rows that are put in once more must not do again what they did.
    fn triggers(&self, database: &str) -> Result<()> {
        let grants = self.session.grants().map_err(|error| self.failed(error))?;
        if !grants.has("TRIGGER", database) {
            let text = format!(
                "rows alone are not put in where triggers cannot be seen: GRANT TRIGGER ON {}.* to this user",
                identifier(database)
            );
            return Err(Error::Conflict(text));
        }
        let is_one = self.databases.len() == 1;
        let tables = self.tables.iter().filter(|table| is_one || table.schema == database);
        let names: Vec<String> = tables.map(|table| literal(&table.name)).collect();
        let firing = self.session.query(&format!(
            "SELECT CONCAT(trigger_name, ' on ', event_object_table) FROM information_schema.triggers
             WHERE event_object_schema = {} AND event_manipulation = 'INSERT'
               AND event_object_table IN ({}) ORDER BY 1",
            literal(database),
            if names.is_empty() { "''".to_owned() } else { names.join(", ") }
        ));
        let firing = firing.map_err(|error| self.failed(error))?;
        if firing.is_empty() {
            return Ok(());
        }
        Err(Error::Conflict(format!(
            "the rows would fire triggers of {database}: {}; keep them (SHOW CREATE TRIGGER), drop them, and \
             make them again when the rows are there, or restore the tables without --data-only",
            firing.join(", ")
        )))
    }

    /// A server refuses a statement that is longer than it was told to take, half-way.
    pub fn packet(&self, catalogue: &Catalogue) -> Result<()> {
        let longest = catalogue.longest_statement;
        let limit = self.value("SELECT @@global.max_allowed_packet")?;
        let limit: u64 = limit.parse().unwrap_or(u64::MAX);
        // A byte for what is to be done with it.
        if longest < limit {
            return Ok(());
        }
        let wanted = (longest + 1).next_multiple_of(1 << 20);
        Err(Error::Conflict(format!(
            "the dump has a statement of {longest} bytes, but the server takes {limit} (max_allowed_packet): \
             SET GLOBAL max_allowed_packet = {wanted}"
        )))
    }

    fn value(&self, sql: &str) -> Result<String> {
        self.session.value(sql).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: String) -> Error {
        source_error(&self.session.login.address(), error)
    }
}
