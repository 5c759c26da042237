//! The part of a check that reads no packs but those of recipes.

use std::collections::{BTreeMap, HashSet};

use super::{Affected, CheckReport, Findings, Losses, stream_losses};
use crate::error::{Error, Result};
use crate::format::entry::{Content, Kind};
use crate::format::name::Name;
use crate::format::paths;
use crate::id::{ChunkId, ObjectName};
use crate::index::Fate;
use crate::repository::Repository;
use crate::repository::reader::ChunkReader;
use crate::repository::recipes::RecipeReader;
use crate::repository::trees::{self, TreeReader};

/// What could not even be opened.
pub fn salvaged(repository: &Repository, findings: &mut Findings) {
    for error in repository.damage() {
        let object = object_of(error);
        let snapshot = object
            .starts_with(paths::SNAPSHOTS)
            .then(|| paths::object_name(&object))
            .flatten()
            .map(|name| Affected { snapshot: name.short(), path: EVERY_PATH.to_owned() });
        findings.add(object, source_text(error)).affected.extend(snapshot);
    }
}

/// Stands for all paths of a snapshot whose manifest cannot be read.
const EVERY_PATH: &str = "(all of it)";

/// Is the log whole, from the first entry to the head, each continuing the one before?
pub fn log(repository: &Repository, findings: &mut Findings) -> Result<()> {
    for slot in repository.key_slots()? {
        if let Err(error) = slot.slot {
            findings.add(format!("{}{}", paths::KEYS, slot.name), error);
        }
    }
    let Some(head) = repository.index().position()? else { return Ok(()) };
    // `None` after an entry that cannot be read: what the next one should continue is not known.
    let mut previous = Some([0; 32]);
    let mut expected = 0;
    let mut log = LogFindings::default();
    for number in repository.log_numbers()? {
        if number > expected {
            log.add_gap(expected, number);
            previous = None;
        }
        expected = number + 1;
        let path = paths::log(number);
        match repository.read_entry(number) {
            Ok(Some(stored)) => {
                if previous.is_some_and(|previous| stored.entry.previous != previous) {
                    log.add(number, "does not continue the entry before it");
                }
                log.forgiven.extend(&stored.entry.lost);
                previous = Some(stored.position.hash);
                if stored.position.number == head.number
                    && stored.position != head
                    && !repository.is_salvaged()
                {
                    findings.add(&path, "is not the entry that was there before");
                }
            }
            Ok(None) => {
                log.add(number, "is missing");
                previous = None;
            }
            // Its keys were destroyed, and a later state says what it did.
            Err(error) if repository.is_older_than_keys(&error) => {
                previous = repository.entry_hash(number)?.map(|(hash, _)| hash);
            }
            Err(error) if error.is_object_damage() => {
                log.add(number, source_text(&error));
                previous = None;
            }
            Err(error) => return Err(error),
        }
    }
    if expected <= head.number {
        log.add_gap(expected, head.number + 1);
    }
    log.tell(findings);
    Ok(())
}

/// What is wrong with the log, and what a repair said is lost: that is no news.
#[derive(Default)]
struct LogFindings {
    found: Vec<(u64, u64, String)>,
    forgiven: Vec<(u64, u64)>,
}

impl LogFindings {
    fn add(&mut self, number: u64, detail: impl Into<String>) {
        self.found.push((number, number, detail.into()));
    }

    /// Entries from `start` up to and without `end` are not there.
    fn add_gap(&mut self, start: u64, end: u64) {
        let detail = match end - start {
            1 => "is missing".to_owned(),
            count => format!("is missing, and the {} after it", count - 1),
        };
        self.found.push((start, end - 1, detail));
    }

    fn tell(self, findings: &mut Findings) {
        for (first, last, detail) in self.found {
            let is_known = |run: &(u64, u64)| run.0 <= first && last <= run.1;
            if !self.forgiven.iter().any(is_known) {
                findings.add(paths::log(first), detail);
            }
        }
    }
}

