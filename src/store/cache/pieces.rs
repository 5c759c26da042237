//! Pieces of objects in a folder of this machine, up to a size; what was not used for the longest
//! time goes first.
//!
//! A piece is a file of its own that appears whole or not at all. Each page of it has a digest over
//! its place and its bytes, which is compared whenever the page is read: a piece that a disk damaged,
//! or that somebody cut short or put in another's place, is thrown away and was never there. Several
//! programs may use one folder; each counts what it knows of.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};
use lru::LruCache;

use crate::clock::Clock;

/// What is checked, and read, at once.
const PAGE: usize = 32 << 10;
const DIGEST: usize = 16;
/// Every file begins so; then the length, the digests of the pages, the pages.
const MAGIC: &[u8; 8] = b"restowc1";
const HEADER: usize = MAGIC.len() + 8;
/// What was used more lately makes no room for what is stored just in case.
const RECENT: SignedDuration = SignedDuration::from_hours(36);

/// How much a new piece may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Whatever was unused for the longest time goes.
    Make,
    /// Only what was not used lately goes: were a cache filled in turns with more than it holds, it
    /// would always lack just what is wanted next.
    Spare,
}

/// A folder of pieces.
pub struct Pieces {
    folder: PathBuf,
    limit: u64,
    clock: Arc<dyn Clock>,
    ledger: Mutex<Ledger>,
}

struct Ledger {
    /// Size and last use, least lately used first to go.
    known: LruCache<String, (u64, Timestamp)>,
    bytes: u64,
}

impl Pieces {
    /// The pieces in a folder, which is made where it is missing. What does not fit any more goes.
    pub fn open(folder: &Path, limit: u64, clock: Arc<dyn Clock>) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)?.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            let used = metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
            let used = used.unwrap_or(Timestamp::MIN);
            match entry.file_name().into_string() {
                Ok(name) if !name.starts_with('.') => found.push((used, name, metadata.len())),
                // Half a piece of a program that was killed; one that is at work is younger.
                _ if used < before(clock.now(), RECENT) => drop(fs::remove_file(entry.path())),
                _ => {}
            }
        }
        found.sort();
        let mut ledger = Ledger { known: LruCache::unbounded(), bytes: 0 };
        for (used, name, size) in found {
            ledger.known.push(name, (size, used));
            ledger.bytes += size;
        }
        let pieces = Self { folder: folder.to_owned(), limit, clock, ledger: Mutex::new(ledger) };
        pieces.make_room(0, Room::Make);
        Ok(pieces)
    }

    /// Whether such a piece seems to be there.
    pub fn contains(&self, name: &str) -> bool {
        self.ledger.lock().expect("no panics here").known.contains(name)
    }

    /// Bytes of a piece, if it is there and sound.
    pub fn read(&self, name: &str, offset: u64, length: usize, out: &mut Vec<u8>) -> bool {
        if !self.contains(name) {
            return false;
        }
        match read_pages(&self.folder.join(name), name, offset, length, out) {
            Ok(()) => {
                self.touch(name);
                true
            }
            Err(_) => {
                self.remove(name);
                false
            }
        }
    }

    /// Keeps a piece, if there is room. That it cannot be kept is no error of anybody's.
    pub fn keep(&self, name: &str, bytes: &[u8], room: Room) {
        let size = file_size(bytes.len());
        if self.contains(name) || !self.make_room(size, room) {
            return;
        }
        if self.write(name, bytes).is_ok() {
            let mut ledger = self.ledger.lock().expect("no panics here");
            ledger.bytes += size;
            if let Some((_, (old, _))) =
                ledger.known.push(name.to_owned(), (size, self.clock.now()))
            {
                ledger.bytes -= old;
            }
        }
    }

    /// Throws a piece away.
    pub fn remove(&self, name: &str) {
        let mut ledger = self.ledger.lock().expect("no panics here");
        if let Some((size, _)) = ledger.known.pop(name) {
            ledger.bytes -= size;
        }
        drop(ledger);
        let _ = fs::remove_file(self.folder.join(name));
    }

    /// Throws away the pieces whose names begin so.
    pub fn remove_all(&self, prefix: &str) {
        let ledger = self.ledger.lock().expect("no panics here");
        let names = ledger.known.iter().map(|(name, _)| name);
        let names: Vec<_> = names.filter(|name| name.starts_with(prefix)).cloned().collect();
        drop(ledger);
        names.iter().for_each(|name| self.remove(name));
    }

    fn touch(&self, name: &str) {
        let now = self.clock.now();
        let mut ledger = self.ledger.lock().expect("no panics here");
        let Some((_, used)) = ledger.known.get_mut(name) else { return };
        // Told to other programs, and the next, not more often than matters.
        if *used < before(now, SignedDuration::from_mins(10)) {
            *used = now;
            drop(ledger);
            if let Ok(file) = File::options().write(true).open(self.folder.join(name)) {
                let _ = file.set_modified(SystemTime::from(now));
            }
        }
    }

    fn make_room(&self, size: u64, room: Room) -> bool {
        if size > self.limit {
            return false;
        }
        let recent = before(self.clock.now(), RECENT);
        let mut going = Vec::new();
        let mut ledger = self.ledger.lock().expect("no panics here");
        while ledger.bytes + size > self.limit {
            let Some((_, (_, used))) = ledger.known.peek_lru() else { break };
            if room == Room::Spare && *used > recent {
                break;
            }
            let Some((name, (old, _))) = ledger.known.pop_lru() else { break };
            ledger.bytes -= old;
            going.push(name);
        }
        let fits = ledger.bytes + size <= self.limit;
        drop(ledger);
        for name in going {
            let _ = fs::remove_file(self.folder.join(name));
        }
        fits
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".").tempfile_in(&self.folder)?;
        let mut head = Vec::with_capacity(HEADER + bytes.len().div_ceil(PAGE) * DIGEST);
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        for (number, page) in bytes.chunks(PAGE).enumerate() {
            head.extend_from_slice(&digest(name, number as u64, page));
        }
        file.write_all(&head)?;
        file.write_all(bytes)?;
        file.as_file().set_modified(SystemTime::from(self.clock.now()))?;
        file.persist(self.folder.join(name)).map_err(|error| error.error)?;
        Ok(())
    }
}

