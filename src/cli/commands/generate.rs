//! `restow version`, `restow completions`, `restow man`.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use clap_complete::Shell;
use restow::format::config::FORMAT_VERSION;

use crate::cli::{Cli, Global, output};

/// Print a completion script for a shell
#[derive(Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Print the manual page, or write one for each command into a folder
#[derive(Args)]
pub struct ManArgs {
    /// Write restow.1, restow-backup.1 and so on here
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// Prints the versions.
pub fn version(global: &Global) -> Result<u8> {
    let version = env!("CARGO_PKG_VERSION");
    if global.json {
        output::json(&serde_json::json!({"version": version, "format_version": FORMAT_VERSION}))?;
    } else {
        output::line(format!("restow {version}, repository format {FORMAT_VERSION}"))?;
    }
    Ok(0)
}

/// Prints a completion script.
pub fn completions(args: CompletionsArgs) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::describe(), "restow", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(0)
}

/// Prints or writes manual pages.
pub fn man(args: ManArgs) -> Result<u8> {
    let command = Cli::describe();
    match args.folder {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            io::stdout().lock().write_all(&page)?;
        }
        Some(folder) => {
            std::fs::create_dir_all(&folder)
                .and_then(|()| clap_mangen::generate_to(command, &folder))
                .with_context(|| format!("write manual pages to {}", folder.display()))?;
        }
    }
    Ok(0)
}
