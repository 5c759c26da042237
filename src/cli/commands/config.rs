use anyhow::Result;
use clap::{Args, Subcommand};
use restow::database::prepare::validate;
use restow::error::Error;

use crate::cli::{Global, output, sources};

/// Check the configuration file, or print an example of one
#[derive(Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Check the configuration file and say what it names
    Check,
    /// Print an example with all options and what they mean
    Example,
}

/// Checks or shows.
pub fn run(global: &Global, args: ConfigArgs) -> Result<u8> {
    match args.action {
        Action::Example => output::line(include_str!("config_example.toml").trim_end())?,
        Action::Check => {
            let Some(settings) = global.settings()? else {
                return Err(Error::Usage(
                    "no configuration file: give --config or set RESTOW_CONFIG".into(),
                )
                .into());
            };
            if let Some(kept) = &settings.retention {
                super::forget::configured(kept, false)?;
            }
            let surroundings = sources::surroundings();
            for (name, source) in &settings.sources {
                validate(&source.kind, &surroundings).map_err(|detail| Error::Settings {
                    path: settings.path.display().to_string(),
                    detail: format!("[source.{name}]: {detail}"),
                })?;
            }
            let (repositories, sources) = (settings.repositories.len(), settings.sources.len());
            if global.json {
                let names: Vec<&String> = settings.sources.keys().collect();
                output::json(&serde_json::json!({
                    "message_type": "config", "path": settings.path,
                    "repos": settings.repositories.keys().collect::<Vec<_>>(), "sources": names,
                }))?;
            } else {
                let path = settings.path.display();
                output::line(format!(
                    "{path}: {repositories} repositories, {sources} sources: ok"
                ))?;
            }
        }
    }
    Ok(0)
}
