//! `repair index`: the list of packs, the log and the configuration made again.
//!
//! Keeps every idx object that is sound, writes new ones from the directories of packs that no sound
//! one names, drops packs that are not there, and commits the whole state as one log entry that stands
//! for itself. Objects that are damaged stay where they are; nothing refers to them any more.
//! What write-only keys say is heard last, and only of packs that such keys made; the directories of
//! these packs decide.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use serde::Serialize;

use super::{Finding, parity};
use super::{is_sealed_pack, names};
use crate::crypto::envelope::{HEADER_LEN, Header, ObjectKind};
use crate::crypto::slot::Secret;
use crate::error::{Error, Result};
use crate::format::index::IndexedPack;
use crate::format::log::{EntryKind, LogEntry};
use crate::format::paths;
use crate::id::ObjectName;
use crate::index::IndexObject;
use crate::progress::Progress;
use crate::repository::damaged::Damaged;
use crate::repository::remains::{Remains, Standing};
use crate::repository::{Environment, Repository};
use crate::store::Store;

/// Packs that one new idx object names at most, …
const PACKS_PER_INDEX: usize = 64;
/// … and blobs.
const BLOBS_PER_INDEX: usize = 1 << 18;
/// How often others may come between.
const ATTEMPTS: usize = 8;

/// What to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct IndexOptions {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Take in packs and snapshots that stand in the store and that the log does not know, though
    /// nothing of it seems lost: its end may be.
    pub all: bool,
    /// Go on though not one pack of those on the list is there.
    pub allow_empty: bool,
}

/// What was done, or would be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct IndexReport {
    /// What is damaged or missing.
    pub findings: Vec<Finding>,
    /// The configuration was written anew.
    pub config_rebuilt: bool,
    /// Runs of log entries that are lost.
    pub lost_entries: Vec<(u64, u64)>,
    /// This machine saw more of the log than there is.
    pub is_rolled_back: bool,
    /// idx objects that stay.
    pub kept_indexes: u64,
    /// Packs that were listed anew.
    pub listed_packs: u64,
    /// Of these, those whose own directory was read.
    pub directories_read: u64,
    /// Packs that are not there and were taken off the list.
    pub missing_packs: u64,
    /// Packs of which neither an idx object nor the directory can be read.
    pub unreadable_packs: u64,
    /// Live snapshots.
    pub snapshots: u64,
    /// Snapshots whose manifests are lost.
    pub lost_snapshots: u64,
    /// Snapshots that are live again or for the first time: the log did not know them.
    pub found_snapshots: Vec<ObjectName>,
    /// Whether there was anything to do.
    pub is_needed: bool,
}

/// Makes log, idx objects and configuration again where they are damaged.
pub fn run(
    store: Arc<dyn Store>,
    secret: &Secret,
    environment: Environment,
    options: IndexOptions,
    progress: &Progress,
) -> Result<IndexReport> {
    let mut damaged = Damaged::open(store, secret, environment)?;
    let is_rolled_back = damaged.remains.is_rolled_back;
    for _ in 0..ATTEMPTS {
        // One that is filled may make holes of the numbers before it.
        while !options.dry_run && damaged.fill_holes()? {
            damaged.look_again()?;
        }
        let mut rebuild = Rebuild::new(&damaged, options, progress)?;
        let entry = rebuild.state()?;
        let mut report = rebuild.report;
        report.is_rolled_back |= is_rolled_back;
        let log_needs_it = !damaged.remains.is_whole || !damaged.remains.is_known;
        let state_changed = rebuild.is_changed || log_needs_it;
        report.is_needed = state_changed || damaged.config_error.is_some();
        if options.dry_run || !report.is_needed {
            return Ok(report);
        }
        if state_changed && !damaged.commit(entry)? {
            damaged.look_again()?;
            continue;
        }
        damaged.put_config()?;
        damaged.accept()?;
        return Ok(report);
    }
    Err(Error::Conflict("others write to the log all the time; try again later".into()))
}

