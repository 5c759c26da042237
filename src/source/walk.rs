//! Reading directories and everything about a file but its bytes. Never follows a symbolic link.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Mutex;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::format::entry::{Content, Entry, Kind, Moment, Owner, is_name};
use crate::id::ChunkId;

/// Names of users and groups, each looked up once.
#[derive(Default)]
pub struct OwnerNames {
    users: Mutex<HashMap<u32, Vec<u8>>>,
    groups: Mutex<HashMap<u32, Vec<u8>>>,
}

impl OwnerNames {
    fn user(&self, id: u32) -> Owner {
        let find = || uzers::get_user_by_uid(id).map(|user| user.name().as_bytes().to_vec());
        Owner { id, name: remembered(&self.users, id, find) }
    }

    fn group(&self, id: u32) -> Owner {
        let find = || uzers::get_group_by_gid(id).map(|group| group.name().as_bytes().to_vec());
        Owner { id, name: remembered(&self.groups, id, find) }
    }
}

fn remembered(
    known: &Mutex<HashMap<u32, Vec<u8>>>,
    id: u32,
    find: impl FnOnce() -> Option<Vec<u8>>,
) -> Vec<u8> {
    let mut known = known.lock().expect("no panics here");
    known.entry(id).or_insert_with(|| find().unwrap_or_default()).clone()
}

/// The names in a directory, sorted by their bytes.
pub fn list(directory: &Path) -> io::Result<Vec<OsString>> {
    let entries = std::fs::read_dir(directory)?;
    let mut names = entries
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    Ok(names)
}

/// Everything about a file but its content, which is left empty, as is a directory's tree.
pub fn read_entry(path: &Path, name: &OsStr, owners: &OwnerNames) -> io::Result<Entry> {
    if !is_name(name.as_bytes()) {
        return Err(io::Error::other("is no name"));
    }
    let metadata = std::fs::symlink_metadata(path)?;
    let file_type = metadata.file_type();
    let kind = if file_type.is_file() {
        Kind::File { size: metadata.len(), content: Content::Empty }
    } else if file_type.is_dir() {
        Kind::Directory { tree: ChunkId([0; 32]), is_whole: true }
    } else if file_type.is_symlink() {
        Kind::Symlink { target: std::fs::read_link(path)?.into_os_string().into_vec() }
    } else if file_type.is_fifo() {
        Kind::Fifo
    } else if file_type.is_socket() {
        Kind::Socket
    } else if file_type.is_block_device() {
        Kind::BlockDevice { device: metadata.rdev() }
    } else {
        Kind::CharDevice { device: metadata.rdev() }
    };
    let moment = |seconds: i64, nanoseconds: i64| Moment {
        seconds,
        nanoseconds: nanoseconds.clamp(0, 999_999_999) as u32,
    };
    Ok(Entry {
        name: name.as_bytes().to_vec(),
        kind,
        mode: metadata.mode() & 0o7777,
        user: owners.user(metadata.uid()),
        group: owners.group(metadata.gid()),
        modified: moment(metadata.mtime(), metadata.mtime_nsec()),
        changed: moment(metadata.ctime(), metadata.ctime_nsec()),
        device: metadata.dev(),
        inode: metadata.ino(),
        links: metadata.nlink(),
        xattrs: xattrs(path)?,
    })
}

/// Extended attributes by name; none where the file system has none or hides them.
pub fn xattrs(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut room = vec![0; 1024];
    let mut found = Vec::new();
    for name in xattr_names(|room| rustix::fs::llistxattr(path, room))? {
        if let Some(value) = xattr(path, &name, &mut room)? {
            found.push((name, value));
        }
    }
    found.sort();
    Ok(found)
}

/// The names that `list` gives.
pub fn xattr_names(list: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> io::Result<Vec<Vec<u8>>> {
    let mut room = vec![0; 1024];
    let names = loop {
        match list(&mut room) {
            Ok(count) => break &room[..count],
            Err(Errno::RANGE) if room.len() < 1 << 20 => room.resize(room.len() * 4, 0),
            Err(Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
    };
    let names = names.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_vec).collect())
}

fn xattr(path: &Path, name: &[u8], room: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    loop {
        match rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut room[..]) {
            Ok(count) => return Ok(Some(room[..count].to_vec())),
            Err(Errno::RANGE) if room.len() < 1 << 20 => room.resize(room.len() * 4, 0),
            // Removed since it was listed, or not for us to see.
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS | Errno::NOTSUP) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Time of the last change of the content, and size.
pub type Fingerprint = (Moment, u64);

/// Opens a regular file for reading. A path that has become something else is an error, never
/// followed and never waited for. With it comes its [`fingerprint`].
pub fn open(path: &Path) -> io::Result<(File, Fingerprint)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags | OFlags::NOATIME, Mode::empty()) {
        // Only the owner may leave the access time alone.
        Err(Errno::PERM) => rustix::fs::open(path, flags, Mode::empty()),
        other => other,
    };
    let file = File::from(file?);
    let stat = rustix::fs::fstat(&file)?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(io::Error::other("is no regular file any more"));
    }
    Ok((file, fingerprint_of(&stat)))
}

/// Modification time and size of an open file: what tells whether it changed meanwhile.
pub fn fingerprint(file: &File) -> io::Result<Fingerprint> {
    Ok(fingerprint_of(&rustix::fs::fstat(file)?))
}

fn fingerprint_of(stat: &Stat) -> Fingerprint {
    let nanoseconds = stat.st_mtime_nsec.min(999_999_999) as u32;
    (Moment { seconds: stat.st_mtime, nanoseconds }, stat.st_size as u64)
}

/// Whether a file has holes.
pub fn is_sparse(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.blocks() * 512 < metadata.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_what_the_system_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, b"1234").unwrap();
        let entry = read_entry(&path, OsStr::new("f"), &OwnerNames::default()).unwrap();
        assert_eq!((entry.size(), entry.links), (4, 1));
        assert!(entry.modified.seconds > 1_700_000_000);
        std::os::unix::fs::symlink("nowhere", folder.path().join("l")).unwrap();
        let link = read_entry(&folder.path().join("l"), OsStr::new("l"), &OwnerNames::default());
        assert_eq!(link.unwrap().kind, Kind::Symlink { target: b"nowhere".to_vec() });
        assert_eq!(list(folder.path()).unwrap(), ["f", "l"]);
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        assert!(open(&fifo).is_err());
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("l")).unwrap();
        assert!(open(&folder.path().join("l")).is_err());
    }
}
