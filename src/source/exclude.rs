//! What a walk leaves out.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::format::entry::is_name;

/// Rules for leaving files out. Patterns are those of gitignore, matched against absolute paths:
/// one without a slash matches at any depth, one that starts with a slash only from the root.
pub struct Excludes {
    patterns: Gitignore,
    folded: Gitignore,
    /// Leave out what lies in a directory with a `CACHEDIR.TAG`, but keep the tag.
    pub caches: bool,
    cache_tag: TagFile,
    /// Leave out what lies in a directory that holds one of these.
    pub if_present: Vec<TagFile>,
    /// Leave out files of more bytes.
    pub larger_than: Option<u64>,
    /// Real paths that were given by another name, through links: patterns may use either.
    pub aliases: Vec<(PathBuf, PathBuf)>,
}

/// A file that marks its directory as not to be backed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagFile {
    name: OsString,
    /// What it must begin with; empty for anything.
    header: Vec<u8>,
}

impl TagFile {
    /// A mark of the form `NAME` or `NAME:HEADER`. `None` where the name is no file name.
    pub fn parse(text: &OsStr) -> Option<Self> {
        let bytes = text.as_bytes();
        let at = bytes.iter().position(|&byte| byte == b':');
        let (name, header) = at.map_or((bytes, &b""[..]), |at| (&bytes[..at], &bytes[at + 1..]));
        let name = OsStr::from_bytes(name).to_owned();
        is_name(name.as_bytes()).then(|| Self { name, header: header.to_vec() })
    }

    fn marks(&self, directory: &Path) -> bool {
        let path = directory.join(&self.name);
        if self.header.is_empty() {
            return path.symlink_metadata().is_ok();
        }
        let is_file = path.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
        let mut start = vec![0; self.header.len()];
        let read = || File::open(path).and_then(|mut file| file.read_exact(&mut start));
        is_file && read().is_ok() && start == self.header
    }
}

/// A pattern that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("exclude pattern '{pattern}': {detail}")]
pub struct PatternError {
    pattern: String,
    detail: String,
}

impl Excludes {
    /// Rules with these patterns; the second list ignores case.
    pub fn new(patterns: &[String], folded: &[String]) -> Result<Self, PatternError> {
        Ok(Self {
            patterns: compile(patterns, false)?,
            folded: compile(folded, true)?,
            caches: false,
            cache_tag: TagFile { name: CACHE_TAG.into(), header: CACHE_SIGNATURE.to_vec() },
            if_present: Vec::new(),
            larger_than: None,
            aliases: Vec::new(),
        })
    }

    /// Why this path is left out, if it is.
    pub fn reason(&self, path: &Path, is_directory: bool, size: u64) -> Option<&'static str> {
        let mut aliases = self.aliases.iter().filter_map(|(real, given)| {
            let below = path.strip_prefix(real).ok()?;
            self.by_pattern(&given.join(below), is_directory)
        });
        let reason = self.by_pattern(path, is_directory).or_else(|| aliases.next());
        let is_larger = self.larger_than.is_some_and(|limit| !is_directory && size > limit);
        reason.or(is_larger.then_some("larger than allowed"))
    }

    fn by_pattern(&self, path: &Path, is_directory: bool) -> Option<&'static str> {
        if self.patterns.matched(path, is_directory).is_ignore() {
            return Some("excluded by a pattern");
        }
        if self.folded.matched(path, is_directory).is_ignore() {
            return Some("excluded by a pattern that ignores case");
        }
        None
    }

    /// Whether all of a directory but a tag is left out, and the name of that tag.
    pub fn tag_of(&self, directory: &Path) -> Option<&OsStr> {
        let cache = self.caches.then_some(&self.cache_tag);
        let mut tags = cache.into_iter().chain(&self.if_present);
        tags.find(|tag| tag.marks(directory)).map(|tag| tag.name.as_os_str())
    }
}

impl Default for Excludes {
    fn default() -> Self {
        Self::new(&[], &[]).expect("no pattern, no error")
    }
}

const CACHE_TAG: &str = "CACHEDIR.TAG";
/// <https://bford.info/cachedir/>
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

fn compile(patterns: &[String], folded: bool) -> Result<Gitignore, PatternError> {
    let mut builder = GitignoreBuilder::new("/");
    let error = |pattern: &str, error: ignore::Error| PatternError {
        pattern: pattern.to_owned(),
        detail: error.to_string(),
    };
    builder.case_insensitive(folded).map_err(|e| error("", e))?;
    builder.allow_unclosed_class(false);
    for pattern in patterns {
        builder.add_line(None, pattern).map_err(|e| error(pattern, e))?;
    }
    builder.build().map_err(|e| error("", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_gitignore() {
        let list = |patterns: &[&str]| patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
        let rules =
            Excludes::new(&list(&["*.o", "/srv/tmp", "cache/", "!keep.o"]), &list(&["*.BAK"]))
                .unwrap();
        let out =
            |path: &str, is_directory| rules.reason(Path::new(path), is_directory, 0).is_some();
        assert!(out("/a/b/x.o", false) && !out("/a/keep.o", false) && !out("/a/x.c", false));
        assert!(out("/srv/tmp", true) && !out("/home/srv/tmp", true));
        assert!(out("/a/cache", true) && !out("/a/cache", false));
        assert!(out("/a/x.bak", false));
        assert!(Excludes::new(&list(&["a[z-"]), &[]).is_err());
    }

    #[test]
    fn tags_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let rules = Excludes {
            caches: true,
            if_present: vec![
                TagFile::parse(OsStr::new(".nobackup")).unwrap(),
                TagFile::parse(OsStr::new("mark:yes")).unwrap(),
            ],
            larger_than: Some(10),
            ..Excludes::default()
        };
        assert_eq!(rules.tag_of(folder.path()), None);
        std::fs::write(folder.path().join(CACHE_TAG), b"no signature").unwrap();
        assert_eq!(rules.tag_of(folder.path()), None);
        std::fs::write(folder.path().join(CACHE_TAG), CACHE_SIGNATURE).unwrap();
        assert_eq!(rules.tag_of(folder.path()), Some(OsStr::new(CACHE_TAG)));
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join("mark"), b"no").unwrap();
        assert_eq!(rules.tag_of(other.path()), None);
        std::fs::write(other.path().join("mark"), b"yes, really").unwrap();
        assert_eq!(rules.tag_of(other.path()), Some(OsStr::new("mark")));
        for bad in ["", "a/b", "..", ".", ":x"] {
            assert!(TagFile::parse(OsStr::new(bad)).is_none(), "{bad}");
        }
        assert!(rules.reason(Path::new("/a"), false, 11).is_some());
        assert!(rules.reason(Path::new("/a"), true, 11).is_none());
    }
}
