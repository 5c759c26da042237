//! Giving restored files their owner, permissions, extended attributes and times.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Mutex;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::format::entry::{Entry, Kind, Moment, Owner};

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

/// What is given attributes.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    /// A name in a directory.
    Named(&'a OwnedFd, &'a OsStr),
    /// An open file or directory.
    Open(BorrowedFd<'a>),
}

impl Place<'_> {
    fn give(self, user: Option<Uid>, group: Option<Gid>) -> Result<(), Errno> {
        match self {
            Self::Named(directory, name) => {
                rustix::fs::chownat(directory, name, user, group, AtFlags::SYMLINK_NOFOLLOW)
            }
            Self::Open(file) => rustix::fs::fchown(file, user, group),
        }
    }

    fn set_mode(self, mode: Mode) -> Result<(), Errno> {
        match self {
            Self::Named(directory, name) => {
                rustix::fs::chmodat(directory, name, mode, AtFlags::empty())
            }
            Self::Open(file) => rustix::fs::fchmod(file, mode),
        }
    }

    fn set_times(self, times: &Timestamps) -> Result<(), Errno> {
        match self {
            Self::Named(directory, name) => {
                rustix::fs::utimensat(directory, name, times, AtFlags::SYMLINK_NOFOLLOW)
            }
            Self::Open(file) => rustix::fs::futimens(file, times),
        }
    }

    fn set_attribute(self, attribute: &[u8], value: &[u8]) -> Result<(), Errno> {
        let attribute = OsStr::from_bytes(attribute);
        match self {
            Self::Named(directory, name) => {
                // Not every system has `setxattrat`: the path goes through the descriptor.
                let descriptor = directory.as_fd().as_raw_fd();
                let folder = format!("/proc/self/fd/{descriptor}/");
                let path = [folder.as_bytes(), name.as_bytes()].concat();
                let path = OsStr::from_bytes(&path);
                rustix::fs::lsetxattr(path, attribute, value, XattrFlags::empty())
            }
            Self::Open(file) => rustix::fs::fsetxattr(file, attribute, value, XattrFlags::empty()),
        }
    }
}

/// Gives a file what its entry says. Returns what could not be given, which is a problem only for a
/// user who may give it.
pub fn apply(place: Place<'_>, entry: &Entry, owners: Option<&LocalOwners>) -> io::Result<()> {
    let is_link = matches!(entry.kind, Kind::Symlink { .. });
    if let Some(owners) = owners {
        let (user, group) = (owners.user(&entry.user), owners.group(&entry.group));
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        match place.give(Some(user), Some(group)) {
            // An ordinary user restores files as his own.
            Err(Errno::PERM) if !rustix::process::geteuid().is_root() => {
                let _ = place.give(None, Some(group));
            }
            other => other?,
        }
    }
    xattrs(place, entry)?;
    // After the owner, whose change takes set-id bits away. Links have no permissions.
    if !is_link {
        place.set_mode(Mode::from_raw_mode(entry.mode))?;
    }
    let times = Timestamps {
        last_access: timespec(entry.modified),
        last_modification: timespec(entry.modified),
    };
    Ok(place.set_times(&times)?)
}

fn xattrs(place: Place<'_>, entry: &Entry) -> io::Result<()> {
    for (attribute, value) in &entry.xattrs {
        match place.set_attribute(attribute, value) {
            Ok(()) => {}
            Err(Errno::PERM | Errno::ACCESS | Errno::NOTSUP)
                if !rustix::process::geteuid().is_root() || !attribute.starts_with(b"user.") =>
            {
                // Attributes of the system that this user or this file system cannot have.
            }
            Err(error) => {
                let attribute = String::from_utf8_lossy(attribute);
                return Err(io::Error::other(format!("attribute {attribute}: {error}")));
            }
        }
    }
    Ok(())
}

fn timespec(moment: Moment) -> Timespec {
    Timespec { tv_sec: moment.seconds, tv_nsec: moment.nanoseconds.into() }
}
