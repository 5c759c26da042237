//! Finding files in snapshots.

use jiff::Timestamp;
use serde::Serialize;

use crate::error::Result;
use crate::format::entry::{Entry, Kind};
use crate::format::name::Name;
use crate::format::snapshot::Snapshot;
use crate::repository::Repository;
use crate::repository::trees::{Step, walk};

/// What is listed of a file or stream.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// Its path.
    pub path: Name,
    /// file, dir, symlink, fifo, socket, block, char or stream.
    pub kind: &'static str,
    /// Bytes in it.
    pub size: u64,
    /// Permissions.
    pub mode: u32,
    /// Number of its user.
    pub uid: u32,
    /// Number of its group.
    pub gid: u32,
    /// Name of its user.
    pub user: Name,
    /// Name of its group.
    pub group: Name,
    /// When its content changed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified: Option<Timestamp>,
    /// Where a symbolic link points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Name>,
}

impl Listed {
    /// What is listed of an entry at a path.
    pub fn of(path: &[u8], entry: &Entry) -> Self {
        let target = match &entry.kind {
            Kind::Symlink { target } => Some(Name::new(target.clone())),
            _ => None,
        };
        Self {
            path: Name::new(path),
            kind: entry.kind.word(),
            size: entry.size(),
            mode: entry.mode,
            uid: entry.user.id,
            gid: entry.group.id,
            user: Name::new(entry.user.name.clone()),
            group: Name::new(entry.group.name.clone()),
            modified: entry.modified.timestamp(),
            target,
        }
    }
}

/// Calls `visit` for every stream and everything in the tree of a snapshot, parents first.
pub fn each(
    repository: &Repository,
    snapshot: &Snapshot,
    visit: &mut dyn FnMut(Listed) -> Result<Step>,
) -> Result<()> {
    for stream in &snapshot.streams {
        let listed = Listed {
            path: Name::new([b"/", stream.name.relative()].concat()),
            kind: "stream",
            size: stream.size,
            mode: 0o600,
            uid: 0,
            gid: 0,
            user: Name::new(snapshot.user.clone()),
            group: Name::new(""),
            modified: Some(snapshot.time),
            target: None,
        };
        visit(listed)?;
    }
    match snapshot.tree {
        Some(tree) => {
            walk(repository, tree, b"", &mut |path, entry| visit(Listed::of(path, entry)))
        }
        None => Ok(()),
    }
}