/// Do the idx objects say what the local index says?
pub fn indexes(repository: &Repository, findings: &mut Findings) -> Result<()> {
    let mut listed = HashSet::new();
    for name in repository.index().index_names()? {
        if repository.is_salvaged() && repository.index().pack(&name)?.is_some() {
            // A pack whose idx object is lost, and which stands for itself.
            continue;
        }
        let path = paths::index(&name);
        let object = match repository.load_index(&name) {
            Ok(object) => object,
            Err(error) if error.is_object_damage() => {
                findings.add(&path, source_text(&error));
                continue;
            }
            Err(error) => return Err(error),
        };
        for pack in object.packs {
            let known = repository.index().pack(&pack.name)?;
            let is_same = known.is_some_and(|known| known.is_of(&pack));
            if !is_same && object.is_sealed {
                findings.add(&path, "says of packs what is not so; 'restow repair index' drops it");
            } else if !is_same {
                findings
                    .add(&path, "the local index says otherwise; delete the cache and check again");
            }
            if !listed.insert(pack.name) {
                findings.add(paths::pack(&pack.name), "stands in more than one idx object");
            }
        }
    }
    Ok(())
}

/// Is every pack there, and as long as it should be?
pub fn packs(
    repository: &Repository,
    findings: &mut Findings,
    report: &mut CheckReport,
) -> Result<()> {
    let mut stored: BTreeMap<ObjectName, u64> = BTreeMap::new();
    for object in repository.store().list(paths::DATA)? {
        match paths::object_name(&object.path) {
            Some(name) => drop(stored.insert(name, object.size)),
            None => orphan(report, object.size),
        }
    }
    for (name, size) in repository.index().packs()? {
        report.packs += 1;
        let path = paths::pack(&name);
        let is_dead = repository.index().fate(&name) == Some(Fate::Dead);
        let detail = match stored.remove(&name) {
            Some(found) if found == size => continue,
            _ if is_dead => continue,
            Some(found) => format!("has {found} bytes instead of {size}"),
            None => "is missing".to_owned(),
        };
        findings.add(&path, detail);
        let Some(pack) = repository.index().pack(&name)? else { continue };
        for entry in &pack.entries {
            let elsewhere = repository.index().packs_of(&entry.id)?.len() > 1;
            if !elsewhere {
                findings.lose(entry.id, &path);
            }
        }
    }
    for (name, size) in &stored {
        orphan(report, *size);
        match repository.index().fate(name) {
            None => report.unknown_packs += 1,
            Some(Fate::Condemned) => report.unlisted_packs += 1,
            Some(Fate::Dead) => {}
        }
    }
    parity(repository, findings, report)?;
    let valid: HashSet<_> = repository.index().index_names()?.iter().map(paths::index).collect();
    let live: HashSet<_> =
        repository.index().snapshot_names()?.iter().map(paths::snapshot).collect();
    for (folder, known) in [(paths::INDEX, valid), (paths::SNAPSHOTS, live)] {
        for object in repository.store().list(folder)? {
            if !known.contains(&object.path) {
                orphan(report, object.size);
            }
        }
    }
    Ok(())
}

/// Has every pack its parity, where the repository keeps any?
fn parity(
    repository: &Repository,
    findings: &mut Findings,
    report: &mut CheckReport,
) -> Result<()> {
    let mut packs: HashSet<ObjectName> =
        repository.index().packs()?.into_iter().map(|(name, _)| name).collect();
    packs.retain(|name| repository.index().fate(name) != Some(Fate::Dead));
    for object in repository.store().list(paths::PARITY)? {
        if !paths::object_name(&object.path).is_some_and(|name| packs.remove(&name)) {
            orphan(report, object.size);
        }
    }
    if repository.config().parity > 0 {
        for name in packs {
            findings.add(paths::parity(&name), "is missing");
        }
    }
    Ok(())
}

