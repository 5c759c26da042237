//! Whether a MariaDB or MySQL server can be backed up as it should.

use super::Session;
use crate::database::probe::Findings;
use crate::database::{Surroundings, source_error};
use crate::error::Result;
use crate::settings::MysqlConfig;

impl Session {
    /// Tables whose engine gives no consistent copy.
    fn tables_without_transactions(&self) -> Result<Vec<String>, String> {
        self.query(&format!(
            "SELECT CONCAT(t.table_schema, '.', t.table_name) FROM information_schema.tables t
             JOIN information_schema.engines e ON e.engine = t.engine
             WHERE t.table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') AND e.transactions <> 'YES' AND {}
             ORDER BY 1",
            self.wanted()
        ))
    }

    /// What would end a backup, or leave something out without a word.
    pub fn problems(&self) -> Result<Vec<String>, String> {
        let databases = self.databases()?;
        let mut problems = self.missing_rights(&databases)?;
        let hidden = self.query(&format!(
            "SELECT CONCAT(t.routine_schema, '.', t.routine_name) FROM information_schema.routines t
             WHERE t.routine_definition IS NULL AND {} ORDER BY 1",
            self.wanted().replace("t.table_schema", "t.routine_schema")
        ))?;
        for routine in hidden {
            problems.push(format!(
                "the body of {routine} cannot be read: GRANT SELECT ON mysql.proc (MySQL 8: SHOW_ROUTINE) to \
                 this user"
            ));
        }
        Ok(problems)
    }

    /// What a backup of is worth knowing.
    pub fn warnings(&self) -> Result<Vec<String>, String> {
        let mut warnings = Vec::new();
        for table in self.tables_without_transactions()? {
            warnings.push(format!(
                "{table} has no transactions (not InnoDB): rows that change meanwhile may be torn"
            ));
        }
        if self.login.database.is_empty() && !self.grants()?.show_databases() {
            warnings.push(
                "databases that this user has no right on are not seen, and left out: GRANT SHOW DATABASES \
                 ON *.* to it, or name one in the address"
                    .to_owned(),
            );
        }
        Ok(warnings)
    }

    fn tables_without_key(&self) -> Result<Vec<String>, String> {
        self.query(&format!(
            "SELECT CONCAT(t.table_schema, '.', t.table_name) FROM information_schema.tables t
             WHERE t.table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') AND {} AND NOT EXISTS (
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
    for warning in session.warnings().map_err(failed)? {
        found.warning(warning);
    }
    for table in session.tables_without_key().map_err(failed)? {
        found.warning(format!("{table} has no primary key: it is read as it lies"));
    }
    for problem in session.problems().map_err(failed)? {
        found.problem(problem);
    }
    match session.dump(config) {
        Ok(dump) => dump.warnings.into_iter().for_each(|warning| found.warning(warning)),
        Err(problem) => found.problem(problem),
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
