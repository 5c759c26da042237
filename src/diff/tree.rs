//! What changed between two trees. Directories whose trees are equal are not even read.

use std::cmp::Ordering;

use serde::Serialize;

use super::Change;
use crate::error::Result;
use crate::format::entry::{Entry, Kind};
use crate::format::name::Name;
use crate::id::ChunkId;
use crate::repository::Repository;
use crate::repository::reader::ChunkReader;
use crate::repository::trees::{self, TreeReader};

/// A file that differs.
#[derive(Debug, Clone, Serialize)]
pub struct FileDiff {
    /// Its path.
    pub name: Name,
    /// How it differs.
    pub change: Change,
    /// What of it, where both snapshots have it: kind, content, target, mode, owner, time, xattrs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<&'static str>,
    /// file, dir, symlink and so on; the newer where both have it.
    pub kind: &'static str,
    /// Bytes in the first snapshot.
    pub old_size: u64,
    /// Bytes in the second.
    pub new_size: u64,
}

/// Two directories that are compared side by side.
struct Level<'a> {
    path: Vec<u8>,
    old: std::iter::Peekable<Side<'a>>,
    new: std::iter::Peekable<Side<'a>>,
}

type Side<'a> = std::iter::Flatten<std::option::IntoIter<TreeReader<'a>>>;

/// Calls `visit` for every path that differs, in order.
pub fn compare(
    repository: &Repository,
    old: Option<ChunkId>,
    new: Option<ChunkId>,
    visit: &mut dyn FnMut(FileDiff) -> Result<()>,
) -> Result<()> {
    if old == new {
        return Ok(());
    }
    let reader = ChunkReader::new(repository);
    let side = |tree: Option<ChunkId>| {
        tree.map(|tree| TreeReader::new(&reader, tree)).into_iter().flatten().peekable()
    };
    let mut levels = vec![Level { path: Vec::new(), old: side(old), new: side(new) }];
    while let Some(level) = levels.last_mut() {
        let (old, new) = match next_pair(level)? {
            (None, None) => {
                levels.pop();
                continue;
            }
            pair => pair,
        };
        let name = new.as_ref().or(old.as_ref()).map(|entry| entry.name.clone());
        let path = trees::join(&level.path, &name.unwrap_or_default());
        if let Some(diff) = difference(&path, old.as_ref(), new.as_ref()) {
            visit(diff)?;
        }
        let (old, new) = (tree_of(old.as_ref()), tree_of(new.as_ref()));
        if old != new {
            if levels.len() >= trees::MAX_DEPTH {
                return Err(trees::too_deep(&old.or(new).unwrap_or(ChunkId([0; 32]))));
            }
            levels.push(Level { path, old: side(old), new: side(new) });
        }
    }
    Ok(())
}

/// The next name of either side, with what each has of it.
fn next_pair(level: &mut Level<'_>) -> Result<(Option<Entry>, Option<Entry>)> {
    let order = match (level.old.peek(), level.new.peek()) {
        (Some(Ok(old)), Some(Ok(new))) => old.name.cmp(&new.name),
        (Some(_), None) | (Some(Err(_)), _) => Ordering::Less,
        (None, _) | (_, Some(Err(_))) => Ordering::Greater,
    };
    let old = if order == Ordering::Greater { None } else { level.old.next().transpose()? };
    let new = if order == Ordering::Less { None } else { level.new.next().transpose()? };
    Ok((old, new))
}

fn tree_of(entry: Option<&Entry>) -> Option<ChunkId> {
    match entry.map(|entry| &entry.kind) {
        Some(Kind::Directory { tree, .. }) => Some(*tree),
        _ => None,
    }
}

fn difference(path: &[u8], old: Option<&Entry>, new: Option<&Entry>) -> Option<FileDiff> {
    let (change, differs) = match (old, new) {
        (Some(old), Some(new)) => (Change::Modified, parts(old, new)),
        (Some(_), None) => (Change::Removed, Vec::new()),
        _ => (Change::Added, Vec::new()),
    };
    if change == Change::Modified && differs.is_empty() {
        return None;
    }
    let size = |entry: Option<&Entry>| entry.map_or(0, Entry::size);
    let kind = new.or(old).map_or("", |entry| entry.kind.word());
    let name = Name::new(path);
    Some(FileDiff { name, change, differs, kind, old_size: size(old), new_size: size(new) })
}

/// What differs between two entries of one name.
fn parts(old: &Entry, new: &Entry) -> Vec<&'static str> {
    let mut parts = Vec::new();
    match (&old.kind, &new.kind) {
        (Kind::Directory { .. }, Kind::Directory { .. }) => {}
        (a, b) if std::mem::discriminant(a) != std::mem::discriminant(b) => parts.push("kind"),
        (Kind::Symlink { .. }, _) if old.kind != new.kind => parts.push("target"),
        (a, b) if a != b => parts.push("content"),
        _ => {}
    }
    let is_directory = matches!(new.kind, Kind::Directory { .. });
    let tests = [
        ("mode", old.mode != new.mode),
        ("owner", (&old.user, &old.group) != (&new.user, &new.group)),
        // The time of a directory only tells that something in it changed.
        ("time", old.modified != new.modified && !is_directory),
        ("xattrs", old.xattrs != new.xattrs),
    ];
    parts.extend(tests.into_iter().filter(|(_, differs)| *differs).map(|(part, _)| part));
    parts
}
