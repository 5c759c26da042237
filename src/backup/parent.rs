//! Finding the place in the parent version that a new chunk is a changed copy of.
//!
//! A cursor walks the parent's recipe along with the new stream. Chunks that are equal move it
//! exactly; changed ones are aligned by the fingerprints of their edges, which survive almost every
//! change because cut points depend on the few bytes before them; where both edges changed, the
//! place is estimated from the offset. See `docs/decisions/0001-chunks-and-delta.md`.

use std::collections::{HashMap, VecDeque};

use crate::error::Error;
use crate::format::recipe::{ChunkRun, Edges};
use crate::id::ChunkId;
use crate::repository::recipes::RecipeReader;

/// Entries of the parent kept at once, around the cursor: about 13 MB.
const WINDOW: usize = 1 << 17;
/// How far to look around the cursor for an edge before the whole window is searched.
const NEAR: u64 = 64;
/// Most parent chunks for one new chunk.
const MAX_SPAN: usize = 4;

/// A chunk of the parent version.
#[derive(Debug, Clone, Copy)]
pub struct ParentChunk {
    /// Its id.
    pub id: ChunkId,
    /// Its plain length.
    pub length: u32,
    edges: Edges,
    /// Where it starts in the parent stream.
    offset: u64,
    total: u64,
}

impl ParentChunk {
    /// The only chunk of a small file.
    pub fn alone(id: ChunkId, length: u32) -> Self {
        let total = u64::from(length);
        Self { id, length, edges: Edges::default(), offset: 0, total }
    }
}

/// The parent version of one stream.
pub struct Parent<'a> {
    recipe: Option<RecipeReader<'a>>,
    entries: VecDeque<ParentChunk>,
    /// Number of the first entry in the window.
    first: u64,
    /// Where the next entry to load starts.
    loaded_bytes: u64,
    cursor: u64,
    /// Parent offset minus new offset at the last alignment.
    drift: i64,
    by_id: HashMap<u64, u64>,
    by_head: HashMap<u32, u64>,
    damage: Option<Error>,
}

impl<'a> Parent<'a> {
    /// The parent with this recipe.
    pub fn new(recipe: RecipeReader<'a>) -> Self {
        Self {
            recipe: Some(recipe),
            entries: VecDeque::new(),
            first: 0,
            loaded_bytes: 0,
            cursor: 0,
            drift: 0,
            by_id: HashMap::new(),
            by_head: HashMap::new(),
            damage: None,
        }
    }

    /// The chunk at the cursor, if its length is known to be a whole chunk's: what the next bytes
    /// are if nothing changed.
    pub fn expected(&mut self) -> Option<ParentChunk> {
        self.load();
        self.entry(self.cursor).copied()
    }

    /// Why the rest of the parent could not be read, if so: a backup goes on without it.
    pub fn take_damage(&mut self) -> Option<Error> {
        self.damage.take()
    }

    /// Whether the chunk at the cursor is the parent's last.
    pub fn is_last(&self) -> bool {
        self.recipe.is_none() && self.cursor + 1 == self.first + self.entries.len() as u64
    }

    /// Moves the cursor past `id` where the parent holds it; `end` is where the chunk ends in the
    /// new stream.
    pub fn pass(&mut self, id: &ChunkId, end: u64) -> bool {
        self.load();
        let near = self.entry(self.cursor).filter(|entry| entry.id == *id).map(|_| self.cursor);
        let place = near.or_else(|| {
            let number = self.by_id.get(&id_word(id))?;
            self.entry(*number).filter(|entry| entry.id == *id).map(|_| *number)
        });
        let Some(number) = place else { return false };
        self.align(number + 1, end);
        true
    }

    /// The parent's chunks that a new chunk probably is a changed copy of, in order; empty where
    /// there is no idea. Moves the cursor past them.
    pub fn candidates(&mut self, edges: Edges, start: u64, length: u32) -> Vec<ParentChunk> {
        self.load();
        if self.entries.is_empty() {
            return Vec::new();
        }
        let end = start + u64::from(length);
        if let Some(from) = self.near(|entry| entry.edges.head == edges.head).or_else(|| {
            self.by_head.get(&edges.head).copied().filter(|number| self.entry(*number).is_some())
        }) {
            return self.forward_from(from, edges, end, length);
        }
        if let Some(last) = self.near(|entry| entry.edges.tail == edges.tail) {
            let chosen = self.back_from(last, length);
            self.align(last + 1, end);
            return chosen;
        }
        self.by_offset(start, length)
    }

