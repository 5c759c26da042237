//! Global options, and opening the repository they name.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use restow::crypto::kit;
use restow::crypto::slot::Secret;
use restow::entropy::OsEntropy;
use restow::error::Error;
use restow::format::paths;
use restow::repository::Repository;
use restow::store::local::LocalStore;
#[cfg(feature = "cloud")]
use restow::store::object::BucketStore;
use restow::store::pause::{Patience, Pause};
use restow::store::read_only::ReadOnlyStore;
use restow::store::retry::RetryStore;
#[cfg(feature = "sftp")]
use restow::store::sftp::SftpStore;
use restow::store::throttle::{Limits, ThrottleStore};
use restow::store::{Store, StoreError};
use zeroize::Zeroizing;

use super::location::{self, Location};
use super::{interrupt, output};

/// Options of every command.
#[derive(Args, Clone)]
pub struct Global {
    /// The configuration file [default: restow/restow.toml in the user's folder for configurations, or
    /// /etc/restow/restow.toml]
    #[arg(long, global = true, env = "RESTOW_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The repository: a folder, s3://BUCKET/PREFIX, gs://…, az://… or sftp://USER@HOST/FOLDER, or a name
    /// in the configuration file
    #[arg(short, long, global = true, env = "RESTOW_REPOSITORY", value_name = "WHERE")]
    pub repo: Option<String>,

    /// Read the password from the first line of this file
    #[arg(long, global = true, env = "RESTOW_PASSWORD_FILE", value_name = "FILE")]
    pub password_file: Option<PathBuf>,

    /// Read the password from the output of this command (run by /bin/sh)
    #[arg(long, global = true, env = "RESTOW_PASSWORD_COMMAND", value_name = "COMMAND")]
    pub password_command: Option<String>,

    /// Open with a key file instead of a password
    #[arg(long, global = true, env = "RESTOW_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,

    /// Print JSON, one object a line
    #[arg(long, global = true)]
    pub json: bool,

    /// Print only errors
    #[arg(short, long, global = true)]
    pub quiet: bool,

    /// Print more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Keep no local index; it is made anew in a temporary file each time
    #[arg(long, global = true)]
    pub no_cache: bool,

    /// Folder of the local indexes [default: restow in the user's cache folder]
    #[arg(long, global = true, env = "RESTOW_CACHE_DIR", value_name = "FOLDER")]
    pub cache_dir: Option<PathBuf>,

    /// The variable that may hold the password itself
    #[arg(skip = "RESTOW_PASSWORD")]
    pub password_variable: &'static str,
    /// Most room for what is kept here of a repository that is elsewhere
    #[arg(
        long,
        global = true,
        env = "RESTOW_CACHE_LIMIT",
        value_name = "SIZE",
        default_value = "512M"
    )]
    #[arg(value_parser = output::parse_size)]
    pub cache_limit: u64,

    /// Send no more than so many KiB a second to the repository
    #[arg(long, global = true, value_name = "RATE", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit_upload: Option<u32>,

    /// Receive no more than so many KiB a second from the repository
    #[arg(long, global = true, value_name = "RATE", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit_download: Option<u32>,

    /// Requests to a repository elsewhere at a time
    #[arg(long, global = true, value_name = "N", default_value = "5")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
}

impl Global {
    /// Opens the repository for commands that change it.
    pub fn open(&self) -> Result<Repository> {
        expect_owner(self.open_to_add()?)
    }

    /// The same, without copies of packs that this machine keeps.
    pub fn open_owner_uncached(&self) -> Result<Repository> {
        let secret = self.secret(false)?;
        let store = self.existing()?.0;
        expect_owner(Repository::open(store, &secret, self.environment()?)?)
    }

    /// Opens the repository for backups, for which a write-only key will do.
    pub fn open_to_add(&self) -> Result<Repository> {
        let store = self.cached(self.existing()?)?;
        let secret = self.secret(false)?;
        Ok(self.opened(store, &secret)?)
    }

    /// Opens the repository for dry runs of commands that change it: the store refuses everything, and
    /// what is damaged is refused as those would.
    pub fn open_to_rehearse(&self) -> Result<Repository> {
        let store: Arc<dyn Store> = Arc::new(ReadOnlyStore(self.cached(self.existing()?)?));
        let secret = self.secret(false)?;
        expect_owner(self.opened(store, &secret)?)
    }

    /// Opens the repository for commands that only read it: the store refuses everything else.
    pub fn open_read_only(&self) -> Result<Repository> {
        self.read_only(self.cached(self.existing()?)?)
    }

