//! Identifiers: newtypes over byte arrays, so that a chunk id can never be passed for a pack name.
//!
//! Owns parsing and printing (lower-case hex). Does not know how ids are made: see `crypto`.

use std::fmt;

/// Why a text is not an identifier.
#[derive(Debug, thiserror::Error)]
#[error("'{text}' is not a {kind}: expected {digits} hexadecimal digits")]
pub struct ParseIdError {
    text: String,
    kind: &'static str,
    digits: usize,
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $len:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The bytes.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Lower-case hexadecimal.
            pub fn to_hex(&self) -> String {
                hex::encode(self.0)
            }

            /// Parses exactly the hexadecimal digits of one identifier.
            pub fn from_hex(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseIdError {
                    text: text.to_owned(),
                    kind: $kind,
                    digits: $len * 2,
                })?;
                Ok(Self(bytes))
            }

            /// The first eight digits, for people.
            pub fn short(&self) -> String {
                hex::encode(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.to_hex())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                Self::from_hex(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

id_type!(
    /// Keyed BLAKE3 of the plain bytes of a chunk or tree node, under the key of its type.
    ChunkId, 32, "chunk id"
);
id_type!(
    /// The first 16 bytes of a [`ChunkId`]: what the local index and idx objects are keyed by.
    /// See `docs/decisions/0003-index-keys.md` for why 128 bits are enough there.
    ChunkKey, 16, "chunk key"
);
id_type!(
    /// BLAKE3 of the stored bytes of a pack, idx object or snapshot: its name in the store.
    ObjectName, 32, "object name"
);
id_type!(
    /// Random identifier of a repository.
    RepositoryId, 16, "repository id"
);

impl ChunkId {
    /// The prefix under which the index knows this chunk.
    pub fn key(&self) -> ChunkKey {
        let mut key = [0; 16];
        key.copy_from_slice(&self.0[..16]);
        ChunkKey(key)
    }
}

impl ObjectName {
    /// The name of an object with these stored bytes.
    pub fn of(stored: &[u8]) -> Self {
        Self(*blake3::hash(stored).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips() {
        let id = ChunkId(std::array::from_fn(|i| i as u8));
        assert_eq!(ChunkId::from_hex(&id.to_hex()).unwrap(), id);
        assert_eq!(id.short(), "00010203");
    }

    #[test]
    fn refuses_wrong_lengths_and_letters() {
        assert!(RepositoryId::from_hex("00").is_err());
        let error = ObjectName::from_hex(&"g".repeat(64)).unwrap_err().to_string();
        assert!(error.contains("64 hexadecimal digits"), "{error}");
    }
}
