//! Errors of the repository and everything above it, and the one table of what they mean to callers.

use crate::crypto::CryptoError;
use crate::format::FormatError;
use crate::format::config::ConfigError;
use crate::id::ObjectName;
use crate::index::IndexError;
use crate::store::StoreError;

/// What went wrong. Texts are lower case and name the object; the cause is the source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The local index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// No repository stands there.
    #[error("no repository at {location}")]
    NoRepository {
        /// Where.
        location: String,
    },
    /// A repository stands there already.
    #[error("{location} holds a repository already")]
    RepositoryExists {
        /// Where.
        location: String,
    },
    /// Something else stands there.
    #[error("{location} is not empty and not a repository")]
    NotEmpty {
        /// Where.
        location: String,
    },
    /// Somebody began to make a repository there and did not come to the end.
    #[error("{location} holds what an interrupted 'restow init' left")]
    InitInterrupted {
        /// Where.
        location: String,
    },
    /// A prune found the disk full.
    #[error("prune needs room before it makes any: {source}")]
    NoRoomToPrune {
        /// What did not fit.
        source: StoreError,
    },
    /// The configuration cannot be used.
    #[error("config of {location}: {source}")]
    Config {
        /// Where.
        location: String,
        /// Why.
        source: ConfigError,
    },
    /// The configuration file cannot be used.
    #[error("{path}: {detail}")]
    Settings {
        /// The file.
        path: String,
        /// Why.
        detail: String,
    },
    /// No key slot opens with this secret.
    #[error("wrong password or key file for {location}")]
    WrongSecret {
        /// Where.
        location: String,
    },
    /// The keys were rotated, and the slot that this was opened with was not given the new ones.
    #[error("the keys of {location} were rotated (epoch {epoch}) and this key slot was left out")]
    LeftOut {
        /// Where.
        location: String,
        /// The epoch whose keys are missing.
        epoch: u32,
    },
    /// An object does not hold what it should.
    #[error("{object} is damaged: {source}")]
    Damaged {
        /// Path in the store, and the blob where it is one.
        object: String,
        /// Why.
        source: FormatError,
    },
    /// An object that others refer to is not there.
    #[error("{what} is missing from the repository")]
    Missing {
        /// What.
        what: String,
    },
    /// The log does not continue what this machine saw before.
    #[error("the commit log of {location} was rolled back or replaced: {detail}")]
    RolledBack {
        /// Where.
        location: String,
        /// What was seen.
        detail: String,
    },
    /// No snapshot of that name.
    #[error("no snapshot matches '{wanted}'")]
    NoSnapshot {
        /// What was asked for.
        wanted: String,
    },
    /// More than one snapshot of that name.
    #[error("'{wanted}' matches more than one snapshot: {matches}")]
    AmbiguousSnapshot {
        /// What was asked for.
        wanted: String,
        /// Short ids.
        matches: String,
    },
    /// No such path in a snapshot.
    #[error("snapshot {snapshot} holds no '{path}'")]
    NoPath {
        /// Short id.
        snapshot: String,
        /// What was asked for.
        path: String,
    },
    /// A source could not be read; nothing was committed.
    #[error("{source_name}: {detail}")]
    Source {
        /// The stream or command.
        source_name: String,
        /// What happened.
        detail: String,
    },
    /// A restore into a database that did not come to its end.
    #[error("{part} failed: {source} ({state})")]
    HalfWay {
        /// What failed.
        part: String,
        /// What is done by then, and how to go on.
        state: String,
        /// Why.
        source: Box<Error>,
    },
    /// A file outside the repository.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// Somebody else's change and this one cannot both stand.
    #[error("{0}")]
    Conflict(String),
    /// A prune removed what this backup relies on before it could say so.
    #[error("{what} was removed by a prune while this backup ran")]
    Pruned {
        /// What.
        what: String,
    },
    /// A request that cannot be done as it stands.
    #[error("{0}")]
    Usage(String),
    /// zstd failed, which means that memory ran out.
    #[error("compress: {0}")]
    Compress(#[from] crate::compress::ZstdError),
}

/// What an error means to a caller that must choose an exit code or an HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The operation failed.
    Failed,
    /// The request makes no sense.
    Usage,
    /// There is no repository.
    NoRepository,
    /// Refused because of something else that stands there or happens meanwhile.
    Conflict,
    /// The secret is wrong.
    WrongSecret,
    /// Stopped on request.
    Interrupted,
}