fn orphan(report: &mut CheckReport, size: u64) {
    report.orphans += 1;
    report.orphan_bytes += size;
}

/// Can every stream of every snapshot be walked, and what is lost of it?
pub fn snapshots(
    repository: &Repository,
    findings: &mut Findings,
    report: &mut CheckReport,
) -> Result<()> {
    for name in repository.unread_snapshots()? {
        findings.add(paths::snapshot(&name), "could not be read when the log was repaired");
    }
    for (name, snapshot) in repository.index().snapshots()? {
        report.snapshots += 1;
        if let Err(error) = repository.load_snapshot(&name) {
            let problem = findings.add(paths::snapshot(&name), source_text(&error));
            problem.affected.extend(
                snapshot.streams.iter().map(|stream| Affected {
                    snapshot: name.short(),
                    path: stream.name.to_string(),
                }),
            );
        }
        for stream in &snapshot.streams {
            let affected = Affected { snapshot: name.short(), path: stream.name.to_string() };
            let recipe = RecipeReader::new(repository, stream.root)?;
            let mut losses = Losses { repository, findings, sound: HashSet::new() };
            match stream_losses(&mut losses, recipe) {
                Ok(objects) => {
                    for object in objects {
                        findings.add(&object, "is damaged").affected.insert(affected.clone());
                    }
                }
                Err(error @ (Error::Damaged { .. } | Error::Missing { .. } | Error::Store(_))) => {
                    findings.add(object_of(&error), source_text(&error)).affected.insert(affected);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(tree) = snapshot.tree {
            check_tree(repository, findings, &name, tree)?;
        }
    }
    Ok(())
}

/// Every file below a tree, depth first; a directory that cannot be read touches all below it.
fn check_tree(
    repository: &Repository,
    findings: &mut Findings,
    name: &ObjectName,
    root: ChunkId,
) -> Result<()> {
    let reader = ChunkReader::new(repository);
    let mut open = vec![(TreeReader::new(&reader, root), Vec::new())];
    while let Some((entries, path)) = open.last_mut() {
        let touched =
            |path: &[u8]| Affected { snapshot: name.short(), path: Name::new(path).to_string() };
        let entry = match entries.next() {
            None => {
                open.pop();
                continue;
            }
            Some(Err(error)) if error.is_object_damage() => {
                let affected = touched(&trees::join(path, b"..."));
                findings.add(object_of(&error), source_text(&error)).affected.insert(affected);
                open.pop();
                continue;
            }
            Some(entry) => entry?,
        };
        let path = trees::join(path, &entry.name);
        let objects = match entry.kind {
            Kind::Directory { tree, .. } => {
                open.push((TreeReader::new(&reader, tree), path));
                if open.len() > trees::MAX_DEPTH {
                    return Err(trees::too_deep(&tree));
                }
                continue;
            }
            Kind::File { content: Content::Chunk(id), .. } => {
                Losses { repository, findings, sound: HashSet::new() }.of(id.key())
            }
            Kind::File { content: Content::Recipe { root, .. }, .. } => {
                let recipe = RecipeReader::new(repository, root)?;
                stream_losses(&mut Losses { repository, findings, sound: HashSet::new() }, recipe)
            }
            _ => continue,
        };
        match objects {
            Ok(objects) => {
                for object in objects {
                    findings.add(&object, "is damaged").affected.insert(touched(&path));
                }
            }
            Err(error) if error.is_object_damage() => {
                let problem = findings.add(object_of(&error), source_text(&error));
                problem.affected.insert(touched(&path));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The object that an error is about.
pub fn object_of(error: &Error) -> String {
    error.object()
}

/// What is wrong, without the name of the object.
pub fn source_text(error: &Error) -> String {
    match error {
        Error::Damaged { source, .. } => source.to_string(),
        Error::Missing { .. } => "is missing".to_owned(),
        other => other.to_string(),
    }
}
