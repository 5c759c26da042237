//! Objects as files below a folder.
//!
//! An object is written to a temporary file in its own folder, synced, linked to its name (`link`
//! fails where the name is taken, also on NFS), and the folder is synced. A crash leaves either the
//! whole object or a temporary file that no listing shows.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use lru::LruCache;
use rustix::fs::{CWD, RenameFlags};

use super::{ObjectInfo, Store, StoreError, check_path};

/// A temporary file of this age belongs to nobody: no put takes so long.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// Ranges longer than this are compared with the size of the file before memory is taken for them.
const LARGE_READ: usize = 1 << 20;
const TEMPORARY: &str = ".tmp-";
/// Files kept open for range reads.
const OPEN_FILES: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

/// A folder of objects.
pub struct LocalStore {
    root: PathBuf,
    open: Mutex<LruCache<String, Arc<File>>>,
    /// Folders whose own names are known to be durable.
    durable: Mutex<HashSet<PathBuf>>,
}

impl LocalStore {
    /// The store in a folder that exists.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        let path = root.display().to_string();
        match fs::metadata(&root) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => {
                let source = io::Error::from(io::ErrorKind::NotADirectory);
                return Err(StoreError::Failed { action: "open", path, source });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::NotFound { path });
            }
            Err(source) => return Err(failure("open", &path, source)),
        }
        Ok(Self { root, open: Mutex::new(LruCache::new(OPEN_FILES)), durable: Mutex::default() })
    }

    /// The store in a folder that is made where it does not exist.
    pub fn create(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        create_folders(&root)
            .map_err(|source| failure("create", &root.display().to_string(), source))?;
        Self::open(root)
    }

    /// Removes temporary files that writers left when they were killed, if they are older than
    /// `age`. Returns how many.
    pub fn remove_stale_temporaries(&self, age: Duration) -> Result<usize, StoreError> {
        let mut removed = 0;
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            let at = |source| failure("list", &folder.display().to_string(), source);
            for entry in fs::read_dir(&folder).map_err(at)? {
                let entry = entry.map_err(at)?;
                let kind = entry.file_type().map_err(at)?;
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if is_temporary(&entry.file_name()) && is_older(&entry, age) {
                    match fs::remove_file(entry.path()) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => {
                            return Err(at(error));
                        }
                        _ => removed += 1,
                    }
                }
            }
        }
        Ok(removed)
    }

    /// Makes the names in `folder` durable, and once its own name and those of the folders above:
    /// another writer may have made them and not synced them yet.
    fn sync_up_to_root(&self, folder: &Path) -> io::Result<()> {
        sync_folder(folder)?;
        let mut above = folder;
        while above != self.root && !self.is_durable(above) {
            above = above.parent().unwrap_or(&self.root);
            sync_folder(above)?;
        }
        self.durable.lock().expect("no panics here").insert(folder.to_owned());
        Ok(())
    }

    fn is_durable(&self, folder: &Path) -> bool {
        self.durable.lock().expect("no panics here").contains(folder)
    }

    fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn opened(&self, path: &str) -> Result<Arc<File>, StoreError> {
        if let Some(file) = self.open.lock().expect("no panics here").get(path) {
            return Ok(file.clone());
        }
        check_path("read", path)?;
        let file = File::open(self.file(path)).map_err(|source| failure("read", path, source))?;
        let file = Arc::new(file);
        self.open.lock().expect("no panics here").put(path.to_owned(), file.clone());
        Ok(file)
    }
}