impl Error {
    /// What this error means to a caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::HalfWay { source, .. } => source.kind(),
            Self::NoRepository { .. } => ErrorKind::NoRepository,
            Self::WrongSecret { .. } | Self::LeftOut { .. } => ErrorKind::WrongSecret,
            Self::Interrupted => ErrorKind::Interrupted,
            Self::RepositoryExists { .. }
            | Self::NotEmpty { .. }
            | Self::InitInterrupted { .. }
            | Self::RolledBack { .. }
            | Self::Pruned { .. }
            | Self::Conflict(_) => ErrorKind::Conflict,
            Self::Usage(_) | Self::Settings { .. } => ErrorKind::Usage,
            _ => ErrorKind::Failed,
        }
    }

    /// Whether this is about an object of the repository that is damaged or lost.
    pub fn is_object_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Missing { .. } => true,
            Self::HalfWay { source, .. } => source.is_object_damage(),
            // A server that does not answer, refuses or says odd things has lost nothing.
            Self::Store(StoreError::NotFound { .. }) => false,
            Self::Store(error) => error.is_loss(),
            _ => false,
        }
    }

    /// The same, and where the store says itself that an object is not there.
    pub fn is_certain_damage(&self) -> bool {
        match self {
            Self::Store(error) => error.is_loss(),
            Self::HalfWay { source, .. } => source.is_certain_damage(),
            other => other.is_object_damage(),
        }
    }

    /// The epoch of what cannot be read because its keys are not at hand.
    pub(crate) fn unknown_epoch(&self) -> Option<u32> {
        match self {
            Self::Damaged {
                source: FormatError::Crypto(CryptoError::UnknownEpoch(epoch)), ..
            } => Some(*epoch),
            _ => None,
        }
    }

    /// The object that this is about; the whole text where it is about none.
    pub fn object(&self) -> String {
        match self {
            Self::Damaged { object, .. } => object.clone(),
            Self::Missing { what } => what.clone(),
            Self::Store(StoreError::Failed { path, .. } | StoreError::Denied { path, .. }) => {
                path.clone()
            }
            other => other.to_string(),
        }
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoRepository { .. } => {
                "create one with 'restow init', or name another with --repo".into()
            }
            Self::WrongSecret { .. } => {
                "check RESTOW_PASSWORD, --password-file or --key-file; of the other repository of a \
                 copy, those that begin with RESTOW_TO_, --to-, RESTOW_FROM_ or --from-"
                    .into()
            }
            Self::LeftOut { .. } => {
                "an owner can add this password or key file again with 'restow key add'".into()
            }
            Self::Missing { what } if what.starts_with("chunk ") => {
                "'restow repair packs --all-damaged' takes what was made against lost chunks off the \
                 list, so that it is stored again"
                    .into()
            }
            Self::Damaged { .. } | Self::Missing { .. } => {
                "'restow check --read-data' lists all that is damaged and what it affects".into()
            }
            Self::Store(StoreError::Full { .. }) => {
                "nothing that was stored is lost; free some space and run the same command again \
                 to go on from there"
                    .into()
            }
            Self::NoRoomToPrune { .. } => {
                "nothing is lost; free a few megabytes elsewhere on that disk, then 'restow prune \
                 --max-unused unlimited --grace 0' deletes what is garbage and writes no pack anew"
                    .into()
            }
            Self::Config { source: ConfigError::NewerVersion(_), .. } => {
                "install a newer restow".into()
            }
            Self::InitInterrupted { .. } => "no backup is in it: unless another init is running \
                                             there, delete keys/ and log/ and run it again"
                .into(),
            Self::NoSnapshot { .. } => "'restow snapshots' lists them".into(),
            Self::Pruned { .. } => "run the backup again: it goes on from what is stored; with \
                                    'prune --grace' longer than a backup takes this cannot happen"
                .into(),
            Self::NoPath { snapshot, .. } => format!("'restow ls {snapshot}' lists what it holds"),
            Self::RolledBack { .. } => {
                "if the repository was restored from a copy on purpose, run \
                 'restow cache --forget' on this machine"
                    .into()
            }
            Self::Index(error) if error.is_damage() => {
                "the local index holds nothing that the repository does not: throw it away with \
                 'restow cache --forget' and run the same command again"
                    .into()
            }
            _ => return None,
        };
        Some(hint)
    }

    pub(crate) fn damaged(object: impl Into<String>, source: impl Into<FormatError>) -> Self {
        Self::Damaged { object: object.into(), source: source.into() }
    }

    pub(crate) fn missing_chunk(kind: &str, id: &str) -> Self {
        Self::Missing { what: format!("{kind} chunk {id}") }
    }

    pub(crate) fn missing_object(path: &str) -> Self {
        Self::Missing { what: path.to_owned() }
    }

    pub(crate) fn name_mismatch(path: &str, found: &ObjectName) -> Self {
        let _ = found;
        Self::damaged(path, CryptoError::NotAuthentic)
    }
}

/// Results of the repository and above.
pub type Result<T, E = Error> = std::result::Result<T, E>;
