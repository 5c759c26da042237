//! Giving restored files their owner, permissions, extended attributes and times.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Mutex;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::format::entry::{Entry, Kind, Moment, Owner};
use crate::source::walk::xattr_names;

/// Finds out who owns what here: by name where that name is known on this machine, else by number.
#[derive(Default)]
pub struct LocalOwners {
    users: Mutex<HashMap<Known, u32>>,
    groups: Mutex<HashMap<Known, u32>>,
}

type Known = (u32, Vec<u8>);

impl LocalOwners {
    fn user(&self, owner: &Owner) -> u32 {
        resolved(&self.users, owner, || {
            uzers::get_user_by_name(OsStr::from_bytes(&owner.name)).map(|user| user.uid())
        })
    }

    fn group(&self, owner: &Owner) -> u32 {
        resolved(&self.groups, owner, || {
            uzers::get_group_by_name(OsStr::from_bytes(&owner.name)).map(|group| group.gid())
        })
    }
}

fn resolved(
    known: &Mutex<HashMap<Known, u32>>,
    owner: &Owner,
    find: impl FnOnce() -> Option<u32>,
) -> u32 {
    if owner.name.is_empty() {
        return owner.id;
    }
    let mut known = known.lock().expect("no panics here");
    *known.entry((owner.id, owner.name.clone())).or_insert_with(|| find().unwrap_or(owner.id))
}

/// Opens what stands at a name, of whatever kind, only to change its attributes. Where something
/// of another kind came there meanwhile, it is left alone.
pub fn open(directory: &OwnedFd, name: &OsStr, entry: &Entry) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    let kind = match entry.kind {
        Kind::File { .. } => FileType::RegularFile,
        Kind::Directory { .. } => FileType::Directory,
        Kind::Symlink { .. } => FileType::Symlink,
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
        Kind::BlockDevice { .. } => FileType::BlockDevice,
        Kind::CharDevice { .. } => FileType::CharacterDevice,
    };
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) == kind {
        return Ok(file);
    }
    Err(io::Error::other("was replaced while it was restored"))
}

/// Gives a file what its entry says, through a descriptor, so that nothing else can come in its
/// place. Gives all that can be given, and returns the first thing that could not be, which is a
/// problem only for a user who may give it.
pub fn apply(file: BorrowedFd<'_>, entry: &Entry, owners: Option<&LocalOwners>) -> io::Result<()> {
    // Descriptors of links, devices and unreadable files take no calls; their paths do.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let is_root = rustix::process::geteuid().is_root();
    let mut lost = Ok(());
    let mut note = |result: io::Result<()>| {
        if lost.is_ok() {
            lost = result;
        }
    };
    let mut expected = (entry.user.id, entry.group.id);
    if let Some(owners) = owners {
        expected = (owners.user(&entry.user), owners.group(&entry.group));
        let (user, group) = (Uid::from_raw(expected.0), Gid::from_raw(expected.1));
        let give = |user, group| rustix::fs::chownat(file, "", user, group, AtFlags::EMPTY_PATH);
        match give(Some(user), Some(group)) {
            // An ordinary user restores files as his own.
            Err(Errno::PERM) if !is_root => {
                let _ = give(None, Some(group));
            }
            other => note(other.map_err(|error| io::Error::other(format!("owner: {error}")))),
        }
    }
    note(xattrs(file, &path, entry, is_root));
    // After the owner, whose change takes set-id bits away. Links have no permissions.
    if !matches!(entry.kind, Kind::Symlink { .. }) {
        note(safe_mode(file, entry, expected).and_then(|mode| set_mode(file, &path, mode)));
    }
    let times = Timestamps {
        last_access: timespec(entry.modified),
        last_modification: timespec(entry.modified),
    };
    note(match rustix::fs::futimens(file, &times) {
        Err(Errno::BADF) => {
            rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()).map_err(Into::into)
        }
        other => other.map_err(Into::into),
    });
    lost
}

fn set_mode(file: BorrowedFd<'_>, path: &str, mode: Mode) -> io::Result<()> {
    match rustix::fs::fchmod(file, mode) {
        Err(Errno::BADF) => Ok(rustix::fs::chmod(path, mode)?),
        other => Ok(other?),
    }
}

/// Sets the permissions of what an `O_PATH` descriptor stands for.
pub fn change_mode(file: BorrowedFd<'_>, mode: Mode) -> io::Result<()> {
    set_mode(file, &format!("/proc/self/fd/{}", file.as_raw_fd()), mode)
}

/// The permissions; without set-id bits where the file is somebody else's now.
fn safe_mode(file: BorrowedFd<'_>, entry: &Entry, expected: (u32, u32)) -> io::Result<Mode> {
    const SET_ID: u32 = 0o6000;
    // Those of directories only say what new files in them belong to.
    let mut mode = entry.mode;
    if mode & SET_ID != 0 && !matches!(entry.kind, Kind::Directory { .. }) {
        let stat = rustix::fs::fstat(file)?;
        if (stat.st_uid, stat.st_gid) != expected {
            mode &= !SET_ID;
        }
    }
    Ok(Mode::from_raw_mode(mode))
}

/// Sets the extended attributes and removes others that users set: an inherited ACL must not let
/// anybody in.
fn xattrs(file: BorrowedFd<'_>, path: &str, entry: &Entry, is_root: bool) -> io::Result<()> {
    let named = |attribute: &[u8], error: Errno| {
        let attribute = String::from_utf8_lossy(attribute);
        io::Error::other(format!("attribute {attribute}: {error}"))
    };
    let mut lost = Ok(());
    let present = xattr_names(|room| match rustix::fs::flistxattr(file, &mut *room) {
        Err(Errno::BADF) => rustix::fs::listxattr(path, room),
        other => other,
    })?;
    for attribute in &present {
        let is_set_by_users =
            [&b"user."[..], b"system.posix_acl_"].iter().any(|start| attribute.starts_with(start));
        let is_kept = entry.xattrs.iter().any(|(kept, _)| kept == attribute);
        if is_set_by_users && !is_kept {
            let removed = rustix::fs::removexattr(path, OsStr::from_bytes(attribute));
            lost = lost.and(removed.map_err(|error| named(attribute, error)));
        }
    }
    for (attribute, value) in &entry.xattrs {
        let name = OsStr::from_bytes(attribute);
        let mut room = vec![0; value.len() + 1];
        let is_same = present.contains(attribute)
            && rustix::fs::getxattr(path, name, &mut room[..]) == Ok(value.len())
            && room[..value.len()] == value[..];
        if is_same {
            continue;
        }
        let set = || rustix::fs::setxattr(path, name, value, XattrFlags::empty());
        let result = match set() {
            // The owner may, once the file can be written; its permissions come afterwards.
            Err(Errno::ACCESS) if !is_root => {
                let _ = set_mode(file, path, Mode::RWXU);
                set()
            }
            other => other,
        };
        match result {
            Ok(()) => {}
            // Attributes of the system that are not for ordinary users to give.
            Err(Errno::PERM | Errno::ACCESS)
                if !is_root
                    && !attribute.starts_with(b"user.")
                    && !attribute.starts_with(b"system.") => {}
            Err(error) => lost = lost.and(Err(named(attribute, error))),
        }
    }
    lost
}

fn timespec(moment: Moment) -> Timespec {
    Timespec { tv_sec: moment.seconds, tv_nsec: moment.nanoseconds.into() }
}
