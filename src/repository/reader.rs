//! Reading chunks: find, fetch, decrypt, decompress through the chain of bases, verify the id.
//!
//! No byte that was not authenticated reaches zstd, and no byte that does not match its id leaves.
//! Where a chunk stands in more than one pack, a damaged copy is passed over for a good one.

mod buffers;

use std::sync::{Arc, Mutex};

use lru::LruCache;

use super::Repository;
use crate::compress::Decompressor;
use crate::crypto::CryptoError;
use crate::crypto::aead::TAG_LEN;
use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::FormatError;
use crate::format::directory::{Codec, MAX_DEPTH};
use crate::format::pack::PackOpener;
use crate::format::paths;
use crate::id::{ChunkId, ChunkKey};
use crate::index::Found;
use crate::store::{Purpose, StoreError};

/// Decoded bases kept for neighbours that need them too, in bytes.
const CACHE_BYTES: usize = 8 << 20;
/// Used buffers kept.
const SPARES: usize = 32;
/// Their sizes are multiples of this, in bytes.
const SPARE_QUANTUM: usize = 128 << 10;

/// What a thread needs to read chunks.
pub struct Scratch {
    decompressor: Decompressor,
    /// The stored bytes of a blob.
    stored: Vec<u8>,
    /// Several bases, joined.
    prefix: Vec<u8>,
    /// The group of small chunks that was decoded last.
    group: Option<(Kept, Arc<Vec<u8>>)>,
}

impl Scratch {
    /// Fresh state for one thread.
    pub fn new() -> Result<Self> {
        Ok(Self {
            decompressor: Decompressor::new()?,
            stored: Vec::new(),
            prefix: Vec::new(),
            group: None,
        })
    }
}

/// Reads chunks of one repository; shared by threads.
pub struct ChunkReader<'a> {
    repository: &'a Repository,
    /// Nothing is fetched from far away.
    only_near: bool,
    cache: Mutex<Cache>,
    /// Used buffers: taking new memory for every chunk costs a page fault for every 4 KiB.
    spares: Mutex<Vec<Vec<u8>>>,
    /// For callers that have no scratch of their own.
    scratches: Mutex<Vec<Scratch>>,
}

/// Under what decoded bytes are kept. A group by its place: the bytes of another with the same key prove
/// nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kept {
    Base(ChunkKey),
    Group(i64, usize),
}

struct Cache {
    chunks: LruCache<Kept, Arc<Vec<u8>>>,
    bytes: usize,
}

impl<'a> ChunkReader<'a> {
    /// A reader with an empty cache.
    pub fn new(repository: &'a Repository) -> Self {
        // The bytes are what is limited.
        let cache = Cache { chunks: LruCache::unbounded(), bytes: 0 };
        Self {
            repository,
            only_near: false,
            cache: Mutex::new(cache),
            spares: Mutex::default(),
            scratches: Mutex::default(),
        }
    }

    /// A reader of bases for new deltas: where the repository is far away, it has only what is kept
    /// on this machine.
    pub fn of_bases(repository: &'a Repository) -> Self {
        Self { only_near: true, ..Self::new(repository) }
    }

