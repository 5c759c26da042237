//! Packs: many blobs sealed together under a key of their own.
//!
//! ```text
//! header     60 bytes, see `crypto::envelope`; the salt makes this pack's key
//! blobs      ciphertext and tag of each, in shuffled order, nonce = ordinal
//! padding    optional, sealed zeros, nonce = 2^64 - 2
//! directory  ciphertext and tag of `format::directory`, zero-padded, nonce = 2^64 - 1
//! footer     8 bytes: stored length of the directory (u32, little endian), magic "WTSR"
//! ```
//! Each blob's associated data is the header, its ordinal (u64) and
//! [`directory::associated_data`]. The salt covers all payloads, so packs with different content
//! never share a key even where the random generator repeats itself.

use super::FormatError;
use super::directory::{self, BlobEntry, Codec};
use super::index::IndexedPack;
use crate::crypto::aead::{ObjectCipher, TAG_LEN};
use crate::crypto::envelope::{HEADER_LEN, Header, ObjectKind};
use crate::crypto::keys::{BlobKind, KeyRing};
use crate::entropy::Entropy;
use crate::id::{ChunkKey, ObjectName};

/// Bytes at the very end of a pack.
pub const FOOTER_LEN: usize = 8;
const MAGIC: &[u8; 4] = b"WTSR";
const DIRECTORY_NONCE: u64 = u64::MAX;
const PADDING_NONCE: u64 = u64::MAX - 1;
/// Directories are padded to a multiple of this, which hides how many blobs a pack holds.
const DIRECTORY_QUANTUM: usize = 1024;

/// A blob that is ready to be sealed.
#[derive(Debug, Clone)]
pub struct EncodedBlob {
    /// Its entry; `stored_len` is filled in by the pack.
    pub entry: BlobEntry,
    /// The payload: plain bytes as the entry's codec makes them.
    pub payload: Vec<u8>,
    /// Where this is a group of small chunks: their entries, in the order of their bytes.
    pub members: Vec<BlobEntry>,
}

impl EncodedBlob {
    /// A blob that is one chunk.
    pub fn new(entry: BlobEntry, payload: Vec<u8>) -> Self {
        Self { entry, payload, members: Vec::new() }
    }

    fn entries(&self) -> impl Iterator<Item = &BlobEntry> {
        std::iter::once(&self.entry).chain(&self.members)
    }
}

/// A pack that is being filled.
pub struct PackBuilder {
    kind: BlobKind,
    blobs: Vec<EncodedBlob>,
    payload_bytes: usize,
    entries: usize,
}

/// A finished pack.
pub struct SealedPack {
    /// The bytes to store.
    pub bytes: Vec<u8>,
    /// What the index must know of it.
    pub indexed: IndexedPack,
}

impl PackBuilder {
    /// An empty pack for blobs of one kind.
    pub fn new(kind: BlobKind) -> Self {
        Self { kind, blobs: Vec::new(), payload_bytes: 0, entries: 0 }
    }

    /// Adds a blob.
    pub fn push(&mut self, mut blob: EncodedBlob) {
        blob.entry.stored_len = (blob.payload.len() + TAG_LEN) as u32;
        self.payload_bytes += blob.payload.len() + TAG_LEN;
        self.entries += 1 + blob.members.len();
        self.blobs.push(blob);
    }

    /// Bytes that the blobs will take.
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// Entries so far: blobs, and the members of those that are groups.
    pub fn blob_count(&self) -> usize {
        self.entries
    }

