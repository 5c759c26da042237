//! Encoding new chunks: as a difference where the parent has something alike, else whole.
//!
//! Every result is decoded and compared before it is stored: bugs of compressors and bad memory
//! have damaged the repositories of other systems.

use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::Shared;
use super::parent::ParentChunk;
use super::stream::{Origin, WorkItem};
use crate::compress::{Compressor, Decompressor, ZstdError};
use crate::crypto::CryptoError;
use crate::crypto::keys::BlobKind;
use crate::delta::{self, Lineage};
use crate::error::{Error, Result};
use crate::format::directory::{BlobEntry, Codec};
use crate::format::pack::{EncodedBlob, whole_entry};
use crate::format::snapshot::Summary;
use crate::id::{ChunkId, ChunkKey};
use crate::progress::Progress;
use crate::repository::reader::{Scratch, join_into};

/// A delta of at most one part in this many is taken without trying how small the whole chunk gets.
const CLEARLY_SMALL: usize = 16;

/// Encodes batches until there are no more. Returns what was stored how.
pub fn encode_all(shared: &Shared<'_>, queue: Receiver<Vec<WorkItem>>) -> Result<Summary> {
    let mut encoder = Encoder {
        shared,
        scratch: Scratch::new()?,
        compressor: Compressor::new(shared.compression)?,
        verifier: Decompressor::new()?,
        spare: Vec::new(),
        origin: Origin::Stream,
        summary: Summary::default(),
    };
    for batch in queue {
        let mut group = Vec::new();
        for item in batch {
            if shared.should_stop() {
                return Err(Error::Interrupted);
            }
            match encoder.delta(&item)? {
                Some(blob) => encoder.put(blob)?,
                None if item.origin == Origin::SmallFile => group.push(item),
                None => {
                    let blob = encoder.whole(&item)?;
                    encoder.put(blob)?;
                }
            }
        }
        match &group[..] {
            [] => {}
            [single] => {
                let blob = encoder.whole(single)?;
                encoder.put(blob)?;
            }
            several => {
                let blob = encoder.group(several)?;
                encoder.put(blob)?;
            }
        }
    }
    Ok(encoder.summary)
}

struct Encoder<'a> {
    shared: &'a Shared<'a>,
    scratch: Scratch,
    compressor: Compressor,
    verifier: Decompressor,
    /// A used buffer for the next verification.
    spare: Vec<u8>,
    /// What the compressor is set for.
    origin: Origin,
    summary: Summary,
}

