//! Writing idx objects anew when packs leave the list.

use std::collections::{BTreeMap, BTreeSet};

use super::Repository;
use crate::error::Result;
use crate::format::index::IndexedPack;
use crate::id::ObjectName;

/// Packs that one idx object may name when it is written anew.
const PACKS_PER_INDEX: usize = 64;

impl Repository {
    /// New idx objects for the packs that stood beside those in `gone`, and the old ones that named
    /// them together.
    pub(crate) fn indexes_without(
        &self,
        gone: &BTreeSet<ObjectName>,
    ) -> Result<(Vec<ObjectName>, Vec<ObjectName>)> {
        let index = self.index();
        let mut by_index: BTreeMap<ObjectName, Vec<ObjectName>> = BTreeMap::new();
        for (idx, pack) in index.packs_by_index()? {
            by_index.entry(idx).or_default().push(pack);
        }
        by_index.retain(|_, packs| packs.iter().any(|pack| gone.contains(pack)));
        let staying = by_index.values().flatten().filter(|pack| !gone.contains(*pack));
        let staying: Vec<_> = staying.copied().collect();
        let mut added = Vec::new();
        for names in staying.chunks(PACKS_PER_INDEX) {
            let mut packs = Vec::new();
            for name in names {
                if let Some(pack) = index.pack(name)? {
                    let (kind, size, header) = (pack.kind, pack.size, pack.header);
                    let entries = pack.entries.clone();
                    packs.push(IndexedPack { name: *name, kind, size, header, entries });
                }
            }
            added.push(self.put_index(&packs)?.0);
        }
        Ok((added, by_index.into_keys().collect()))
    }
}
