//! `restow init`.

use anyhow::Result;
use clap::{Args, ValueEnum};
use restow::format::pack::Padding;
use restow::format::parity::{MAX_PARTS, MIN_PARTS};
use restow::repository::{InitOptions, Repository};

use crate::cli::{Global, output};

/// Create a repository
#[derive(Args)]
pub struct InitArgs {
    /// Label of the first key slot
    #[arg(long, default_value = "")]
    label: String,
    /// Pad packs, so that their sizes tell less about what is in them
    #[arg(long, value_enum, default_value = "none")]
    padding: PaddingArg,
    /// Store parity of so many percent of each pack (0.5% to 50%): `check --repair` mends bit rot with it
    #[arg(long, value_name = "PERCENT", value_parser = parse_parity)]
    parity: Option<u16>,
}

fn parse_parity(text: &str) -> Result<u16, String> {
    let percent = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>();
    let parts = percent.map_or(-1.0, |percent| (percent * 10.0).round());
    if parts == 0.0 || (f64::from(MIN_PARTS)..=f64::from(MAX_PARTS)).contains(&parts) {
        return Ok(parts as u16);
    }
    Err(format!("'{text}' is no percentage from 0.5% to 50%"))
}

#[derive(Clone, Copy, ValueEnum)]
enum PaddingArg {
    None,
    Padme,
}

/// Creates the repository that `--repo` names.
pub fn run(global: &Global, args: InitArgs) -> Result<u8> {
    let padding = match args.padding {
        PaddingArg::None => Padding::None,
        PaddingArg::Padme => Padding::Padme,
    };
    let parity = args.parity.unwrap_or(0);
    let options = InitOptions { label: args.label, padding, parity, ..InitOptions::default() };
    let repository = create(global, &options)?;
    if global.json {
        output::json(&serde_json::json!({
            "message_type": "initialized", "id": repository.config().id,
            "repository": repository.store().location(),
        }))?;
    } else if !global.quiet {
        output::line(format!(
            "created repository {} at {}",
            repository.config().id.short(),
            repository.store().location()
        ))?;
        output::line("keep its password safe: without it nobody can read what is in it")?;
    }
    Ok(0)
}

/// Creates and opens a repository.
pub fn create(global: &Global, options: &InitOptions) -> Result<Repository> {
    let secret = global.secret(true)?;
    let store = global.new_store()?;
    Ok(Repository::init(store, &secret, options, global.environment()?)?)
}