    /// Seals the pack into `bytes`, a used buffer. Memory is given back blob by blob as it grows.
    pub fn seal(
        mut self,
        keys: &KeyRing,
        entropy: &dyn Entropy,
        padding: Padding,
        mut bytes: Vec<u8>,
    ) -> SealedPack {
        let digest = self.content_digest(padding);
        let salt = keys.object_salt(entropy, &[&[self.kind as u8], &digest]);
        self.shuffle(&salt);
        let (header, cipher) = Header::new(keys, ObjectKind::Pack, salt);
        let header = header.to_bytes();
        let entries: Vec<BlobEntry> =
            self.blobs.iter().flat_map(EncodedBlob::entries).cloned().collect();
        let mut plain_directory = directory::encode(&entries);
        plain_directory.resize(plain_directory.len().next_multiple_of(DIRECTORY_QUANTUM), 0);
        let fixed = HEADER_LEN + plain_directory.len() + TAG_LEN + FOOTER_LEN;
        let pad = padding.for_length(fixed + self.payload_bytes);

        bytes.clear();
        bytes.reserve(fixed + self.payload_bytes + pad);
        bytes.extend_from_slice(&header);
        let mut ordinal = 0;
        for blob in self.blobs {
            let associated = associated_data(&header, ordinal as u64, &entries[ordinal], self.kind);
            cipher.seal_into(ordinal as u64, &associated, &blob.payload, &mut bytes);
            ordinal += 1 + blob.members.len();
        }
        if pad > 0 {
            cipher.seal_into(PADDING_NONCE, &header, &vec![0; pad - TAG_LEN], &mut bytes);
        }
        let directory_len = (plain_directory.len() + TAG_LEN) as u32;
        let associated = [&header[..], &[self.kind as u8]].concat();
        cipher.seal_into(DIRECTORY_NONCE, &associated, &plain_directory, &mut bytes);
        bytes.extend_from_slice(&directory_len.to_le_bytes());
        bytes.extend_from_slice(MAGIC);
        let name = ObjectName::of(&bytes);
        let size = bytes.len() as u64;
        let indexed = IndexedPack { name, kind: self.kind, size, header, entries };
        SealedPack { bytes, indexed }
    }

    /// Covers everything that will be encrypted: payloads, directory, padding.
    fn content_digest(&self, padding: Padding) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[padding as u8]);
        for blob in &self.blobs {
            hasher.update(blob.entry.id.as_bytes());
            hasher.update(&blob.entry.generation.to_le_bytes());
            hasher.update(&blob.entry.depth.to_le_bytes());
            hasher.update(&(blob.payload.len() as u64).to_le_bytes());
            hasher.update(&directory::associated_data(&blob.entry, self.kind));
            hasher.update(&blob.payload);
            hasher.update(&(blob.members.len() as u64).to_le_bytes());
            for member in &blob.members {
                hasher.update(member.id.as_bytes());
                hasher.update(&member.plain_len.to_le_bytes());
            }
        }
        *hasher.finalize().as_bytes()
    }

    /// Fisher-Yates by the output stream of the salt: the order in a pack tells nothing about the
    /// order in the source, hence nothing about chunk lengths at known places.
    fn shuffle(&mut self, salt: &[u8; 32]) {
        let mut stream = blake3::Hasher::new_keyed(salt).update(b"shuffle").finalize_xof();
        for last in (1..self.blobs.len()).rev() {
            let mut word = [0; 8];
            stream.fill(&mut word);
            let pick = (u128::from(u64::from_le_bytes(word)) * (last as u128 + 1)) >> 64;
            self.blobs.swap(last, pick as usize);
        }
    }
}

/// Whether packs are padded, so that their size tells less about their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Padding {
    /// No padding.
    #[default]
    None,
    /// Padmé (Nikitin et al., PETS 2019): at most 12 % more, O(log log n) bits leaked.
    Padme,
}

impl Padding {
    fn for_length(self, length: usize) -> usize {
        if self == Self::None {
            return 0;
        }
        let exponent = length.ilog2();
        let low_bits = exponent - (exponent.ilog2() + 1);
        let rounded = length.next_multiple_of(1 << low_bits);
        // A tag comes with any padding at all; too small a gap is widened by one step.
        let pad = rounded - length;
        if pad == 0 || pad >= TAG_LEN { pad } else { pad + (1 << low_bits).max(TAG_LEN) }
    }
}