impl Store for LocalStore {
    fn put_new(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        check_path("put", path)?;
        let target = self.file(path);
        let folder = target.parent().expect("every object is below the root");
        let at = |source| failure("put", path, source);
        let temporary = match write_temporary(folder, bytes) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Never the root itself: where that is gone, a disk was unmounted.
                fs::metadata(&self.root).map_err(at)?;
                create_folders(folder).map_err(at)?;
                write_temporary(folder, bytes).map_err(at)?
            }
            other => other.map_err(at)?,
        };
        let linked = link_new(&temporary.0, &target);
        drop(temporary);
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Whoever takes this for success must be able to rely on it.
                self.sync_up_to_root(folder).map_err(at)?;
                return Err(StoreError::AlreadyExists { path: path.to_owned() });
            }
            Err(error) => return Err(at(error)),
            Ok(()) => {}
        }
        // From here on the object is there; only its durability can still fail.
        self.sync_up_to_root(folder)
            .map_err(|source| StoreError::Unknown { path: path.to_owned(), source })
    }

    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        check_path("read", path)?;
        fs::read(self.file(path)).map_err(|source| failure("read", path, source))
    }

    fn get_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        self.get_range_into(path, offset, length, &mut bytes)?;
        Ok(bytes)
    }

    fn get_range_into(
        &self,
        path: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let file = self.opened(path)?;
        if length > LARGE_READ {
            let size = file.metadata().map_err(|source| failure("read", path, source))?.len();
            if offset.saturating_add(length as u64) > size {
                return Err(failure("read", path, io::ErrorKind::UnexpectedEof.into()));
            }
        }
        out.resize(length, 0);
        file.read_exact_at(out, offset).map_err(|source| failure("read", path, source))
    }

    fn head(&self, path: &str) -> Result<u64, StoreError> {
        check_path("stat", path)?;
        let metadata = fs::metadata(self.file(path)).map_err(|e| failure("stat", path, e))?;
        Ok(metadata.len())
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        if !prefix.is_empty() {
            check_path("list", prefix.trim_end_matches('/'))?;
        }
        // A missing folder is an empty one, but a missing root is a disk that was unmounted.
        fs::metadata(&self.root).map_err(|source| failure("list", prefix, source))?;
        let mut found = Vec::new();
        let mut folders = vec![prefix.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(self.root.join(&folder)) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.is_empty() => {
                    continue;
                }
                Err(source) => return Err(failure("list", &folder, source)),
            };
            for entry in entries {
                list_entry(&folder, entry, &mut found, &mut folders)
                    .map_err(|source| failure("list", &folder, source))?;
            }
        }
        found.sort();
        Ok(found)
    }

    fn is_create_only(&self) -> bool {
        true
    }

    fn tidy(&self) -> Result<(), StoreError> {
        self.remove_stale_temporaries(STALE).map(drop)
    }

    fn delete(&self, path: &str) -> Result<(), StoreError> {
        check_path("delete", path)?;
        self.open.lock().expect("no panics here").pop(path);
        fs::remove_file(self.file(path)).map_err(|source| failure("delete", path, source))
    }

    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        check_path("replace", path)?;
        let target = self.file(path);
        let folder = target.parent().expect("every object is below the root");
        let at = |source| failure("replace", path, source);
        fs::metadata(&self.root).map_err(at)?;
        create_folders(folder).map_err(at)?;
        let temporary = write_temporary(folder, bytes).map_err(at)?;
        fs::rename(&temporary.0, &target).map_err(at)?;
        self.open.lock().expect("no panics here").pop(path);
        self.sync_up_to_root(folder)
            .map_err(|source| StoreError::Unknown { path: path.to_owned(), source })
    }

    fn location(&self) -> String {
        self.root.display().to_string()
    }
}

