//! What a writer relies on, and the look before each commit that it still stands.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use super::BlobWriter;
use crate::crypto::envelope::{Header, ObjectKind};
use crate::error::{Error, Result};
use crate::format::index::IndexedPack;
use crate::format::log::LogEntry;
use crate::format::paths;
use crate::format::snapshot::Snapshot;
use crate::id::{ChunkKey, ObjectName};
use crate::index::Fate;
use crate::repository::closure::Walk;

impl BlobWriter<'_> {
    /// Notes what a chunk that is there already stands in.
    pub(super) fn rely_on(&self, key: &ChunkKey) -> Result<()> {
        if self.repository.is_write_only()
            && let Some(found) = self.repository.index().find(key)?
        {
            self.relied.lock().expect("no panics here").insert(found.pack.name);
        }
        Ok(())
    }

    /// What is to be committed must be readable: the keys it was encrypted with may have been
    /// destroyed since.
    pub(super) fn expect_keys(&self, packs: &[IndexedPack], epoch: u32) -> Result<()> {
        let keys = self.repository.keys();
        let of_pack = |pack: &IndexedPack| {
            Header::parse(&pack.header, ObjectKind::Pack).map_or(epoch, |header| header.epoch())
        };
        if packs.iter().map(of_pack).chain([epoch]).all(|epoch| keys.epoch(epoch).is_some()) {
            return Ok(());
        }
        Err(Error::Conflict(
            "the keys that this backup began with were destroyed by a rotation; run it again"
                .into(),
        ))
    }

    /// Whether packs are condemned, or died since this writer began to rely on the index.
    pub(super) fn prune_at_work(&self) -> bool {
        let index = self.repository.index();
        index.turns().fates > self.began || !index.condemned().is_empty()
    }

    /// The entry, if all that it relies on still stands; condemned packs are listed for rescue.
    pub(super) fn revalidate(
        &self,
        mut add: LogEntry,
        packs: &[IndexedPack],
        snapshot: Option<&Snapshot>,
    ) -> Result<LogEntry> {
        // Its own packs, and without a walk all others too, must have been looked after since.
        let unsettled = self.unsettled.load(Ordering::SeqCst);
        let is_unwalked = self.repository.is_write_only();
        self.repository.vouch(if is_unwalked { self.began } else { unsettled })?;
        if !self.prune_at_work() {
            return Ok(add);
        }
        let mut rescue = HashSet::new();
        let mut relied = Vec::new();
        if self.repository.is_write_only() {
            let packs = self.relied.lock().expect("no panics here");
            relied.extend(packs.iter().map(|name| (paths::pack(name), *name)));
        } else {
            let walked = self.walk(packs, snapshot);
            rescue.extend(walked.map_err(|error| self.explain(error))?);
        }
        // A prune may have taken what is on its way for left behind.
        let own =
            packs.iter().map(|pack| paths::pack(&pack.name)).zip(packs.iter().map(|p| p.name));
        let indexes = add.index_add.iter().map(|name| (paths::index(name), *name));
        let snapshots = add.snapshot_add.iter().map(|name| (paths::snapshot(name), *name));
        for (path, name) in own.chain(indexes).chain(snapshots).chain(relied) {
            match self.repository.index().fate(&name) {
                None => {}
                Some(Fate::Condemned) => {
                    rescue.insert(name);
                }
                Some(Fate::Dead) => {
                    return Err(Error::Pruned { what: path });
                }
            }
        }
        add.rescue = rescue.into_iter().collect();
        Ok(add)
    }

    /// Where no prune was at work since this writer began, what is not there was lost before: to run
    /// again would not help.
    fn explain(&self, error: Error) -> Error {
        let index = self.repository.index();
        let was_lost_before =
            index.turns().fates <= self.began && index.was_repaired().unwrap_or(false);
        match error {
            Error::Pruned { what } if was_lost_before => Error::Missing { what },
            other => other,
        }
    }

    /// Condemned packs that these packs and this snapshot need; fails where they need dead ones.
    fn walk(
        &self,
        packs: &[IndexedPack],
        snapshot: Option<&Snapshot>,
    ) -> Result<impl IntoIterator<Item = ObjectName>> {
        let mut walk = Walk::new(self.repository, packs);
        walk.packs(packs)?;
        for stream in snapshot.iter().flat_map(|snapshot| &snapshot.streams) {
            walk.stream(stream.root)?;
        }
        if let Some(tree) = snapshot.and_then(|snapshot| snapshot.tree) {
            walk.tree(tree)?;
        }
        Ok(walk.finish())
    }
}
