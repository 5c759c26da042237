//! The dump program and what it is told, by what is in the databases.

use std::process::Command;

use super::{Flavor, NET_BUFFER, Session, UTF8, literal};
use crate::catalogue::Catalogue;
use crate::database::pattern::Patterns;
use crate::settings::MysqlConfig;

/// A dump that is ready to start, and what is to be said before.
pub struct Dump {
    /// The program.
    pub command: Command,
    /// The databases that it is asked for.
    pub databases: Vec<String>,
    /// What a user should know.
    pub warnings: Vec<String>,
}

/// System-versioned tables: what becomes of the rows that are no more.
pub enum History {
    /// There are no such tables.
    None,
    /// The dump program writes it.
    Kept,
    /// It does not, for this reason.
    Lost(String),
}

impl Session {
    /// The dump of what is configured.
    pub fn dump(&self, config: &MysqlConfig) -> Result<Dump, String> {
        let mut command = self.program(&self.dump);
        command.args([
            "--single-transaction",
            "--quick",
            "--skip-dump-date",
            "--hex-blob",
            "--order-by-primary",
            // Who holds locks may use no sequence; without them it loads as fast.
            "--skip-add-locks",
            NET_BUFFER,
            UTF8,
            "--routines",
            "--events",
            "--triggers",
        ]);
        if self.value("SELECT @@log_bin")? == "1" {
            let is_mysql = self.flavor == Flavor::MySql;
            command.arg(if is_mysql { "--source-data=2" } else { "--master-data=2" });
        }
        if self.flavor == Flavor::MySql {
            command.args(["--set-gtid-purged=COMMENTED", "--no-tablespaces"]);
        }
        for table in self.without_rows(config)? {
            command.arg(format!("--ignore-table-data={table}"));
        }
        let mut warnings = Vec::new();
        match self.history()? {
            History::None => {}
            History::Kept => drop(command.arg("--dump-history")),
            History::Lost(why) => warnings.push(why),
        }
        let databases = self.databases()?;
        // Behind two dashes nothing is an option, whatever databases are called.
        command.args(["--databases", "--"]).args(&databases);
        Ok(Dump { command, databases, warnings })
    }

    /// The tables whose rows are left out.
    fn without_rows(&self, config: &MysqlConfig) -> Result<Vec<String>, String> {
        let patterns = Patterns::new(&config.exclude_data);
        if patterns.is_empty() {
            return Ok(Vec::new());
        }
        if !self.knows(&self.dump, "--ignore-table-data")? {
            let program = self.dump.display();
            return Err(format!(
                "exclude_data: {program} cannot leave out the rows of a table: install mariadb-client"
            ));
        }
        let tables = self.our_rows(&format!(
            "SELECT t.table_schema, t.table_name FROM information_schema.tables t
             WHERE t.table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') AND {} ORDER BY 1, 2",
            self.wanted()
        ))?;
        let names = || tables.iter().map(|row| (row[0].as_str(), row[1].as_str()));
        if let Some(pattern) = patterns.unused(names()) {
            return Err(format!("exclude_data: no table fits '{pattern}'"));
        }
        let out = names().filter(|(schema, table)| patterns.fit(schema, table));
        Ok(out.map(|(schema, table)| format!("{schema}.{table}")).collect())
    }

    /// What becomes of the history of system-versioned tables.
    pub fn history(&self) -> Result<History, String> {
        if self.flavor == Flavor::MySql {
            return Ok(History::None);
        }
        let versioned = self.query(&format!(
            "SELECT CONCAT(t.table_schema, '.', t.table_name) FROM information_schema.tables t
             WHERE t.table_type = 'SYSTEM VERSIONED' AND {} ORDER BY 1",
            self.wanted()
        ))?;
        if versioned.is_empty() {
            return Ok(History::None);
        }
        let lost = |why: &str| {
            let names = versioned.join(", ");
            History::Lost(format!("{why}: old rows of {names} (system-versioned) are not kept"))
        };
        if !self.knows(&self.dump, "--dump-history")? {
            let program = self.dump.display();
            return Ok(lost(&format!("{program} has no --dump-history (10.11 has)")));
        }
        let exact = self.query(&format!(
            "SELECT CONCAT(t.table_schema, '.', t.table_name) FROM information_schema.columns t
             WHERE t.generation_expression = 'ROW START' AND t.data_type = 'bigint' AND {}
             ORDER BY 1",
            self.wanted()
        ))?;
        Ok(match exact.first() {
            Some(first) => lost(&format!(
                "the dump program keeps no history by transactions, which {first} has"
            )),
            None => History::Kept,
        })
    }

    /// The condition for tables `t` of what is backed up.
    pub(super) fn wanted(&self) -> String {
        const OWN: &str = "('information_schema', 'performance_schema', 'mysql', 'sys')";
        match self.login.database.as_str() {
            "" => format!("t.table_schema NOT IN {OWN}"),
            database => format!("t.table_schema = {}", literal(database)),
        }
    }
}

/// Whether a dump holds the databases that it was asked for, and no others.
pub fn holds(catalogue: &Catalogue, asked: &[String]) -> Result<(), String> {
    let sorted = |names: &[String]| {
        // Some servers know names in small letters alone.
        let mut names: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
        names.sort();
        names
    };
    let (found, asked) = (sorted(&catalogue.databases), sorted(asked));
    if found == asked {
        return Ok(());
    }
    let (found, asked) = (found.join(", "), asked.join(", "));
    Err(format!("the dump holds the databases {found}, but {asked} were asked for"))
}