fn before(now: Timestamp, time: SignedDuration) -> Timestamp {
    now.checked_sub(time).unwrap_or(Timestamp::MIN)
}

fn file_size(length: usize) -> u64 {
    (HEADER + length.div_ceil(PAGE) * DIGEST + length) as u64
}

fn digest(name: &str, number: u64, page: &[u8]) -> [u8; DIGEST] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(name.as_bytes()).update(&[0]).update(&number.to_le_bytes()).update(page);
    let mut digest = [0; DIGEST];
    hasher.finalize_xof().fill(&mut digest);
    digest
}

fn read_pages(
    path: &Path,
    name: &str,
    offset: u64,
    length: usize,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    let file = File::open(path)?;
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0)?;
    let total = u64::from_le_bytes(*header.last_chunk().expect("eight bytes at its end"));
    let size = file.metadata()?.len();
    let end = offset.checked_add(length as u64).ok_or_else(damaged)?;
    let whole = usize::try_from(total).map(file_size);
    if &header[..MAGIC.len()] != MAGIC || total > size || whole != Ok(size) || end > total {
        return Err(damaged());
    }
    if length == 0 {
        out.clear();
        return Ok(());
    }
    let (first, last) = (offset / PAGE as u64, (end - 1) / PAGE as u64);
    let count = (last - first + 1) as usize;
    let mut digests = vec![0; count * DIGEST];
    file.read_exact_at(&mut digests, HEADER as u64 + first * DIGEST as u64)?;
    let from = first * PAGE as u64;
    let until = ((last + 1) * PAGE as u64).min(total);
    out.resize((until - from) as usize, 0);
    let pages_at = HEADER as u64 + total.div_ceil(PAGE as u64) * DIGEST as u64;
    file.read_exact_at(out, pages_at + from)?;
    for (number, page) in out.chunks(PAGE).enumerate() {
        if digests[number * DIGEST..][..DIGEST] != digest(name, first + number as u64, page) {
            return Err(damaged());
        }
    }
    out.drain(..(offset - from) as usize);
    out.truncate(length);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    struct At(Timestamp);

    impl Clock for At {
        fn now(&self) -> Timestamp {
            self.0
        }
    }

    fn hours(hours: i64) -> Arc<dyn Clock> {
        Arc::new(At(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours)))
    }

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|number| (number / 7) as u8).collect()
    }

    #[test]
    fn every_range_comes_back_as_it_went_in() {
        let folder = tempfile::tempdir().unwrap();
        let pieces = Pieces::open(folder.path(), 1 << 30, Arc::new(SystemClock)).unwrap();
        let content = bytes(3 * PAGE + 5);
        pieces.keep("a", &content, Room::Make);
        let mut out = vec![9; 3];
        for (offset, length) in
            [(0, content.len()), (PAGE - 1, 2), (5, 0), (3 * PAGE, 5), (PAGE, PAGE), (7, 2 * PAGE)]
        {
            assert!(pieces.read("a", offset as u64, length, &mut out));
            assert!(out == content[offset..offset + length], "{offset} {length}");
        }
        pieces.keep("nothing", b"", Room::Make);
        assert!(pieces.read("nothing", 0, 0, &mut out) && out.is_empty());
        assert!(!pieces.read("b", 0, 1, &mut out));
    }

    #[test]
    fn damage_of_any_byte_is_a_piece_that_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let content = bytes(100);
        let size = file_size(100) as usize;
        for at in 0..size + 2 {
            let pieces = Pieces::open(folder.path(), 1 << 20, Arc::new(SystemClock)).unwrap();
            pieces.keep("a", &content, Room::Make);
            let path = folder.path().join("a");
            let mut stored = fs::read(&path).unwrap();
            match at.checked_sub(size) {
                None => stored[at] ^= 1,
                Some(0) => stored.truncate(size - 1),
                Some(_) => stored.push(0),
            }
            fs::write(&path, stored).unwrap();
            assert!(!pieces.read("a", 0, 100, &mut Vec::new()), "byte {at}");
            assert!(!path.exists());
        }
        let pieces = Pieces::open(folder.path(), 1 << 20, Arc::new(SystemClock)).unwrap();
        pieces.keep("a", &content, Room::Make);
        fs::copy(folder.path().join("a"), folder.path().join("b")).unwrap();
        let pieces = Pieces::open(folder.path(), 1 << 20, Arc::new(SystemClock)).unwrap();
        assert!(!pieces.read("b", 0, 100, &mut Vec::new()), "another's place");
    }

    #[test]
    fn what_was_not_used_for_the_longest_time_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let limit = 3 * file_size(100);
        for (hour, name) in [(1, "a"), (2, "b"), (3, "c")] {
            let pieces = Pieces::open(folder.path(), limit, hours(hour)).unwrap();
            pieces.keep(name, &bytes(100), Room::Make);
        }
        let pieces = Pieces::open(folder.path(), limit, hours(4)).unwrap();
        assert!(pieces.read("a", 0, 1, &mut Vec::new()));
        pieces.keep("d", &bytes(100), Room::Make);
        let there = |pieces: &Pieces| ["a", "b", "c", "d"].map(|name| pieces.contains(name));
        assert_eq!(there(&pieces), [true, false, true, true]);
        let pieces = Pieces::open(folder.path(), limit / 2, hours(5)).unwrap();
        assert_eq!(there(&pieces).iter().filter(|there| **there).count(), 1);
    }

    #[test]
    fn what_is_in_use_stays_when_something_comes_just_in_case() {
        let folder = tempfile::tempdir().unwrap();
        let limit = 2 * file_size(100);
        let pieces = Pieces::open(folder.path(), limit, hours(1)).unwrap();
        for name in ["a", "b", "c"] {
            pieces.keep(name, &bytes(100), Room::Spare);
        }
        assert!(pieces.contains("a") && pieces.contains("b") && !pieces.contains("c"));
        let later = Pieces::open(folder.path(), limit, hours(100)).unwrap();
        later.keep("c", &bytes(100), Room::Spare);
        assert!(later.contains("c") && !later.contains("a"));
    }
}