    /// The same, without copies that this machine keeps: for commands that must know what is there.
    pub fn open_uncached(&self) -> Result<Repository> {
        self.read_only(self.existing()?.0)
    }

    fn read_only(&self, store: Arc<dyn Store>) -> Result<Repository> {
        let store: Arc<dyn Store> = Arc::new(ReadOnlyStore(store));
        let secret = self.secret(false)?;
        match self.opened(store.clone(), &secret) {
            Err(error) if error.is_object_damage() => {
                let repository = Repository::salvage(store, &secret, self.environment()?)?;
                for error in repository.damage() {
                    eprintln!("warning: {error}");
                }
                eprintln!("warning: going on with what can be read of this repository");
                Ok(repository)
            }
            other => expect_owner(other?),
        }
    }

    /// The store and the configuration of the repository in it: asking for a password is pointless
    /// where there is none.
    fn existing(&self) -> Result<(Arc<dyn Store>, Vec<u8>)> {
        let store = self.store()?;
        let location = store.location();
        match store.get(paths::CONFIG) {
            Err(StoreError::NotFound { .. }) => Err(Error::NoRepository { location }.into()),
            Err(error) => {
                Err(anyhow::Error::from(Error::from(error)).context(format!("open {location}")))
            }
            Ok(config) => Ok((store, config)),
        }
    }

    /// The store where the repository is.
    pub fn store(&self) -> Result<Arc<dyn Store>> {
        let store: Arc<dyn Store> = match self.location()? {
            Location::Folder(folder) => match LocalStore::open(&folder) {
                Err(StoreError::NotFound { path }) => {
                    return Err(Error::NoRepository { location: path }.into());
                }
                other => return Ok(self.limited(other?, None)),
            },
            #[cfg(feature = "cloud")]
            Location::Bucket(bucket) => Arc::new(BucketStore::open(&bucket)?),
            #[cfg(feature = "sftp")]
            Location::Sftp(server) => Arc::new(SftpStore::open(server)?),
        };
        Ok(self.remote(store))
    }

    /// The store where a repository is to be made.
    pub fn new_store(&self) -> Result<Arc<dyn Store>> {
        match self.location()? {
            Location::Folder(folder) => Ok(self.limited(LocalStore::create(folder)?, None)),
            #[cfg(feature = "cloud")]
            Location::Bucket(_) => self.store(),
            #[cfg(feature = "sftp")]
            Location::Sftp(server) => {
                SftpStore::open(server)?.create_folder()?;
                self.store()
            }
        }
    }

    /// A store at the other end of a line, which breaks now and then.
    fn remote(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        let limited = self.limited(store, Some(self.connections.into()));
        Arc::new(RetryStore::new(limited, patience(), Arc::new(OsEntropy)))
    }

    fn limited(&self, store: impl Store + 'static, connections: Option<usize>) -> Arc<dyn Store> {
        let rate = |kibibytes: Option<u32>| kibibytes.map(|rate| u64::from(rate) << 10);
        let (upload, download) = (rate(self.limit_upload), rate(self.limit_download));
        if upload.is_none() && download.is_none() && connections.is_none() {
            return Arc::new(store);
        }
        let limits = Limits { upload, download, connections };
        Arc::new(ThrottleStore::new(store, patience(), limits))
    }

    pub(super) fn location(&self) -> Result<Location> {
        let Some(text) = &self.repo else {
            return Err(Error::Usage(
                "no repository given: use --repo or set RESTOW_REPOSITORY".into(),
            )
            .into());
        };
        location::parse(text)
    }

    /// The password or key file; asks on a terminal, twice where it is new.
    pub fn secret(&self, is_new: bool) -> Result<Secret> {
        if let Some(path) = &self.key_file {
            return read_key_file(path);
        }
        if let Some(path) = &self.password_file {
            let text = std::fs::read(path)
                .map_err(|source| io_error("read the password file", path, source))?;
            return password(text);
        }
        if let Some(command) = &self.password_command {
            return password_from_command(command);
        }
        if let Some(text) = std::env::var_os(self.password_variable) {
            return password(text.into_encoded_bytes());
        }
        // Of the other repository of a copy: TO_ or FROM_.
        let side = self.password_variable.trim_start_matches("RESTOW_");
        let side = side.trim_end_matches("PASSWORD");
        let place = self.repo.as_deref().unwrap_or_default();
        if side.is_empty() {
            return ask_password("password", is_new);
        }
        let option = side.to_lowercase().replace('_', "-");
        expect_terminal(&format!(
            "no password given for {place}: set RESTOW_{side}PASSWORD, or use --{option}password-file, \
             --{option}password-command or --{option}key-file (RESTOW_{side}PASSWORD_FILE, \
             RESTOW_{side}PASSWORD_COMMAND, RESTOW_{side}KEY_FILE)"
        ))?;
        ask_password(&format!("password of {place}"), is_new)
    }
}

