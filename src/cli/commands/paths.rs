//! The options of `backup` that are about files.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use anyhow::Result;
use clap::Args;
use restow::backup::files::FilesSource;
use restow::error::Error;
use restow::settings::FilesConfig;
use restow::source::exclude::{Excludes, TagFile};

use crate::cli::output;

/// What files to back up, and which not.
#[derive(Args, Default)]
pub struct PathArgs {
    /// Files and directories to back up
    paths: Vec<PathBuf>,
    /// Leave out what matches this gitignore pattern (may be given several times)
    #[arg(short, long, value_name = "PATTERN", help_heading = "Files")]
    exclude: Vec<String>,
    /// The same, ignoring case
    #[arg(long, value_name = "PATTERN", help_heading = "Files")]
    iexclude: Vec<String>,
    /// Read patterns from a file, one a line
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    exclude_file: Vec<PathBuf>,
    /// Leave out directories with a CACHEDIR.TAG, but for the tag
    #[arg(long, help_heading = "Files")]
    exclude_caches: bool,
    /// Leave out directories that hold a file of this name (that begins with HEADER), but for it
    #[arg(long, value_name = "NAME[:HEADER]", help_heading = "Files")]
    exclude_if_present: Vec<OsString>,
    /// Leave out files of more bytes; K, M, G and T stand for powers of 1024
    #[arg(long, value_name = "SIZE", value_parser = output::parse_size, help_heading = "Files")]
    exclude_larger_than: Option<u64>,
    /// Stay on the file systems of the paths given
    #[arg(short = 'x', long, help_heading = "Files")]
    one_file_system: bool,
    /// Read more paths from a file, one a line (`-`: standard input); lines with # at their start
    /// are comments
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    files_from: Vec<PathBuf>,
    /// The same, each path ended by a NUL byte
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    files_from_raw: Vec<PathBuf>,
    /// Take a file for unchanged though its inode number is another
    #[arg(long, help_heading = "Files")]
    ignore_inode: bool,
    /// Take a file for unchanged though its change time is another
    #[arg(long, help_heading = "Files")]
    ignore_ctime: bool,
}

impl PathArgs {
    /// The same for a source of the configuration file.
    pub fn of(config: &FilesConfig) -> Self {
        Self {
            paths: config.paths.clone(),
            exclude: config.exclude.clone(),
            one_file_system: config.one_file_system,
            ..Self::default()
        }
    }

    /// Whether any file was asked for.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.files_from.is_empty() && self.files_from_raw.is_empty()
    }

    /// The source that these options describe; `explain` asks for a note on every file.
    pub fn source(&self, explain: bool) -> Result<Option<FilesSource>> {
        if self.is_empty() {
            return Ok(None);
        }
        let mut paths = self.paths.clone();
        for (files, separator) in [(&self.files_from, b'\n'), (&self.files_from_raw, 0)] {
            let is_path =
                |line: &&[u8]| !line.is_empty() && (separator == 0 || !line.starts_with(b"#"));
            for file in files {
                let lines = read(file)?;
                let lines = lines.split(|&byte| byte == separator).filter(is_path);
                paths.extend(lines.map(|line| PathBuf::from(OsString::from_vec(line.to_vec()))));
            }
        }
        let mut excludes = self.excludes()?;
        let mut absolute = Vec::new();
        for path in &paths {
            let real = plain(path)?;
            let given = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            if given != real {
                excludes.aliases.push((real.clone(), given));
            }
            absolute.push(real);
        }
        absolute.sort();
        absolute.dedup();
        let exists = |path: &PathBuf| path.symlink_metadata().is_ok();
        if !absolute.is_empty() && !absolute.iter().any(exists) {
            let text = format!("{} does not exist", absolute[0].display());
            return Err(Error::Source { source_name: "backup".into(), detail: text }.into());
        }
        Ok(Some(FilesSource {
            paths: absolute,
            excludes,
            one_file_system: self.one_file_system,
            ignore_inode: self.ignore_inode,
            ignore_ctime: self.ignore_ctime,
            explain,
        }))
    }

    fn excludes(&self) -> Result<Excludes> {
        let mut patterns = self.exclude.clone();
        for file in &self.exclude_file {
            let text = String::from_utf8_lossy(&read(file)?).into_owned();
            patterns.extend(text.lines().map(str::to_owned));
        }
        let mut excludes = Excludes::new(&patterns, &self.iexclude)
            .map_err(|error| Error::Usage(error.to_string()))?;
        excludes.caches = self.exclude_caches;
        for text in &self.exclude_if_present {
            let tag = TagFile::parse(text).ok_or_else(|| {
                let text = text.display();
                Error::Usage(format!("--exclude-if-present {text}: must be the name of a file"))
            })?;
            excludes.if_present.push(tag);
        }
        excludes.larger_than = self.exclude_larger_than;
        Ok(excludes)
    }
}

/// The absolute path without `.`, `..` and symbolic links but the last part: what is backed up stands
/// where it really is. A path whose folder is not there stays as it is, to be told as missing.
pub fn plain(path: &Path) -> Result<PathBuf> {
    let io = |source| Error::Io { action: "find", path: path.display().to_string(), source };
    let is_up = |part: Component<'_>| matches!(part, Component::ParentDir);
    if path.components().next_back().is_none_or(is_up) {
        return Ok(path.canonicalize().map_err(io)?);
    }
    let absolute = std::path::absolute(path).map_err(io)?;
    let (Some(folder), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Ok(absolute);
    };
    match folder.canonicalize() {
        Ok(folder) => Ok(folder.join(name)),
        Err(error) if path.components().any(is_up) => Err(io(error).into()),
        Err(_) => {
            Ok(absolute.components().filter(|part| !matches!(part, Component::CurDir)).collect())
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let read = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    Ok(read.map_err(|source| Error::Io {
        action: "read",
        path: path.display().to_string(),
        source,
    })?)
}
