//! Objects as files on an SSH server, over SFTP.
//!
//! An object is written to a temporary file beside its place, made durable (`fsync@openssh.com`,
//! where the server has it), and linked to its name (`hardlink@openssh.com`): as with link(2) exactly
//! one of several writers gets the name. After that the file is made durable once more, which brings
//! the link with it on file systems with a journal; SFTP has no way to sync a directory. A server
//! without hard links is refused.

mod files;
mod line;

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::{StreamExt, TryStreamExt, stream};
use russh_sftp::client;
use russh_sftp::extensions::HardlinkExtension;
use russh_sftp::protocol::{FileAttributes, OpenFlags, Packet, StatusCode};
use tokio::runtime::Runtime;

use self::files::{is_temporary, make_folders, open_new, read_range, sync, write_all};
use self::line::{Fault, Line};
use super::{ObjectInfo, Store, StoreError, check_path};

/// Bytes of one request; every server takes so many.
const PART: usize = 32 << 10;
/// Requests on their way at the same time.
const WINDOW: usize = 64;
/// Folders that are listed at the same time.
const FOLDERS: usize = 16;
const TEMPORARY: &str = ".tmp-";
const POSIX_RENAME: &str = "posix-rename@openssh.com";
/// A temporary file of this age belongs to nobody, seconds.
const STALE_SECONDS: u32 = 24 * 3600;

/// A folder of an SSH server.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its name, or what the configuration of ssh calls it.
    pub host: String,
    /// Its port, where it is not what the configuration says.
    pub port: Option<u16>,
    /// The user, likewise.
    pub user: Option<String>,
    /// The folder; relative ones begin at the user's own.
    pub path: String,
    /// The ssh program and its options.
    pub program: Vec<String>,
    /// What the place is called in messages.
    pub location: String,
}

/// A store on an SSH server. The line is made when it is needed, and again when it broke.
pub struct SftpStore {
    server: Server,
    line: Mutex<Option<Arc<Line>>>,
    runtime: Runtime,
}

