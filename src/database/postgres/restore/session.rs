//! Sessions in the target of a restore.

use std::collections::HashSet;

use super::RestoreOptions;
use super::archive::Archive;
use super::present::present;
use crate::database::postgres::client::Client;
use crate::database::postgres::error::PgError;
use crate::database::postgres::inspect;
use crate::database::source_error;
use crate::error::{Error, Result};

/// The target as it is before a restore.
pub struct Target {
    /// A session in the database, or in another one where there is none of its name.
    pub client: Client,
    /// There is no database of its name.
    pub is_new: bool,
}

impl Target {
    /// Connects to it.
    pub fn open(archive: &Archive, options: &RestoreOptions) -> Result<Self> {
        let (mut client, is_new) = match connect(options, options.database()) {
            Ok(client) => (client, false),
            // 3D000: there is no such database.
            Err(error) if error.code() == "3D000" => {
                (maintenance(options).map_err(|error| named(options, error))?, true)
            }
            Err(error) => return Err(named(options, error)),
        };
        prepare(&mut client, archive).map_err(|error| named(options, error))?;
        Ok(Self { client, is_new })
    }

    /// The entries of the archive that name something that is there.
    pub fn present(&mut self, archive: &Archive, options: &RestoreOptions) -> Result<HashSet<i32>> {
        if self.is_new {
            return Ok(HashSet::new());
        }
        let found = present(&mut self.client, archive.toc.entries.iter());
        found.map_err(|error| named(options, error))
    }
}

fn connect(options: &RestoreOptions, database: &str) -> Result<Client, PgError> {
    Client::connect(&options.target.clone().with_database(database))
}

/// A session in a database that is always there.
pub fn maintenance(options: &RestoreOptions) -> Result<Client, PgError> {
    connect(options, "postgres").or_else(|_| connect(options, "template1"))
}

/// No limit of time ends it, and texts are in the encoding of the archive, rows with them.
fn prepare(client: &mut Client, archive: &Archive) -> Result<(), PgError> {
    inspect::prepare(client)?;
    client.query(archive.encoding()).map(drop)
}

/// A session in the target.
pub fn session(archive: &Archive, options: &RestoreOptions) -> Result<Client> {
    let mut client = connect(options, options.database()).map_err(|error| named(options, error))?;
    prepare(&mut client, archive).map_err(|error| named(options, error))?;
    Ok(client)
}

/// An error of the target.
pub fn named(options: &RestoreOptions, error: PgError) -> Error {
    source_error(&options.dsn().address(), error)
}
