//! What stands in a pack: an entry for each blob, in the order in which the blobs stand.
//!
//! Pack directories hold full ids and are the authority; idx objects and the local index hold the
//! same entries with 16-byte keys (see [`ChunkKey`]).

use super::FormatError;
use super::codec::{Decoder, Encoder};
use crate::crypto::keys::BlobKind;
use crate::id::{ChunkId, ChunkKey};

/// Longest plain chunk or tree node that any version reads, in bytes.
pub const MAX_PLAIN_LEN: u64 = 16 << 20;
/// Most chunks that a delta may be encoded against.
pub const MAX_BASES: usize = 8;
/// Longest chain of deltas that a reader follows.
pub const MAX_DEPTH: u8 = 32;

/// How the plain bytes were made into a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    Raw = 0,
    /// A zstd frame.
    Zstd = 1,
    /// A zstd frame that refers to the bytes of the bases, joined.
    Delta = 2,
    /// A part of the blob before it, which holds several small chunks one after the other.
    Member = 3,
}

/// How entries name chunks: by full id in packs, by key in the index.
pub trait BlobName: Copy + Eq {
    /// Length in bytes.
    const LEN: usize;
    /// The bytes.
    fn bytes(&self) -> &[u8];
    /// Reads one.
    fn read(decoder: &mut Decoder<'_>) -> Result<Self, FormatError>;
}

impl BlobName for ChunkId {
    const LEN: usize = 32;
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
    fn read(decoder: &mut Decoder<'_>) -> Result<Self, FormatError> {
        decoder.fixed("chunk id").map(Self)
    }
}

impl BlobName for ChunkKey {
    const LEN: usize = 16;
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
    fn read(decoder: &mut Decoder<'_>) -> Result<Self, FormatError> {
        decoder.fixed("chunk key").map(Self)
    }
}

/// One blob of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobEntry<I = ChunkId> {
    /// Id of the plain bytes.
    pub id: I,
    /// How they are stored.
    pub codec: Codec,
    /// Bytes in the pack, tag included.
    pub stored_len: u32,
    /// Plain bytes.
    pub plain_len: u32,
    /// How many versions of its stream led to this chunk: 0 for one without a base.
    pub generation: u32,
    /// Deltas to decode before this one's bytes stand: 0 for a chunk stored whole.
    pub depth: u8,
    /// What the delta is against, in this order; empty unless the codec is `Delta`. Keys are enough:
    /// the id of the decoded chunk proves that the right bases were used.
    pub bases: Vec<ChunkKey>,
}

/// An entry as idx objects and the local index hold it.
pub type IndexEntry = BlobEntry<ChunkKey>;

impl BlobEntry {
    /// The same with keys for ids.
    pub fn to_index(&self) -> IndexEntry {
        IndexEntry {
            id: self.id.key(),
            codec: self.codec,
            stored_len: self.stored_len,
            plain_len: self.plain_len,
            generation: self.generation,
            depth: self.depth,
            bases: self.bases.clone(),
        }
    }

    /// Whether this entry of a pack and that of the index say the same.
    pub fn agrees_with(&self, indexed: &IndexEntry) -> bool {
        self.to_index() == *indexed
    }
}

/// The data that sealing binds to a blob, after the pack's header and the ordinal:
/// kind, codec, plain length, key of the id, keys of the bases.
pub fn associated_data(entry: &IndexEntry, kind: BlobKind) -> Vec<u8> {
    let mut encoder = Encoder::default();
    encoder.byte(kind as u8).byte(entry.codec as u8).number(entry.plain_len.into());
    encoder.fixed(entry.id.as_bytes());
    for base in &entry.bases {
        encoder.fixed(base.as_bytes());
    }
    encoder.finish()
}

/// Encodes the entries of a pack.
pub fn encode<I: BlobName>(entries: &[BlobEntry<I>]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    encoder.number(entries.len() as u64);
    for entry in entries {
        encoder.fixed(entry.id.bytes()).byte(entry.codec as u8);
        if entry.codec != Codec::Member {
            encoder.number(entry.stored_len.into());
        }
        encoder.number(entry.plain_len.into());
        if entry.codec == Codec::Delta {
            encoder.number(entry.generation.into()).byte(entry.depth).byte(entry.bases.len() as u8);
            for base in &entry.bases {
                encoder.fixed(base.as_bytes());
            }
        }
    }
    encoder.finish()
}

