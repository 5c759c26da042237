//! Entries of the commit log. The state of a repository is the fold of these over `log/0`, `log/1`, …
//!
//! An entry says what changed, all of it at once: whoever creates `log/<n>` has committed it.

use super::FormatError;
use super::codec::{Decoder, Encoder};
use crate::id::ObjectName;

/// What an entry is for; the fold looks at the lists alone, the rules for each kind are in
/// `repository::state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// A backup added idx objects, and a snapshot where it finished.
    Add = 1,
    /// Snapshots were forgotten (or replaced, where their tags changed).
    Forget = 2,
    /// Prune replaced idx objects and condemned packs.
    Gc = 3,
    /// Condemned packs may be deleted from here on.
    Dead = 4,
    /// Nothing: a slot taken by a writer whose own entry must never land.
    Noop = 5,
    /// The whole state so far, so that nobody has to read what came before.
    State = 6,
    /// Key slots changed.
    Key = 7,
    /// The whole state after a repair. It stands for itself: what came before may be lost.
    Repair = 8,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// What it is for.
    pub kind: EntryKind,
    /// BLAKE3 of the stored bytes of the entry before; zeros for the first.
    pub previous: [u8; 32],
    /// When it was made, nanoseconds since 1970; for people only.
    pub time_ns: i64,
    /// Host and program, for people only.
    pub author: String,
    /// idx objects that are valid from here on.
    pub index_add: Vec<ObjectName>,
    /// idx objects that no longer are.
    pub index_remove: Vec<ObjectName>,
    /// Snapshots that are live from here on.
    pub snapshot_add: Vec<ObjectName>,
    /// Snapshots that no longer are.
    pub snapshot_remove: Vec<ObjectName>,
    /// Condemned packs that are live again.
    pub rescue: Vec<ObjectName>,
    /// Packs that nobody may deduplicate against any more.
    pub condemn: Vec<ObjectName>,
    /// Packs that are gone for good.
    pub dead: Vec<ObjectName>,
    /// Key slots that were removed, by the names of their objects.
    pub slots_removed: Vec<String>,
    /// Where not 0: nothing is encrypted with the keys of an epoch before this one any more, and
    /// they were destroyed.
    pub oldest_epoch: u32,
    /// Of a repair: the numbers of entries before it, first and last of each run, that are missing,
    /// cannot be read, or do not continue the one before them.
    pub lost: Vec<(u64, u64)>,
    /// From here on snapshots may rely on chunks that are lost; a state says so again.
    pub was_repaired: bool,
    /// Of a state or repair: the bytes of `config`, should it be lost.
    pub config: Vec<u8>,
    /// Of a state or repair: snapshots that nobody forgot and whose manifests are there and could not
    /// be read when the log was repaired. They are not live; prune spares what they may need.
    pub unread: Vec<ObjectName>,
}

impl LogEntry {
    /// An entry that changes nothing yet.
    pub fn new(kind: EntryKind) -> Self {
        Self {
            kind,
            previous: [0; 32],
            time_ns: 0,
            author: String::new(),
            index_add: Vec::new(),
            index_remove: Vec::new(),
            snapshot_add: Vec::new(),
            snapshot_remove: Vec::new(),
            rescue: Vec::new(),
            condemn: Vec::new(),
            dead: Vec::new(),
            slots_removed: Vec::new(),
            oldest_epoch: 0,
            lost: Vec::new(),
            was_repaired: false,
            config: Vec::new(),
            unread: Vec::new(),
        }
    }

    /// Whether its lists are the whole state, so that reading can begin here.
    pub fn is_state(&self) -> bool {
        matches!(self.kind, EntryKind::State | EntryKind::Repair)
    }

    /// Whether this only adds, which somebody with a write-only key may do.
    pub fn only_adds(&self) -> bool {
        let removes = [&self.index_remove, &self.snapshot_remove, &self.condemn, &self.dead];
        matches!(self.kind, EntryKind::Add | EntryKind::Noop)
            && removes.iter().all(|list| list.is_empty())
            && self.slots_removed.is_empty()
            && self.oldest_epoch == 0
            && !self.was_repaired
    }

    /// Whether it only takes the place of an entry that was lost, so that nothing else can.
    pub fn is_filler(&self) -> bool {
        self.kind == EntryKind::Noop && self.was_repaired
    }

