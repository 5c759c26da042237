//! Places below the target of a restore, reached without ever following a symbolic link.

use std::ffi::OsStr;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use lru::LruCache;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// Directories kept open.
const OPEN_DIRECTORIES: NonZeroUsize = NonZeroUsize::new(128).expect("not zero");

/// The target directory. Paths are relative to it; no part of one is ever followed as a link, so
/// nothing outside can be touched even while others change things inside.
pub struct Target {
    /// Nothing where it does not exist.
    root: Option<Arc<OwnedFd>>,
    open: Mutex<LruCache<Vec<u8>, Arc<OwnedFd>>>,
}

impl Target {
    /// Opens the target, which is made where it does not exist.
    pub fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Self::look(path)
    }

    /// Opens the target as it is, to find out what stands there.
    pub fn look(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let root = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(root) => Some(Arc::new(root)),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { root, open: Mutex::new(LruCache::new(OPEN_DIRECTORIES)) })
    }

    /// The directory at a path.
    pub fn directory(&self, path: &[u8]) -> io::Result<Arc<OwnedFd>> {
        if path.is_empty() {
            return self.root.clone().ok_or_else(|| Errno::NOENT.into());
        }
        if let Some(found) = self.open.lock().expect("no panics here").get(path) {
            return Ok(found.clone());
        }
        let (parent, name) = split(path);
        let parent = self.directory(parent)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = Arc::new(rustix::fs::openat(&parent, name, flags, Mode::empty())?);
        self.open.lock().expect("no panics here").put(path.to_vec(), found.clone());
        Ok(found)
    }

    /// The directory that a path is in, which is made where it is not there, and the name in it.
    /// `made` is told the directories that were made.
    pub fn made_parent<'p>(
        &self,
        path: &'p [u8],
        made: &mut dyn FnMut(&[u8]),
    ) -> io::Result<(Arc<OwnedFd>, &'p OsStr)> {
        match self.parent(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let (parent, name) = self.parent(&path[..at])?;
            match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
                Ok(()) => made(&path[..at]),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.parent(path)
    }

    /// The directory that a path is in, and its name there.
    pub fn parent<'p>(&self, path: &'p [u8]) -> io::Result<(Arc<OwnedFd>, &'p OsStr)> {
        let (parent, name) = split(path);
        Ok((self.directory(parent)?, name))
    }

    /// What stands at a path, links not followed.
    pub fn stat(&self, path: &[u8]) -> io::Result<Option<Stat>> {
        let (parent, name) = match self.parent(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes whatever stands at a path, with all that is in it.
    pub fn remove(&self, path: &[u8]) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        self.open.lock().expect("no panics here").clear();
        remove_at(&parent, name)
    }

    /// Removes what stands at a path, unless it is a directory with something in it.
    pub fn remove_one(&self, path: &[u8]) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        self.open.lock().expect("no panics here").clear();
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {
                Ok(rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?)
            }
            other => Ok(other?),
        }
    }

    /// Names in a directory.
    pub fn list(&self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        names(&*self.directory(path)?)
    }
}

fn split(path: &[u8]) -> (&[u8], &OsStr) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], OsStr::from_bytes(&path[at + 1..])),
        None => (b"", OsStr::from_bytes(path)),
    }
}

fn names(directory: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

fn remove_at(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?);
    }
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    for name in names(&directory)? {
        remove_at(&directory, OsStr::from_bytes(&name))?;
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("file"), b"x").unwrap();
        let target = Target::open(&folder.path().join("target")).unwrap();
        std::os::unix::fs::symlink(&outside, folder.path().join("target/link")).unwrap();
        assert!(target.directory(b"link").is_err());
        assert!(target.stat(b"link/file").is_err());
        let stat = target.stat(b"link").unwrap().unwrap();
        assert_eq!(FileType::from_raw_mode(stat.st_mode), FileType::Symlink);
        target.remove(b"link").unwrap();
        assert!(outside.join("file").exists());
        std::fs::create_dir_all(folder.path().join("target/a/b")).unwrap();
        std::os::unix::fs::symlink(&outside, folder.path().join("target/a/b/link")).unwrap();
        target.remove(b"a").unwrap();
        assert!(outside.join("file").exists() && target.stat(b"a").unwrap().is_none());
        assert!(target.stat(b"a/b").unwrap().is_none());
    }
}
