//! Databases as sources: what streams a backup of one has, and how its tables are told.
//!
//! Each engine has a folder; all give the same: streams, a catalogue of tables that is made when they
//! were read to their ends, and what a user should know. Knows nothing of repositories.

pub mod command;
pub mod compare;
pub mod export;
pub mod inserts;
pub mod leftover;
pub mod mysql;
pub mod pattern;
pub mod postgres;
pub mod pour;
pub mod prepare;
pub mod probe;
pub mod rows;
pub mod rows_diff;
pub mod scan;
pub mod sqlite;
pub mod undo;
pub mod verify;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::backup::{ClosingStream, StreamSource};
use crate::error::{Error, Result};
use crate::format::snapshot::SourceRef;
use crate::progress::Progress;
use crate::settings::SecretRef;

/// Looks up environment variables.
pub type Variables = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What the surroundings of a run give it: nothing here reads the environment on its own.
pub struct Surroundings {
    /// Environment variables.
    pub variables: Variables,
    /// Where programs are looked for.
    pub path: Option<OsString>,
    /// Room for temporary files.
    pub temporary: PathBuf,
    /// Tells when to stop waiting for a server.
    pub progress: Arc<Progress>,
}

impl Surroundings {
    /// The password that a source refers to.
    pub fn password(&self, secret: Option<&SecretRef>) -> Result<Option<Zeroizing<String>>> {
        secret.map(|secret| secret.read(&*self.variables)).transpose()
    }
}

/// A source that is ready to be backed up.
pub struct Prepared {
    /// Its streams, in the order in which they are to be read.
    pub streams: Vec<StreamSource>,
    /// How many at a time; 0 for all.
    pub jobs: usize,
    /// Its catalogue.
    pub closing: Option<ClosingStream>,
    /// What the snapshot says of it.
    pub source: SourceRef,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// An error of a source.
pub(crate) fn source_error(name: &str, detail: impl std::fmt::Display) -> Error {
    Error::Source { source_name: name.to_owned(), detail: detail.to_string() }
}

/// A program in one of the folders where programs are looked for.
pub fn find_program(name: &str, surroundings: &Surroundings) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(is_program);
    }
    let path = surroundings.path.as_ref()?;
    let folders = path.as_bytes().split(|byte| *byte == b':');
    folders.map(|folder| PathBuf::from(OsStr::from_bytes(folder)).join(name)).find(is_program)
}

/// An address without the password in it.
pub fn without_password(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let rest = match rest.rsplit_once('@') {
        Some((login, place)) => {
            format!("{}@{place}", login.split(':').next().unwrap_or_default())
        }
        None => rest.to_owned(),
    };
    let is_public = |pair: &&str| ["socket=", "ssl-ca="].iter().any(|it| pair.starts_with(it));
    let query: Vec<&str> = query.split('&').filter(is_public).collect();
    let query = query.join("&");
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{scheme}://{rest}{mark}{query}")
}

/// The folder of the streams of a source: its name, or the last part of its address.
pub fn stream_prefix(name: &str) -> String {
    let is_address = name.contains("://") || name.starts_with("sqlite:");
    let place = if name.contains("://") { name.split('?').next().unwrap_or(name) } else { name };
    let last = place.trim_end_matches('/').rsplit(['/', ':']).next().filter(|_| is_address);
    stream_part(last.unwrap_or(name))
}

/// What a name may hold as part of the name of a stream: no `/`, no `%`, nothing that cannot be seen.
pub fn stream_part(name: &str) -> String {
    use std::fmt::Write;
    let mut part = String::new();
    for letter in name.chars() {
        if letter == '/' || letter == '%' || letter.is_control() {
            let mut bytes = [0; 4];
            for byte in letter.encode_utf8(&mut bytes).bytes() {
                write!(part, "%{byte:02x}").expect("a String takes all");
            }
        } else {
            part.push(letter);
        }
    }
    if matches!(part.as_str(), "" | "." | "..") { format!("%{part}") } else { part }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_passwords() {
        let shown = |text: &str| without_password(text);
        assert_eq!(
            shown("mysql://ann:s/e@cret@db/shop?socket=/s"),
            "mysql://ann@db/shop?socket=/s"
        );
        assert_eq!(
            shown("mysql://root@h/shop?socket=/s&Password=x"),
            "mysql://root@h/shop?socket=/s"
        );
        assert_eq!(shown("mysql://h/shop"), "mysql://h/shop");
    }

    #[test]
    fn parts_of_streams_are_file_names() {
        assert_eq!(stream_part("a/b%\n"), "a%2fb%25%0a");
        assert_eq!(stream_part(".."), "%..");
        assert_eq!(stream_part("Größe"), "Größe");
        assert_eq!(stream_prefix("postgres://me@/run/pg:5432/shop"), "shop");
        assert_eq!(stream_prefix("mysql://me@db/shop?socket=/run/s"), "shop");
        assert_eq!(stream_prefix("sqlite:/var/lib/app.db"), "app.db");
        assert_eq!(stream_prefix("a/b"), "a%2fb");
    }
}