    /// What it reads from.
    pub fn repository(&self) -> &'a Repository {
        self.repository
    }

    /// The verified bytes of a node of a tree.
    pub fn read_tree(&self, id: &ChunkId) -> Result<Vec<u8>> {
        let spare = self.scratches.lock().expect("no panics with the scratches").pop();
        let mut scratch = spare.map_or_else(Scratch::new, Ok)?;
        let bytes = self.read(BlobKind::Tree, id, &mut scratch);
        self.scratches.lock().expect("no panics with the scratches").push(scratch);
        bytes
    }

    /// The verified bytes of a chunk. A prune may have moved it to another pack since the index was
    /// last brought up to date: then the log knows where to.
    pub fn read(&self, kind: BlobKind, id: &ChunkId, scratch: &mut Scratch) -> Result<Vec<u8>> {
        // Another thread may have brought it up to date since this one looked.
        let mut is_first = true;
        loop {
            match self.read_as_indexed(kind, id, scratch) {
                Err(Error::Missing { .. }) if self.repository.has_moved() || is_first => {
                    is_first = false;
                }
                other => return other,
            }
        }
    }

    fn read_as_indexed(
        &self,
        kind: BlobKind,
        id: &ChunkId,
        scratch: &mut Scratch,
    ) -> Result<Vec<u8>> {
        let places = self.places(kind, &id.key())?;
        let mut first_error = None;
        for place in places {
            match self.read_at(kind, id, &place, scratch) {
                Ok(bytes) => return Ok(bytes),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| Error::missing_chunk(kind.name(), &id.to_hex())))
    }

    /// The verified bytes of a chunk as it stands at one place.
    pub fn read_at(
        &self,
        kind: BlobKind,
        id: &ChunkId,
        place: &Found,
        scratch: &mut Scratch,
    ) -> Result<Vec<u8>> {
        let bytes = self.decode(kind, place, scratch, 0)?;
        if self.repository.keys().chunk_id(kind, &bytes) == *id {
            return Ok(bytes);
        }
        Err(Error::damaged(blob_name(place), CryptoError::NotAuthentic))
    }

    /// Checks that a blob is what its pack's directory says. A group is proven by its members.
    pub fn verify(&self, place: &Found, scratch: &mut Scratch) -> Result<()> {
        self.recycle(self.verified(place, scratch)?);
        Ok(())
    }

    /// The payload of a blob that is no member of a group, after the same check.
    pub fn verified_payload(&self, place: &Found, scratch: &mut Scratch) -> Result<Vec<u8>> {
        let bases = self.bases(place, scratch, 0)?;
        let payload = self.payload(place)?;
        let bytes = self.expand(place, &bases, &payload, scratch)?;
        self.recycle(self.prove(place, bytes)?);
        Ok(payload)
    }

    fn prove(&self, place: &Found, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let keys = self.repository.keys();
        if place.is_group() || keys.chunk_id(place.pack.kind, &bytes).key() == place.entry().id {
            return Ok(bytes);
        }
        self.recycle(bytes);
        Err(Error::damaged(blob_name(place), CryptoError::NotAuthentic))
    }

    /// The verified bytes of a chunk as it stands at one place, whose full id is not at hand.
    pub fn verified(&self, place: &Found, scratch: &mut Scratch) -> Result<Vec<u8>> {
        let bytes = self.decode(place.pack.kind, place, scratch, 0)?;
        self.prove(place, bytes)
    }

    /// The bytes of a blob and what its codec made of them, fetched once. Only authenticated: the
    /// caller looks whether the bytes have the right id.
    pub fn decoded<'s>(
        &self,
        place: &Found,
        scratch: &'s mut Scratch,
    ) -> Result<(Vec<u8>, &'s [u8])> {
        let bytes = self.decode(place.pack.kind, place, scratch, 0)?;
        // Bases are read before the blob itself, which was opened in place.
        let length = (place.entry().stored_len as usize).saturating_sub(TAG_LEN);
        let payload = scratch.stored.get(..length).unwrap_or_default();
        Ok((bytes, payload))
    }

    /// What a blob holds, as its codec made it.
    pub fn payload(&self, place: &Found) -> Result<Vec<u8>> {
        let mut stored = Vec::new();
        let length = self.open(place, &mut stored)?;
        stored.truncate(length);
        Ok(stored)
    }

    /// The bytes of a chunk that a delta is made or decoded against. Authenticated, but where an owner
    /// made it its id is not computed again: the id of what is decoded with it tells.
    pub fn base(&self, key: &ChunkKey, scratch: &mut Scratch) -> Result<Arc<Vec<u8>>> {
        self.base_at_depth(key, scratch, 0)
    }

    fn base_at_depth(
        &self,
        key: &ChunkKey,
        scratch: &mut Scratch,
        depth: u8,
    ) -> Result<Arc<Vec<u8>>> {
        if let Some(bytes) = self.cached(Kept::Base(*key)) {
            return Ok(bytes);
        }
        let mut first_error = None;
        for place in self.places(BlobKind::Data, key)? {
            let is_sealed = self.repository.index().is_sealed(place.pack.number);
            let decoded = self.decode(BlobKind::Data, &place, scratch, depth);
            match decoded.and_then(|it| if is_sealed { self.prove(&place, it) } else { Ok(it) }) {
                Ok(bytes) => {
                    let bytes = Arc::new(bytes);
                    self.keep(Kept::Base(*key), bytes.clone());
                    return Ok(bytes);
                }
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| Error::missing_chunk("base", &key.to_hex())))
    }

    fn places(&self, kind: BlobKind, key: &ChunkKey) -> Result<Vec<Found>> {
        let mut places = self.repository.index().packs_of(key)?;
        places.retain(|place| place.pack.kind == kind);
        Ok(places)
    }

    fn decode(
        &self,
        kind: BlobKind,
        place: &Found,
        scratch: &mut Scratch,
        depth: u8,
    ) -> Result<Vec<u8>> {
        if place.entry().codec == Codec::Member {
            return self.member(kind, place, scratch);
        }
        let bases = self.bases(place, scratch, depth)?;
        let mut stored = std::mem::take(&mut scratch.stored);
        let opened = self.open(place, &mut stored);
        let decoded =
            opened.and_then(|length| self.expand(place, &bases, &stored[..length], scratch));
        scratch.stored = stored;
        decoded
    }

    /// What a delta is made against.
    fn bases(&self, place: &Found, scratch: &mut Scratch, depth: u8) -> Result<Vec<Arc<Vec<u8>>>> {
        let entry = place.entry();
        if entry.codec == Codec::Delta && depth >= MAX_DEPTH {
            return Err(Error::damaged(blob_name(place), FormatError::Invalid("delta chain")));
        }
        entry.bases.iter().map(|base| self.base_at_depth(base, scratch, depth + 1)).collect()
    }

    /// Fetches and decrypts a blob. What is kept near may be wrong; then the store itself is asked.
    fn open(&self, place: &Found, stored: &mut Vec<u8>) -> Result<usize> {
        self.fetch(place, stored)?;
        self.unseal(place, stored).or_else(|error| {
            let (path, length) = (paths::pack(&place.pack.name), place.entry().stored_len as usize);
            let store = self.repository.store();
            match store.get_range_fresh(&path, place.offset(), length, stored) {
                Ok(()) => self.unseal(place, stored),
                Err(_) => Err(error),
            }
        })
    }

    /// Decrypts a blob in place. Returns the length of its payload, which stands first then.
    fn unseal(&self, place: &Found, stored: &mut [u8]) -> Result<usize> {
        let named = |error: FormatError| Error::damaged(blob_name(place), error);
        let opener = PackOpener::new(self.repository.keys(), place.pack.header, place.pack.kind);
        let opened = opener.and_then(|opener| {
            opener
                .open_blob(place.ordinal as u64, place.entry(), stored)
                .map(|payload| payload.len())
        });
        opened.map_err(named)
    }

    /// Decompresses a payload.
    fn expand(
        &self,
        place: &Found,
        bases: &[Arc<Vec<u8>>],
        payload: &[u8],
        scratch: &mut Scratch,
    ) -> Result<Vec<u8>> {
        let entry = place.entry();
        let length = entry.plain_len as usize;
        let named = |error: FormatError| Error::damaged(blob_name(place), error);
        let Scratch { decompressor, prefix, .. } = scratch;
        let prefix: &[u8] = match (&entry.codec, bases) {
            (Codec::Raw, _) if payload.len() == length => return Ok(payload.to_vec()),
            (Codec::Raw, _) => return Err(named(FormatError::Invalid("length of a raw blob"))),
            (Codec::Zstd | Codec::Member, _) | (Codec::Delta, []) => &[],
            (Codec::Delta, [single]) => single,
            (Codec::Delta, several) => {
                join_into(prefix, several);
                prefix
            }
        };
        let spare = self.spare(length);
        let decoded = match entry.codec {
            Codec::Delta => decompressor.delta_into(spare, prefix, payload, length),
            _ => decompressor.plain_into(spare, payload, length),
        };
        decoded.map_err(|_| named(FormatError::Invalid("zstd frame")))
    }

    /// A chunk that is a part of a blob. Neighbours are mostly read one after the other.
    fn member(&self, kind: BlobKind, place: &Found, scratch: &mut Scratch) -> Result<Vec<u8>> {
        let (group, offset) = place.group();
        let key = Kept::Group(group.pack.number, group.ordinal);
        let last = scratch.group.take().filter(|(last, _)| *last == key);
        let bytes = match last.map(|(_, bytes)| bytes).or_else(|| self.cached(key)) {
            Some(bytes) => bytes,
            None => {
                let bytes = Arc::new(self.decode(kind, &group, scratch, 0)?);
                self.keep(key, bytes.clone());
                bytes
            }
        };
        scratch.group = Some((key, bytes.clone()));
        let end = offset + place.entry().plain_len as usize;
        let invalid = || Error::damaged(blob_name(place), FormatError::Invalid("group of chunks"));
        bytes.get(offset..end).map(<[u8]>::to_vec).ok_or_else(invalid)
    }

    fn fetch(&self, place: &Found, out: &mut Vec<u8>) -> Result<()> {
        let path = paths::pack(&place.pack.name);
        let length = place.entry().stored_len as usize;
        let purpose = match place.pack.kind {
            _ if self.only_near => Purpose::Base,
            BlobKind::Tree => Purpose::Tree,
            BlobKind::Data => Purpose::Content,
        };
        let store = self.repository.store();
        match store.get_range_for(purpose, &path, place.offset(), length, out) {
            Err(StoreError::NotFound { .. }) => Err(Error::missing_object(&path)),
            other => Ok(other?),
        }
    }
}

/// The prefix that some bases make together.
pub fn join_into(prefix: &mut Vec<u8>, bases: &[Arc<Vec<u8>>]) {
    prefix.clear();
    bases.iter().for_each(|base| prefix.extend_from_slice(base));
}

/// How a blob is called in messages.
pub fn blob_name(place: &Found) -> String {
    format!("{} blob {}", paths::pack(&place.pack.name), place.ordinal)
}