/// One attempt to make the state.
struct Rebuild<'a> {
    repository: &'a Repository,
    remains: &'a Remains,
    options: IndexOptions,
    progress: &'a Progress,
    report: IndexReport,
    /// The state is not what the log says.
    is_changed: bool,
    /// Packs in the store that are not dead.
    present: HashSet<ObjectName>,
    covered: HashSet<ObjectName>,
    missing: BTreeSet<ObjectName>,
    indexes: BTreeSet<ObjectName>,
    waiting: Vec<IndexedPack>,
}

impl<'a> Rebuild<'a> {
    fn new(damaged: &'a Damaged, options: IndexOptions, progress: &'a Progress) -> Result<Self> {
        let Damaged { repository, remains, config_error, .. } = damaged;
        let mut report = IndexReport {
            config_rebuilt: config_error.is_some(),
            lost_entries: remains.lost.clone(),
            is_rolled_back: remains.is_rolled_back,
            ..IndexReport::default()
        };
        report.findings.extend(config_error.iter().chain(&remains.errors).map(Finding::of));
        for slot in repository.key_slots()? {
            let found = slot.slot.err().map(|error| Finding::of(&error));
            report.findings.extend(found);
        }
        let mut present = names(repository, paths::DATA)?;
        present.retain(|name| !remains.dead.contains(name));
        Ok(Self {
            repository,
            remains,
            options,
            progress,
            report,
            is_changed: false,
            present,
            covered: HashSet::new(),
            missing: BTreeSet::new(),
            indexes: BTreeSet::new(),
            waiting: Vec::new(),
        })
    }

    /// The state as it should be; its idx objects are stored unless this is a dry run.
    fn state(&mut self) -> Result<LogEntry> {
        let is_lost = self.take_indexes()?;
        self.take_bare_packs(is_lost || !self.remains.is_whole || self.options.all)?;
        if self.covered.is_empty() && !self.missing.is_empty() && !self.options.allow_empty {
            return Err(Error::Conflict(format!(
                "none of the {} packs on the list is there: is {} what it should be? --allow-empty takes \
                 them all off the list",
                self.missing.len(),
                self.repository.store().location()
            )));
        }
        self.flush()?;
        let mut entry = LogEntry::new(EntryKind::Repair);
        (entry.snapshot_add, entry.unread) = self.snapshots()?;
        entry.index_add = self.indexes.iter().copied().collect();
        let mut condemned = self.remains.condemned.clone();
        let (all, taken_off) = (self.options.all, &self.remains.taken_off);
        condemned.retain(|name| {
            let may_return = all || taken_off.contains(name);
            !(may_return && self.covered.contains(name))
        });
        // A backup that runs now may rely on what is missing: this makes it look twice.
        condemned.extend(&self.missing);
        entry.condemn = condemned.into_iter().collect();
        entry.dead = self.remains.dead.iter().copied().collect();
        Ok(entry)
    }

    /// Keeps sound idx objects, and takes the packs out of those that are not quite right. Whether
    /// one is lost.
    fn take_indexes(&mut self) -> Result<bool> {
        let mut candidates: Vec<(bool, ObjectName)> = Vec::new();
        let live = self.remains.indexes.iter().filter(|(_, at)| **at == Standing::Live);
        candidates.extend(live.map(|(name, _)| (true, *name)));
        for name in names(self.repository, paths::INDEX)? {
            let is_unknown = !self.remains.indexes.contains_key(&name);
            if is_unknown && self.remains.counts(&self.remains.indexes, &name, self.options.all) {
                candidates.push((false, name));
            }
        }
        // What the log knows comes first.
        candidates.sort_by_key(|(is_known, name)| (!is_known, *name));
        let (mut sealed, mut is_lost) = (Vec::new(), false);
        for (is_known, name) in candidates {
            self.stop_if_asked()?;
            match self.repository.load_index(&name) {
                // What a write-only key says comes after all that owners say.
                Ok(object) if object.is_sealed => sealed.push((is_known, name)),
                Ok(object) => self.take_index(name, object, is_known)?,
                Err(error) if error.is_certain_damage() => {
                    self.report.findings.push(Finding::of(&error));
                    (is_lost, self.is_changed) = (true, true);
                }
                Err(error) => return Err(error),
            }
        }
        for (is_known, name) in sealed {
            self.stop_if_asked()?;
            let object = self.repository.load_index(&name)?;
            self.take_index(name, object, is_known)?;
        }
        Ok(is_lost)
    }

