//! Finding out what is lost with damaged packs: their own blobs that cannot be read, and every delta
//! that was made against one of those. Reads only.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;

use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::directory::Codec;
use crate::id::{ChunkKey, ObjectName};
use crate::index::{Fate, Found, PackDirectory};
use crate::repository::Repository;
use crate::repository::reader::{ChunkReader, Scratch};

/// A blob with the members of its group.
pub struct Unit {
    /// Its place among the entries.
    pub ordinal: usize,
    /// Places of the members.
    pub members: Range<usize>,
}

impl Unit {
    /// Its chunks: the members of a group, else the blob itself.
    pub fn chunks(&self) -> Range<usize> {
        match self.members.is_empty() {
            true => self.ordinal..self.ordinal + 1,
            false => self.members.clone(),
        }
    }
}

/// The blobs of a pack.
pub fn units(pack: &PackDirectory) -> Vec<Unit> {
    let is_blob = |at: &usize| pack.entries[*at].codec != Codec::Member;
    let starts: Vec<usize> = (0..pack.entries.len()).filter(is_blob).collect();
    let ends = starts.iter().skip(1).copied().chain([pack.entries.len()]);
    let unit =
        |(ordinal, end): (&usize, usize)| Unit { ordinal: *ordinal, members: ordinal + 1..end };
    starts.iter().zip(ends).map(unit).collect()
}

/// Which chunks are lost, and which packs have to be written anew because of it.
pub struct Loss<'a> {
    repository: &'a Repository,
    /// Reads what is left.
    pub reader: ChunkReader<'a>,
    scratch: Scratch,
    /// Chunks that can be read nowhere.
    pub lost: HashSet<ChunkKey>,
    /// Packs that leave the list.
    pub replaced: BTreeSet<ObjectName>,
    /// Units that can be read, of packs that were examined.
    pub good: HashSet<(ObjectName, usize)>,
}

impl<'a> Loss<'a> {
    /// Nothing is lost yet.
    pub fn new(repository: &'a Repository) -> Result<Self> {
        Ok(Self {
            repository,
            reader: ChunkReader::new(repository),
            scratch: Scratch::new()?,
            lost: HashSet::new(),
            replaced: BTreeSet::new(),
            good: HashSet::new(),
        })
    }

    /// Tries every blob of a damaged pack.
    pub fn examine(&mut self, name: &ObjectName) -> Result<()> {
        let Some(pack) = self.repository.index().pack(name)? else { return Ok(()) };
        self.replaced.insert(*name);
        for unit in units(&pack) {
            if self.is_good(&pack, &unit)? {
                self.good.insert((*name, unit.ordinal));
                continue;
            }
            for at in unit.chunks() {
                let key = pack.entries[at].id;
                if !self.is_elsewhere(&key, name)? {
                    self.lost.insert(key);
                }
            }
        }
        Ok(())
    }

    fn is_good(&mut self, pack: &Arc<PackDirectory>, unit: &Unit) -> Result<bool> {
        for ordinal in std::iter::once(unit.ordinal).chain(unit.members.clone()) {
            let place = Found { pack: pack.clone(), ordinal };
            match self.reader.verify(&place, &mut self.scratch) {
                Ok(()) => {}
                Err(error) if error.is_object_damage() => return Ok(false),
                // The damage may be such that no error of the store says so.
                Err(Error::Store(_)) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Whether a chunk can be read from a live pack other than this one.
    fn is_elsewhere(&mut self, key: &ChunkKey, here: &ObjectName) -> Result<bool> {
        for place in self.repository.index().packs_of(key)? {
            let is_live = self.repository.index().fate(&place.pack.name).is_none();
            if is_live
                && place.pack.name != *here
                && self.reader.verify(&place, &mut self.scratch).is_ok()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Deltas whose bases are lost are lost, and what was made against those.
    pub fn close(&mut self) -> Result<()> {
        while self.close_once()? {}
        Ok(())
    }

    fn close_once(&mut self) -> Result<bool> {
        let index = self.repository.index();
        let mut is_changed = false;
        for (name, _) in index.packs()? {
            if index.fate(&name) == Some(Fate::Dead) {
                continue;
            }
            let Some(pack) = index.pack(&name)? else { continue };
            if pack.kind != BlobKind::Data {
                continue;
            }
            let mut broken = Vec::new();
            for (at, entry) in pack.entries.iter().enumerate() {
                for base in &entry.bases {
                    if self.lost.contains(base) || index.packs_of(base)?.is_empty() {
                        broken.push(at);
                        break;
                    }
                }
            }
            if broken.is_empty() {
                continue;
            }
            if self.replaced.insert(name) {
                // A sound pack: all the others of its blobs are good.
                let units = units(&pack).into_iter().map(|unit| (name, unit.ordinal));
                self.good.extend(units);
                is_changed = true;
            }
            for at in broken {
                is_changed |= self.good.remove(&(name, at));
                let key = pack.entries[at].id;
                if !self.lost.contains(&key) && !self.is_elsewhere(&key, &name)? {
                    is_changed |= self.lost.insert(key);
                }
            }
        }
        Ok(is_changed)
    }
}
