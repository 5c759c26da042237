//! Writing what is needed of packs into new ones. Blobs are verified and go over as they are stored;
//! groups of which members are gone are compressed anew.

use std::thread;

use super::PruneProblem;
use super::mark::Marker;
use super::plan::{Homes, PackUse, Unit, units};
use crate::compress::{Compressor, Decompressor, Settings};
use crate::error::{Error, Result};
use crate::format::directory::{BlobEntry, Codec};
use crate::format::pack::{EncodedBlob, whole_entry};
use crate::format::paths;
use crate::index::{Found, PackDirectory};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::reader::{ChunkReader, Scratch};
use crate::repository::writer::BlobWriter;

/// What came of it.
#[derive(Default)]
pub struct Repacked {
    /// Packs that were written anew; the old ones can go.
    pub packs: Vec<PackUse>,
    /// Packs that could not be.
    pub problems: Vec<PruneProblem>,
    /// Bytes of new packs and their idx objects.
    pub written_bytes: u64,
    /// The time limit came before the end.
    pub is_cut_short: bool,
}

/// Writes the needed part of some packs anew and commits it. The old packs stay as they are.
pub fn repack(
    repository: &Repository,
    packs: &[PackUse],
    marker: &Marker<'_>,
    homes: &Homes,
    progress: &Progress,
    is_time_up: &dyn Fn() -> bool,
) -> Result<Repacked> {
    let mut repacked = Repacked::default();
    if packs.is_empty() {
        return Ok(repacked);
    }
    let writer = BlobWriter::new(repository, false);
    let mut copier = Copier {
        repository,
        reader: ChunkReader::new(repository),
        writer: &writer,
        scratch: Scratch::new()?,
        compressor: Compressor::new(Settings::default())?,
        verifier: Decompressor::new()?,
    };
    copier.compressor.set_plain_level(Settings::default().file_level)?;
    let mut copy = || {
        let copied = packs.iter().try_for_each(|pack_use| {
            if progress.is_interrupted() || writer.has_failed() {
                return Err(Error::Interrupted);
            }
            if is_time_up() {
                repacked.is_cut_short = true;
                return Ok(());
            }
            match copier.pack(pack_use, marker, homes) {
                Ok(()) => repacked.packs.push(pack_use.clone()),
                Err(error) if error.is_object_damage() => {
                    let object = paths::pack(&pack_use.name);
                    repacked.problems.push(PruneProblem { object, detail: error.to_string() });
                }
                Err(error) => return Err(error),
            }
            Progress::add(&progress.done_bytes, pack_use.used);
            Ok(())
        });
        copied.and(writer.close())
    };
    let copied = if repository.environment().in_order {
        copy().inspect(|()| writer.store_packs())
    } else {
        thread::scope(|scope| {
            let storer = scope.spawn(|| writer.store_packs());
            let copied = copy();
            let _ = storer.join();
            copied
        })
    };
    if let Err(error) = copied {
        return Err(writer.take_error().unwrap_or(error));
    }
    writer.commit(None)?;
    repacked.written_bytes = writer.added_bytes();
    Ok(repacked)
}

struct Copier<'a> {
    repository: &'a Repository,
    reader: ChunkReader<'a>,
    writer: &'a BlobWriter<'a>,
    scratch: Scratch,
    compressor: Compressor,
    verifier: Decompressor,
}

impl Copier<'_> {
    fn pack(&mut self, pack_use: &PackUse, marker: &Marker<'_>, homes: &Homes) -> Result<()> {
        let Some(pack) = self.repository.index().pack(&pack_use.name)? else { return Ok(()) };
        let is_used =
            |entry: &BlobEntry| marker.needs(&entry.id) && homes.is_home(&entry.id, &pack);
        // All is read before any of it is handed over: a damaged pack is left alone as a whole.
        let mut blobs = Vec::new();
        for unit in units(&pack) {
            let members: Vec<usize> =
                unit.members.clone().filter(|at| is_used(&pack.entries[*at])).collect();
            if unit.members.is_empty() {
                if is_used(unit.entry) {
                    blobs.push(self.blob(&pack, unit.ordinal)?);
                }
            } else if members.len() == unit.members.len() {
                blobs.push(self.whole_group(&pack, &unit)?);
            } else if !members.is_empty() {
                blobs.push(self.part_of_group(&pack, &members)?);
            }
        }
        blobs.into_iter().try_for_each(|blob| self.writer.add(pack.kind, blob))
    }

    fn place(pack: &std::sync::Arc<PackDirectory>, ordinal: usize) -> Found {
        Found { pack: pack.clone(), ordinal }
    }

    /// A blob as it is stored, after a look that it still decodes to what it should.
    fn blob(&mut self, pack: &std::sync::Arc<PackDirectory>, at: usize) -> Result<EncodedBlob> {
        let place = Self::place(pack, at);
        self.reader.verify(&place, &mut self.scratch)?;
        let payload = self.reader.payload(&place)?;
        Ok(EncodedBlob::new(place.entry().clone(), payload))
    }

    fn whole_group(
        &mut self,
        pack: &std::sync::Arc<PackDirectory>,
        unit: &Unit<'_>,
    ) -> Result<EncodedBlob> {
        for at in unit.members.clone() {
            self.reader.verify(&Self::place(pack, at), &mut self.scratch)?;
        }
        let members = pack.entries[unit.members.clone()].to_vec();
        let payload = self.reader.payload(&Self::place(pack, unit.ordinal))?;
        Ok(EncodedBlob { entry: unit.entry.clone(), payload, members })
    }

    /// Some members of a group as a smaller group, or the only one as a blob of its own.
    fn part_of_group(
        &mut self,
        pack: &std::sync::Arc<PackDirectory>,
        members: &[usize],
    ) -> Result<EncodedBlob> {
        let mut bytes = Vec::new();
        for at in members {
            let place = Self::place(pack, *at);
            bytes.extend_from_slice(&self.reader.verified(&place, &mut self.scratch)?);
        }
        let frame = self.compressor.plain(&bytes)?;
        let decoded = self.verifier.plain_into(Vec::new(), &frame, bytes.len())?;
        if decoded != bytes {
            let text = "compressed bytes did not decode to what went in: the memory may be faulty";
            return Err(Error::Conflict(text.into()));
        }
        let (codec, payload) =
            if frame.len() < bytes.len() { (Codec::Zstd, frame) } else { (Codec::Raw, bytes) };
        let entries: Vec<_> = members.iter().map(|at| pack.entries[*at].clone()).collect();
        let length = entries.iter().map(|entry| entry.plain_len as usize).sum();
        if let [only] = &entries[..] {
            return Ok(EncodedBlob::new(whole_entry(only.id, codec, length), payload));
        }
        let key = self.repository.keys().group_key(entries.iter().map(|entry| entry.id));
        let entry = whole_entry(key, codec, length);
        Ok(EncodedBlob { entry, payload, members: entries })
    }
}
