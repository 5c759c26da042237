//! `restow log`.

use std::collections::HashMap;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use restow::crypto::CryptoError;
use restow::error::Error;
use restow::format::FormatError;
use restow::format::log::{EntryKind, LogEntry};
use restow::format::snapshot::Snapshot;
use restow::id::ObjectName;
use restow::repository::Repository;
use serde_json::{Value, json};

use crate::cli::{Global, interrupt, output};

/// Most names of objects that a line names.
const NAMED: usize = 4;

/// Show what changed the repository, newest first: who, when, what
///
/// Every change is an entry of the commit log, which is never shortened. Times and authors are what
/// the machine that made the change said. `cat log N` prints all that an entry holds.
#[derive(Args)]
pub struct LogArgs {
    /// Only the newest so many
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<u64>,
    /// Oldest first
    #[arg(long)]
    reverse: bool,
}

/// Prints a line for each entry, reading one at a time. Exits with 1 where one cannot be read.
pub fn run(global: &Global, args: LogArgs) -> Result<u8> {
    let repository = global.open_read_only()?;
    let words = Words::of(&repository)?;
    let head = repository.index().position()?.map_or(0, |position| position.number);
    let first = args.limit.map_or(0, |limit| (head + 1).saturating_sub(limit));
    let last = if args.limit == Some(0) { None } else { Some(head) };
    let numbers = first..last.map_or(first, |last| last + 1);
    let numbers: Box<dyn Iterator<Item = u64>> =
        if args.reverse { Box::new(numbers) } else { Box::new(numbers.rev()) };
    let progress = interrupt::progress();
    let mut code = 0;
    for number in numbers {
        if progress.is_interrupted() {
            return Err(Error::Interrupted.into());
        }
        let entry = match repository.read_entry(number) {
            Ok(Some(stored)) => Ok(stored.entry),
            Ok(None) => Err(("damaged", "missing".to_owned())),
            // Nothing is wrong with it.
            Err(error) if is_of_destroyed_keys(&error) => {
                Err(("unreadable", "encrypted with keys that were destroyed since".to_owned()))
            }
            Err(error) if error.is_object_damage() => Err(("damaged", error.to_string())),
            Err(error) => return Err(error.into()),
        };
        code = code.max(u8::from(matches!(entry, Err(("damaged", _)))));
        print(global, number, &entry, &words)?;
    }
    Ok(code)
}

fn is_of_destroyed_keys(error: &Error) -> bool {
    let Error::Damaged { source, .. } = error else { return false };
    matches!(source, FormatError::Crypto(CryptoError::UnknownEpoch(_)))
}

fn print(
    global: &Global,
    number: u64,
    entry: &Result<LogEntry, (&str, String)>,
    words: &Words,
) -> Result<()> {
    let entry = match entry {
        Ok(entry) => entry,
        Err((kind, why)) if global.json => {
            return Ok(output::json(&json!({"number": number, "kind": kind, "action": why}))?);
        }
        Err((_, why)) => return Ok(output::line(format!("{number:>6}  {why}"))?),
    };
    let time = Timestamp::from_nanosecond(entry.time_ns.into()).ok();
    if global.json {
        return Ok(output::json(&words.record(number, time, entry))?);
    }
    let time = time
        .map(|time| time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string());
    let (time, action) = (time.unwrap_or_default(), words.action(entry));
    Ok(output::line(format!("{number:>6}  {time:19}  {}  {action}", entry.author))?)
}

/// What the index knows of what entries name.
struct Words {
    snapshots: HashMap<ObjectName, Snapshot>,
    /// How many packs a valid idx object names.
    packs: HashMap<ObjectName, u64>,
}

impl Words {
    fn of(repository: &Repository) -> Result<Self> {
        let snapshots = repository.index().snapshots()?.into_iter().collect();
        let mut packs = HashMap::new();
        for (index, _) in repository.index().packs_by_index()? {
            *packs.entry(index).or_default() += 1;
        }
        Ok(Self { snapshots, packs })
    }