    fn forward_from(&mut self, from: u64, edges: Edges, end: u64, length: u32) -> Vec<ParentChunk> {
        let mut chosen = Vec::new();
        for number in from.. {
            let Some(entry) = self.entry(number).copied() else { break };
            chosen.push(entry);
            if entry.edges.tail == edges.tail {
                self.align(number + 1, end);
                return chosen;
            }
            if chosen.len() == MAX_SPAN {
                break;
            }
        }
        // The end is not where any chunk of the parent ends: take what covers the length.
        let wanted = u64::from(length) + u64::from(length) / 4;
        let (mut kept, mut bytes) = (0, 0);
        while kept < chosen.len() && bytes < wanted {
            bytes += u64::from(chosen[kept].length);
            kept += 1;
        }
        chosen.truncate(kept);
        let start = self.entry(from).map_or(0, |entry| entry.offset);
        self.drift = start as i64 + i64::from(length) - end as i64;
        self.cursor = self.at_offset(start + u64::from(length));
        chosen
    }

    fn back_from(&self, last: u64, length: u32) -> Vec<ParentChunk> {
        let wanted = u64::from(length) + u64::from(length) / 4;
        let mut chosen = VecDeque::new();
        let mut covered = 0;
        let mut number = last;
        while let Some(entry) = self.entry(number).copied() {
            chosen.push_front(entry);
            covered += u64::from(entry.length);
            if covered >= wanted || chosen.len() == MAX_SPAN || number == 0 {
                break;
            }
            number -= 1;
        }
        chosen.into()
    }

    fn by_offset(&mut self, start: u64, length: u32) -> Vec<ParentChunk> {
        let slack = u64::from(length) / 4;
        let place = start.saturating_add_signed(self.drift);
        let from = self.at_offset(place.saturating_sub(slack));
        let until = place + u64::from(length) + slack;
        let mut chosen = Vec::new();
        for number in from.. {
            match self.entry(number) {
                Some(entry) if entry.offset < until && chosen.len() < MAX_SPAN => {
                    chosen.push(*entry)
                }
                _ => break,
            }
        }
        self.cursor = self.at_offset(place + u64::from(length));
        chosen
    }

    fn align(&mut self, cursor: u64, end: u64) {
        self.cursor = cursor;
        let place = self
            .entry(cursor)
            .map(|entry| entry.offset)
            .or_else(|| self.entry(cursor - 1).map(|entry| entry.offset + entry.total));
        if let Some(place) = place {
            self.drift = place as i64 - end as i64;
        }
    }

    /// The entry nearest to the cursor for which `is_it` holds.
    fn near(&self, is_it: impl Fn(&ParentChunk) -> bool) -> Option<u64> {
        let test = |number: u64| self.entry(number).is_some_and(&is_it).then_some(number);
        (0..NEAR).find_map(|distance| {
            test(self.cursor + distance)
                .or_else(|| self.cursor.checked_sub(distance + 1).and_then(test))
        })
    }

    /// Number of the entry that covers an offset of the parent, as far as the window goes.
    fn at_offset(&self, offset: u64) -> u64 {
        self.first
            + self.entries.partition_point(|entry| entry.offset + entry.total <= offset) as u64
    }

    fn entry(&self, number: u64) -> Option<&ParentChunk> {
        let place = number.checked_sub(self.first)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    /// Keeps half a window loaded ahead of the cursor and at most half a window behind it.
    fn load(&mut self) {
        let wanted = self.cursor + (WINDOW / 2) as u64;
        let loaded = self.first + self.entries.len() as u64;
        if loaded > self.cursor + (WINDOW / 4) as u64 {
            return;
        }
        for number in loaded..wanted {
            let Some(recipe) = &mut self.recipe else { break };
            match recipe.next() {
                Some(Ok(run)) => self.push(number, &run),
                Some(Err(error)) => {
                    self.recipe = None;
                    self.damage = Some(error);
                }
                None => self.recipe = None,
            }
        }
        while self.first + ((WINDOW / 2) as u64) < self.cursor && self.entries.len() > WINDOW / 2 {
            self.evict();
        }
    }

    fn push(&mut self, number: u64, run: &ChunkRun) {
        let total = run.total_bytes();
        let entry = ParentChunk {
            id: run.id,
            length: run.length,
            edges: run.edges,
            offset: self.loaded_bytes,
            total,
        };
        self.loaded_bytes += total;
        self.entries.push_back(entry);
        self.by_id.entry(id_word(&run.id)).or_insert(number);
        self.by_head.entry(run.edges.head).or_insert(number);
    }

    fn evict(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            let number = self.first;
            self.first += 1;
            if self.by_id.get(&id_word(&entry.id)) == Some(&number) {
                self.by_id.remove(&id_word(&entry.id));
            }
            if self.by_head.get(&entry.edges.head) == Some(&number) {
                self.by_head.remove(&entry.edges.head);
            }
        }
    }
}

fn id_word(id: &ChunkId) -> u64 {
    u64::from_le_bytes(*id.0.first_chunk().expect("32 bytes"))
}
