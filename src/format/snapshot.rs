//! Snapshot manifests: who backed up what and when, and the roots of the recipes. JSON, sealed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::FormatError;
use super::name::Name;
use super::recipe::Root;
use crate::id::{ChunkId, ObjectName, RepositoryId};

/// One backup run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Format of this manifest, 1.
    pub version: u32,
    /// When the backup began.
    pub time: Timestamp,
    /// The machine it is of.
    pub host: String,
    /// The user who ran it.
    #[serde(default)]
    pub user: String,
    /// Words for finding it again.
    #[serde(default)]
    pub tags: Vec<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The snapshot whose chunks the deltas of this one were made against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ObjectName>,
    /// The snapshot that this one replaced when its tags were changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<ObjectName>,
    /// Where it was made first, if this is a copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// The damaged snapshot of which this is what was left. It is another snapshot than that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repaired_from: Option<ObjectName>,
    /// It may not be forgotten until it is released.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// When that ends by itself; for ever where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_until: Option<Timestamp>,
    /// A write-only key made it: nobody vouches for what it says of host, paths and content.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sealed: bool,
    /// Files that are not in it as they should be: they could not be read, or changed meanwhile.
    #[serde(default, skip_serializing_if = "is_none")]
    pub problems: u64,
    /// The streams, by name.
    #[serde(default)]
    pub streams: Vec<StreamEntry>,
    /// Compressed streams that were stored unpacked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unpacked: Vec<UnpackedStream>,
    /// The files and directories that were asked for, as absolute paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<Name>,
    /// The tree of `/` with these paths in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<ChunkId>,
    /// The source that it is of, where one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceRef>,
    /// Name of the stream that tells the tables of the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalogue: Option<Name>,
    /// What the run cost.
    #[serde(default)]
    pub summary: Summary,
    /// The program that wrote it.
    #[serde(default)]
    pub program: String,
    /// What newer programs wrote; kept when a snapshot is rewritten.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

/// The identity of a snapshot: it stays the same through copies and changes of tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The repository that it was made in.
    pub repository: RepositoryId,
    /// What it was called there at first.
    pub snapshot: ObjectName,
}

/// What a snapshot is of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRef {
    /// Its name in the configuration, or its address without secrets.
    pub name: String,
    /// `postgres`, `mysql`, `mariadb`, `sqlite`, `command`, `files`, `drill`.
    pub engine: String,
    /// The version of the server, where there is one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub server_version: String,
    /// A command that takes the stream on its standard input.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restore: Vec<String>,
}

/// One stream of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEntry {
    /// Its name.
    pub name: Name,
    /// Plain bytes.
    pub size: u64,
    /// Chunks, repeats counted.
    pub chunks: u64,
    /// The recipe's root: equal roots are equal contents within one repository.
    pub root: ChunkId,
}

/// A compressed stream that was unpacked, and is given back as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnpackedStream {
    /// Its name.
    pub name: Name,
    /// The stream that holds its plain bytes.
    pub plain: Name,
    /// The stream that says how they were compressed.
    pub recipe: Name,
}

impl UnpackedStream {
    /// A stream of this name, and the names of its parts.
    pub fn new(name: Name) -> Self {
        let part = |suffix: &str| Name::new([name.as_bytes(), suffix.as_bytes()].concat());
        Self { plain: part(".plain"), recipe: part(".recipe"), name }
    }
}

impl StreamEntry {
    /// The stream with this name and recipe.
    pub fn new(name: Name, root: Root) -> Self {
        Self { name, size: root.total_bytes, chunks: root.chunks, root: root.id }
    }
}

