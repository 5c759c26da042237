//! idx objects: which blobs stand in which packs, so that nobody has to open packs to find out.
//!
//! Entries hold the first 16 bytes of each id; the pack's own directory holds all 32 and stays the
//! authority.

use super::FormatError;
use super::codec::{Decoder, Encoder};
use super::directory::{self, BlobEntry};
use crate::crypto::envelope::HEADER_LEN;
use crate::crypto::keys::BlobKind;
use crate::id::ObjectName;

/// One pack: its name, its header (whose salt makes its key) and its blobs in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedPack {
    /// Name of the pack.
    pub name: ObjectName,
    /// What its blobs are.
    pub kind: BlobKind,
    /// Size of the whole pack in bytes.
    pub size: u64,
    /// The first bytes of the pack.
    pub header: [u8; HEADER_LEN],
    /// Its blobs; the first starts right after the header.
    pub entries: Vec<BlobEntry>,
}

/// Encodes an idx object.
pub fn encode(packs: &[IndexedPack]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    encoder.number(packs.len() as u64);
    for pack in packs {
        encoder
            .fixed(pack.name.as_bytes())
            .byte(pack.kind as u8)
            .number(pack.size)
            .fixed(&pack.header)
            .counted(&directory::encode(&pack.entries));
    }
    encoder.finish()
}

/// Decodes what [`encode`] made.
pub fn decode(bytes: &[u8]) -> Result<Vec<IndexedPack>, FormatError> {
    let mut decoder = Decoder::new(bytes);
    let count = decoder.count(95, "pack count")?;
    let mut packs = Vec::with_capacity(count);
    for _ in 0..count {
        let name = ObjectName(decoder.fixed("pack name")?);
        let kind = BlobKind::from_byte(decoder.byte("pack kind")?)
            .ok_or(FormatError::Invalid("pack kind"))?;
        let size = decoder.bounded(1 << 40, "pack size")?;
        let header = decoder.fixed("pack header")?;
        let entries = directory::decode(decoder.counted("blob entries")?)?;
        packs.push(IndexedPack { name, kind, size, header, entries });
    }
    decoder.finish()?;
    Ok(packs)
}

#[cfg(test)]
mod tests {
    use super::super::directory::tests::entries;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(blobs in entries(), size in 0u64..1 << 40) {
            let pack = IndexedPack {
                name: ObjectName::of(b"pack"),
                kind: BlobKind::Tree,
                size,
                header: [4; HEADER_LEN],
                entries: blobs,
            };
            let packs = vec![pack.clone(), pack];
            prop_assert_eq!(decode(&encode(&packs)).unwrap(), packs);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
