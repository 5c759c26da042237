//! `restow demo`.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Args;
use restow::backup::{BackupOptions, Report, StreamSource, run as back_up};
use restow::check::{ReadData, run as check};
use restow::crypto::slot::Secret;
use restow::progress::Progress;
use restow::repository::snapshots::Filter;
use restow::repository::{Environment, InitOptions, Repository};
use restow::restore::files::{FileOptions, place_below, restore_stream};
use restow::restore::options::Overwrite;
use restow::source::file::FileInput;
use restow::store::local::LocalStore;
use rusqlite::{Connection, backup::Backup};
use zeroize::Zeroizing;

use crate::cli::output::{self, bytes, percent};

/// Show the whole thing on a real SQLite database in a temporary folder
#[derive(Args)]
pub struct DemoArgs {
    /// Rows of the database
    #[arg(long, default_value_t = 400_000)]
    rows: u32,
    /// Work in this folder and keep it, instead of a temporary one
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// Creates a database, backs it up, changes 1 % of it, backs it up again, restores and compares.
pub fn run(args: DemoArgs) -> Result<u8> {
    let temporary = tempfile::tempdir().context("create a temporary folder")?;
    let folder = args.folder.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let mut database = create_database(&folder.join("shop.sqlite"), args.rows)?;
    output::line(format!("1. a SQLite database with {} orders", args.rows))?;

    let store = Arc::new(LocalStore::create(folder.join("repository"))?);
    let secret = Secret::Password(Zeroizing::new(b"demo".to_vec()));
    let environment = Environment::system("demo".into(), Some(folder.join("cache")));
    let repository = Repository::init(store, &secret, &InitOptions::default(), environment)?;
    output::line("2. an empty, encrypted repository")?;

    let first = save(&repository, &database, folder)?;
    say("3. first backup", &first)?;
    let changed = change(&mut database)?;
    output::line(format!("4. {changed} orders changed, inserted or deleted all over the table"))?;
    let second = save(&repository, &database, folder)?;
    say("5. second backup", &second)?;
    let cost = second.snapshot.summary.added_bytes;
    output::line(format!(
        "   the increment cost {}: {} of the database, {} of the first backup",
        bytes(cost),
        percent(cost, second.snapshot.total_bytes()),
        percent(cost, first.snapshot.summary.added_bytes)
    ))?;

    let before = fingerprint(&database)?;
    let restored = restore(&repository, &folder.join("restored"))?;
    let copy = Connection::open(&restored)?;
    let verdict: String = copy.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    ensure!(verdict == "ok", "the restored database is damaged: {verdict}");
    ensure!(fingerprint(&copy)? == before, "the restored database differs from the original");
    output::line("6. restored: integrity_check says ok, every row is the same")?;

    let report = check(&repository, ReadData::All, &Progress::default())?;
    ensure!(report.problems.is_empty(), "check found problems: {:?}", report.problems);
    output::line(format!(
        "7. check --read-data: {} in {} packs read, decoded and verified, no problems",
        bytes(report.bytes_read),
        report.packs_read
    ))?;
    Ok(0)
}

fn create_database(path: &Path, rows: u32) -> Result<Connection> {
    let mut connection = Connection::open(path)?;
    connection.execute_batch(
        "CREATE TABLE orders(id INTEGER PRIMARY KEY, customer TEXT NOT NULL, item TEXT NOT NULL,
             cents INTEGER NOT NULL, state TEXT NOT NULL, note TEXT NOT NULL);",
    )?;
    let transaction = connection.transaction()?;
    for id in 0..rows {
        insert(&transaction, id.into())?;
    }
    transaction.commit()?;
    connection.execute_batch("CREATE INDEX by_customer ON orders(customer);")?;
    Ok(connection)
}

fn insert(connection: &Connection, id: u64) -> Result<()> {
    let noise = noise(id);
    let customer = format!("customer-{:05}", noise % 40_000);
    let item = ["book", "lamp", "chair", "kettle", "radio"][(noise >> 20) as usize % 5];
    let note = format!("{:016x}{:016x}", noise, noise.rotate_left(17) ^ id);
    connection
        .prepare_cached("INSERT OR REPLACE INTO orders VALUES(?1, ?2, ?3, ?4, 'new', ?5)")?
        .execute((id as i64, customer, item, (noise >> 30) as i64 % 100_000, note))?;
    Ok(())
}

/// Changes about 1 % of the rows, spread over the whole table.
fn change(database: &mut Connection) -> Result<u64> {
    let rows: i64 = database.query_row("SELECT max(id) FROM orders", [], |row| row.get(0))?;
    let transaction = database.transaction()?;
    let steps = rows as u64 / 100;
    for step in 0..steps {
        let id = (noise(step ^ 0x5eed) % rows as u64) as i64;
        match step % 10 {
            0 => insert(&transaction, rows as u64 + step)?,
            1 => drop(transaction.execute("DELETE FROM orders WHERE id=?1", [id])?),
            _ => drop(transaction.execute("UPDATE orders SET state='done' WHERE id=?1", [id])?),
        }
    }
    transaction.commit()?;
    Ok(steps)
}

/// A number that looks random and is the same every time (SplitMix64).
fn noise(seed: u64) -> u64 {
    let mut value = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Copies the database with SQLite's online backup and backs the copy up.
fn save(repository: &Repository, database: &Connection, folder: &Path) -> Result<Report> {
    let path = folder.join("copy.sqlite");
    let mut copy = Connection::open(&path)?;
    Backup::new(database, &mut copy)?.run_to_completion(1000, std::time::Duration::ZERO, None)?;
    drop(copy);
    let mut file = File::open(&path)?;
    file.rewind()?;
    let source = StreamSource {
        name: "shop.sqlite".into(),
        input: Box::new(FileInput::new(file)),
        min_bytes: 1,
    };
    let options =
        BackupOptions { streams: vec![source], host: "demo".into(), ..Default::default() };
    let report = back_up(repository, options, &Progress::default())?;
    std::fs::remove_file(path)?;
    Ok(report)
}

fn say(step: &str, report: &Report) -> Result<()> {
    let summary = report.snapshot.summary;
    let read = summary.read_bytes;
    output::line(format!(
        "{step}: {} read, {} added ({} unchanged, {} delta, {} new) in {}",
        bytes(read),
        bytes(summary.added_bytes),
        percent(summary.dedup_bytes, read),
        percent(summary.delta_bytes, read),
        percent(summary.new_bytes, read),
        output::seconds(summary.seconds)
    ))?;
    std::io::stdout().flush()?;
    Ok(())
}

fn restore(repository: &Repository, target: &Path) -> Result<PathBuf> {
    let named = repository.find_snapshot("latest", &Filter::default())?;
    let stream = &named.snapshot.streams[0];
    let one = (stream, jiff::Timestamp::UNIX_EPOCH);
    let options = FileOptions { target, overwrite: Overwrite::Always, dry_run: false };
    restore_stream(repository, one, options, &Progress::default())?;
    Ok(place_below(target, &stream.name)?)
}

/// A hash of all rows in order.
fn fingerprint(connection: &Connection) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut select = connection
        .prepare("SELECT id, customer, item, cents, state, note FROM orders ORDER BY id")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (id, cents): (i64, i64) = (row.get(0)?, row.get(3)?);
        hasher.update(&id.to_le_bytes()).update(&cents.to_le_bytes());
        for column in [1, 2, 4, 5] {
            hasher.update(row.get_ref(column)?.as_bytes()?);
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}