/// Decodes what [`encode`] made; zero bytes may follow (padding).
pub fn decode<I: BlobName>(bytes: &[u8]) -> Result<Vec<BlobEntry<I>>, FormatError> {
    let mut decoder = Decoder::new(bytes);
    let count = decoder.count(I::LEN + 2, "blob count")?;
    let entries = (0..count).map(|_| decode_entry(&mut decoder)).collect::<Result<Vec<_>, _>>()?;
    check_groups(&entries)?;
    if decoder.rest().iter().any(|&byte| byte != 0) {
        return Err(FormatError::TrailingBytes(decoder.rest().len()));
    }
    Ok(entries)
}

/// Members follow a blob that is no delta, and all fit into it.
fn check_groups<I>(entries: &[BlobEntry<I>]) -> Result<(), FormatError> {
    let mut left = None;
    for entry in entries {
        left = match entry.codec {
            Codec::Member => left.and_then(|left: u32| left.checked_sub(entry.plain_len)),
            Codec::Delta => None,
            Codec::Raw | Codec::Zstd => Some(entry.plain_len),
        };
        if entry.codec == Codec::Member && left.is_none() {
            return Err(FormatError::Invalid("group of chunks"));
        }
    }
    Ok(())
}

fn decode_entry<I: BlobName>(decoder: &mut Decoder) -> Result<BlobEntry<I>, FormatError> {
    let id = I::read(decoder)?;
    let codec = match decoder.byte("codec")? {
        0 => Codec::Raw,
        1 => Codec::Zstd,
        2 => Codec::Delta,
        3 => Codec::Member,
        _ => return Err(FormatError::Invalid("codec")),
    };
    let stored_len = match codec {
        Codec::Member => 0,
        _ => decoder.bounded(MAX_PLAIN_LEN + (1 << 20), "stored length")? as u32,
    };
    let plain_len = decoder.bounded(MAX_PLAIN_LEN, "plain length")? as u32;
    let mut entry =
        BlobEntry { id, codec, stored_len, plain_len, generation: 0, depth: 0, bases: Vec::new() };
    if codec == Codec::Delta {
        entry.generation = decoder.bounded(u32::MAX.into(), "generation")? as u32;
        entry.depth = decoder.byte("depth")?;
        let count = decoder.byte("base count")?;
        if count == 0 || usize::from(count) > MAX_BASES || !(1..=MAX_DEPTH).contains(&entry.depth) {
            return Err(FormatError::Invalid("delta"));
        }
        for _ in 0..count {
            entry.bases.push(ChunkKey::read(decoder)?);
        }
    }
    Ok(entry)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn entries() -> impl Strategy<Value = Vec<BlobEntry>> {
        let entry = (any::<[u8; 32]>(), 0..3u8, 16..9_000_000u32, 0..9_000_000u32, 1..33u8);
        prop::collection::vec(
            entry.prop_map(|(id, codec, stored_len, plain_len, depth)| {
                let delta = codec == 2;
                BlobEntry {
                    id: ChunkId(id),
                    codec: [Codec::Raw, Codec::Zstd, Codec::Delta][codec as usize],
                    stored_len,
                    plain_len,
                    generation: if delta { stored_len } else { 0 },
                    depth: if delta { depth } else { 0 },
                    bases: if delta {
                        vec![ChunkKey([depth; 16]); 1 + depth as usize % 8]
                    } else {
                        vec![]
                    },
                }
            }),
            0..20,
        )
    }

    proptest! {
        #[test]
        fn round_trips_with_padding(entries in entries(), padding in 0usize..40) {
            let mut bytes = encode(&entries);
            bytes.resize(bytes.len() + padding, 0);
            prop_assert_eq!(decode::<ChunkId>(&bytes).unwrap(), entries.clone());
            let indexed: Vec<_> = entries.iter().map(BlobEntry::to_index).collect();
            prop_assert_eq!(decode::<ChunkKey>(&encode(&indexed)).unwrap(), indexed);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode::<ChunkId>(&bytes);
            let _ = decode::<ChunkKey>(&bytes);
        }
    }
}
