//! Entries of directories: everything that is kept of a file, canonical byte for byte.

use super::FormatError;
use super::codec::{Decoder, Encoder};
use crate::id::ChunkId;

/// A moment: whole seconds since 1970, negative before, and nanoseconds after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment {
    /// Seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// Nanoseconds, less than 10^9.
    pub nanoseconds: u32,
}

impl Moment {
    /// The moment as a time of the calendar, where there is one.
    pub fn timestamp(self) -> Option<jiff::Timestamp> {
        jiff::Timestamp::new(self.seconds, self.nanoseconds as i32).ok()
    }
}

/// Where the bytes of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// The file is empty.
    Empty,
    /// They are one chunk.
    Chunk(ChunkId),
    /// They are the chunks of a recipe.
    Recipe {
        /// Its root.
        root: ChunkId,
        /// How many chunks.
        chunks: u64,
    },
}

/// What kind of file an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Bytes in it.
        size: u64,
        /// The bytes.
        content: Content,
    },
    /// A directory.
    Directory {
        /// Its tree.
        tree: ChunkId,
        /// Whether everything in it is in the tree: nothing was left out, nothing failed.
        is_whole: bool,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points, any bytes.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A block device.
    BlockDevice {
        /// Major and minor number as the system packs them.
        device: u64,
    },
    /// A character device.
    CharDevice {
        /// Major and minor number as the system packs them.
        device: u64,
    },
}

/// A user or group: by number, and by name where it had one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owner {
    /// The number.
    pub id: u32,
    /// The name; empty where there was none.
    pub name: Vec<u8>,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name: no slash, no NUL, not empty, not `.` or `..`.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permissions: the twelve low bits of the mode.
    pub mode: u32,
    /// Its user.
    pub user: Owner,
    /// Its group.
    pub group: Owner,
    /// When its content changed last.
    pub modified: Moment,
    /// When anything of it changed last, by the system's own clock. Zero where the file was read
    /// so soon after that a later change could bear the same time: it is then read again.
    pub changed: Moment,
    /// Number of the device it was on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// How many names it had.
    pub links: u64,
    /// Extended attributes, ACLs among them, by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// Bytes of a regular file; 0 for everything else.
    pub fn size(&self) -> u64 {
        match self.kind {
            Kind::File { size, .. } => size,
            _ => 0,
        }
    }

    /// Whether this is another name of a file that has several, directories aside.
    pub fn is_hard_link(&self) -> bool {
        self.links > 1 && !matches!(self.kind, Kind::Directory { .. })
    }

    /// Appends the entry's encoding.
    pub fn encode(&self, encoder: &mut Encoder) {
        encoder.counted(&self.name).byte(self.kind.code()).number(self.mode.into());
        for owner in [&self.user, &self.group] {
            encoder.number(owner.id.into()).counted(&owner.name);
        }
        for moment in [self.modified, self.changed] {
            encoder.number(zigzag(moment.seconds)).number(moment.nanoseconds.into());
        }
        encoder.number(self.device).number(self.inode).number(self.links);
        encoder.number(self.xattrs.len() as u64);
        for (name, value) in &self.xattrs {
            encoder.counted(name).counted(value);
        }
        match &self.kind {
            Kind::File { size, content } => encode_content(encoder, *size, content),
            Kind::Directory { tree, .. } => drop(encoder.fixed(tree.as_bytes())),
            Kind::Symlink { target } => drop(encoder.counted(target)),
            Kind::BlockDevice { device } | Kind::CharDevice { device } => {
                encoder.number(*device);
            }
            Kind::Fifo | Kind::Socket => {}
        }
    }

    /// Decodes the next entry.
    pub fn decode(decoder: &mut Decoder) -> Result<Self, FormatError> {
        let name = decoder.counted("entry name")?.to_vec();
        if !is_name(&name) {
            return Err(FormatError::Invalid("entry name"));
        }
        let code = decoder.byte("entry kind")?;
        let mode = decoder.bounded(0o7777, "entry mode")? as u32;
        let (user, group) = (decode_owner(decoder)?, decode_owner(decoder)?);
        let (modified, changed) = (decode_moment(decoder)?, decode_moment(decoder)?);
        let device = decoder.number("entry device")?;
        let inode = decoder.number("entry inode")?;
        let links = decoder.number("entry links")?;
        let count = decoder.count(2, "attribute count")?;
        let mut xattrs = Vec::with_capacity(count.min(64));
        for _ in 0..count {
            let name = decoder.counted("attribute name")?.to_vec();
            xattrs.push((name, decoder.counted("attribute value")?.to_vec()));
        }
        if !xattrs.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(FormatError::Invalid("order of attributes"));
        }
        let kind = decode_kind(decoder, code)?;
        let entry =
            Self { name, kind, mode, user, group, modified, changed, device, inode, links, xattrs };
        Ok(entry)
    }
}

impl Kind {
    fn code(&self) -> u8 {
        match self {
            Self::File { .. } => 0,
            Self::Directory { is_whole, .. } => {
                if *is_whole {
                    1
                } else {
                    7
                }
            }
            Self::Symlink { .. } => 2,
            Self::Fifo => 3,
            Self::Socket => 4,
            Self::BlockDevice { .. } => 5,
            Self::CharDevice { .. } => 6,
        }
    }

