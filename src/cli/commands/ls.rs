//! `restow ls`.

use std::ffi::OsString;

use anyhow::Result;
use clap::Args;
use restow::error::Error;
use restow::find::{Listed, each};
use restow::format::name::Name;
use restow::repository::trees::Step;

use super::{FilterArgs, name_of};
use crate::cli::{Global, interrupt, output};

/// List what a snapshot holds
#[derive(Args)]
pub struct LsArgs {
    /// Id of the snapshot, its first digits, or `latest`
    #[arg(default_value = "latest")]
    snapshot: String,
    /// Only this directory or file
    directory: Option<OsString>,
    /// With permissions, owners, sizes and times
    #[arg(short, long)]
    long: bool,
    /// Also everything below
    #[arg(short = 'R', long)]
    recursive: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Prints streams and files. Without a path: the streams, and what was asked to be backed up.
pub fn run(global: &Global, args: LsArgs) -> Result<u8> {
    let repository = global.open_read_only()?;
    let named = repository.find_snapshot(&args.snapshot, &args.filter.filter())?;
    let (snapshot, progress) = (&named.snapshot, interrupt::progress());
    // What is listed whole: the directory asked for, or every path of the backup.
    let tops: Vec<Vec<u8>> = match &args.directory {
        Some(path) => vec![trimmed(&name_of(path))],
        None => snapshot.paths.iter().map(trimmed).collect(),
    };
    let mut found = args.directory.is_none();
    each(&repository, snapshot, &mut |listed| {
        if progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        let path = listed.path.as_bytes();
        let below = tops.iter().find_map(|top| relative(path, top));
        let is_stream = listed.kind == "stream" && args.directory.is_none();
        let is_above = tops.iter().any(|top| relative(top, path).is_some());
        let step = match below {
            // The directory itself: its entries are what is wanted.
            Some(b"") if args.directory.is_some() && listed.kind == "dir" => {
                found = true;
                return Ok(Step::Enter);
            }
            Some(rest) if !args.recursive && !rest.is_empty() && args.directory.is_none() => {
                return Ok(Step::Pass);
            }
            Some(_) if args.recursive => Step::Enter,
            Some(_) => Step::Pass,
            None if is_stream => Step::Pass,
            None if is_above => return Ok(Step::Enter),
            None => return Ok(Step::Pass),
        };
        found = true;
        print(global, args.long, &listed).map_err(output::stdout_error)?;
        Ok(step)
    })?;
    if found {
        return Ok(0);
    }
    let path = args.directory.as_deref().map(name_of).unwrap_or_else(|| "".into());
    Err(Error::NoPath { snapshot: named.name.short(), path: path.to_string() }.into())
}

fn print(global: &Global, is_long: bool, listed: &Listed) -> std::io::Result<()> {
    match (global.json, is_long) {
        (true, _) => output::json(listed),
        (false, true) => output::line(long(listed)),
        (false, false) if listed.kind == "stream" => {
            output::line(Name::new(listed.path.relative()))
        }
        (false, false) => output::line(&listed.path),
    }
}

/// A line like that of `ls -l`.
pub fn long(listed: &Listed) -> String {
    let letter = match listed.kind {
        "dir" => 'd',
        "symlink" => 'l',
        "fifo" => 'p',
        "socket" => 's',
        "block" => 'b',
        "char" => 'c',
        _ => '-',
    };
    let owner = |name: &Name, id: u32| match name.as_bytes() {
        b"" => id.to_string(),
        _ => name.to_string(),
    };
    let time = listed.modified.map(|time| {
        let local = time.to_zoned(jiff::tz::TimeZone::system());
        local.strftime("%Y-%m-%d %H:%M:%S").to_string()
    });
    let target = listed.target.as_ref().map(|target| format!(" -> {target}"));
    format!(
        "{letter}{} {:>8} {:>8} {:>12} {:19} {}{}",
        permissions(listed.mode),
        owner(&listed.user, listed.uid),
        owner(&listed.group, listed.gid),
        listed.size,
        time.unwrap_or_default(),
        listed.path,
        target.unwrap_or_default(),
    )
}

fn permissions(mode: u32) -> String {
    let mut text: Vec<char> = (0..9)
        .map(|bit| if mode & (0o400 >> bit) == 0 { '-' } else { ['r', 'w', 'x'][bit % 3] })
        .collect();
    for (at, bit, letter) in [(2, 0o4000, 's'), (5, 0o2000, 's'), (8, 0o1000, 't')] {
        if mode & bit != 0 {
            text[at] = if text[at] == 'x' { letter } else { letter.to_ascii_uppercase() };
        }
    }
    text.into_iter().collect()
}

/// With one slash at the start and none at the end; nothing for the root.
fn trimmed(name: &Name) -> Vec<u8> {
    let mut path = name.relative().to_vec();
    while path.last() == Some(&b'/') {
        path.pop();
    }
    if path.is_empty() { path } else { [b"/", &path[..]].concat() }
}

/// What is left of `path` below `top`.
fn relative<'a>(path: &'a [u8], top: &[u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(top)?;
    (rest.is_empty() || rest.starts_with(b"/")).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_read_like_those_of_ls() {
        assert_eq!(permissions(0o755), "rwxr-xr-x");
        assert_eq!(permissions(0o7640), "rwSr-S--T");
        assert_eq!(permissions(0o4711), "rws--x--x");
    }
}