/// The cipher and header of one pack, for reading its blobs.
pub struct PackOpener {
    header: [u8; HEADER_LEN],
    cipher: ObjectCipher,
    kind: BlobKind,
}

impl PackOpener {
    /// For the pack that starts with `header`.
    pub fn new(
        keys: &KeyRing,
        header: [u8; HEADER_LEN],
        kind: BlobKind,
    ) -> Result<Self, FormatError> {
        let cipher = Header::parse(&header, ObjectKind::Pack)?.cipher(keys)?;
        Ok(Self { header, cipher, kind })
    }

    /// Decrypts the stored bytes of the blob at `ordinal` in place and returns its payload.
    pub fn open_blob<'a>(
        &self,
        ordinal: u64,
        entry: &BlobEntry,
        stored: &'a mut [u8],
    ) -> Result<&'a mut [u8], FormatError> {
        let associated = associated_data(&self.header, ordinal, entry, self.kind);
        Ok(self.cipher.open_in_place(ordinal, &associated, stored)?)
    }
}

/// Reads the directory of a whole pack from its bytes alone.
pub fn read_directory(keys: &KeyRing, bytes: &[u8]) -> Result<IndexedPack, FormatError> {
    let header: [u8; HEADER_LEN] =
        *bytes.first_chunk().ok_or(FormatError::Truncated("pack header"))?;
    let directory_len = parse_footer(bytes)?;
    let end = bytes.len() - FOOTER_LEN;
    let start = end
        .checked_sub(directory_len)
        .filter(|&start| start >= HEADER_LEN)
        .ok_or(FormatError::Truncated("pack directory"))?;
    let (kind, entries) =
        open_directory(keys, header, &bytes[start..end], (start - HEADER_LEN) as u64)?;
    let pack = IndexedPack {
        name: ObjectName::of(bytes),
        kind,
        size: bytes.len() as u64,
        header,
        entries,
    };
    Ok(pack)
}

/// Decrypts the directory of a pack whose blobs and padding take `room` bytes.
pub fn open_directory(
    keys: &KeyRing,
    header: [u8; HEADER_LEN],
    sealed: &[u8],
    room: u64,
) -> Result<(BlobKind, Vec<BlobEntry>), FormatError> {
    let mut last_error = FormatError::Invalid("pack directory");
    for kind in [BlobKind::Data, BlobKind::Tree] {
        let opener = PackOpener::new(keys, header, kind)?;
        let associated = [&header[..], &[kind as u8]].concat();
        let mut sealed = sealed.to_vec();
        match opener.cipher.open_in_place(DIRECTORY_NONCE, &associated, &mut sealed) {
            Err(error) => last_error = error.into(),
            Ok(plain) => {
                let entries: Vec<BlobEntry> = directory::decode(plain)?;
                let stored: u64 = entries.iter().map(|entry| u64::from(entry.stored_len)).sum();
                if stored > room {
                    return Err(FormatError::Truncated("blobs of the pack"));
                }
                return Ok((kind, entries));
            }
        }
    }
    Err(last_error)
}

/// The stored length of the directory, from the last bytes of a pack.
pub fn parse_footer(bytes: &[u8]) -> Result<usize, FormatError> {
    let footer: &[u8; FOOTER_LEN] =
        bytes.last_chunk().ok_or(FormatError::Truncated("pack footer"))?;
    if &footer[4..] != MAGIC {
        return Err(FormatError::Invalid("pack footer"));
    }
    Ok(u32::from_le_bytes(footer[..4].try_into().expect("four bytes")) as usize)
}

fn associated_data(
    header: &[u8; HEADER_LEN],
    ordinal: u64,
    entry: &BlobEntry,
    kind: BlobKind,
) -> Vec<u8> {
    [&header[..], &ordinal.to_le_bytes(), &directory::associated_data(entry, kind)].concat()
}

