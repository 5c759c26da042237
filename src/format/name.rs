//! Names of streams and files as bytes, whatever they hold.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A name: any bytes. In JSON a text where the bytes are UTF-8, else `{"hex": "…"}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Repr", into = "Repr")]
pub struct Name(Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Repr {
    Text(String),
    Bytes {
        #[serde(with = "hex::serde")]
        hex: Vec<u8>,
    },
}

impl Name {
    /// The name with these bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this names a file below a folder: no empty part, no `.` or `..`, no NUL.
    pub fn is_file_path(&self) -> bool {
        let is_plain = |part: &[u8]| !matches!(part, b"" | b"." | b"..");
        self.relative().split(|&byte| byte == b'/').all(is_plain) && !self.0.contains(&0)
    }

    /// The bytes without slashes at the start, which is how paths are compared.
    pub fn relative(&self) -> &[u8] {
        let start = self.0.iter().position(|&byte| byte != b'/').unwrap_or(self.0.len());
        &self.0[start..]
    }
}

impl From<Repr> for Name {
    fn from(repr: Repr) -> Self {
        match repr {
            Repr::Text(text) => Self(text.into_bytes()),
            Repr::Bytes { hex } => Self(hex),
        }
    }
}

impl From<Name> for Repr {
    fn from(name: Name) -> Self {
        match String::from_utf8(name.0) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Bytes { hex: error.into_bytes() },
        }
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

/// For terminals: control characters and bytes that are not UTF-8 are escaped.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.utf8_chunks() {
            for letter in part.valid().chars() {
                if letter.is_control() {
                    write!(f, "{}", letter.escape_default())?;
                } else {
                    write!(f, "{letter}")?;
                }
            }
            for byte in part.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_survive_json() {
        for bytes in [&b"shop.sql"[..], b"a\nb", b"\xff\xfe", b"", "\u{1f980}".as_bytes()] {
            let name = Name::new(bytes);
            let text = serde_json::to_string(&name).unwrap();
            assert_eq!(serde_json::from_str::<Name>(&text).unwrap(), name);
        }
    }

    #[test]
    fn terminals_see_no_control_characters() {
        assert_eq!(Name::new(&b"a\nb\xff\x1b[31m"[..]).to_string(), "a\\nb\\xff\\u{1b}[31m");
        assert_eq!(Name::from("//a/b").relative(), b"a/b");
    }

    #[test]
    fn names_that_lead_elsewhere_are_told_from_those_of_files() {
        for good in ["a", "/a/b", "a..", "..a/.b", "a\nb"] {
            assert!(Name::from(good).is_file_path(), "{good}");
        }
        for bad in ["", "/", "..", "a/../b", "./a", "a//b", "a/", "a\0b"] {
            assert!(!Name::from(bad).is_file_path(), "{bad}");
        }
    }
}
