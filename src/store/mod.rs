//! Where objects are kept. A store knows names and bytes, nothing of what they mean.
//!
//! The contract that everything above rests on:
//! * objects are immutable: [`Store::put_new`] fails where the name is taken, and of any number of
//!   writers that race for one name exactly one succeeds;
//! * when `put_new` returns `Ok`, the object survives a power failure;
//! * whoever lists or gets after that sees it.

pub mod cache;
pub mod fault;
pub mod local;
pub mod memory;
#[cfg(feature = "cloud")]
pub mod object;
pub mod pause;
pub mod read_only;
pub mod record;
pub mod retry;
#[cfg(feature = "sftp")]
pub mod sftp;
pub mod suite;
pub mod throttle;
pub mod traced;

use std::io;
use std::sync::Arc;

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectInfo {
    /// Its path.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
}

/// Why a store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No object of that name.
    #[error("{path}: no such object")]
    NotFound {
        /// The object.
        path: String,
    },
    /// The name is taken.
    #[error("{path}: exists already")]
    AlreadyExists {
        /// The object.
        path: String,
    },
    /// A put that may or may not have happened; the caller has to look.
    #[error("put {path}: outcome unknown: {source}")]
    Unknown {
        /// The object.
        path: String,
        /// What was heard.
        source: io::Error,
    },
    /// No space left.
    #[error("put {path}: {source}")]
    Full {
        /// The object.
        path: String,
        /// The system's words.
        source: io::Error,
    },
    /// Not permitted, or a read-only file system.
    #[error("{action} {path}: {source}")]
    Denied {
        /// What was tried.
        action: &'static str,
        /// The object.
        path: String,
        /// The system's words.
        source: io::Error,
    },
    /// Anything else; the operation did not happen.
    #[error("{action} {path}: {source}")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// The object.
        path: String,
        /// The system's words.
        source: io::Error,
    },
}

impl StoreError {
    /// Whether this may be otherwise in a while: a line that broke, a server that is busy.
    pub fn passes(&self) -> bool {
        match self {
            Self::Unknown { .. } => true,
            Self::Failed { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::NotConnected
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::ResourceBusy
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
            ),
            _ => false,
        }
    }

    /// Whether the store answers, and says that the bytes are gone: no such object, a disk that cannot
    /// read it, an object that ends too early. Nothing else may be taken for a loss.
    pub fn is_loss(&self) -> bool {
        match self {
            Self::NotFound { .. } => true,
            Self::Failed { action: "read", source, .. } => {
                use rustix::io::Errno;
                // Besides a bad sector what file systems call a checksum that does not match.
                let lost = [Errno::IO, Errno::BADMSG, Errno::UCLEAN].map(|it| it.raw_os_error());
                source.kind() == io::ErrorKind::UnexpectedEof
                    || source.raw_os_error().is_some_and(|found| lost.contains(&found))
            }
            _ => false,
        }
    }
}

/// What a part of a pack is read for. A store that keeps copies nearby goes by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A directory or recipe: it will be read again.
    Tree,
    /// Content on its way to somebody.
    Content,
    /// A new chunk may be stored as a difference to it: worth having if it is at hand, not worth a
    /// download.
    Base,
}

