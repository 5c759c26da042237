//! Finding the plain bytes of lost chunks in another repository.
//!
//! Ids tell nothing there: each repository has keys of its own. But the recipe here says where in a
//! stream or file a chunk stands, and the bytes there, in the same stream or file of the other
//! repository, have the id that is lost or they do not.

use std::collections::HashSet;

use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::entry::{Content, Kind};
use crate::format::snapshot::Snapshot;
use crate::id::{ChunkId, ChunkKey};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::reader::{ChunkReader, Scratch};
use crate::repository::recipes::RecipeReader;
use crate::repository::trees::{self, Step};

/// Snapshots of the other repository that are tried for one stream or file.
const CANDIDATES: usize = 4;

/// A lost chunk and its place in a stream or file.
struct Place {
    offset: u64,
    length: u32,
    id: ChunkId,
}

/// Takes the bytes of a chunk that was found.
pub type Give<'a> = &'a mut dyn FnMut(&ChunkId, Vec<u8>) -> Result<()>;

struct Search<'a> {
    repository: &'a Repository,
    other: &'a Repository,
    reader: ChunkReader<'a>,
    scratch: Scratch,
    lost: &'a HashSet<ChunkKey>,
    found: HashSet<ChunkKey>,
    candidates: Vec<Snapshot>,
}

/// Hands the bytes of each lost chunk that `other` has to `give`, once. Returns which those were.
pub fn fetch(
    repository: &Repository,
    other: &Repository,
    lost: &HashSet<ChunkKey>,
    progress: &Progress,
    give: Give<'_>,
) -> Result<HashSet<ChunkKey>> {
    let mut search = Search {
        repository,
        other,
        reader: ChunkReader::new(other),
        scratch: Scratch::new()?,
        lost,
        found: HashSet::new(),
        candidates: Vec::new(),
    };
    for (_, snapshot) in repository.index().snapshots()? {
        if progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        search.snapshot(&snapshot, give)?;
    }
    Ok(search.found)
}