    /// What it is called in listings and JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Directory { .. } => "dir",
            Self::Symlink { .. } => "symlink",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::BlockDevice { .. } => "block",
            Self::CharDevice { .. } => "char",
        }
    }

    /// The first letter of a long listing.
    pub fn letter(&self) -> char {
        ['-', 'd', 'l', 'p', 's', 'b', 'c', 'd'][usize::from(self.code())]
    }
}

/// Whether bytes can be the name of a directory entry.
pub fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0)
}

fn encode_content(encoder: &mut Encoder, size: u64, content: &Content) {
    encoder.number(size);
    match content {
        Content::Empty => drop(encoder.byte(0)),
        Content::Chunk(id) => drop(encoder.byte(1).fixed(id.as_bytes())),
        Content::Recipe { root, chunks } => {
            encoder.byte(2).fixed(root.as_bytes()).number(*chunks);
        }
    }
}

fn decode_kind(decoder: &mut Decoder, code: u8) -> Result<Kind, FormatError> {
    Ok(match code {
        0 => {
            let size = decoder.bounded(1 << 62, "file size")?;
            let content = match decoder.byte("file content")? {
                0 if size == 0 => Content::Empty,
                1 => Content::Chunk(ChunkId(decoder.fixed("file chunk")?)),
                2 => Content::Recipe {
                    root: ChunkId(decoder.fixed("file recipe")?),
                    chunks: decoder.bounded(1 << 62, "file chunks")?,
                },
                _ => return Err(FormatError::Invalid("file content")),
            };
            Kind::File { size, content }
        }
        1 | 7 => {
            Kind::Directory { tree: ChunkId(decoder.fixed("subdirectory")?), is_whole: code == 1 }
        }
        2 => Kind::Symlink { target: decoder.counted("link target")?.to_vec() },
        3 => Kind::Fifo,
        4 => Kind::Socket,
        5 => Kind::BlockDevice { device: decoder.number("device number")? },
        6 => Kind::CharDevice { device: decoder.number("device number")? },
        _ => return Err(FormatError::Invalid("entry kind")),
    })
}

fn decode_owner(decoder: &mut Decoder) -> Result<Owner, FormatError> {
    let id = decoder.bounded(u32::MAX.into(), "owner")? as u32;
    Ok(Owner { id, name: decoder.counted("owner name")?.to_vec() })
}

fn decode_moment(decoder: &mut Decoder) -> Result<Moment, FormatError> {
    let seconds = unzigzag(decoder.number("time")?);
    Ok(Moment { seconds, nanoseconds: decoder.bounded(999_999_999, "nanoseconds")? as u32 })
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn file(name: &str, size: u64) -> Entry {
        let content = match size {
            0 => Content::Empty,
            _ => Content::Chunk(ChunkId([size as u8; 32])),
        };
        Entry {
            name: name.as_bytes().to_vec(),
            kind: Kind::File { size, content },
            mode: 0o644,
            user: Owner { id: 0, name: b"root".to_vec() },
            group: Owner { id: 7, name: Vec::new() },
            modified: Moment { seconds: -5, nanoseconds: 999_999_999 },
            changed: Moment::default(),
            device: 1,
            inode: 2,
            links: 1,
            xattrs: vec![(b"user.a".to_vec(), vec![0, 1]), (b"user.b".to_vec(), Vec::new())],
        }
    }

    #[test]
    fn every_kind_comes_back() {
        let kinds = [
            Kind::File { size: 0, content: Content::Empty },
            Kind::File { size: 9, content: Content::Chunk(ChunkId([1; 32])) },
            Kind::File {
                size: 1 << 40,
                content: Content::Recipe { root: ChunkId([2; 32]), chunks: 1 << 20 },
            },
            Kind::Directory { tree: ChunkId([3; 32]), is_whole: true },
            Kind::Directory { tree: ChunkId([3; 32]), is_whole: false },
            Kind::Symlink { target: b"\xff/..".to_vec() },
            Kind::Fifo,
            Kind::Socket,
            Kind::BlockDevice { device: 259 },
            Kind::CharDevice { device: u64::MAX },
        ];
        for kind in kinds {
            let entry = Entry { kind, ..file("\u{1f980}\n", 0) };
            let mut encoder = Encoder::default();
            entry.encode(&mut encoder);
            let bytes = encoder.finish();
            let mut decoder = Decoder::new(&bytes);
            assert_eq!(Entry::decode(&mut decoder).unwrap(), entry);
            decoder.finish().unwrap();
            for cut in 0..bytes.len() {
                assert!(Entry::decode(&mut Decoder::new(&bytes[..cut])).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", ".", "..", "a/b", "a\0"] {
            let mut encoder = Encoder::default();
            file(name, 1).encode(&mut encoder);
            assert!(Entry::decode(&mut Decoder::new(&encoder.finish())).is_err(), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn moments_of_any_sign_come_back(seconds: i64) {
            prop_assert_eq!(unzigzag(zigzag(seconds)), seconds);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Entry::decode(&mut Decoder::new(&bytes));
        }
    }
}
