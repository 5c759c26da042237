//! Objects in a bucket: S3 and what speaks its language, Google Cloud Storage, Azure Blob Storage.
//!
//! One object is one PUT with "only if there is none"; nothing is sent twice behind the caller's
//! back. What a reply means for the contract of [`Store`] is told in `outcome.rs`: a put whose fate
//! is not certain is [`StoreError::Unknown`], never a failure and never a success. Calls block; the
//! runtime that drives the connections is private.
//!
//! Waiting is bounded by the size of what is moved, not by one fixed time: a pack on a slow line is
//! no failure, a connection that says nothing for a minute is one.

mod connect;
mod outcome;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use tokio::runtime::Runtime;

pub use connect::{Bucket, Service};
use outcome::{Heard, Reply};

use super::{ObjectInfo, Store, StoreError, check_path};

/// Ends what is neither silent nor comes to an end. Reads are watched part by part.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// A line slower than this many bytes a second is taken for a broken one.
const SLOWEST: u64 = 16 << 10;
/// Packs on their way at the same time: hides the time that a server takes to answer.
const PARALLEL_PUTS: usize = 2;
/// Room that is made for a reply before it comes.
const MOST_AT_ONCE: u64 = 32 << 20;
/// Threads that drive connections.
const DRIVERS: usize = 2;

/// A bucket, or a part of it.
pub struct BucketStore {
    inner: Arc<dyn ObjectStore>,
    /// Before every path; empty or ending with a slash.
    prefix: String,
    location: String,
    /// A connection that is silent for so long is given up.
    silence: Duration,
    runtime: Runtime,
}

impl BucketStore {
    /// The part of `bucket` below its prefix. Says nothing to the server yet.
    pub fn open(bucket: &Bucket) -> Result<Self, StoreError> {
        let inner = connect::connect(bucket)?;
        let store = Self::over(inner, &bucket.prefix, bucket.location.clone())?;
        Ok(Self { silence: bucket.silence, ..store })
    }

    /// A store over any implementation of [`ObjectStore`].
    pub fn over(
        inner: Arc<dyn ObjectStore>,
        prefix: &str,
        location: String,
    ) -> Result<Self, StoreError> {
        let prefix = match prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(DRIVERS)
            .thread_name("store")
            .enable_all()
            .build()
            .map_err(|source| outcome::failed("open", &location, source))?;
        Ok(Self { inner, prefix, location, silence: Bucket::SILENCE, runtime })
    }

    fn key(&self, action: &'static str, path: &str) -> Result<Path, StoreError> {
        Path::parse(format!("{}{path}", self.prefix))
            .map_err(|error| outcome::failed(action, path, io::Error::other(error)))
    }

    /// Runs a request and tells how it went, with what was heard of it on the wire.
    fn run<T>(
        &self,
        limit: Duration,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Reply> {
        let heard = Heard::default();
        self.runtime.block_on(outcome::listen(heard.clone(), async {
            match tokio::time::timeout(limit, request).await {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(error)) => Err(Reply::new(&heard, error)),
                Err(_) => Err(Reply::silent(&heard, limit)),
            }
        }))
    }

    fn fetch(&self, path: &str, range: Option<GetRange>) -> Result<Vec<u8>, StoreError> {
        let key = self.key("read", path)?;
        let limit = range.as_ref().map_or(u64::MAX, |range| match range {
            GetRange::Bounded(range) => range.end - range.start,
            _ => u64::MAX,
        });
        let request = async {
            let options = GetOptions::new().with_range(range);
            let found = self.heed(self.inner.get_opts(&key, options)).await?;
            let expected = found.range.end - found.range.start;
            // What the server says of the length is not believed before the bytes come.
            let mut bytes = Vec::with_capacity(expected.min(limit).min(MOST_AT_ONCE) as usize);
            let mut body = found.into_stream();
            while let Some(part) = self.heed(body.try_next()).await? {
                bytes.extend_from_slice(&part);
            }
            if bytes.len() as u64 == expected { Ok(bytes) } else { Err(cut_short()) }
        };
        self.run(LONGEST, request).map_err(|reply| reply.read("read", path))
    }

    /// Waits for the next that is heard of a request, unless the line is dead.
    async fn heed<T>(
        &self,
        next: impl Future<Output = object_store::Result<T>>,
    ) -> object_store::Result<T> {
        match tokio::time::timeout(self.silence, next).await {
            Ok(next) => next,
            Err(_) => Err(lost(io::Error::new(io::ErrorKind::TimedOut, "the server went silent"))),
        }
    }