impl Search<'_> {
    fn snapshot(&mut self, snapshot: &Snapshot, give: Give<'_>) -> Result<()> {
        self.candidates = self.like(snapshot)?;
        for stream in &snapshot.streams {
            let places =
                self.places(Content::Recipe { root: stream.root, chunks: stream.chunks }, 0)?;
            if places.is_empty() {
                continue;
            }
            let like = |candidate: &Snapshot| {
                let found = candidate.stream(stream.name.as_bytes())?;
                Some(Content::Recipe { root: found.root, chunks: found.chunks })
            };
            let contents: Vec<_> = self.candidates.iter().filter_map(like).collect();
            self.search(places, contents, give)?;
        }
        let Some(tree) = snapshot.tree else { return Ok(()) };
        let mut files = Vec::new();
        let mut visit = |path: &[u8], entry: &crate::format::entry::Entry| {
            if let Kind::File { size, content } = &entry.kind {
                let places = self.places(*content, *size)?;
                if !places.is_empty() {
                    files.push((path.to_vec(), places));
                }
            }
            Ok(Step::Enter)
        };
        trees::walk_past(self.repository, tree, b"", &mut visit, &mut |_, _| {})?;
        for (path, places) in files {
            let mut contents = Vec::new();
            for tree in self.candidates.iter().filter_map(|candidate| candidate.tree) {
                if let Ok(Some(entry)) = self.other.find_entry(tree, &path)
                    && let Kind::File { content, .. } = entry.kind
                {
                    contents.push(content);
                }
            }
            self.search(places, contents, give)?;
        }
        Ok(())
    }

    /// Snapshots of the other repository that may hold the same: the same one first, then those
    /// nearest in time.
    fn like(&self, snapshot: &Snapshot) -> Result<Vec<Snapshot>> {
        let mut all: Vec<Snapshot> =
            self.other.index().snapshots()?.into_iter().map(|(_, snapshot)| snapshot).collect();
        all.sort_by_key(|other| {
            let distance = other.time.duration_since(snapshot.time).unsigned_abs();
            (distance, other.host != snapshot.host)
        });
        all.truncate(CANDIDATES);
        Ok(all)
    }

    /// Where lost chunks stand in a stream or file, as far as its recipe can be read.
    fn places(&self, content: Content, size: u64) -> Result<Vec<Place>> {
        let is_wanted =
            |id: &ChunkId| self.lost.contains(&id.key()) && !self.found.contains(&id.key());
        let root = match content {
            Content::Chunk(id) if is_wanted(&id) => {
                return Ok(vec![Place { offset: 0, length: size as u32, id }]);
            }
            Content::Empty | Content::Chunk(_) => return Ok(Vec::new()),
            Content::Recipe { root, .. } => root,
        };
        let (mut places, mut offset) = (Vec::new(), 0);
        for run in RecipeReader::new(self.repository, root)? {
            let Ok(run) = run else { break };
            if is_wanted(&run.id) {
                places.push(Place { offset, length: run.length, id: run.id });
            }
            offset += run.total_bytes();
        }
        Ok(places)
    }

    fn search(
        &mut self,
        mut places: Vec<Place>,
        contents: Vec<Content>,
        give: Give<'_>,
    ) -> Result<()> {
        for content in contents {
            places.retain(|place| !self.found.contains(&place.id.key()));
            if places.is_empty() {
                break;
            }
            // What the other repository cannot read itself is not found there.
            match self.read(&places, content, give) {
                Err(error) if error.is_object_damage() => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Reads on in the other content, and cuts out the bytes of each place in turn.
    fn read(&mut self, places: &[Place], content: Content, give: Give<'_>) -> Result<()> {
        let root = match content {
            Content::Empty => return Ok(()),
            Content::Chunk(id) => {
                let bytes = self.reader.read(BlobKind::Data, &id, &mut self.scratch)?;
                return places.iter().try_for_each(|place| {
                    self.offer(place, bytes.get(span(place, 0)).unwrap_or_default().to_vec(), give)
                });
            }
            Content::Recipe { root, .. } => root,
        };
        let mut runs = RecipeReader::new(self.other, root)?;
        // Bytes of the other content from `start` on, and what is left of a run of equal chunks.
        let (mut start, mut window) = (0, Vec::new());
        let mut repeats = (Vec::new(), 0);
        for place in places {
            let end = place.offset + u64::from(place.length);
            if place.offset > start {
                let drop = (place.offset - start).min(window.len() as u64);
                window.drain(..drop as usize);
                start += drop;
            }
            while start + (window.len() as u64) < end {
                if repeats.1 == 0 {
                    let Some(run) = runs.next().transpose()? else { break };
                    if window.is_empty() && start + run.total_bytes() <= place.offset {
                        start += run.total_bytes();
                        continue;
                    }
                    let bytes = self.reader.read(BlobKind::Data, &run.id, &mut self.scratch)?;
                    repeats = (bytes, run.repeat);
                }
                window.extend_from_slice(&repeats.0);
                repeats.1 -= 1;
                let before = place.offset.saturating_sub(start).min(window.len() as u64);
                window.drain(..before as usize);
                start += before;
            }
            let bytes = window.get(span(place, start)).unwrap_or_default().to_vec();
            self.offer(place, bytes, give)?;
        }
        Ok(())
    }

    fn offer(&mut self, place: &Place, bytes: Vec<u8>, give: Give<'_>) -> Result<()> {
        let is_it = self.repository.keys().chunk_id(BlobKind::Data, &bytes) == place.id;
        if is_it && self.found.insert(place.id.key()) {
            give(&place.id, bytes)?;
        }
        Ok(())
    }
}

fn span(place: &Place, start: u64) -> std::ops::Range<usize> {
    let from = place.offset.checked_sub(start).map_or(usize::MAX, |offset| offset as usize);
    from..from.saturating_add(place.length as usize)
}