    /// Encodes the entry.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::default();
        encoder
            .byte(self.kind as u8)
            .fixed(&self.previous)
            .fixed(&self.time_ns.to_le_bytes())
            .counted(self.author.as_bytes());
        for list in self.lists() {
            encoder.number(list.len() as u64);
            for name in list {
                encoder.fixed(name.as_bytes());
            }
        }
        encoder.number(self.slots_removed.len() as u64);
        for slot in &self.slots_removed {
            encoder.counted(slot.as_bytes());
        }
        encoder.number(self.oldest_epoch.into());
        encoder.byte(self.was_repaired.into());
        if self.is_state() {
            encoder.counted(&self.config);
        }
        if self.kind == EntryKind::Repair {
            encoder.number(self.lost.len() as u64);
            for (first, last) in &self.lost {
                encoder.number(*first).number(*last);
            }
        }
        if self.is_state() && !self.unread.is_empty() {
            encoder.number(self.unread.len() as u64);
            self.unread.iter().for_each(|name| _ = encoder.fixed(name.as_bytes()));
        }
        encoder.finish()
    }

    /// Decodes what [`LogEntry::encode`] made.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut decoder = Decoder::new(bytes);
        let kind = match decoder.byte("entry kind")? {
            1 => EntryKind::Add,
            2 => EntryKind::Forget,
            3 => EntryKind::Gc,
            4 => EntryKind::Dead,
            5 => EntryKind::Noop,
            6 => EntryKind::State,
            7 => EntryKind::Key,
            8 => EntryKind::Repair,
            _ => return Err(FormatError::Invalid("entry kind: a newer restow wrote this")),
        };
        let mut entry = Self::new(kind);
        entry.previous = decoder.fixed("hash of the entry before")?;
        entry.time_ns = i64::from_le_bytes(decoder.fixed("time")?);
        entry.author = text(decoder.counted("author")?)?;
        for list in entry.lists_mut() {
            for _ in 0..decoder.count(ObjectName::LEN, "object names")? {
                list.push(ObjectName(decoder.fixed("object name")?));
            }
        }
        for _ in 0..decoder.count(1, "key slots")? {
            let slot = text(decoder.counted("key slot")?)?;
            entry.slots_removed.push(slot);
        }
        entry.oldest_epoch = u32::try_from(decoder.number("oldest epoch")?)
            .map_err(|_| FormatError::Invalid("oldest epoch"))?;
        entry.was_repaired = decoder.bounded(1, "mark of repairs")? == 1;
        if entry.is_state() {
            entry.config = decoder.counted("copy of the configuration")?.to_vec();
        }
        if kind == EntryKind::Repair {
            for _ in 0..decoder.count(2, "lost entries")? {
                let run = (decoder.number("lost entry")?, decoder.number("lost entry")?);
                entry.lost.push(run);
            }
        }
        if entry.is_state() && !decoder.rest().is_empty() {
            for _ in 0..decoder.count(ObjectName::LEN, "snapshots")? {
                entry.unread.push(ObjectName(decoder.fixed("object name")?));
            }
        }
        decoder.finish()?;
        Ok(entry)
    }

    fn lists(&self) -> [&Vec<ObjectName>; 7] {
        [
            &self.index_add,
            &self.index_remove,
            &self.snapshot_add,
            &self.snapshot_remove,
            &self.rescue,
            &self.condemn,
            &self.dead,
        ]
    }

    fn lists_mut(&mut self) -> [&mut Vec<ObjectName>; 7] {
        [
            &mut self.index_add,
            &mut self.index_remove,
            &mut self.snapshot_add,
            &mut self.snapshot_remove,
            &mut self.rescue,
            &mut self.condemn,
            &mut self.dead,
        ]
    }
}

fn text(bytes: &[u8]) -> Result<String, FormatError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| FormatError::Invalid("text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn round_trips() {
        let mut entry = LogEntry::new(EntryKind::Gc);
        entry.previous = [9; 32];
        entry.time_ns = -5;
        entry.author = "db1 restow".into();
        for (number, list) in entry.lists_mut().into_iter().enumerate() {
            list.extend((0..number).map(|n| ObjectName([n as u8; 32])));
        }
        entry.slots_removed.push("abc".into());
        entry.oldest_epoch = 77;
        assert_eq!(LogEntry::decode(&entry.encode()).unwrap(), entry);
        assert!(LogEntry::decode(&entry.encode()[1..]).is_err());
        for kind in [EntryKind::State, EntryKind::Repair] {
            let mut state = LogEntry { kind, config: b"parameters".to_vec(), ..entry.clone() };
            state.was_repaired = true;
            if kind == EntryKind::Repair {
                state.lost = vec![(0, 3), (7, u64::MAX)];
            }
            assert_eq!(LogEntry::decode(&state.encode()).unwrap(), state);
            state.unread = vec![ObjectName([3; 32])];
            assert_eq!(LogEntry::decode(&state.encode()).unwrap(), state);
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let _ = LogEntry::decode(&bytes);
        }
    }
}
