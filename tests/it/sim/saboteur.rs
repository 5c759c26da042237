//! Rules broken on purpose. The saboteur stands between an actor and the store and has the keys: it
//! shows the actor an old end of the log, and changes the entries that the actor puts. So the library
//! itself has no switch that takes its rules away.

use restow::crypto::envelope::{self, ObjectKind};
use restow::format::log::{EntryKind, LogEntry};
use restow::format::paths;
use restow::store::StoreError;

use super::actors::Role;
use super::data::SeededEntropy;
use super::world::World;

/// A rule that is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// A writer looks at what happened to its own packs and their bases, not at what the snapshot
    /// refers to beyond them.
    NoClosure,
    /// Condemned packs that a snapshot relies on are not rescued.
    NoRescue,
    /// A backup commits as if nothing had happened since it began.
    NoRevalidation,
    /// Packs are deleted before the log calls them dead.
    DeleteBeforeDead,
    /// A put of unknown outcome counts as done.
    UnknownIsSuccess,
    /// A prune condemns what it planned to, though another prune came between.
    NoReplan,
}

impl Sabotage {
    pub const ALL: [Self; 6] = [
        Self::NoClosure,
        Self::NoRescue,
        Self::NoRevalidation,
        Self::DeleteBeforeDead,
        Self::UnknownIsSuccess,
        Self::NoReplan,
    ];

    /// Whose view of the log ends where the task began.
    fn blinds(self, role: Role) -> bool {
        match self {
            Self::NoClosure | Self::NoRevalidation => role == Role::Writer,
            Self::NoReplan => role == Role::Pruner,
            _ => false,
        }
    }
}

/// The one that breaks it.
pub struct Saboteur {
    sabotage: Sabotage,
    /// The last entry that each actor gets to see.
    ends: Vec<Option<u64>>,
}

impl Saboteur {
    pub fn new(sabotage: Sabotage, actors: usize) -> Self {
        Self { sabotage, ends: vec![None; actors] }
    }

    pub fn begin(&mut self, actor: usize, head: u64) {
        self.ends[actor] = self.sabotage.blinds(Role::of(actor)).then_some(head);
    }

    pub fn hides(&self, actor: usize, path: &str) -> bool {
        match (self.ends[actor], paths::log_number(path)) {
            (Some(end), Some(number)) => number > end,
            _ => false,
        }
    }

    pub fn takes_unknown_for_success(&self) -> bool {
        self.sabotage == Sabotage::UnknownIsSuccess
    }
}

impl World {
    /// What is put in the place of a log entry; `None` where it is left alone.
    pub fn tampered(
        &mut self,
        actor: usize,
        path: &str,
        bytes: &[u8],
    ) -> Result<Option<(String, Vec<u8>)>, StoreError> {
        let (Some(saboteur), Some(number)) = (&self.saboteur, paths::log_number(path)) else {
            return Ok(None);
        };
        let (sabotage, end) = (saboteur.sabotage, saboteur.ends[actor]);
        let keys = self.ledger.observer().keys();
        let plain = envelope::open(keys, ObjectKind::Log, &number.to_le_bytes(), bytes);
        let plain = plain.expect("actors seal well");
        let (plain, _proofs) = plain.split_last_chunk::<64>().expect("proofs are behind it");
        let mut entry = LogEntry::decode(plain).expect("actors encode well");
        match (sabotage, entry.kind) {
            (Sabotage::NoRescue, EntryKind::Add) if !entry.rescue.is_empty() => {
                entry.rescue.clear();
                Ok(Some((path.to_owned(), self.sealed(number, &entry))))
            }
            (Sabotage::DeleteBeforeDead, EntryKind::Dead) => {
                for name in &entry.dead {
                    let _ = self.delete(&paths::pack(name));
                }
                Ok(None)
            }
            (Sabotage::NoClosure | Sabotage::NoRevalidation, EntryKind::Add)
            | (Sabotage::NoReplan, EntryKind::Gc)
                if end.is_some() =>
            {
                if sabotage == Sabotage::NoClosure {
                    self.rescue_own(&mut entry)?;
                }
                if sabotage == Sabotage::NoReplan && !self.ledger.was_pruned_since(number) {
                    self.see_all(actor);
                    return Ok(None);
                }
                Ok(self.moved_to_head(actor, number, entry))
            }
            _ => {
                // Other entries are committed as they should be.
                self.see_all(actor);
                Ok(None)
            }
        }
    }

    fn see_all(&mut self, actor: usize) {
        if let Some(saboteur) = &mut self.saboteur {
            saboteur.ends[actor] = None;
        }
    }

    /// The entry with the number that is next in truth.
    fn moved_to_head(
        &mut self,
        actor: usize,
        number: u64,
        mut entry: LogEntry,
    ) -> Option<(String, Vec<u8>)> {
        let next = self.ledger.head() + 1;
        if let Some(saboteur) = &mut self.saboteur {
            saboteur.ends[actor] = Some(next);
        }
        if next == number && entry.rescue.is_empty() {
            return None;
        }
        entry.previous = self.ledger.head_hash();
        Some((paths::log(next), self.sealed(next, &entry)))
    }

    fn sealed(&self, number: u64, entry: &LogEntry) -> Vec<u8> {
        let entropy = SeededEntropy::new(self.setup.seed, number);
        let keys = self.ledger.observer().keys();
        let mut plain = entry.encode();
        let proof = keys.current().authority(number, &plain).expect("the observer is an owner");
        plain.extend_from_slice(&[0; 32]);
        plain.extend_from_slice(&proof);
        envelope::seal(keys, &entropy, ObjectKind::Log, &number.to_le_bytes(), &plain)
    }

    /// What a writer would do that looks at its own objects and the bases of its own packs alone.
    fn rescue_own(&self, entry: &mut LogEntry) -> Result<(), StoreError> {
        let gone = |path: String| {
            let source = std::io::Error::other("it is gone");
            StoreError::Failed { action: "rely on", path, source }
        };
        let mut own = Vec::new();
        for name in &entry.index_add {
            let packs = self.ledger.observer().load_index(name);
            own.extend(packs.map_err(|_| gone(name.short()))?.packs);
        }
        for base in own.iter().flat_map(|pack| &pack.entries).flat_map(|entry| &entry.bases) {
            let is_own = own.iter().flat_map(|pack| &pack.entries).any(|entry| entry.id == *base);
            let places = self.ledger.places(base);
            match places.iter().find(|(_, is_condemned)| !is_condemned).or(places.first()) {
                _ if is_own => {}
                Some((_, false)) => {}
                Some((name, true)) => entry.rescue.push(*name),
                None => return Err(gone(base.short())),
            }
        }
        let packs = own.iter().map(|pack| pack.name);
        let names: Vec<_> =
            packs.chain(entry.index_add.clone()).chain(entry.snapshot_add.clone()).collect();
        for name in names {
            match self.ledger.is_condemned(&name) {
                None => {}
                Some(true) => entry.rescue.push(name),
                Some(false) => return Err(gone(name.short())),
            }
        }
        Ok(())
    }
}
