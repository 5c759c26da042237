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

/// What a walk finds that is done later.
#[derive(Default)]
pub struct Plan {
    /// Files to write.
    pub jobs: Vec<Job>,
    /// Further names of files.
    pub links: Vec<(Vec<u8>, Entry)>,
    /// Directories, parents first, with whether they are restored for themselves or only on the way
    /// to something below.
    pub directories: Vec<(Vec<u8>, Entry, bool)>,
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

    /// Whether this is a further name of a file.
    pub fn is_known_link(&mut self, entry: &Entry) -> bool {
        !self.met.insert((entry.device, entry.inode))
    }
}
