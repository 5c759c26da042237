//! `restow find`.

use anyhow::Result;
use clap::Args;
use globset::{GlobBuilder, GlobMatcher};
use jiff::Timestamp;
use restow::error::Error;
use restow::find::{Listed, each};
use restow::repository::trees::Step;

use super::FilterArgs;
use crate::cli::{Global, interrupt, output};

const KINDS: [&str; 8] = ["file", "dir", "symlink", "fifo", "socket", "block", "char", "stream"];

/// Find files and streams in snapshots
#[derive(Args)]
#[command(
    after_help = "A pattern without a slash is compared with names, one with a slash with whole \
                        paths; * ? [..] and ** as in shells."
)]
pub struct FindArgs {
    /// Patterns; a file is found if one matches
    #[arg(required = true)]
    patterns: Vec<String>,
    /// Ignore case
    #[arg(short, long)]
    ignore_case: bool,
    /// Only this snapshot (several times; default: all that pass the filters)
    #[arg(short, long, value_name = "SNAPSHOT")]
    snapshot: Vec<String>,
    /// Only files of at least so many bytes; K, M, G and T stand for powers of 1024
    #[arg(long, value_name = "SIZE", value_parser = output::parse_size)]
    larger_than: Option<u64>,
    /// Only files of at most so many bytes
    #[arg(long, value_name = "SIZE", value_parser = output::parse_size)]
    smaller_than: Option<u64>,
    /// Only files changed at or after this time, RFC 3339
    #[arg(long, value_name = "TIME")]
    newer_than: Option<Timestamp>,
    /// Only files changed at or before this time
    #[arg(long, value_name = "TIME")]
    older_than: Option<Timestamp>,
    /// Only of this kind
    #[arg(long = "type", value_name = "KIND", value_parser = KINDS)]
    kind: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Prints what is found, by snapshot. Exits with 1 where nothing is.
pub fn run(global: &Global, args: FindArgs) -> Result<u8> {
    let patterns = compile(&args)?;
    let repository = global.open_read_only()?;
    let filter = args.filter.filter();
    let snapshots = if args.snapshot.is_empty() {
        repository.snapshots(&filter)?
    } else {
        let find = |wanted: &String| repository.find_snapshot(wanted, &filter);
        args.snapshot.iter().map(find).collect::<Result<_, _>>()?
    };
    let progress = interrupt::progress();
    let mut found = 0u64;
    for named in &snapshots {
        let id = named.name.short();
        each(&repository, &named.snapshot, &mut |listed| {
            if progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            if matches(&args, &patterns, &listed) {
                found += 1;
                print(global, &id, &listed).map_err(output::stdout_error)?;
            }
            Ok(Step::Enter)
        })?;
    }
    Ok(u8::from(found == 0))
}

fn print(global: &Global, id: &str, listed: &Listed) -> std::io::Result<()> {
    if !global.json {
        return output::line(format!("{id} {}", super::ls::long(listed)));
    }
    let mut value = serde_json::to_value(listed).map_err(std::io::Error::other)?;
    value["snapshot"] = id.into();
    output::json(&value)
}

/// Each pattern, and whether it is compared with whole paths.
fn compile(args: &FindArgs) -> Result<Vec<(GlobMatcher, bool)>> {
    let compile = |pattern: &String| {
        let is_path = pattern.contains('/');
        let glob = GlobBuilder::new(pattern)
            .literal_separator(is_path)
            .case_insensitive(args.ignore_case)
            .build()
            .map_err(|error| Error::Usage(error.to_string()))?;
        Ok((glob.compile_matcher(), is_path))
    };
    args.patterns.iter().map(compile).collect()
}

fn matches(args: &FindArgs, patterns: &[(GlobMatcher, bool)], listed: &Listed) -> bool {
    let path = super::path_of(&listed.path);
    let name = path.file_name().unwrap_or(path.as_os_str());
    let is_named =
        patterns.iter().any(
            |(pattern, is_path)| {
                if *is_path { pattern.is_match(path) } else { pattern.is_match(name) }
            },
        );
    let modified = |test: &dyn Fn(Timestamp) -> bool| listed.modified.is_some_and(test);
    is_named
        && args.larger_than.is_none_or(|least| listed.size >= least)
        && args.smaller_than.is_none_or(|most| listed.size <= most)
        && args.newer_than.is_none_or(|least| modified(&|time| time >= least))
        && args.older_than.is_none_or(|most| modified(&|time| time <= most))
        && args.kind.as_deref().is_none_or(|kind| kind == listed.kind)
}
