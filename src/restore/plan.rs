//! What a restore finds on its walk and does later.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::format::entry::Entry;

/// A file that is to be written.
pub struct Job {
    /// Where to.
    pub path: Vec<u8>,
    /// What it is.
    pub entry: Entry,
    /// Pack and place of its first chunk.
    pub order: (i64, usize),
}

/// What becomes of a directory in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finally {
    /// It gets its attributes.
    Attributes,
    /// It gets them if it was made on the way to something below.
    IfMade,
    /// It gets the permissions back that it had.
    Mode(u32),
    /// Nothing: it stays as it is.
    Nothing,
}

/// What a walk finds that is done later.
#[derive(Default)]
pub struct Plan {
    /// Files to write.
    pub jobs: Vec<Job>,
    /// Further names of files.
    pub links: Vec<(Vec<u8>, Entry)>,
    /// Directories, parents first, with what is to be done about them when all else is done.
    pub directories: Vec<(Vec<u8>, Entry, Finally)>,
    /// What directories hold whose other files are to be removed.
    pub names: HashMap<Vec<u8>, BTreeSet<Vec<u8>>>,
    /// Files with several names of which one was met.
    met: HashSet<(u64, u64)>,
}

impl Plan {
    /// Notes that a directory holds this.
    pub fn note_name(&mut self, path: &[u8]) {
        let at = path.iter().rposition(|&byte| byte == b'/');
        let (parent, name) = at.map_or((&b""[..], path), |at| (&path[..at], &path[at + 1..]));
        if let Some(kept) = self.names.get_mut(parent) {
            kept.insert(name.to_vec());
        }
    }

    /// Notes that this stays, and the directories that it is in.
    pub fn note_path(&mut self, path: &[u8]) {
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            self.note_name(&path[..at]);
        }
        self.note_name(path);
    }

    /// Whether this is a further name of a file.
    pub fn is_known_link(&mut self, entry: &Entry) -> bool {
        !self.met.insert((entry.device, entry.inode))
    }
}