impl SftpStore {
    /// The store in a folder that exists.
    pub fn open(server: Server) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("sftp")
            .enable_all()
            .build();
        let runtime = runtime.map_err(|source| failed("open", &server.location, source))?;
        Ok(Self { server, line: Mutex::new(None), runtime })
    }

    /// Makes the folder and those above it, where they are missing.
    pub fn create_folder(&self) -> Result<(), StoreError> {
        let root = self.server.path.clone();
        self.run(
            "create",
            &self.server.location,
            |line| async move { make_folders(&line, &root).await },
        )
    }

    fn line(&self) -> Result<Arc<Line>, Fault> {
        let mut line = self.line.lock().expect("no panics here");
        if let Some(line) = &*line {
            return Ok(line.clone());
        }
        let opened = Arc::new(self.runtime.block_on(Line::open(&self.server))?);
        *line = Some(opened.clone());
        Ok(opened)
    }

    /// Runs a request; a line that broke in it is not used again.
    fn call<T, F: Future<Output = Result<T, Fault>>>(
        &self,
        request: impl FnOnce(Arc<Line>) -> F,
    ) -> Result<T, Fault> {
        let line = self.line()?;
        let result = self.runtime.block_on(request(line.clone()));
        if matches!(result, Err(Fault::Dead(_))) {
            let mut current = self.line.lock().expect("no panics here");
            if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &line)) {
                *current = None;
            }
        }
        result
    }

    fn run<T, F: Future<Output = Result<T, Fault>>>(
        &self,
        action: &'static str,
        path: &str,
        request: impl FnOnce(Arc<Line>) -> F,
    ) -> Result<T, StoreError> {
        self.call(request).map_err(|fault| told(action, path, fault))
    }

    fn file(&self, path: &str) -> String {
        format!("{}/{path}", self.server.path.trim_end_matches('/'))
    }

    /// Writes bytes to a new temporary file beside `target` and gives its name and handle.
    async fn write_temporary(
        &self,
        line: &Line,
        target: &str,
        bytes: &[u8],
    ) -> Result<(String, String), Fault> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let folder = target.rsplit_once('/').map_or("", |(folder, _)| folder);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let unique = blake3::hash(format!("{:?}", std::time::Instant::now()).as_bytes());
        let unique = &unique.to_hex()[..8];
        let name = format!("{folder}/{TEMPORARY}{}-{number}-{unique}", std::process::id());
        let handle = match open_new(line, &name).await {
            Err(Fault::Status(StatusCode::NoSuchFile, _)) => {
                // Never the root itself: where that is gone, a disk was unmounted.
                line.session.stat(self.server.path.as_str()).await?;
                make_folders(line, folder).await?;
                open_new(line, &name).await?
            }
            other => other?,
        };
        let written = write_all(line, &handle, bytes).await;
        if written.is_err() {
            let _ = line.session.close(handle.as_str()).await;
            let _ = line.session.remove(name.as_str()).await;
        }
        written.map(|()| (name, handle))
    }

    /// Gives a temporary file its name.
    async fn link(&self, line: &Line, from: &str, to: &str, path: &str) -> Result<(), StoreError> {
        let unknown = |source| StoreError::Unknown { path: path.to_owned(), source };
        match line.session.hardlink(from, to).await.map_err(Fault::from) {
            Ok(_) => Ok(()),
            Err(Fault::Dead(source)) => Err(unknown(source)),
            // The protocol has no word for "exists already".
            Err(Fault::Status(StatusCode::Failure, words)) => match line.session.lstat(to).await {
                Ok(_) => Err(StoreError::AlreadyExists { path: path.to_owned() }),
                Err(_) => Err(failed("put", path, io::Error::other(words))),
            },
            Err(fault) => Err(told("put", path, fault)),
        }
    }

    /// Puts a temporary file in the place of another one (`posix-rename@openssh.com`).
    async fn rename_over(&self, line: &Line, target: &str, bytes: &[u8]) -> Result<(), Fault> {
        let (name, handle) = self.write_temporary(line, target, bytes).await?;
        let synced = sync(line, &handle).await;
        let _ = line.session.close(handle.as_str()).await;
        // Both names, each with its length: laid out like those of a hard link.
        let names = HardlinkExtension { oldpath: name.clone(), newpath: target.to_owned() };
        let renamed = async {
            synced?;
            let data = names.try_into().map_err(client::error::Error::from)?;
            match line.session.extended(POSIX_RENAME, data).await? {
                Packet::Status(status) if status.status_code == StatusCode::Ok => Ok(()),
                Packet::Status(status) => {
                    Err(Fault::Status(status.status_code, status.error_message))
                }
                _ => Err(Fault::Status(StatusCode::OpUnsupported, "no such rename".into())),
            }
        };
        let renamed: Result<(), Fault> = renamed.await;
        if renamed.is_err() {
            let _ = line.session.remove(name.as_str()).await;
        }
        renamed
    }

    async fn put(&self, line: &Line, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let target = self.file(path);
        let written = self.write_temporary(line, &target, bytes).await;
        let (name, handle) = written.map_err(|fault| told("put", path, fault))?;
        let linked = self.link(line, &name, &target, path).await;
        // Whoever takes either answer for success must be able to rely on it.
        let durable = match &linked {
            Ok(()) => sync(line, &handle).await,
            Err(_) => Ok(()),
        };
        let _ = line.session.close(handle.as_str()).await;
        let _ = line.session.remove(name.as_str()).await;
        linked?;
        durable.map_err(|fault| match told("put", path, fault) {
            StoreError::Failed { source, .. } | StoreError::Denied { source, .. } => {
                StoreError::Unknown { path: path.to_owned(), source }
            }
            other => other,
        })
    }

    fn read(&self, path: &str, range: Option<(u64, usize)>) -> Result<Vec<u8>, StoreError> {
        check_path("read", path)?;
        let file = self.file(path);
        self.run("read", path, |line| async move {
            let flags = OpenFlags::READ;
            let handle = line.session.open(file, flags, FileAttributes::empty()).await?.handle;
            let result = read_range(&line, &handle, range).await;
            let _ = line.session.close(handle.as_str()).await;
            result
        })?
        .ok_or_else(|| failed("read", path, io::ErrorKind::UnexpectedEof.into()))
    }
}

