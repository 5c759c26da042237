//! PostgreSQL's client programs: which are installed, and which fit a server.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `pg_dump` and the programs beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// Their folder.
    pub folder: PathBuf,
    /// Major version of `pg_dump`.
    pub major: u32,
    /// What `pg_dump` says it is, as `15.8`.
    pub version: String,
}

impl Tools {
    /// The tools in this folder, if `pg_dump` runs there.
    pub fn of(folder: &Path) -> Option<Self> {
        let program = folder.join("pg_dump");
        if !program.is_file() {
            return None;
        }
        let output = Command::new(program).arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let version =
            text.split_whitespace().find(|word| word.starts_with(|l: char| l.is_numeric()));
        let version = version?.to_owned();
        let major = major(&version)?;
        Some(Self { folder: folder.to_owned(), major, version })
    }

    /// The program with this name.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// `15` of `15.8 (Debian …)` or `18beta1`.
pub fn major(version: &str) -> Option<u32> {
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// All tools that are installed: in the folders of `path`, and where packages put them.
pub fn installed(path: Option<&OsStr>) -> Vec<Tools> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for parent in ["/usr/lib/postgresql", "/usr/local/lib/postgresql", "/usr/lib64/pgsql"] {
        let versions = std::fs::read_dir(parent).into_iter().flatten().flatten();
        folders.extend(versions.map(|version| version.path().join("bin")));
    }
    let packages = std::fs::read_dir("/usr").into_iter().flatten().flatten();
    let packages = packages.filter(|it| it.file_name().to_string_lossy().starts_with("pgsql-"));
    folders.extend(packages.map(|package| package.path().join("bin")));
    let in_path = path.map(|path| path.as_encoded_bytes().split(|byte| *byte == b':'));
    for folder in in_path.into_iter().flatten() {
        use std::os::unix::ffi::OsStrExt;
        folders.push(PathBuf::from(OsStr::from_bytes(folder)));
    }
    let mut tools: Vec<Tools> = folders.iter().filter_map(|folder| Tools::of(folder)).collect();
    tools.sort_by_key(|tools| tools.major);
    tools
}

/// The tools for a server of this version: of the same version, else the next newer one.
pub fn choose(
    folder: Option<&Path>,
    path: Option<&OsStr>,
    server_version: &str,
) -> Result<Tools, String> {
    let server = major(server_version)
        .ok_or_else(|| format!("the server's version '{server_version}' is not understood"))?;
    let found = match folder {
        Some(folder) => {
            let tools = Tools::of(folder);
            vec![tools.ok_or_else(|| format!("there is no pg_dump in {}", folder.display()))?]
        }
        None => installed(path),
    };
    let newest = found.last().map(|tools| tools.version.clone());
    let fitting = found.into_iter().find(|tools| tools.major >= server);
    fitting.ok_or_else(|| match newest {
        Some(newest) => format!(
            "the server is PostgreSQL {server_version}, but the newest pg_dump here is {newest}: \
             install postgresql-client-{server} or name its folder as bin_dir"
        ),
        None => format!("pg_dump is not installed: install postgresql-client-{server}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told() {
        assert_eq!(major("15.8 (Debian 15.8-1)"), Some(15));
        assert_eq!(major("18beta2"), Some(18));
        assert_eq!(major("x"), None);
    }

    #[test]
    fn a_folder_without_tools_is_named() {
        let error = choose(Some(Path::new("/nowhere")), None, "15.1").unwrap_err();
        assert_eq!(error, "there is no pg_dump in /nowhere");
    }
}