fn expect_owner(repository: Repository) -> Result<Repository> {
    if repository.is_write_only() {
        return Err(
            Error::Conflict("this is a write-only key: it can only add backups".into()).into()
        );
    }
    Ok(repository)
}

/// Waits that Ctrl-C ends.
fn patience() -> impl Pause {
    let progress = interrupt::progress();
    Patience::new(move || progress.is_interrupted())
}

/// A key file's content, or the secret in a recovery kit.
pub fn read_key_file(path: &PathBuf) -> Result<Secret> {
    let content = Zeroizing::new(
        std::fs::read(path).map_err(|error| io_error("read the key file", path, error))?,
    );
    if let Some(secret) = std::str::from_utf8(&content).ok().and_then(kit::find_secret) {
        let secret =
            secret.map_err(|error| Error::Usage(format!("{}: {error}", path.display())))?;
        return Ok(Secret::KeyFile(Zeroizing::new(secret.to_vec())));
    }
    if content.len() < 32 {
        return Err(Error::Usage(format!(
            "{} is too short for a key file: it needs at least 32 random bytes",
            path.display()
        ))
        .into());
    }
    Ok(Secret::KeyFile(content))
}

/// A password: the first line of a text.
pub fn password(text: Vec<u8>) -> Result<Secret> {
    let text = Zeroizing::new(text);
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(Error::Usage("the password is empty".into()).into());
    }
    Ok(Secret::Password(Zeroizing::new(line.to_vec())))
}

fn password_from_command(command: &str) -> Result<Secret> {
    let output = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("run the password command")?;
    if !output.status.success() {
        bail!("the password command failed: {}", output.status);
    }
    password(output.stdout)
}

fn expect_terminal(otherwise: &str) -> Result<(), Error> {
    match std::io::stdin().is_terminal() {
        true => Ok(()),
        false => Err(Error::Usage(otherwise.to_owned())),
    }
}

/// Asks on the terminal, without echo; twice where the password is new.
pub fn ask_password(what: &str, twice: bool) -> Result<Secret> {
    expect_terminal(
        "no password given: set RESTOW_PASSWORD, or use --password-file, --password-command or \
         --key-file",
    )?;
    let first = read_without_echo(what)?;
    if twice && *read_without_echo(&format!("{what} again"))? != *first {
        return Err(Error::Usage("the two passwords differ".into()).into());
    }
    password(first.to_vec())
}

/// What a terminal sends for Ctrl-C.
const CTRL_C: u8 = 3;

fn read_without_echo(what: &str) -> Result<Zeroizing<Vec<u8>>> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    eprint!("{what}: ");
    std::io::stderr().flush().ok();
    let saved = tcgetattr(&stdin).context("read the terminal's settings")?;
    let mut silent = saved.clone();
    // Ctrl-C comes as a byte: the running process must get to turn the echo on again.
    silent.local_modes &= !(LocalModes::ECHO | LocalModes::ISIG);
    tcsetattr(&stdin, OptionalActions::Now, &silent).context("turn off echo")?;
    let mut line = Zeroizing::new(Vec::new());
    let mut byte = [0];
    let mut input = stdin.lock();
    let mut ended = Ok(());
    while ended.is_ok() && byte[0] != b'\n' {
        match input.read(&mut byte) {
            Ok(1) if byte[0] == CTRL_C => ended = Err(Error::Interrupted.into()),
            Ok(1) if byte[0] != b'\n' => line.push(byte[0]),
            Ok(1) => {}
            Ok(_) => break,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => ended = Err(error).context("read the password"),
        }
    }
    drop(input);
    tcsetattr(&stdin, OptionalActions::Now, &saved).context("turn on echo")?;
    eprintln!();
    ended.map(|()| line)
}

fn io_error(action: &'static str, path: &std::path::Path, source: std::io::Error) -> Error {
    Error::Io { action, path: path.display().to_string(), source }
}

/// This machine's name.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The user who runs this.
pub fn user() -> String {
    std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_default()
}