    /// How long a request that moves so many bytes may take.
    fn patience(&self, bytes: u64) -> Duration {
        self.silence + Duration::from_secs(bytes / SLOWEST)
    }
}

fn cut_short() -> object_store::Error {
    lost(io::Error::new(io::ErrorKind::ConnectionAborted, "the reply was cut short"))
}

fn lost(source: io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "bucket", source: source.into() }
}

impl Store for BucketStore {
    fn put_new(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        check_path("put", path)?;
        let key = self.key("put", path)?;
        let payload = Bytes::copy_from_slice(bytes).into();
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        self.run(self.patience(bytes.len() as u64), self.inner.put_opts(&key, payload, options))
            .map(drop)
            .map_err(|reply| reply.put(path))
    }

    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        check_path("read", path)?;
        self.fetch(path, None)
    }

    fn get_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        check_path("read", path)?;
        if length == 0 {
            // There is no such range in HTTP; the object must be there all the same.
            let size = self.head(path)?;
            return if offset <= size { Ok(Vec::new()) } else { Err(short(path)) };
        }
        let end = offset.checked_add(length as u64).ok_or_else(|| short(path))?;
        let bytes = self.fetch(path, Some(GetRange::Bounded(offset..end)))?;
        // A range that begins inside and ends outside of the object comes back shorter.
        if bytes.len() == length { Ok(bytes) } else { Err(short(path)) }
    }

    fn head(&self, path: &str) -> Result<u64, StoreError> {
        check_path("stat", path)?;
        let key = self.key("stat", path)?;
        let found = self.run(self.patience(0), self.inner.head(&key));
        found.map(|found| found.size).map_err(|reply| reply.read("stat", path))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.list_after(prefix, "")
    }

    fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        if !prefix.is_empty() {
            check_path("list", prefix.trim_end_matches('/'))?;
        }
        let folder = self.key("list", prefix.trim_end_matches('/'))?;
        let request = async {
            let mut pages = match after {
                "" => self.inner.list(Some(&folder)),
                after => {
                    let after = Path::parse(format!("{}{after}", self.prefix))?;
                    self.inner.list_with_offset(Some(&folder), &after)
                }
            };
            let mut found = Vec::new();
            while let Some(object) = self.heed(pages.try_next()).await? {
                // What is not named as we name things is none of ours.
                if let Some(path) = object.location.as_ref().strip_prefix(&self.prefix)
                    && path.starts_with(prefix)
                {
                    found.push(ObjectInfo { path: path.to_owned(), size: object.size });
                }
            }
            Ok(found)
        };
        let listed = self.run(LONGEST, request);
        let mut found = listed.map_err(|reply| reply.list(prefix, &self.location))?;
        found.sort();
        Ok(found)
    }

    fn delete(&self, path: &str) -> Result<(), StoreError> {
        check_path("delete", path)?;
        // S3 says yes to the deletion of what is not there.
        self.head(path)?;
        let key = self.key("delete", path)?;
        self.run(self.patience(0), self.inner.delete(&key)).map_err(|reply| reply.delete(path))
    }

    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        check_path("replace", path)?;
        let key = self.key("replace", path)?;
        let payload = Bytes::copy_from_slice(bytes).into();
        let options = PutOptions { mode: PutMode::Overwrite, ..PutOptions::default() };
        self.run(self.patience(bytes.len() as u64), self.inner.put_opts(&key, payload, options))
            .map(drop)
            .map_err(|reply| reply.put(path))
    }

    fn parallel_puts(&self) -> usize {
        PARALLEL_PUTS
    }

    fn location(&self) -> String {
        self.location.clone()
    }
}

fn short(path: &str) -> StoreError {
    outcome::failed("read", path, io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[test]
    fn keeps_the_contract() {
        super::super::suite::conformance(&|| {
            let inner = Arc::new(InMemory::new());
            Box::new(BucketStore::over(inner, "a/prefix/", "memory".into()).unwrap())
        });
    }

    #[test]
    fn waits_as_long_as_the_size_asks_for() {
        let store = BucketStore::over(Arc::new(InMemory::new()), "", "memory".into()).unwrap();
        assert_eq!(store.patience(0), Bucket::SILENCE);
        assert!(store.patience(32 << 20) > Duration::from_secs(1800));
    }
}
