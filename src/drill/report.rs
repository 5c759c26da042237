//! Reports of drills in the repository: each is a snapshot with one stream, which holds the report as one
//! line of JSON and its authentication code as the next.

use bytes::Bytes;

use super::Report;
use crate::backup::{BackupOptions, StreamSource, run as back_up};
use crate::error::Result;
use crate::format::name::Name;
use crate::format::snapshot::SourceRef;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::snapshots::{Filter, NamedSnapshot};
use crate::restore::{WriterTarget, copy_stream};

/// What snapshots of reports say they are of.
pub const ENGINE: &str = "drill";
/// Longer ones are none.
const MAX_REPORT: u64 = 16 << 20;

/// Whether a report is what an owner of the repository wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Signed {
    /// Its code is right.
    Good,
    /// Its code is wrong, or a write-only key stored it.
    Bad,
}

/// A report that was found.
pub struct Found {
    /// The snapshot that holds it.
    pub snapshot: NamedSnapshot,
    /// The report; none where it cannot be read.
    pub report: Option<Report>,
    /// Whether it is to be believed.
    pub signed: Signed,
}

/// Stores a report.
pub fn store(repository: &Repository, report: &Report, host: String, user: String) -> Result<()> {
    let mut text = serde_json::to_vec(report).expect("texts and numbers");
    let mac = repository.keys().report_mac(&text);
    text.extend(format!("\n{}\n", mac.to_hex()).as_bytes());
    let name = Name::new(format!("drill/{}.json", crate::database::stream_part(&report.drill)));
    let input = Box::new(std::io::Cursor::new(Bytes::from(text)));
    let outcome = report.failure.as_ref().map_or("passed", |failure| failure.kind.name());
    let options = BackupOptions {
        streams: vec![StreamSource { name, input, min_bytes: 1 }],
        source: Some(SourceRef {
            name: format!("drill:{}", report.drill),
            engine: ENGINE.into(),
            ..SourceRef::default()
        }),
        description: Some(format!("drill of {}: {outcome}", report.source)),
        host,
        user,
        tags: vec!["drill".into()],
        ..BackupOptions::default()
    };
    back_up(repository, options, &Progress::default()).map(drop)
}

/// The reports in the repository, oldest first; of one drill where a name is given.
pub fn list(repository: &Repository, drill: Option<&str>) -> Result<Vec<Found>> {
    let mut all = Vec::new();
    for named in repository.snapshots(&Filter::default())? {
        let Some(source) = &named.snapshot.source else { continue };
        let name = source.name.strip_prefix("drill:").unwrap_or_default();
        if source.engine != ENGINE || drill.is_some_and(|wanted| wanted != name) {
            continue;
        }
        all.push(read(repository, named)?);
    }
    Ok(all)
}

fn read(repository: &Repository, snapshot: NamedSnapshot) -> Result<Found> {
    let bad = |snapshot| Found { snapshot, report: None, signed: Signed::Bad };
    let stream = snapshot.snapshot.streams.first().filter(|stream| stream.size <= MAX_REPORT);
    let Some(stream) = stream else { return Ok(bad(snapshot)) };
    let mut target = WriterTarget { writer: Vec::new(), name: "memory".into() };
    copy_stream(repository, stream, &mut target, &Progress::default())?;
    let mut lines = target.writer.split(|byte| *byte == b'\n');
    let (text, mac) = (lines.next().unwrap_or(&[]), lines.next().unwrap_or(&[]));
    let Ok(report) = serde_json::from_slice::<Report>(text) else { return Ok(bad(snapshot)) };
    let mac = blake3::Hash::from_hex(mac).ok();
    let is_good = mac == Some(repository.keys().report_mac(text)) && !snapshot.snapshot.sealed;
    let signed = if is_good { Signed::Good } else { Signed::Bad };
    Ok(Found { snapshot, report: Some(report), signed })
}
