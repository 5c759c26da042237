//! The configuration: what must be known before a key is, in plain JSON with an authentication code.
//!
//! ```text
//! restow repository\n
//! {JSON}\n
//! <64 hexadecimal digits: keyed BLAKE3 of the two lines above>\n
//! ```

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::FormatError;
use super::pack::Padding;
use super::parity;
use crate::chunker::Profile;
use crate::crypto::keys::KeyRing;
use crate::id::RepositoryId;

/// The version of the format that this program writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;
const FIRST_LINE: &str = "restow repository\n";

/// Parameters of a repository, fixed when it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Format of all that is stored.
    pub version: u32,
    /// Which repository this is.
    pub id: RepositoryId,
    /// When it was made.
    pub created: jiff::Timestamp,
    /// Features without which a program must not touch the repository; none so far.
    #[serde(default)]
    pub required_features: Vec<String>,
    /// Chunk sizes of dump streams.
    pub stream_chunks: Profile,
    /// Size at which packs of data are closed, in bytes.
    pub data_pack_bytes: u64,
    /// Size at which packs of trees are closed, in bytes.
    pub tree_pack_bytes: u64,
    /// Whether packs are padded.
    #[serde(default)]
    pub padding: Padding,
    /// Parity of packs, in thousandths of their size; none where 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub parity: u16,
}

fn is_zero(parts: &u16) -> bool {
    *parts == 0
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Not a configuration at all.
    #[error("not a restow repository configuration")]
    NotConfig,
    /// The program is too old.
    #[error(
        "repository has format version {0}; this program knows version {FORMAT_VERSION} and older"
    )]
    NewerVersion(u32),
    /// The program is too old.
    #[error("repository needs the feature '{0}', which this program does not have")]
    UnknownFeature(String),
    /// Values that no writer produces.
    #[error(transparent)]
    Format(#[from] FormatError),
}

impl Config {
    /// The stored bytes.
    pub fn encode(&self, keys: &KeyRing) -> Vec<u8> {
        let json = serde_json::to_string(self).expect("parameters are plain JSON");
        let text = format!("{FIRST_LINE}{json}\n");
        let code = keys.config_mac(text.as_bytes()).to_hex();
        format!("{text}{code}\n").into_bytes()
    }

    /// Parses stored bytes without a key: enough to say what this is, not to trust it.
    pub fn parse(stored: &[u8]) -> Result<Self, ConfigError> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
            #[serde(default)]
            required_features: Vec<String>,
        }
        let (text, _) = split(stored).ok_or(ConfigError::NotConfig)?;
        let json = &text[FIRST_LINE.len()..];
        let head: Head = serde_json::from_slice(json).map_err(|_| ConfigError::NotConfig)?;
        if head.version > FORMAT_VERSION {
            return Err(ConfigError::NewerVersion(head.version));
        }
        if let Some(feature) = head.required_features.into_iter().next() {
            return Err(ConfigError::UnknownFeature(feature));
        }
        let config: Self = serde_json::from_slice(json).map_err(|_| ConfigError::NotConfig)?;
        let sizes = [config.data_pack_bytes, config.tree_pack_bytes];
        if !config.stream_chunks.is_valid()
            || (config.parity != 0
                && !(parity::MIN_PARTS..=parity::MAX_PARTS).contains(&config.parity))
            || sizes.iter().any(|size| !(1..=1 << 30).contains(size))
        {
            return Err(FormatError::Invalid("sizes in the configuration").into());
        }
        Ok(config)
    }

    /// Checks that the stored bytes were written by somebody with these keys.
    pub fn verify(stored: &[u8], keys: &KeyRing) -> Result<(), FormatError> {
        let (text, code) = split(stored).ok_or(FormatError::Invalid("configuration"))?;
        // Compared as text: the digits are lower case and nothing else.
        if bool::from(keys.config_mac(text).to_hex().as_bytes().ct_eq(code)) {
            Ok(())
        } else {
            Err(crate::crypto::CryptoError::NotAuthentic.into())
        }
    }
}

/// The authenticated text and the code after it.
fn split(stored: &[u8]) -> Option<(&[u8], &[u8])> {
    let body = stored.strip_suffix(b"\n")?;
    let end = body.iter().rposition(|&byte| byte == b'\n')? + 1;
    let (text, code) = body.split_at(end);
    text.starts_with(FIRST_LINE.as_bytes()).then_some((text, code))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::crypto::epoch::Epoch;
    use crate::crypto::keys::MasterKey;

    pub(crate) fn sample() -> Config {
        Config {
            version: 1,
            id: RepositoryId([1; 16]),
            created: jiff::Timestamp::UNIX_EPOCH,
            required_features: vec![],
            stream_chunks: Profile::STREAM,
            data_pack_bytes: 32 << 20,
            tree_pack_bytes: 8 << 20,
            padding: Padding::None,
            parity: 0,
        }
    }

    fn keys() -> KeyRing {
        let epoch = Epoch::from_secret(0, &[1; 32]);
        KeyRing::new(MasterKey::from_bytes([1; 32]), vec![epoch]).unwrap()
    }

    #[test]
    fn round_trips_and_every_flip_is_noticed() {
        let stored = sample().encode(&keys());
        assert_eq!(Config::parse(&stored).unwrap(), sample());
        Config::verify(&stored, &keys()).unwrap();
        for at in 0..stored.len() {
            let mut bad = stored.clone();
            bad[at] ^= 1;
            assert!(Config::parse(&bad).is_err() || Config::verify(&bad, &keys()).is_err(), "{at}");
        }
    }

    #[test]
    fn newer_versions_and_features_are_named() {
        let newer = Config { version: 7, ..sample() }.encode(&keys());
        assert_eq!(Config::parse(&newer), Err(ConfigError::NewerVersion(7)));
        let features = Config { required_features: vec!["warp".into()], ..sample() };
        let error = Config::parse(&features.encode(&keys())).unwrap_err();
        assert_eq!(error, ConfigError::UnknownFeature("warp".into()));
        assert_eq!(Config::parse(b"[core]\n\tbare = false\n"), Err(ConfigError::NotConfig));
    }
}
