//! `restow tag`.

use anyhow::Result;
use clap::Args;
use restow::error::Error;
use restow::tag::{TagOptions, run as change};

use super::{FilterArgs, split_tags};
use crate::cli::{Global, output};

/// Change the tags of snapshots
#[derive(Args)]
pub struct TagArgs {
    /// The snapshots [default: all that pass the filters]
    snapshots: Vec<String>,
    /// Add these tags, separated by commas
    #[arg(long, value_name = "TAG[,TAG…]")]
    add: Vec<String>,
    /// Remove these tags
    #[arg(long, value_name = "TAG[,TAG…]")]
    remove: Vec<String>,
    /// Replace all tags by these; an empty text removes all
    #[arg(long, value_name = "TAG[,TAG…]")]
    set: Option<String>,
    /// Only snapshots of this host (may be given several times)
    #[arg(short = 'H', long, value_name = "HOST")]
    host: Vec<String>,
    /// Only snapshots that hold this path (may be given several times)
    #[arg(long, value_name = "PATH")]
    path: Vec<std::ffi::OsString>,
}

/// Changes tags and prints the new ids.
pub fn run(global: &Global, args: TagArgs) -> Result<u8> {
    if args.add.is_empty() && args.remove.is_empty() && args.set.is_none() {
        return Err(Error::Usage("nothing to change: use --add, --remove or --set".into()).into());
    }
    let repository = global.open()?;
    let filter = FilterArgs { host: args.host, tag: Vec::new(), path: args.path }.filter();
    let snapshots = if args.snapshots.is_empty() {
        repository.snapshots(&filter)?
    } else {
        let find = |wanted: &String| repository.find_snapshot(wanted, &filter);
        args.snapshots.iter().map(find).collect::<Result<_, _>>()?
    };
    let list = |lists: &[String]| lists.iter().flat_map(|list| split_tags(list)).collect();
    let options = TagOptions {
        add: list(&args.add),
        remove: list(&args.remove),
        set: args.set.as_deref().map(split_tags),
    };
    for (old, new) in change(&repository, &snapshots, &options)? {
        if global.json {
            output::json(&serde_json::json!({"message_type": "changed", "old": old, "new": new}))?;
        } else if !global.quiet {
            output::line(format!("{} is now {}", old.short(), new.short()))?;
        }
    }
    Ok(0)
}
