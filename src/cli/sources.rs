//! The configuration file as the command line uses it: where it is, what repository and which source it
//! names.

use std::path::PathBuf;

use anyhow::Result;
use restow::database::Surroundings;
use restow::error::Error;
use restow::settings::{SecretRef, Settings, SourceConfig, SourceKind, ad_hoc};

use super::{Global, interrupt};

/// Where the file is where nobody says.
fn default_path() -> Option<PathBuf> {
    let home = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")));
    let own = home.map(|home| home.join("restow/restow.toml"));
    let places = own.into_iter().chain([PathBuf::from("/etc/restow/restow.toml")]);
    places.into_iter().find(|place| place.is_file())
}

/// What this process's surroundings give a source.
pub fn surroundings() -> Surroundings {
    Surroundings {
        variables: Box::new(|name| std::env::var(name).ok()),
        path: std::env::var_os("PATH"),
        temporary: std::env::temp_dir(),
        progress: interrupt::progress(),
    }
}

impl Global {
    /// The configuration file, where there is one.
    pub fn settings(&self) -> Result<Option<Settings>> {
        let path = self.config.clone().or_else(default_path);
        Ok(path.map(|path| Settings::read(&path)).transpose()?)
    }

    /// These options, with the repository of the configuration file where none was given or one of
    /// its names was.
    pub fn configured(self) -> Result<Self> {
        let named = self.repo.as_deref().filter(|repo| !repo.contains(['/', ':', '.']));
        if self.repo.is_some() && named.is_none() {
            return Ok(self);
        }
        let Some(settings) = self.settings()? else { return Ok(self) };
        if let Some(name) = named
            && !settings.repositories.contains_key(name)
        {
            return Ok(self);
        }
        if named.is_none() && settings.repositories.len() > 1 {
            // The source may say which; else opening one fails.
            return Ok(self);
        }
        let name = named.map(str::to_owned);
        self.with_repository(&settings, name.as_deref())
    }

    /// These options with a repository of the configuration file. What is given beside it is kept.
    pub fn with_repository(mut self, settings: &Settings, name: Option<&str>) -> Result<Self> {
        let Some(repository) = settings.repository(name)? else { return Ok(self) };
        self.repo = Some(repository.url.clone());
        let is_given = self.key_file.is_some()
            || self.password_file.is_some()
            || self.password_command.is_some()
            || std::env::var_os(self.password_variable).is_some();
        if !is_given {
            self.key_file.clone_from(&repository.key_file);
            match &repository.password {
                Some(SecretRef::File(path)) => self.password_file = Some(path.clone()),
                // One name a process: it lives as long as that.
                Some(SecretRef::Env(name)) => self.password_variable = name.clone().leak(),
                None => {}
            }
        }
        self.cache_dir = self.cache_dir.or_else(|| repository.cache_dir.clone());
        Ok(self)
    }

    /// A source by its name in the configuration file, or by its address. Also these options with the
    /// repository that it goes to.
    pub fn source(&self, wanted: &str) -> Result<(String, SourceConfig, Self)> {
        if let Some(kind) = ad_hoc(wanted) {
            let name = ad_hoc_name(&kind)?;
            let config = SourceConfig { common: Default::default(), kind };
            return Ok((name, config, self.clone()));
        }
        let Some(settings) = self.settings()? else {
            return Err(Error::Usage(format!(
                "there is no configuration file to look up the source '{wanted}' in: give --config, or an \
                 address as postgres://…, mysql://… or sqlite:PATH"
            ))
            .into());
        };
        let source = settings.source(wanted)?.clone();
        let global = match (&source.common.repo, &self.repo) {
            (Some(repo), None) => self.clone().with_repository(&settings, Some(repo))?,
            (None, None) => self.clone().with_repository(&settings, None)?,
            _ => self.clone(),
        };
        Ok((wanted.to_owned(), source, global))
    }
}

/// What a source is called in snapshots: its name, or its address without secrets.
pub fn name_in_snapshots(wanted: &str) -> Result<String> {
    ad_hoc(wanted).map_or_else(|| Ok(wanted.to_owned()), |kind| ad_hoc_name(&kind))
}

/// What a source without a name is called in snapshots: its address without secrets.
fn ad_hoc_name(kind: &SourceKind) -> Result<String> {
    let surroundings = surroundings();
    Ok(match kind {
        SourceKind::Sqlite(config) => {
            let path = std::path::absolute(&config.path).unwrap_or_else(|_| config.path.clone());
            format!("sqlite:{}", path.display())
        }
        SourceKind::Postgres(config) => {
            let dsn = restow::database::postgres::backup::dsn("--source", config, &surroundings)?;
            dsn.address()
        }
        SourceKind::Mysql(config) => restow::database::without_password(&config.dsn),
        SourceKind::Command(_) | SourceKind::Files(_) => "source".to_owned(),
    })
}
