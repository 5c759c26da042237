//! Where a secret is kept.

use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// `env:NAME` or `file:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// In a variable of the environment.
    Env(String),
    /// In the first line of a file.
    File(PathBuf),
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let value = toml::Value::deserialize(deserializer)?;
        let parts = value.as_str().and_then(|text| text.split_once(':'));
        match parts {
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            // The value may be the secret itself: it must not be shown.
            _ => Err(D::Error::custom(
                "a secret is not written here: use \"env:NAME\" or \"file:PATH\"",
            )),
        }
    }
}

impl SecretRef {
    /// Fetches it.
    pub fn read(&self, variables: &dyn Fn(&str) -> Option<String>) -> Result<Zeroizing<String>> {
        match self {
            Self::Env(name) => variables(name).map(Zeroizing::new).ok_or_else(|| {
                Error::Usage(format!("the variable {name}, which should hold a secret, is not set"))
            }),
            Self::File(path) => {
                let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|source| {
                    Error::Io { action: "read", path: path.display().to_string(), source }
                })?;
                Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
            }
        }
    }
}