fn list_entry(
    folder: &str,
    entry: io::Result<fs::DirEntry>,
    found: &mut Vec<ObjectInfo>,
    folders: &mut Vec<String>,
) -> io::Result<()> {
    let entry = entry?;
    if is_temporary(&entry.file_name()) {
        return Ok(());
    }
    let path = format!("{folder}{}", entry.file_name().to_string_lossy());
    if entry.file_type()?.is_dir() {
        folders.push(format!("{path}/"));
        return Ok(());
    }
    match entry.metadata() {
        Ok(metadata) => found.push(ObjectInfo { path, size: metadata.len() }),
        // Deleted since the folder was read.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// A temporary file that is removed when this value goes.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn write_temporary(folder: &Path, bytes: &[u8]) -> io::Result<Temporary> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let nanoseconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let name = format!("{TEMPORARY}{}-{number}-{}", std::process::id(), nanoseconds.subsec_nanos());
    let path = folder.join(name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let temporary = Temporary(path);
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(temporary)
}

/// Gives a file its name unless the name is taken. File systems without hard links can rename
/// without replacing instead.
fn link_new(temporary: &Path, target: &Path) -> io::Result<()> {
    match fs::hard_link(temporary, target) {
        Err(error) if cannot_link(&error) => {
            rustix::fs::renameat_with(CWD, temporary, CWD, target, RenameFlags::NOREPLACE)?;
            Ok(())
        }
        other => other,
    }
}

fn cannot_link(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS, Errno::MLINK]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn create_folders(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_folders(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_folder(parent.unwrap_or(Path::new(".")))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn is_temporary(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes())
}

fn is_older(entry: &fs::DirEntry, age: Duration) -> bool {
    let modified = entry.metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|elapsed| elapsed >= age))
}

fn failure(action: &'static str, path: &str, source: io::Error) -> StoreError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => StoreError::NotFound { path },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StoreError::Full { path, source }
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            StoreError::Denied { action, path, source }
        }
        _ => StoreError::Failed { action, path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn store() -> (tempfile::TempDir, LocalStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::create(folder.path().join("a/b")).unwrap();
        (folder, store)
    }

    #[test]
    fn keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let counter = AtomicU64::new(0);
        super::super::suite::conformance(&|| {
            let number = counter.fetch_add(1, Ordering::Relaxed);
            Box::new(LocalStore::create(folder.path().join(number.to_string())).unwrap())
        });
    }

    #[test]
    fn files_are_private() {
        let (folder, store) = store();
        store.put_new("data/ab/x", b"1").unwrap();
        let mode =
            |path: &str| fs::metadata(folder.path().join(path)).unwrap().permissions().mode();
        assert_eq!(mode("a/b/data/ab/x") & 0o777, 0o600);
        assert_eq!(mode("a/b/data/ab") & 0o777, 0o700);
    }

    #[test]
    fn what_a_killed_writer_left_is_not_seen_and_can_be_removed() {
        let (folder, store) = store();
        store.put_new("data/ab/x", b"1").unwrap();
        fs::write(folder.path().join("a/b/data/ab/.tmp-1-2-3"), b"half").unwrap();
        assert_eq!(store.list("").unwrap().len(), 1);
        assert_eq!(store.remove_stale_temporaries(Duration::from_secs(60)).unwrap(), 0);
        assert_eq!(store.remove_stale_temporaries(Duration::ZERO).unwrap(), 1);
        assert_eq!(store.get("data/ab/x").unwrap(), b"1");
    }

    #[test]
    fn a_missing_folder_is_not_found_and_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none");
        assert!(matches!(LocalStore::open(&missing), Err(StoreError::NotFound { .. })));
        assert!(!missing.exists());
    }

    #[test]
    fn a_root_that_vanished_is_not_made_again() {
        let (folder, store) = store();
        store.put_new("data/ab/x", b"1").unwrap();
        fs::remove_dir_all(folder.path().join("a/b")).unwrap();
        assert!(matches!(store.put_new("data/ab/y", b"1"), Err(StoreError::NotFound { .. })));
        assert!(store.list("data/").is_err());
        assert!(!folder.path().join("a/b").exists());
    }

    #[test]
    fn a_monstrous_range_is_an_error() {
        let (_folder, store) = store();
        store.put_new("x", b"1").unwrap();
        assert!(store.get_range("x", 0, usize::MAX / 2).is_err());
        assert!(store.get_range("x", u64::MAX, 2 << 20).is_err());
    }

    #[test]
    fn a_read_only_file_system_is_named() {
        let store = LocalStore::open("/proc/self/fdinfo").unwrap();
        let error = store.put_new("x", b"1").unwrap_err();
        assert!(
            matches!(error, StoreError::Denied { .. } | StoreError::NotFound { .. }),
            "{error}"
        );
    }
}
