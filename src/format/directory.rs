//! What stands in a pack: an entry for each blob, in the order in which the blobs stand.
//!
//! Chunks are named by their 16-byte keys (see [`ChunkKey`]); recipes and trees hold the full ids.
//! Idx objects and the local index hold the same entries.

use super::FormatError;
use super::codec::{Decoder, Encoder};
use crate::crypto::keys::BlobKind;
use crate::id::ChunkKey;

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

/// One blob of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobEntry {
    /// Key of the plain bytes; of a group, see `KeyRing::group_key`.
    pub id: ChunkKey,
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

/// The data that sealing binds to a blob, after the pack's header and the ordinal:
/// kind, codec, plain length, key of the id, keys of the bases.
pub fn associated_data(entry: &BlobEntry, kind: BlobKind) -> Vec<u8> {
    let mut encoder = Encoder::default();
    encoder.byte(kind as u8).byte(entry.codec as u8).number(entry.plain_len.into());
    encoder.fixed(entry.id.as_bytes());
    for base in &entry.bases {
        encoder.fixed(base.as_bytes());
    }
    encoder.finish()
}

/// Encodes the entries of a pack.
pub fn encode(entries: &[BlobEntry]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    encoder.number(entries.len() as u64);
    for entry in entries {
        encoder.fixed(entry.id.as_bytes()).byte(entry.codec as u8);
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
pub fn decode(bytes: &[u8]) -> Result<Vec<BlobEntry>, FormatError> {
    let mut decoder = Decoder::new(bytes);
    let count = decoder.count(ChunkKey::LEN + 2, "blob count")?;
    let entries = (0..count).map(|_| decode_entry(&mut decoder)).collect::<Result<Vec<_>, _>>()?;
    check_groups(&entries)?;
    if decoder.rest().iter().any(|&byte| byte != 0) {
        return Err(FormatError::TrailingBytes(decoder.rest().len()));
    }
    Ok(entries)
}

/// Members follow a blob that is no delta, and all fit into it.
fn check_groups(entries: &[BlobEntry]) -> Result<(), FormatError> {
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

fn decode_entry(decoder: &mut Decoder) -> Result<BlobEntry, FormatError> {
    let id = ChunkKey(decoder.fixed("chunk key")?);
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
            entry.bases.push(ChunkKey(decoder.fixed("base key")?));
        }
    }
    Ok(entry)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn entries() -> impl Strategy<Value = Vec<BlobEntry>> {
        let entry = (any::<[u8; 16]>(), 0..3u8, 16..9_000_000u32, 0..9_000_000u32, 1..33u8);
        let blob = entry.prop_map(|(id, codec, stored_len, plain_len, depth)| {
            let delta = codec == 2;
            let blob = BlobEntry {
                id: ChunkKey(id),
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
            };
            let member = BlobEntry {
                codec: Codec::Member,
                stored_len: 0,
                plain_len: plain_len / 4,
                ..blob.clone()
            };
            let members = if delta { 0 } else { usize::from(depth % 5) };
            std::iter::once(blob).chain(vec![member; members]).collect::<Vec<_>>()
        });
        prop::collection::vec(blob, 0..20).prop_map(|blobs| blobs.concat())
    }

    #[test]
    fn members_must_fit_into_a_blob_that_is_no_delta() {
        let blob = |codec, plain_len| BlobEntry {
            id: ChunkKey([1; 16]),
            codec,
            stored_len: 20,
            plain_len,
            generation: 0,
            depth: 0,
            bases: Vec::new(),
        };
        let is_sound = |entries: &[BlobEntry]| decode(&encode(entries)).is_ok();
        let member = |plain_len| BlobEntry { stored_len: 0, ..blob(Codec::Member, plain_len) };
        assert!(is_sound(&[blob(Codec::Zstd, 10), member(4), member(6)]));
        assert!(!is_sound(&[blob(Codec::Zstd, 10), member(4), member(7)]));
        assert!(!is_sound(&[member(4)]));
        let bases = vec![ChunkKey([2; 16])];
        let delta = BlobEntry { bases, generation: 1, depth: 1, ..blob(Codec::Delta, 10) };
        assert!(is_sound(std::slice::from_ref(&delta)));
        assert!(!is_sound(&[delta, member(4)]));
    }

    proptest! {
        #[test]
        fn round_trips_with_padding(entries in entries(), padding in 0usize..40) {
            let mut bytes = encode(&entries);
            bytes.resize(bytes.len() + padding, 0);
            prop_assert_eq!(decode(&bytes).unwrap(), entries.clone());
        }

        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
