//! The file system in the kernel's terms, by the `fuser` crate.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
    SessionACL,
};

use super::fs::{Attributes, Child, MountFs};
use crate::error::Error;
use crate::format::entry::{Entry, Kind, Moment};

/// Files never change; the lists of snapshots do.
const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_secs(1);
/// Threads that answer the kernel.
const THREADS: usize = 4;
/// What the kernel may read at once, in bytes.
const LARGEST_READ: u32 = 1 << 20;

/// Mounts a file system until the session is dropped. `log` gets one line for each thing that
/// cannot be read.
pub fn mount(
    fs: &'static MountFs<'static>,
    place: &Path,
    allow_other: bool,
    log: fn(&str),
) -> std::io::Result<BackgroundSession> {
    for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
        std::thread::spawn(|| fs.contents().decode_ahead());
    }
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::RO,
        MountOption::FSName("restow".to_owned()),
        MountOption::Subtype("restow".to_owned()),
        MountOption::NoAtime,
        MountOption::DefaultPermissions,
    ];
    config.acl = if allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(THREADS);
    let adapter = Adapter {
        fs,
        log,
        next: AtomicU64::new(1),
        directories: Mutex::default(),
        files: Mutex::default(),
        told: Mutex::default(),
    };
    fuser::spawn_mount2(adapter, place, &config)
}

struct Adapter {
    fs: &'static MountFs<'static>,
    log: fn(&str),
    next: AtomicU64,
    /// Listings of open directories.
    directories: Mutex<HashMap<u64, std::sync::Arc<Vec<Child>>>>,
    /// Where the last read of each open file ended: one that goes on there is read ahead.
    files: Mutex<HashMap<u64, u64>>,
    /// What was logged already.
    told: Mutex<std::collections::HashSet<String>>,
}

