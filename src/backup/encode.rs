//! Encoding new chunks: as a difference where the parent has something alike, else whole.
//!
//! Every result is decoded and compared before it is stored: bugs of compressors and bad memory
//! have damaged the repositories of other systems.

use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::gather::{Group, Member};
use super::parent::ParentChunk;
use super::pipeline::Shared;
use super::stream::{Work, WorkItem};
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
pub fn encode_all(shared: &Shared<'_>, queue: Receiver<Work>) -> Result<Summary> {
    let mut encoder = Encoder {
        shared,
        scratch: Scratch::new()?,
        compressor: Compressor::new(shared.compression)?,
        verifier: Decompressor::new()?,
        spare: Vec::new(),
        level: shared.compression.plain_level,
        summary: Summary::default(),
    };
    for work in queue {
        match work {
            Work::Chunks(batch) => {
                encoder.set_level(shared.compression.plain_level)?;
                for item in batch {
                    encoder.chunk(item)?;
                }
            }
            Work::Group(group) => {
                encoder.set_level(shared.compression.file_level)?;
                encoder.group(group)?;
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
    /// What the compressor is set to.
    level: i32,
    summary: Summary,
}

impl Encoder<'_> {
    fn put(&self, blob: EncodedBlob) -> Result<()> {
        Progress::add(&self.shared.progress.stored_bytes, blob.payload.len() as u64);
        self.shared.writer.add(BlobKind::Data, blob)
    }

    fn stop_if_asked(&self) -> Result<()> {
        if self.shared.should_stop() { Err(Error::Interrupted) } else { Ok(()) }
    }

    fn set_level(&mut self, level: i32) -> Result<()> {
        if level != self.level {
            self.compressor.set_plain_level(level)?;
            self.level = level;
        }
        Ok(())
    }

    /// A chunk on its own.
    fn chunk(&mut self, item: WorkItem) -> Result<()> {
        self.stop_if_asked()?;
        let blob = match self.delta(item.id, &item.bytes, &item.candidates)? {
            Some(blob) => blob,
            None => {
                self.count_new(item.bytes.len());
                self.compress(item.id.key(), &item.bytes)?
            }
        };
        drop(item);
        self.put(blob)
    }

    /// Several small chunks as one blob: what they have in common is stored once. Those that are
    /// better stored as deltas leave it.
    fn group(&mut self, group: Group) -> Result<()> {
        let Group { mut bytes, members } = group;
        let mut kept = Vec::with_capacity(members.len());
        let (mut from, mut to) = (0, 0);
        for Member { id, length, candidates } in members {
            self.stop_if_asked()?;
            match self.delta(id, &bytes[from..from + length], &candidates)? {
                Some(blob) => self.put(blob)?,
                None => {
                    self.count_new(length);
                    if from != to {
                        bytes.copy_within(from..from + length, to);
                    }
                    to += length;
                    kept.push(whole_entry(id.key(), Codec::Member, length));
                }
            }
            from += length;
        }
        bytes.truncate(to);
        if let [only] = &kept[..] {
            let blob = self.compress(only.id, &bytes)?;
            self.put(blob)?;
        } else if !kept.is_empty() {
            let keys = kept.iter().map(|member| member.id);
            let key = self.shared.repository.keys().group_key(keys);
            let blob = self.compress(key, &bytes)?;
            self.put(EncodedBlob { members: kept, ..blob })?;
        }
        bytes.clear();
        self.shared.groups.lock().expect("no panics here").push(bytes);
        Ok(())
    }

    fn count_new(&mut self, length: usize) {
        self.summary.new_bytes += length as u64;
        Progress::add(&self.shared.progress.new_bytes, length as u64);
    }

    fn compress(&mut self, id: ChunkKey, bytes: &[u8]) -> Result<EncodedBlob> {
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

    fn delta(
        &mut self,
        id: ChunkId,
        bytes: &[u8],
        candidates: &[ParentChunk],
    ) -> Result<Option<EncodedBlob>> {
        let Some(lineage) = self.choose_bases(candidates, bytes.len())? else {
            return Ok(None);
        };
        // A base that cannot be read is no reason to fail: the chunk is stored whole.
        let Ok(prefix) = self.read_bases(&lineage.bases) else { return Ok(None) };
        let frame = self.compressor.delta(&prefix, bytes)?;
        if !self.is_worth_it(&frame, bytes)? {
            return Ok(None);
        }
        let spare = std::mem::take(&mut self.spare);
        let decoded = self.verifier.delta_into(spare, &prefix, &frame, bytes.len());
        self.verify(decoded, bytes)?;
        let entry = BlobEntry {
            id: id.key(),
            codec: Codec::Delta,
            stored_len: 0,
            plain_len: bytes.len() as u32,
            generation: lineage.generation,
            depth: lineage.depth,
            bases: lineage.bases,
        };
        self.summary.delta_bytes += bytes.len() as u64;
        Progress::add(&self.shared.progress.delta_bytes, bytes.len() as u64);
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

    fn is_worth_it(&mut self, frame: &[u8], bytes: &[u8]) -> Result<bool> {
        if frame.len() <= bytes.len() / CLEARLY_SMALL {
            return Ok(true);
        }
        let whole = self.compressor.plain(bytes)?;
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
