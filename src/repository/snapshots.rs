//! Finding snapshots by id, `latest`, and filters.

use super::Repository;
use crate::error::{Error, Result};
use crate::format::log::{EntryKind, LogEntry};
use crate::format::name::Name;
use crate::format::snapshot::{Snapshot, UnpackedStream};
use crate::id::ObjectName;
use crate::index::Fate;

/// A snapshot and its name.
#[derive(Debug, Clone)]
pub struct NamedSnapshot {
    /// Its name in `snap/`.
    pub name: ObjectName,
    /// Its manifest.
    pub snapshot: Snapshot,
}

/// Which snapshots are meant; an empty list of a kind lets all pass.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// One of these hosts.
    pub hosts: Vec<String>,
    /// All tags of at least one of these lists; of an empty list, no tags at all.
    pub tags: Vec<Vec<String>>,
    /// Holds a stream of one of these names, or a backup of one of these paths.
    pub paths: Vec<Name>,
    /// Of this source.
    pub source: Option<String>,
}

impl Filter {
    /// Whether a snapshot passes.
    pub fn matches(&self, snapshot: &Snapshot) -> bool {
        let host = self.hosts.is_empty() || self.hosts.contains(&snapshot.host);
        let tag = self.tags.is_empty() || self.tags.iter().any(|tags| snapshot.has_tags(tags));
        let path = self.paths.is_empty()
            || self.paths.iter().any(|path| {
                let is_unpacked = |it: &UnpackedStream| it.name.relative() == path.relative();
                snapshot.stream(path.as_bytes()).is_some()
                    || snapshot.paths.contains(path)
                    || snapshot.unpacked.iter().any(is_unpacked)
            });
        let source = self.source.as_ref().is_none_or(|wanted| {
            snapshot.source.as_ref().is_some_and(|source| source.name == *wanted)
        });
        host && tag && path && source
    }
}

impl Repository {
    /// Live snapshots that pass, oldest first. One whose hold has come to its end is held no more.
    pub fn snapshots(&self, filter: &Filter) -> Result<Vec<NamedSnapshot>> {
        let now = self.environment().clock.now();
        let mut found = Vec::new();
        for (name, mut snapshot) in self.index().snapshots()? {
            if filter.matches(&snapshot) {
                snapshot.held = snapshot.is_held(now);
                found.push(NamedSnapshot { name, snapshot });
            }
        }
        Ok(found)
    }

    /// The snapshot that `wanted` names: `latest`, or the start of an id of one snapshot alone.
    pub fn find_snapshot(&self, wanted: &str, filter: &Filter) -> Result<NamedSnapshot> {
        let missing = || Error::NoSnapshot { wanted: wanted.to_owned() };
        if wanted == "latest" && self.may_lack_snapshots() {
            return Err(Error::Conflict(
                "which snapshot is the latest cannot be told: log entries or snapshots are damaged; \
                 name one by its id"
                    .into(),
            ));
        }
        if wanted == "latest" {
            // Reports of drills are no backups of anything.
            let is_backup = |named: &NamedSnapshot| {
                let source = named.snapshot.source.as_ref();
                filter.source.is_some() || source.is_none_or(|it| it.engine != "drill")
            };
            let found = self.snapshots(filter)?.into_iter().rev().find(is_backup);
            return found.ok_or_else(missing);
        }
        let is_prefix = wanted.len() >= 2 && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_prefix {
            return Err(missing());
        }
        let lower = wanted.to_ascii_lowercase();
        let mut matching: Vec<_> = self
            .snapshots(&Filter::default())?
            .into_iter()
            .filter(|named| named.name.to_hex().starts_with(&lower))
            .collect();
        match matching.len() {
            0 => Err(missing()),
            1 => Ok(matching.remove(0)),
            _ => Err(Error::AmbiguousSnapshot {
                wanted: wanted.to_owned(),
                matches: matching.iter().map(|m| m.name.short()).collect::<Vec<_>>().join(", "),
            }),
        }
    }

    /// Puts changed copies in the place of live snapshots, in one entry of the log. Returns old and
    /// new names.
    pub fn replace_snapshots(
        &self,
        copies: Vec<(ObjectName, Snapshot)>,
    ) -> Result<Vec<(ObjectName, ObjectName)>> {
        let mut replaced = Vec::new();
        let since = self.index().position()?.map_or(0, |position| position.number);
        for (old, mut copy) in copies {
            copy.original = copy.original.or(Some(old));
            let (new, _) = self.put_snapshot(&copy)?;
            replaced.push((old, new));
        }
        if replaced.is_empty() {
            return Ok(replaced);
        }
        self.commit(&mut || {
            self.vouch(since)?;
            let live = self.index().snapshot_names()?;
            if let Some((gone, _)) = replaced.iter().find(|(old, _)| !live.contains(old)) {
                let text = format!("snapshot {} was forgotten meanwhile", gone.short());
                return Err(Error::Conflict(text));
            }
            let mut entry = LogEntry::new(EntryKind::Forget);
            entry.snapshot_remove = replaced.iter().map(|(old, _)| *old).collect();
            for (_, new) in &replaced {
                // A prune may have taken the copy for left behind.
                match self.index().fate(new) {
                    None => {}
                    Some(Fate::Condemned) => entry.rescue.push(*new),
                    Some(Fate::Dead) => {
                        let text =
                            format!("{} was removed by a prune meanwhile; try again", new.short());
                        return Err(Error::Conflict(text));
                    }
                }
            }
            entry.snapshot_add = replaced.iter().map(|(_, new)| *new).collect();
            Ok(entry)
        })?;
        Ok(replaced)
    }
}
