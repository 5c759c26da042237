//! The part of a check that reads packs: every byte of them, every blob decoded and its id verified.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use rayon::prelude::*;

use super::structure::{object_of, source_text};
use super::{CheckReport, Findings, ReadData};
use crate::crypto::CryptoError;
use crate::entropy::random;
use crate::error::{Error, Result};
use crate::format::paths;
use crate::format::{pack, parity};
use crate::id::ObjectName;
use crate::index::{Fate, Found};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::parity::Mended;
use crate::repository::reader::{ChunkReader, Scratch, blob_name};
use crate::store::StoreError;

/// Reads the chosen packs.
pub fn read(
    repository: &Repository,
    choice: ReadData,
    findings: &mut Findings,
    report: &mut CheckReport,
    progress: &Progress,
) -> Result<()> {
    let chosen = choose(repository, choice)?;
    let total: u64 = chosen.iter().map(|(_, size)| size).sum();
    progress.total_bytes.store(total, Ordering::Relaxed);
    let reader = ChunkReader::new(repository);
    let shared = Mutex::new((std::mem::take(findings), 0, 0));
    chosen.par_iter().try_for_each(|(name, size)| {
        if progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        let found = read_pack(repository, &reader, name)?;
        Progress::add(&progress.done_bytes, *size);
        let mut shared = shared.lock().expect("no panics here");
        shared.1 += 1;
        shared.2 += size;
        for problem in found {
            shared.0.add(&problem.object, problem.detail).is_mendable |= problem.is_mendable;
            if let Some(key) = problem.lost {
                shared.0.lose(key, &problem.object);
            }
        }
        Ok(())
    })?;
    let (collected, packs, bytes) = shared.into_inner().expect("no panics here");
    *findings = collected;
    report.packs_read += packs;
    report.bytes_read += bytes;
    Ok(())
}

fn choose(repository: &Repository, choice: ReadData) -> Result<Vec<(ObjectName, u64)>> {
    let mut packs = repository.index().packs()?;
    packs.retain(|(name, _)| repository.index().fate(name) != Some(Fate::Dead));
    match choice {
        ReadData::None => packs.clear(),
        ReadData::All => {}
        ReadData::Part { part, parts } => {
            packs.retain(|(name, _)| u64::from(name.0[0]) % parts == part - 1);
        }
        ReadData::Share(share) => {
            let seed = random::<32>(&*repository.environment().entropy);
            let dice = |name: &ObjectName| {
                let word = blake3::keyed_hash(&seed, name.as_bytes());
                u64::from_le_bytes(*word.as_bytes().first_chunk().expect("32 bytes"))
            };
            packs.sort_by_key(|(name, _)| dice(name));
            let count = (packs.len() as f64 * share).ceil() as usize;
            packs.truncate(count);
        }
    }
    Ok(packs)
}

struct PackProblem {
    object: String,
    detail: String,
    lost: Option<crate::id::ChunkKey>,
    is_mendable: bool,
}

fn read_pack(
    repository: &Repository,
    reader: &ChunkReader<'_>,
    name: &ObjectName,
) -> Result<Vec<PackProblem>> {
    let path = paths::pack(name);
    let Some(directory) = repository.index().pack(name)? else { return Ok(Vec::new()) };
    let whole = |detail: String| PackProblem {
        object: path.clone(),
        detail,
        lost: None,
        is_mendable: false,
    };
    let bytes = match repository.store().get(&path) {
        Ok(bytes) => bytes,
        // `structure::packs` names missing packs.
        Err(StoreError::NotFound { .. }) => return Ok(Vec::new()),
        Err(error) => return Ok(vec![whole(error.to_string())]),
    };
    let mut problems = Vec::new();
    let mut is_mendable = false;
    let is_sound = ObjectName::of(&bytes) == *name;
    if !is_sound {
        is_mendable = matches!(repository.mend_pack(name)?, Mended::Bytes(_));
        problems.push(whole(match is_mendable {
            true => "its bytes do not match its name; its parity can mend it".into(),
            false => "its bytes do not match its name".into(),
        }));
    }
    problems.extend(parity_problem(repository, name, is_sound.then_some(&bytes))?);
    match pack::read_directory(repository.keys(), &bytes) {
        Ok(found) if directory.is_of(&found) => {}
        Ok(_) => problems.push(whole("its directory is not what the index says".into())),
        Err(error) => problems.push(whole(format!("its directory: {error}"))),
    }
    drop(bytes);
    let mut scratch = Scratch::new()?;
    for ordinal in 0..directory.entries.len() {
        let place = Found { pack: directory.clone(), ordinal };
        let read = reader.verify(&place, &mut scratch);
        if let Err(error) = read {
            problems.push(blob_problem(&place, &error));
        }
    }
    // Blobs of other packs that are in the way are damaged for themselves.
    let in_it = |problem: &PackProblem| problem.object.starts_with(&path);
    problems.iter_mut().filter(|it| in_it(it)).for_each(|it| it.is_mendable = is_mendable);
    Ok(problems)
}

/// What is wrong with the parity of a pack, whose bytes these are where it is sound.
fn parity_problem(
    repository: &Repository,
    name: &ObjectName,
    pack: Option<&Vec<u8>>,
) -> Result<Option<PackProblem>> {
    if repository.config().parity == 0 {
        return Ok(None);
    }
    let object = paths::parity(name);
    let detail = match repository.store().get(&object) {
        Ok(stored) if pack.is_some_and(|pack| parity::is_of(&stored, pack)) => return Ok(None),
        Ok(stored) if pack.is_none() && parity::is_whole(&stored) => return Ok(None),
        // `structure::packs` names what is missing.
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Ok(stored) if parity::is_whole(&stored) => "is not the parity of this pack".to_owned(),
        Ok(_) => "is damaged".to_owned(),
        Err(error) => error.to_string(),
    };
    Ok(Some(PackProblem { object, detail, lost: None, is_mendable: false }))
}

/// A blob that fails because of its base names the base; it is lost all the same.
fn blob_problem(place: &Found, error: &Error) -> PackProblem {
    let object = match error {
        Error::Damaged { .. } | Error::Missing { .. } => object_of(error),
        _ => blob_name(place),
    };
    let detail = match error {
        Error::Damaged { source, .. } if *source == CryptoError::NotAuthentic.into() => {
            "authentication failed".to_owned()
        }
        other => source_text(other),
    };
    PackProblem { object, detail, lost: Some(place.entry().id), is_mendable: false }
}