/// An entry for a blob that is stored without a base.
pub fn whole_entry(id: ChunkKey, codec: Codec, plain_len: usize) -> BlobEntry {
    BlobEntry {
        id,
        codec,
        stored_len: 0,
        plain_len: plain_len as u32,
        generation: 0,
        depth: 0,
        bases: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::epoch::Epoch;
    use crate::crypto::keys::MasterKey;
    use crate::entropy::OsEntropy;

    fn keys() -> KeyRing {
        let epoch = Epoch::from_secret(0, &[1; 32]);
        KeyRing::new(MasterKey::from_bytes([1; 32]), vec![epoch]).unwrap()
    }

    fn sample(padding: Padding) -> SealedPack {
        let mut builder = PackBuilder::new(BlobKind::Data);
        for letter in 0..20u8 {
            let payload = vec![letter; 100 + letter as usize];
            let id = keys().chunk_id(BlobKind::Data, &payload);
            builder
                .push(EncodedBlob::new(whole_entry(id.key(), Codec::Raw, payload.len()), payload));
        }
        builder.seal(&keys(), &OsEntropy, padding, Vec::new())
    }

    fn read_all(bytes: &[u8]) -> Result<Vec<Vec<u8>>, FormatError> {
        let pack = read_directory(&keys(), bytes)?;
        let opener = PackOpener::new(&keys(), pack.header, pack.kind)?;
        let mut at = HEADER_LEN;
        let mut plains = Vec::new();
        for (ordinal, entry) in pack.entries.iter().enumerate() {
            let mut stored = bytes[at..at + entry.stored_len as usize].to_vec();
            at += stored.len();
            let plain = opener.open_blob(ordinal as u64, entry, &mut stored)?.to_vec();
            assert_eq!(keys().chunk_id(BlobKind::Data, &plain).key(), entry.id);
            plains.push(plain);
        }
        Ok(plains)
    }

    #[test]
    fn every_blob_comes_back_and_the_order_is_shuffled() {
        for padding in [Padding::None, Padding::Padme] {
            let pack = sample(padding);
            let plains = read_all(&pack.bytes).unwrap();
            assert_eq!(plains.len(), 20);
            assert!(!plains.is_sorted());
            assert_eq!(read_directory(&keys(), &pack.bytes).unwrap(), pack.indexed);
        }
    }

    #[test]
    fn flips_are_noticed_anywhere_but_in_padding() {
        let pack = sample(Padding::None);
        for at in (0..pack.bytes.len()).step_by(7).chain(pack.bytes.len() - 8..pack.bytes.len()) {
            let mut bad = pack.bytes.clone();
            bad[at] ^= 1;
            assert!(read_all(&bad).is_err(), "byte {at}");
        }
        for cut in [0, 59, 60, 100, pack.bytes.len() - 1] {
            assert!(read_all(&pack.bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn swapped_blobs_are_refused() {
        let pack = sample(Padding::None);
        let opener = PackOpener::new(&keys(), pack.indexed.header, BlobKind::Data).unwrap();
        let first = &pack.indexed.entries[0];
        let mut stored = pack.bytes[HEADER_LEN..HEADER_LEN + first.stored_len as usize].to_vec();
        assert!(opener.open_blob(1, first, &mut stored.clone()).is_err());
        assert!(opener.open_blob(0, &pack.indexed.entries[1], &mut stored.clone()).is_err());
        assert!(opener.open_blob(0, first, &mut stored).is_ok());
    }

    #[test]
    fn padme_adds_at_most_twelve_percent() {
        for length in [500, 5_000, 1 << 20, (32 << 20) + 12_345] {
            let pad = Padding::Padme.for_length(length);
            assert!(pad as f64 <= length as f64 * 0.12 + 64.0, "{length} + {pad}");
            assert!(pad == 0 || pad >= TAG_LEN);
        }
    }
}