    fn take_index(&mut self, name: ObjectName, object: IndexObject, is_known: bool) -> Result<()> {
        let mut is_sound = true;
        let mut taken = Vec::new();
        for pack in object.packs {
            let is_there = self.is_there(&pack.name)?;
            if !is_there && !self.remains.dead.contains(&pack.name) && is_known {
                self.report.missing_packs += 1;
                self.missing.insert(pack.name);
                self.report.findings.push(Finding::new(paths::pack(&pack.name), "is missing"));
            }
            if !is_there || self.covered.contains(&pack.name) {
                is_sound = false;
                continue;
            }
            let told = self.hear(&name, &pack, object.is_sealed)?;
            is_sound &= told.as_ref() == Some(&pack);
            taken.extend(told);
        }
        let mut names = HashSet::new();
        taken.retain(|pack| names.insert(pack.name));
        self.covered.extend(names);
        if is_sound {
            self.report.kept_indexes += 1;
            self.is_changed |= !is_known;
            self.indexes.insert(name);
            return Ok(());
        }
        self.is_changed |= is_known;
        taken.into_iter().try_for_each(|pack| self.list(pack))
    }

    /// What is to be listed of a pack that an idx object speaks of. A pack that a write-only key made
    /// speaks for itself where it can: what another such key says of it need not be so. Of the packs of
    /// owners such keys are not heard.
    fn hear(
        &mut self,
        idx: &ObjectName,
        pack: &IndexedPack,
        is_sealed: bool,
    ) -> Result<Option<IndexedPack>> {
        if !is_sealed && !is_sealed_pack(&pack.header) {
            return Ok(Some(pack.clone()));
        }
        let told = match self.directory(&pack.name) {
            Ok(own) => Some(own).filter(|own| !is_sealed || is_sealed_pack(&own.header)),
            Err(error) if error.is_object_damage() => {
                let is_theirs = is_sealed_pack(&pack.header) && self.may_be_sealed(&pack.name)?;
                Some(pack.clone()).filter(|_| !is_sealed || is_theirs)
            }
            Err(error) => return Err(error),
        };
        if told.as_ref().is_none_or(|told| told != pack) {
            let detail = format!("says of {} what is not so", paths::pack(&pack.name));
            self.report.findings.push(Finding::new(paths::index(idx), detail));
        }
        Ok(told)
    }

    /// Whether the header of a pack does not say that an owner made it.
    fn may_be_sealed(&self, name: &ObjectName) -> Result<bool> {
        match self.repository.store().get_range(&paths::pack(name), 0, HEADER_LEN) {
            Ok(header) => {
                Ok(Header::parse(&header, ObjectKind::Pack).map_or(true, |h| h.is_sealed()))
            }
            Err(error) => match Error::from(error) {
                error if error.is_object_damage() => Ok(true),
                error => Err(error),
            },
        }
    }

    /// The directory of a pack, which is mended first where it must be.
    fn directory(&self, name: &ObjectName) -> Result<IndexedPack> {
        match self.repository.read_pack_directory(name) {
            Err(error) if error.is_certain_damage() => {
                parity::directory(self.repository, name, self.options.dry_run)?.ok_or(error)
            }
            other => other,
        }
    }