    /// How many packs an entry added, where its idx objects are still valid.
    fn packs(&self, entry: &LogEntry) -> Option<u64> {
        entry.index_add.iter().map(|name| self.packs.get(name)).sum()
    }

    fn record(&self, number: u64, time: Option<Timestamp>, entry: &LogEntry) -> Value {
        json!({
            "number": number, "time": time, "author": entry.author,
            "kind": format!("{:?}", entry.kind).to_lowercase(), "action": self.action(entry),
            "packs_added": self.packs(entry), "snapshots_added": changes(entry, &entry.snapshot_add),
            "snapshots_removed": entry.snapshot_remove, "rescued": entry.rescue.len(),
            "condemned": changes(entry, &entry.condemn).len(),
            "dead": changes(entry, &entry.dead).len(), "slots_removed": entry.slots_removed,
        })
    }

    /// What an entry did, in words.
    fn action(&self, entry: &LogEntry) -> String {
        let packs = match self.packs(entry) {
            Some(count) => format!("{count} packs"),
            None => "packs that were replaced since".to_owned(),
        };
        let rescued = match entry.rescue.len() {
            0 => String::new(),
            count => format!(", rescued {count} condemned objects"),
        };
        let text = match entry.kind {
            EntryKind::Add if entry.snapshot_add.is_empty() => {
                format!("stored {packs}, without a snapshot")
            }
            EntryKind::Add if entry.index_add.is_empty() => {
                format!("added {}", self.names(&entry.snapshot_add))
            }
            EntryKind::Add => format!("added {} with {packs}", self.names(&entry.snapshot_add)),
            EntryKind::Forget if entry.snapshot_add.is_empty() => {
                format!("forgot {}", self.names(&entry.snapshot_remove))
            }
            EntryKind::Forget => format!(
                "changed {} to {}",
                self.names(&entry.snapshot_remove),
                self.names(&entry.snapshot_add)
            ),
            EntryKind::Gc => format!(
                "condemned {} objects, replaced {} idx objects by {}",
                entry.condemn.len(),
                entry.index_remove.len(),
                entry.index_add.len()
            ),
            EntryKind::Dead => format!("declared {} objects dead", entry.dead.len()),
            EntryKind::Noop => "did nothing: another commit was given up".to_owned(),
            EntryKind::Repair => "repaired the log: wrote down the whole state anew".to_owned(),
            EntryKind::State => "wrote down the whole state".to_owned(),
            EntryKind::Key if entry.oldest_epoch > 0 => {
                format!("destroyed the keys of epochs before {}", entry.oldest_epoch)
            }
            EntryKind::Key if entry.slots_removed.is_empty() => "changed the keys".to_owned(),
            EntryKind::Key => {
                let short = |name: &String| name.chars().take(8).collect::<String>();
                let names: Vec<_> = entry.slots_removed.iter().map(short).collect();
                format!("removed key slot {}", names.join(", "))
            }
        };
        text + &rescued
    }

    fn names(&self, names: &[ObjectName]) -> String {
        let describe = |name: &ObjectName| match self.snapshots.get(name) {
            None => name.short(),
            Some(snapshot) => {
                format!("{} ({}: {})", name.short(), snapshot.host, super::contents(snapshot))
            }
        };
        let mut text: Vec<_> = names.iter().take(NAMED).map(describe).collect();
        if names.len() > NAMED {
            text.push(format!("{} more", names.len() - NAMED));
        }
        let noun = if names.len() == 1 { "snapshot" } else { "snapshots" };
        format!("{noun} {}", text.join(", "))
    }
}

/// What an entry changes; a whole state changes nothing.
fn changes<'e>(entry: &LogEntry, names: &'e [ObjectName]) -> &'e [ObjectName] {
    if entry.kind == EntryKind::State { &[] } else { names }
}