impl Adapter {
    fn failed(&self, what: &str, error: &Error) -> Errno {
        let text = format!("{what}: {error}");
        let mut told = self.told.lock().expect("no panics here");
        // A bound on memory; a line may come twice after so many.
        if told.len() > 10_000 {
            told.clear();
        }
        if told.insert(text.clone()) {
            (self.log)(&text);
        }
        Errno::EIO
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Few big reads instead of many small ones; a kernel that allows less says how much.
        for set in [KernelConfig::set_max_write, KernelConfig::set_max_readahead] {
            if let Err(most) = set(config, LARGEST_READ) {
                let _ = set(config, most);
            }
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.fs.look_up(parent.0, name.as_bytes()) {
            Ok(Some(found)) => reply.entry(&lifetime(&found), &attr(&found), Generation(0)),
            Ok(None) => reply.error(Errno::ENOENT),
            Err(error) => reply.error(self.failed(&name.to_string_lossy(), &error)),
        }
    }

    fn forget(&self, _: &Request, number: INodeNo, count: u64) {
        self.fs.forget(number.0, count);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.fs.attributes(number.0) {
            Ok(Some(found)) => reply.attr(&lifetime(&found), &attr(&found)),
            Ok(None) => reply.error(Errno::ENOENT),
            Err(error) => reply.error(self.failed("attributes", &error)),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        match self.fs.attributes(number.0).ok().flatten().map(|found| found.entry) {
            Some(entry) => match &entry.kind {
                Kind::Symlink { target } => reply.data(target),
                _ => reply.error(Errno::EINVAL),
            },
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        self.files.lock().expect("no panics here").insert(handle, 0);
        reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(found) = self.fs.attributes(number.0).ok().flatten() else {
            return reply.error(Errno::ENOENT);
        };
        let Kind::File { size, content } = found.entry.kind else {
            return reply.error(Errno::EINVAL);
        };
        let end = offset + u64::from(length);
        let last = self.files.lock().expect("no panics here").insert(handle.0, end);
        // The kernel's own reads ahead may come a little out of order.
        let ahead = last.is_some_and(|last| last.abs_diff(offset) <= 4 << 20);
        match self.fs.contents().read(size, &content, offset, length as usize, ahead) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => {
                let what = format!("bytes {offset} to {end} of {}", found.entry_name());
                reply.error(self.failed(&what, &error));
            }
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.files.lock().expect("no panics here").remove(&handle.0);
        reply.ok();
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.fs.list(number.0) {
            Ok(children) => {
                let handle = self.next.fetch_add(1, Ordering::Relaxed);
                let children = std::sync::Arc::new(children);
                self.directories.lock().expect("no panics here").insert(handle, children);
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(error) => reply.error(self.failed("directory", &error)),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let children = self.directories.lock().expect("no panics here").get(&handle.0).cloned();
        let Some(children) = children else { return reply.error(Errno::EBADF) };
        let dots = [(&b"."[..], "dir"), (&b".."[..], "dir")];
        let all = dots.into_iter().chain(children.iter().map(|c| (c.name.as_slice(), c.kind)));
        for (at, (name, kind)) in all.enumerate().skip(offset as usize) {
            // The kernel looks each up before it uses it: the number here is never taken.
            let full = reply.add(number, at as u64 + 1, file_type(kind), OsStr::from_bytes(name));
            if full {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.directories.lock().expect("no panics here").remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(0, 0, 0, 0, 0, 4096, 255, 4096);
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let entry = self.fs.attributes(number.0).ok().flatten().map(|found| found.entry);
        let value = entry.as_ref().and_then(|entry| {
            entry.xattrs.iter().find(|(known, _)| known == name.as_bytes()).map(|(_, value)| value)
        });
        match value {
            Some(value) => sized(value, size, reply),
            None => reply.error(Errno::ENODATA),
        }
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let entry = self.fs.attributes(number.0).ok().flatten().map(|found| found.entry);
        let mut names = Vec::new();
        for (name, _) in entry.iter().flat_map(|entry| &entry.xattrs) {
            names.extend_from_slice(name);
            names.push(0);
        }
        sized(&names, size, reply);
    }
}

impl Attributes {
    fn entry_name(&self) -> String {
        match self.entry.name.as_slice() {
            b"" => "a stream".to_owned(),
            name => String::from_utf8_lossy(name).into_owned(),
        }
    }
}

fn sized(value: &[u8], size: u32, reply: ReplyXattr) {
    match size as usize {
        0 => reply.size(value.len() as u32),
        room if room < value.len() => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}

/// How long the kernel may remember: what has an owner's name or bytes is of a snapshot.
fn lifetime(found: &Attributes) -> Duration {
    let is_listing = found.entry.modified == Moment::default() || found.number == super::fs::ROOT;
    if is_listing { SHORT } else { LONG }
}

fn attr(found: &Attributes) -> FileAttr {
    let entry: &Entry = &found.entry;
    let size = match &entry.kind {
        Kind::Symlink { target } => target.len() as u64,
        _ => entry.size(),
    };
    let device = match entry.kind {
        Kind::BlockDevice { device } | Kind::CharDevice { device } => device as u32,
        _ => 0,
    };
    let modified = system_time(entry.modified);
    FileAttr {
        ino: INodeNo(found.number),
        size,
        blocks: size.div_ceil(512),
        atime: modified,
        mtime: modified,
        ctime: modified,
        crtime: modified,
        kind: file_type(entry.kind.word()),
        perm: entry.mode as u16,
        nlink: u32::try_from(entry.links).unwrap_or(u32::MAX).max(1),
        uid: entry.user.id,
        gid: entry.group.id,
        rdev: device,
        blksize: 1 << 17,
        flags: 0,
    }
}

fn file_type(word: &str) -> FileType {
    match word {
        "dir" => FileType::Directory,
        "symlink" => FileType::Symlink,
        "fifo" => FileType::NamedPipe,
        "socket" => FileType::Socket,
        "block" => FileType::BlockDevice,
        "char" => FileType::CharDevice,
        _ => FileType::RegularFile,
    }
}

fn system_time(moment: Moment) -> SystemTime {
    let whole = Duration::from_secs(moment.seconds.unsigned_abs());
    let part = Duration::from_nanos(moment.nanoseconds.into());
    let time = if moment.seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    time.and_then(|time| time.checked_add(part)).unwrap_or(UNIX_EPOCH)
}