impl Encoder<'_> {
    fn put(&self, blob: EncodedBlob) -> Result<()> {
        Progress::add(&self.shared.progress.stored_bytes, blob.payload.len() as u64);
        self.shared.writer.add(BlobKind::Data, blob)
    }

    /// A chunk on its own.
    fn whole(&mut self, item: &WorkItem) -> Result<EncodedBlob> {
        self.count_new(item.bytes.len());
        self.compress(item.id, &item.bytes, item.origin)
    }

    /// Several small chunks as one blob: what they have in common is stored once.
    fn group(&mut self, items: &[WorkItem]) -> Result<EncodedBlob> {
        let mut bytes = Vec::with_capacity(items.iter().map(|item| item.bytes.len()).sum());
        let mut members = Vec::with_capacity(items.len());
        for item in items {
            self.count_new(item.bytes.len());
            bytes.extend_from_slice(&item.bytes);
            members.push(whole_entry(item.id, Codec::Member, item.bytes.len()));
        }
        let id = self.shared.repository.keys().chunk_id(BlobKind::Data, &bytes);
        let blob = self.compress(id, &bytes, Origin::SmallFile)?;
        Ok(EncodedBlob { members, ..blob })
    }

    fn count_new(&mut self, length: usize) {
        self.summary.new_bytes += length as u64;
        Progress::add(&self.shared.progress.new_bytes, length as u64);
    }

    fn compress(&mut self, id: ChunkId, bytes: &[u8], origin: Origin) -> Result<EncodedBlob> {
        if origin != self.origin {
            let settings = self.shared.compression;
            let is_stream = origin == Origin::Stream;
            let level = if is_stream { settings.plain_level } else { settings.file_level };
            self.compressor.set_plain_level(level)?;
            self.origin = origin;
        }
        let frame = self.compressor.plain(bytes)?;
        if frame.len() >= bytes.len() {
            let entry = whole_entry(id, Codec::Raw, bytes.len());
            return Ok(EncodedBlob::new(entry, bytes.to_vec()));
        }
        let spare = std::mem::take(&mut self.spare);
        let decoded = self.verifier.plain_into(spare, &frame, bytes.len());
        self.verify(decoded, bytes)?;
        Ok(EncodedBlob::new(whole_entry(id, Codec::Zstd, bytes.len()), frame))
    }

    fn delta(&mut self, item: &WorkItem) -> Result<Option<EncodedBlob>> {
        let Some(lineage) = self.choose_bases(&item.candidates, item.bytes.len())? else {
            return Ok(None);
        };
        // A base that cannot be read is no reason to fail: the chunk is stored whole.
        let Ok(prefix) = self.read_bases(&lineage.bases) else { return Ok(None) };
        let frame = self.compressor.delta(&prefix, &item.bytes)?;
        if !self.is_worth_it(&frame, item)? {
            return Ok(None);
        }
        let spare = std::mem::take(&mut self.spare);
        let decoded = self.verifier.delta_into(spare, &prefix, &frame, item.bytes.len());
        self.verify(decoded, &item.bytes)?;
        let entry = BlobEntry {
            id: item.id,
            codec: Codec::Delta,
            stored_len: 0,
            plain_len: item.bytes.len() as u32,
            generation: lineage.generation,
            depth: lineage.depth,
            bases: lineage.bases,
        };
        self.summary.delta_bytes += item.bytes.len() as u64;
        Progress::add(&self.shared.progress.delta_bytes, item.bytes.len() as u64);
        Ok(Some(EncodedBlob::new(entry, frame)))
    }

    fn choose_bases(&self, candidates: &[ParentChunk], length: usize) -> Result<Option<Lineage>> {
        if candidates.is_empty() {
            return Ok(None);
        }
        let keys: Vec<ChunkKey> = candidates.iter().map(|chunk| chunk.id.key()).collect();
        let index = self.shared.repository.index();
        let mut look_up = |key: &ChunkKey| -> Result<Option<delta::BaseInfo>> {
            Ok(index.find(key)?.map(|found| delta::BaseInfo::of(found.entry())))
        };
        delta::choose(&keys, length, &mut look_up)
    }

    /// The bytes of all bases, joined; without a copy where there is one.
    fn read_bases(&mut self, bases: &[ChunkKey]) -> Result<Arc<Vec<u8>>> {
        let mut read = Vec::with_capacity(bases.len());
        for base in bases {
            let bytes = self.shared.reader.base(base, &mut self.scratch)?;
            // A delta against a base that went bad in memory would pass its own verification.
            if self.shared.repository.keys().chunk_id(BlobKind::Data, &bytes).key() != *base {
                return Err(Error::damaged(
                    format!("base {}", base.short()),
                    CryptoError::NotAuthentic,
                ));
            }
            read.push(bytes);
        }
        Ok(match &read[..] {
            [single] => single.clone(),
            several => {
                let mut joined = Vec::new();
                join_into(&mut joined, several);
                Arc::new(joined)
            }
        })
    }

    fn is_worth_it(&mut self, frame: &[u8], item: &WorkItem) -> Result<bool> {
        if frame.len() <= item.bytes.len() / CLEARLY_SMALL {
            return Ok(true);
        }
        let whole = self.compressor.plain(&item.bytes)?;
        Ok(frame.len() * 10 <= whole.len() * 7)
    }

    /// Compares what a blob decodes to with what went in, and keeps the buffer for the next one.
    fn verify(&mut self, decoded: Result<Vec<u8>, ZstdError>, bytes: &[u8]) -> Result<()> {
        match decoded {
            Ok(decoded) if decoded == bytes => {
                self.spare = decoded;
                Ok(())
            }
            _ => Err(Error::Conflict(
                "a compressed chunk did not decode to what went in: the memory of this machine may \
                 be faulty; nothing of this chunk was stored"
                    .into(),
            )),
        }
    }
}
