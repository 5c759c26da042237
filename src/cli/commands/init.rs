//! `restow init`.

use anyhow::Result;
use clap::{Args, ValueEnum};
use restow::format::pack::Padding;
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
    let options = InitOptions { label: args.label, padding, ..InitOptions::default() };
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
