//! Finding out what is lost with damaged packs: their own blobs that cannot be read, and every delta
//! that was made against one of those. Reads only.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;

use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::directory::Codec;
use crate::format::paths;
use crate::id::{ChunkKey, ObjectName};
use crate::index::{Fate, Found, PackDirectory};
use crate::repository::Repository;
use crate::repository::parity::Mended;
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

/// What the packs that were examined say, before anything follows from it.
#[derive(Default)]
struct Direct {
    /// Chunks that cannot be read and stand nowhere else.
    lost: HashSet<ChunkKey>,
    packs: BTreeSet<ObjectName>,
    good: HashSet<(ObjectName, usize)>,
    bad: Vec<(ObjectName, usize)>,
}

/// Which chunks are lost, and which packs have to be written anew because of it.
pub struct Loss<'a> {
    /// Whose packs.
    pub repository: &'a Repository,
    /// Reads what is left.
    pub reader: ChunkReader<'a>,
    scratch: Scratch,
    direct: Direct,
    /// Chunks that another repository had: they are stored anew.
    pub found: HashSet<ChunkKey>,
    /// Chunks that can be read nowhere.
    pub lost: HashSet<ChunkKey>,
    /// Packs that leave the list.
    pub replaced: BTreeSet<ObjectName>,
    /// Condemned packs that hold what is damaged elsewhere.
    pub rescued: BTreeSet<ObjectName>,
    /// Units that can be read, of packs that leave.
    pub good: HashSet<(ObjectName, usize)>,
}

impl<'a> Loss<'a> {
    /// Nothing is lost yet.
    pub fn new(repository: &'a Repository) -> Result<Self> {
        Ok(Self {
            repository,
            reader: ChunkReader::new(repository),
            scratch: Scratch::new()?,
            direct: Direct::default(),
            found: HashSet::new(),
            lost: HashSet::new(),
            replaced: BTreeSet::new(),
            rescued: BTreeSet::new(),
            good: HashSet::new(),
        })
    }

    /// Tries every blob of a damaged pack.
    pub fn examine(&mut self, name: &ObjectName) -> Result<()> {
        let Some(pack) = self.repository.index().pack(name)? else { return Ok(()) };
        self.replaced.insert(*name);
        self.direct.packs.insert(*name);
        for unit in units(&pack) {
            if is_unit_good(&self.reader, &mut self.scratch, &pack, &unit)?
                || self.lacks_only_bases(&pack, &unit)?
            {
                self.direct.good.insert((*name, unit.ordinal));
                continue;
            }
            self.direct.bad.push((*name, unit.ordinal));
            for at in unit.chunks() {
                let key = pack.entries[at].id;
                if !self.is_elsewhere(&key, name)? {
                    self.direct.lost.insert(key);
                    self.lost.insert(key);
                }
            }
        }
        Ok(())
    }

    /// Fails where a damaged pack is sound by now, or a blob of it that was not: then the store does
    /// not say the same every time, and nothing may be dropped because of it.
    pub fn expect_same(&self, name: &ObjectName) -> Result<()> {
        let Some(pack) = self.repository.index().pack(name)? else { return Ok(()) };
        let mut is_better = matches!(self.repository.mend_pack(name)?, Mended::Sound(_));
        let reader = ChunkReader::new(self.repository);
        let mut scratch = Scratch::new()?;
        let own = self.direct.bad.iter().filter(|(bad, _)| bad == name);
        let is_bad: HashSet<usize> = own.map(|(_, ordinal)| *ordinal).collect();
        for unit in units(&pack).into_iter().filter(|unit| is_bad.contains(&unit.ordinal)) {
            is_better = is_better || is_unit_good(&reader, &mut scratch, &pack, &unit)?;
        }
        if !is_better {
            return Ok(());
        }
        Err(Error::Conflict(format!(
            "{} was damaged and can be read now: the store does not say the same every time; nothing \
             was taken off the list, run this again",
            paths::pack(name)
        )))
    }

    /// Whether a blob is a sound delta that cannot be decoded because of its bases: what becomes of
    /// those decides.
    fn lacks_only_bases(&mut self, pack: &Arc<PackDirectory>, unit: &Unit) -> Result<bool> {
        let place = Found { pack: pack.clone(), ordinal: unit.ordinal };
        let mut lacks_any = false;
        for base in &place.entry().bases {
            lacks_any |= !is_readable(self.reader.base(base, &mut self.scratch))?;
        }
        Ok(lacks_any && is_readable(self.reader.payload(&place))?)
    }

    /// Whether a chunk can be read from a pack other than this one. A condemned one is then rescued.
    fn is_elsewhere(&mut self, key: &ChunkKey, here: &ObjectName) -> Result<bool> {
        let mut places = self.repository.index().packs_of(key)?;
        places.retain(|place| place.pack.name != *here);
        places.sort_by_key(|place| self.repository.index().fate(&place.pack.name).is_some());
        for place in places {
            if is_readable(self.reader.verify(&place, &mut self.scratch))? {
                if self.repository.index().fate(&place.pack.name).is_some() {
                    self.rescued.insert(place.pack.name);
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Deltas whose bases are lost are lost, and what was made against those. Begins anew every time:
    /// what was found meanwhile keeps deltas.
    pub fn close(&mut self) -> Result<()> {
        self.begin();
        while self.close_once()? {}
        Ok(())
    }

    /// Only what is damaged itself is lost, but for what was found.
    pub fn begin(&mut self) {
        self.lost = self.direct.lost.difference(&self.found).copied().collect();
        self.replaced.clone_from(&self.direct.packs);
        self.good.clone_from(&self.direct.good);
    }

    fn is_base_lost(&self, base: &ChunkKey) -> Result<bool> {
        if self.found.contains(base) {
            return Ok(false);
        }
        Ok(self.lost.contains(base) || self.repository.index().packs_of(base)?.is_empty())
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
                    if self.is_base_lost(base)? {
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
                let is_known = self.lost.contains(&key) || self.found.contains(&key);
                if !is_known && !self.is_elsewhere(&key, &name)? {
                    is_changed |= self.lost.insert(key);
                }
            }
        }
        Ok(is_changed)
    }
}

fn is_unit_good(
    reader: &ChunkReader<'_>,
    scratch: &mut Scratch,
    pack: &Arc<PackDirectory>,
    unit: &Unit,
) -> Result<bool> {
    for ordinal in std::iter::once(unit.ordinal).chain(unit.members.clone()) {
        let place = Found { pack: pack.clone(), ordinal };
        if !is_readable(reader.verify(&place, scratch))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `false` for damage. That a store does not answer is no damage but an error.
fn is_readable<T>(read: Result<T>) -> Result<bool> {
    match read {
        Ok(_) => Ok(true),
        Err(error) if error.is_certain_damage() => Ok(false),
        Err(error) => Err(error),
    }
}
