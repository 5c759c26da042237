//! Locks that keep tables as they are while they are read.
//!
//! Reading takes the weakest lock, which goes with everything but changes of the table itself. Who wants to
//! make such a change waits for us, and whoever asks for the table after that waits behind: also a further
//! session of ours, for which nobody would ever be done. So all locks are taken at the beginning, and no
//! wait is for ever.

use std::time::Duration;

use super::client::Client;
use super::error::PgError;
use super::inspect::Relation;

/// How long a session waits for a lock that another one of ours has already: behind somebody who wants to
/// change the table. So long everybody else waits, too.
pub const BEHIND_OTHERS: Duration = Duration::from_secs(2);
/// Tables that one command locks.
const AT_ONCE: usize = 100;

/// Lets locks be waited for so long; zero for ever.
pub fn set_timeout(client: &mut Client, time: Duration) -> Result<(), PgError> {
    let milliseconds = time.as_millis().min(i32::MAX as u128);
    client.query(&format!("SET lock_timeout = {milliseconds}")).map(drop)
}

/// Keeps tables from being dropped, emptied or changed while they are read. A lock needs no snapshot.
/// Materialised views cannot be locked; `pg_dump` reads none of their rows.
pub fn take(client: &mut Client, tables: &[Relation]) -> Result<(), PgError> {
    let tables: Vec<&Relation> =
        tables.iter().filter(|it| it.is_readable && it.is_lockable).collect();
    for some in tables.chunks(AT_ONCE) {
        let names: Vec<String> = some.iter().map(|it| it.quoted()).collect();
        let names = names.join(", ONLY ");
        client.query(&format!("LOCK TABLE ONLY {names} IN ACCESS SHARE MODE"))?;
    }
    Ok(())
}

/// The same, passing over tables that were dropped meanwhile. Leaves no savepoint behind.
pub fn take_those_left(client: &mut Client, tables: &[Relation]) -> Result<(), PgError> {
    for some in tables.chunks(AT_ONCE) {
        if tolerant(client, some)? {
            continue;
        }
        for one in some.chunks(1) {
            tolerant(client, one)?;
        }
    }
    Ok(())
}

/// Locks these tables, or none of them where one is no longer there.
fn tolerant(client: &mut Client, tables: &[Relation]) -> Result<bool, PgError> {
    client.query("SAVEPOINT one")?;
    match take(client, tables) {
        Ok(()) => {
            client.query("RELEASE SAVEPOINT one")?;
            Ok(true)
        }
        // 42P01, 3F000: it was dropped meanwhile.
        Err(error) if matches!(error.code(), "42P01" | "3F000") => {
            client.query("ROLLBACK TO SAVEPOINT one; RELEASE SAVEPOINT one")?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The sessions that others wait for, or that wait to change a table.
const HOLDERS: &str = "SELECT string_agg(DISTINCT format('%s by process %s', l.relation::regclass, l.pid), ', ')
 FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
 WHERE l.mode = 'AccessExclusiveLock' AND l.pid <> pg_catalog.pg_backend_pid()
   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
   AND c.relkind IN ('r', 'p') AND c.relnamespace <> 'pg_catalog'::regnamespace";

/// Says who is in the way, where a lock was waited for in vain.
pub fn explain(client: &mut Client, error: PgError, time: Duration) -> PgError {
    // 55P03: lock_not_available
    if error.code() != "55P03" {
        return error;
    }
    let holders = client.query("ROLLBACK").and_then(|_| client.value(HOLDERS)).unwrap_or_default();
    let seconds = time.as_secs();
    let who = if holders.is_empty() { String::new() } else { format!(" ({holders})") };
    PgError::Locked(format!("a table is locked by another session for more than {seconds} s{who}"))
}