/// A place for immutable objects.
pub trait Store: Send + Sync {
    /// Creates an object, durably. Never touches one that exists.
    fn put_new(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError>;
    /// The whole object.
    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError>;
    /// Exactly `length` bytes from `offset`; an object that is shorter is an error.
    fn get_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError>;
    /// The same into a used buffer, which then holds these bytes alone.
    fn get_range_into(
        &self,
        path: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        *out = self.get_range(path, offset, length)?;
        Ok(())
    }
    /// The same, by a reader who says what for. With [`Purpose::Base`] the store may refuse what it
    /// would have to fetch.
    fn get_range_for(
        &self,
        _purpose: Purpose,
        path: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        self.get_range_into(path, offset, length, out)
    }
    /// The size of an object.
    fn head(&self, path: &str) -> Result<u64, StoreError>;
    /// All objects whose path starts with `prefix`, which is empty or ends with a slash, by path.
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError>;
    /// Those of them whose paths come after `after`, which need not exist.
    fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let mut found = self.list(prefix)?;
        found.retain(|object| object.path.as_str() > after);
        Ok(found)
    }
    /// Removes an object.
    fn delete(&self, path: &str) -> Result<(), StoreError>;
    /// Puts these bytes in the place of what an object has, or makes it: whoever reads meanwhile gets
    /// the old bytes or the new ones, a crash leaves either. Durable when it returns `Ok`. Only repair
    /// uses it, with bytes that the object's name proves.
    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let _ = bytes;
        let source = io::Error::new(
            io::ErrorKind::Unsupported,
            "this store cannot put mended bytes in the place of damaged ones",
        );
        Err(StoreError::Failed { action: "replace", path: path.to_owned(), source })
    }
    /// Reads a range past everything that is kept nearer, which it forgets: what came from there was
    /// wrong.
    fn get_range_fresh(
        &self,
        path: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        self.get_range_into(path, offset, length, out)
    }
    /// Removes what writers that died left behind and no listing shows.
    fn tidy(&self) -> Result<(), StoreError> {
        Ok(())
    }
    /// Whether [`Store::put_new`] is known to refuse names that are taken, because the operating system
    /// sees to it: others are tried now and then.
    fn is_create_only(&self) -> bool {
        false
    }
    /// How many big objects it is worth to put at the same time.
    fn parallel_puts(&self) -> usize {
        1
    }
    /// Where this store is, for messages.
    fn location(&self) -> String;
}

impl<S: Store + ?Sized> Store for Arc<S> {
    fn put_new(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        (**self).put_new(path, bytes)
    }
    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        (**self).get(path)
    }
    fn get_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        (**self).get_range(path, offset, length)
    }
    fn get_range_into(
        &self,
        path: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        (**self).get_range_into(path, offset, length, out)
    }
    fn get_range_for(
        &self,
        purpose: Purpose,
        path: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        (**self).get_range_for(purpose, path, offset, length, out)
    }
    fn get_range_fresh(
        &self,
        path: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        (**self).get_range_fresh(path, offset, length, out)
    }
    fn head(&self, path: &str) -> Result<u64, StoreError> {
        (**self).head(path)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        (**self).list(prefix)
    }
    fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        (**self).list_after(prefix, after)
    }
    fn delete(&self, path: &str) -> Result<(), StoreError> {
        (**self).delete(path)
    }
    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        (**self).replace(path, bytes)
    }
    fn tidy(&self) -> Result<(), StoreError> {
        (**self).tidy()
    }
    fn is_create_only(&self) -> bool {
        (**self).is_create_only()
    }
    fn parallel_puts(&self) -> usize {
        (**self).parallel_puts()
    }
    fn location(&self) -> String {
        (**self).location()
    }
}

/// Checks that a path is relative, of plain segments: nothing read from a repository may ever name
/// a file outside it.
pub fn check_path(action: &'static str, path: &str) -> Result<(), StoreError> {
    let plain = |segment: &str| {
        !segment.is_empty()
            && !segment.starts_with('.')
            && segment
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
    };
    if path.split('/').all(plain) {
        return Ok(());
    }
    let source = io::Error::new(io::ErrorKind::InvalidInput, "not a valid object path");
    Err(StoreError::Failed { action, path: path.to_owned(), source })
}

/// The range of an object that is wholly in memory.
fn slice_range(
    path: &str,
    bytes: &[u8],
    offset: u64,
    length: usize,
) -> Result<Vec<u8>, StoreError> {
    usize::try_from(offset)
        .ok()
        .and_then(|start| bytes.get(start..start.checked_add(length)?))
        .map(<[u8]>::to_vec)
        .ok_or_else(|| StoreError::Failed {
            action: "read",
            path: path.to_owned(),
            source: io::ErrorKind::UnexpectedEof.into(),
        })
}