impl Store for SftpStore {
    fn put_new(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        check_path("put", path)?;
        let result = self.call(|line| async move {
            match self.put(&line, path, bytes).await {
                // Told as it is, but the line is not used again.
                Err(error) if error.passes() => Ok((Err(error), true)),
                other => Ok((other, false)),
            }
        });
        let (result, is_dead) = result.map_err(|fault| told("put", path, fault))?;
        if is_dead {
            self.line.lock().expect("no panics here").take();
        }
        result
    }

    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.read(path, None)
    }

    fn get_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        self.read(path, Some((offset, length)))
    }

    fn head(&self, path: &str) -> Result<u64, StoreError> {
        check_path("stat", path)?;
        let file = self.file(path);
        self.run("stat", path, |line| async move { Ok(line.session.stat(file).await?.attrs.len()) })
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        if !prefix.is_empty() {
            check_path("list", prefix.trim_end_matches('/'))?;
        }
        let listed = self.run("list", prefix, |line| async move {
            // A missing folder is an empty one, but a missing root is a disk that was unmounted.
            line.session.stat(self.server.path.as_str()).await?;
            self.walk(&line, prefix).await
        })?;
        let mut found: Vec<_> = listed
            .into_iter()
            .filter(|(path, _)| !is_temporary(path))
            .map(|(path, attributes)| ObjectInfo { path, size: attributes.len() })
            .collect();
        found.sort();
        Ok(found)
    }

    fn delete(&self, path: &str) -> Result<(), StoreError> {
        check_path("delete", path)?;
        let file = self.file(path);
        self.run("delete", path, |line| async move {
            line.session.remove(file).await?;
            Ok(())
        })
    }

    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        check_path("replace", path)?;
        let target = self.file(path);
        self.run(
            "replace",
            path,
            |line| async move { self.rename_over(&line, &target, bytes).await },
        )
    }

    fn tidy(&self) -> Result<(), StoreError> {
        self.run("tidy", &self.server.location, |line| async move {
            let listed = self.walk(&line, "").await?;
            // What was touched last is as new as the clock of the server gets.
            let times = || listed.iter().filter_map(|(_, attributes)| attributes.mtime);
            let newest = times().max().unwrap_or(0);
            for (path, attributes) in &listed {
                let age = newest.saturating_sub(attributes.mtime.unwrap_or(newest));
                if is_temporary(path) && age > STALE_SECONDS {
                    let _ = line.session.remove(self.file(path)).await;
                }
            }
            Ok(())
        })
    }

    fn parallel_puts(&self) -> usize {
        2
    }

    fn location(&self) -> String {
        self.server.location.clone()
    }
}

type Listed = Vec<(String, FileAttributes)>;

impl SftpStore {
    /// All files below a folder, level by level.
    async fn walk(&self, line: &Line, prefix: &str) -> Result<Listed, Fault> {
        let mut found = Vec::new();
        let mut folders = vec![prefix.to_owned()];
        while !folders.is_empty() {
            let level = stream::iter(std::mem::take(&mut folders))
                .map(|folder| self.list_folder(line, folder))
                .buffer_unordered(FOLDERS)
                .try_collect::<Vec<_>>()
                .await?;
            for (path, attributes) in level.into_iter().flatten() {
                if attributes.is_dir() {
                    folders.push(format!("{path}/"));
                } else {
                    found.push((path, attributes));
                }
            }
        }
        Ok(found)
    }

    async fn list_folder(&self, line: &Line, folder: String) -> Result<Listed, Fault> {
        let path = self.file(&folder);
        let handle =
            match line.session.opendir(path.trim_end_matches('/')).await.map_err(Fault::from) {
                Ok(handle) => handle.handle,
                Err(Fault::Status(StatusCode::NoSuchFile, _)) => return Ok(Vec::new()),
                Err(fault) => return Err(fault),
            };
        let mut found = Vec::new();
        let end = loop {
            match line.session.readdir(handle.as_str()).await.map_err(Fault::from) {
                Ok(names) => {
                    let files = names.files.into_iter();
                    let files = files.filter(|file| !matches!(&file.filename[..], "." | ".."));
                    found.extend(
                        files.map(|file| (format!("{folder}{}", file.filename), file.attrs)),
                    );
                }
                Err(Fault::Status(StatusCode::Eof, _)) => break Ok(found),
                Err(fault) => break Err(fault),
            }
        };
        let _ = line.session.close(handle).await;
        end
    }
}

fn told(action: &'static str, path: &str, fault: Fault) -> StoreError {
    let path_owned = || path.to_owned();
    match fault {
        Fault::Status(StatusCode::NoSuchFile, _) => StoreError::NotFound { path: path_owned() },
        Fault::Status(StatusCode::PermissionDenied, words) => StoreError::Denied {
            action,
            path: path_owned(),
            source: io::Error::new(io::ErrorKind::PermissionDenied, words),
        },
        Fault::Status(code, words) => {
            failed(action, path, io::Error::other(format!("{words} ({code})")))
        }
        Fault::Dead(source) if source.kind() == io::ErrorKind::PermissionDenied => {
            StoreError::Denied { action, path: path_owned(), source }
        }
        Fault::Dead(source) => failed(action, path, source),
    }
}

fn failed(action: &'static str, path: &str, source: io::Error) -> StoreError {
    StoreError::Failed { action, path: path.to_owned(), source }
}