    /// Whether a pack stands in the store: a listing that lacks it is not believed.
    fn is_there(&mut self, name: &ObjectName) -> Result<bool> {
        if self.present.contains(name) {
            return Ok(true);
        }
        if self.remains.dead.contains(name) || !parity::exists(self.repository, name)? {
            return Ok(false);
        }
        self.present.insert(*name);
        Ok(true)
    }

    /// Packs that no idx object names speak for themselves: all of them, or those that an earlier
    /// repair took off the list because they were not there.
    fn take_bare_packs(&mut self, all: bool) -> Result<()> {
        let mut bare: Vec<_> = self.present.difference(&self.covered).copied().collect();
        bare.retain(|name| all || self.remains.taken_off.contains(name));
        bare.sort_unstable();
        for name in bare {
            self.stop_if_asked()?;
            match self.directory(&name) {
                Ok(pack) => {
                    self.report.directories_read += 1;
                    self.covered.insert(name);
                    self.list(pack)?;
                }
                Err(error) if error.is_certain_damage() => {
                    self.report.unreadable_packs += 1;
                    self.report.findings.push(Finding::of(&error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn list(&mut self, pack: IndexedPack) -> Result<()> {
        self.is_changed = true;
        self.report.listed_packs += 1;
        self.waiting.push(pack);
        let blobs: usize = self.waiting.iter().map(|pack| pack.entries.len()).sum();
        if self.waiting.len() >= PACKS_PER_INDEX || blobs >= BLOBS_PER_INDEX {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let packs = std::mem::take(&mut self.waiting);
        if !packs.is_empty() && !self.options.dry_run {
            self.indexes.insert(self.repository.put_index(&packs)?.0);
        }
        Ok(())
    }

    /// Live snapshots, and those whose manifests are there and cannot be read.
    fn snapshots(&mut self) -> Result<(Vec<ObjectName>, Vec<ObjectName>)> {
        let before = &self.remains.unread;
        let known = &self.remains.snapshots;
        let mut wanted: BTreeSet<_> = names(self.repository, paths::SNAPSHOTS)?
            .into_iter()
            .filter(|name| self.remains.counts(known, name, self.options.all))
            .collect();
        let live = known.iter().filter(|(_, standing)| **standing == Standing::Live);
        wanted.extend(live.map(|(name, _)| *name));
        let (mut snapshots, mut unread) = (Vec::new(), Vec::new());
        let mut manifests = HashSet::new();
        // What the log knows comes first: a backup may have stored the same manifest twice.
        let mut wanted: Vec<_> = wanted.into_iter().collect();
        wanted.sort_by_key(|name| (!known.contains_key(name), *name));
        for name in wanted {
            self.stop_if_asked()?;
            match self.repository.load_snapshot(&name) {
                Ok(snapshot) => {
                    let is_known = known.contains_key(&name);
                    if !manifests.insert(*blake3::hash(&snapshot.encode()).as_bytes()) && !is_known
                    {
                        continue;
                    }
                    snapshots.push(name);
                    if !is_known || before.contains(&name) {
                        self.report.found_snapshots.push(name);
                        self.is_changed = true;
                    }
                }
                Err(error) if error.is_certain_damage() => {
                    self.report.findings.push(Finding::of(&error));
                    self.report.lost_snapshots += 1;
                    // What is gone is gone; what is damaged may only be so today.
                    if known.contains_key(&name) && !matches!(error, Error::Missing { .. }) {
                        self.is_changed |= !before.contains(&name);
                        unread.push(name);
                    } else {
                        self.is_changed |= known.contains_key(&name);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        snapshots.sort_unstable();
        self.report.snapshots = snapshots.len() as u64;
        unread.sort_unstable();
        Ok((snapshots, unread))
    }

    fn stop_if_asked(&self) -> Result<()> {
        if self.progress.is_interrupted() { Err(Error::Interrupted) } else { Ok(()) }
    }
}
