//! Whether a MariaDB or MySQL server can be backed up as it should.

use super::{Session, literal};
use crate::database::probe::Findings;
use crate::database::{Surroundings, source_error};
use crate::error::Result;
use crate::settings::MysqlConfig;

/// What is needed to read tables, views, triggers and events.
const RIGHTS: [&str; 4] = ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"];
const OWN: &str = "('information_schema', 'performance_schema', 'mysql', 'sys')";

impl Session {
    /// The condition for tables of what is backed up.
    fn wanted(&self) -> String {
        match self.login.database.as_str() {
            "" => format!("t.table_schema NOT IN {OWN}"),
            database => format!("t.table_schema = {}", literal(database)),
        }
    }

    /// Tables whose engine gives no consistent copy.
    pub fn tables_without_transactions(&self) -> Result<Vec<String>, String> {
        self.query(&format!(
            "SELECT CONCAT(t.table_schema, '.', t.table_name) FROM information_schema.tables t
             JOIN information_schema.engines e ON e.engine = t.engine
             WHERE t.table_type = 'BASE TABLE' AND e.transactions <> 'YES' AND {}
             ORDER BY 1",
            self.wanted()
        ))
    }

    /// Rights that a dump of everything needs and this user does not have anywhere: without some of them
    /// the dump program sees less and says nothing.
    pub fn missing_rights(&self) -> Result<Vec<&'static str>, String> {
        let grants = self.query("SHOW GRANTS")?.join(" ");
        let has = |right: &str| grants.contains(right) || grants.contains("ALL PRIVILEGES");
        Ok(RIGHTS.into_iter().filter(|right| !has(right)).collect())
    }

    fn tables_without_key(&self) -> Result<Vec<String>, String> {
        self.query(&format!(
            "SELECT CONCAT(t.table_schema, '.', t.table_name) FROM information_schema.tables t
             WHERE t.table_type = 'BASE TABLE' AND {} AND NOT EXISTS (
               SELECT 1 FROM information_schema.table_constraints c
               WHERE c.table_schema = t.table_schema AND c.table_name = t.table_name
                 AND c.constraint_type = 'PRIMARY KEY') ORDER BY 1",
            self.wanted()
        ))
    }
}

/// Looks at a server.
pub(in crate::database) fn probe(
    name: &str,
    config: &MysqlConfig,
    surroundings: &Surroundings,
    found: &mut Findings,
) -> Result<()> {
    let failed = |error: String| source_error(name, error);
    let session = Session::open(config, surroundings).map_err(failed)?;
    let (address, version) = (session.login.address(), &session.version);
    found.fact(format!("connected to {address}: {version}"));
    found.fact(format!("dumps are made by {}", session.dump.display()));
    let databases = session.databases().map_err(failed)?;
    found.fact(format!("{} databases: {}", databases.len(), databases.join(", ")));
    for table in session.tables_without_transactions().map_err(failed)? {
        found.warning(format!("{table} is not InnoDB: rows that change meanwhile may be torn"));
    }
    for table in session.tables_without_key().map_err(failed)? {
        found.warning(format!("{table} has no primary key: it is read as it lies"));
    }
    for right in session.missing_rights().map_err(failed)? {
        found.problem(format!("the right {right} is missing: GRANT {right} ON *.* TO this user"));
    }
    match session.value("SELECT @@log_bin").map_err(failed)?.as_str() {
        "1" => found.fact("the binary log is on: its place is kept"),
        _ => found.warning("the binary log is off: there is nothing to replay after a backup"),
    }
    let bytes = session.value(&format!(
        "SELECT COALESCE(SUM(t.data_length), 0) FROM information_schema.tables t WHERE {}",
        session.wanted()
    ));
    let bytes: u64 = bytes.map_err(failed)?.parse().unwrap_or(0);
    found.fact(format!("{} MB of rows on the server", bytes / 1_000_000));
    Ok(())
}