/// What a run read and added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Bytes read from the sources.
    pub read_bytes: u64,
    /// Of these, in chunks that were there already.
    pub dedup_bytes: u64,
    /// Of these, in chunks stored as a difference.
    pub delta_bytes: u64,
    /// Of these, in chunks stored whole.
    pub new_bytes: u64,
    /// Bytes of packs, idx objects and the manifest's share that were added.
    pub added_bytes: u64,
    /// Chunks met.
    pub chunks: u64,
    /// Of these, new ones.
    pub new_chunks: u64,
    /// Files of all kinds, directories aside.
    pub files: u64,
    /// Of these, regular files that were not read because nothing about them had changed.
    pub unchanged_files: u64,
    /// Bytes in those.
    pub unchanged_bytes: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes of all regular files.
    pub file_bytes: u64,
    /// Time the run took.
    pub seconds: f64,
}

impl Snapshot {
    /// Encodes the manifest.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest holds nothing that JSON cannot")
    }

    /// Decodes a manifest.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let snapshot: Self =
            serde_json::from_slice(bytes).map_err(|_| FormatError::Invalid("snapshot manifest"))?;
        if snapshot.version == 1 {
            Ok(snapshot)
        } else {
            Err(FormatError::Invalid("snapshot version: a newer restow wrote this"))
        }
    }

    /// The stream whose name is `path`, slashes at the start aside.
    pub fn stream(&self, path: &[u8]) -> Option<&StreamEntry> {
        let wanted = Name::new(path);
        self.streams.iter().find(|stream| stream.name.relative() == wanted.relative())
    }

    /// Whether it has all of these tags; no tag at all where none is asked for, as in restic.
    pub fn has_tags(&self, tags: &[String]) -> bool {
        match tags {
            [] => self.tags.is_empty(),
            tags => tags.iter().all(|tag| self.tags.contains(tag)),
        }
    }

    /// Whether it may not be forgotten at this time.
    pub fn is_held(&self, now: Timestamp) -> bool {
        self.held && self.held_until.is_none_or(|until| now < until)
    }

    /// Whether everything that was asked for is in it.
    pub fn is_complete(&self) -> bool {
        self.problems == 0
    }

    /// Plain bytes of all streams and files.
    pub fn total_bytes(&self) -> u64 {
        let streams: u64 = self.streams.iter().map(|stream| stream.size).sum();
        streams + self.summary.file_bytes
    }
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_keeps_what_it_does_not_know() {
        let text = r#"{"version":1,"time":"2026-01-02T03:04:05.000000006Z","host":"db1",
            "streams":[{"name":"a","size":1,"chunks":1,"root":"00"}],"later":{"x":1}}"#;
        let text = text.replace("\"00\"", &format!("\"{}\"", "00".repeat(32)));
        let snapshot = Snapshot::decode(text.as_bytes()).unwrap();
        assert_eq!(snapshot.extra["later"]["x"], 1);
        assert_eq!(Snapshot::decode(&snapshot.encode()).unwrap(), snapshot);
        assert!(snapshot.stream(b"/a").is_some() && snapshot.stream(b"b").is_none());
    }

    #[test]
    fn problems_are_kept_and_tags_are_all_or_none() {
        let text = r#"{"version":1,"time":"2026-01-02T03:04:05Z","host":"h","tags":["a","b"]}"#;
        let mut snapshot = Snapshot::decode(text.as_bytes()).unwrap();
        assert!(snapshot.is_complete());
        assert!(!String::from_utf8(snapshot.encode()).unwrap().contains("problems"));
        snapshot.problems = 3;
        assert_eq!(Snapshot::decode(&snapshot.encode()).unwrap().problems, 3);
        let has = |snapshot: &Snapshot, tags: &[&str]| {
            snapshot.has_tags(&tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>())
        };
        assert!(has(&snapshot, &["b"]) && !has(&snapshot, &["b", "c"]) && !has(&snapshot, &[]));
        snapshot.tags.clear();
        assert!(has(&snapshot, &[]) && !has(&snapshot, &["b"]));
    }

    #[test]
    fn newer_and_broken_manifests_are_refused() {
        assert!(Snapshot::decode(b"{}").is_err());
        let text = r#"{"version":2,"time":"2026-01-02T03:04:05Z","host":"","streams":[]}"#;
        assert!(Snapshot::decode(text.as_bytes()).unwrap_err().to_string().contains("newer"));
    }
}
