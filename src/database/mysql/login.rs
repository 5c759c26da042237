//! How to reach a MariaDB or MySQL server, and the file that tells its client programs.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use rustix::fs::{MemfdFlags, memfd_create};
use zeroize::Zeroizing;

use crate::database::Surroundings;

/// `mysql://USER:PASSWORD@HOST:PORT/DATABASE?socket=PATH`
#[derive(Clone, Default)]
pub struct Login {
    host: String,
    port: String,
    socket: String,
    user: String,
    password: Option<Zeroizing<String>>,
    ssl_ca: String,
    /// The database; empty for all.
    pub database: String,
}

impl Login {
    /// Parses an address. The error is for people and holds no password.
    pub fn parse(text: &str, surroundings: &Surroundings) -> Result<Self, String> {
        let rest = text.strip_prefix("mysql://").or_else(|| text.strip_prefix("mariadb://"));
        let rest = rest.ok_or("the address must begin with mysql:// or mariadb://")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
        if database.contains('@') {
            return Err("a '/' in the user or password must be written as %2F".into());
        }
        let (user, server) = place.rsplit_once('@').unwrap_or(("", place));
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        let (host, port) = server.rsplit_once(':').unwrap_or((server, ""));
        let mut login = Self {
            host: decoded(host)?,
            port: decoded(port)?,
            user: decoded(user)?,
            database: decoded(database)?,
            ..Self::default()
        };
        if !password.is_empty() {
            login.password = Some(Zeroizing::new(decoded(password)?));
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("socket", path)) => login.socket = decoded(path)?,
                Some(("ssl-ca", path)) => login.ssl_ca = decoded(path)?,
                _ => {
                    // What stands behind it may be a secret.
                    let word = pair.split('=').next().unwrap_or_default();
                    return Err(format!("'{word}=' is not supported: only socket= and ssl-ca="));
                }
            }
        }
        if login.user.is_empty() {
            let user = (surroundings.variables)("USER");
            login.user = user.ok_or("no user is named")?;
        }
        if login.password.is_none() {
            login.password = (surroundings.variables)("MYSQL_PWD").map(Zeroizing::new);
        }
        Ok(login)
    }

    /// The password to use instead.
    pub fn with_password(mut self, password: Option<Zeroizing<String>>) -> Self {
        self.password = password.or(self.password);
        self
    }

    /// The address without secrets, for people.
    pub fn address(&self) -> String {
        let place = if self.socket.is_empty() { &self.host } else { &self.socket };
        let port = if self.port.is_empty() { String::new() } else { format!(":{}", self.port) };
        format!("mysql://{}@{place}{port}/{}", self.user, self.database)
    }

    /// How programs log in that may not read the file: without a password.
    pub fn arguments(&self) -> Vec<String> {
        let mut words = vec![format!("--user={}", self.user)];
        if self.socket.is_empty() {
            words.extend([format!("--host={}", self.host), "--protocol=tcp".to_owned()]);
            if !self.port.is_empty() {
                words.push(format!("--port={}", self.port));
            }
        } else {
            words.push(format!("--socket={}", self.socket));
            words.push("--protocol=socket".to_owned());
        }
        words
    }

    /// Writes the file that client programs read how to log in from.
    pub fn write(&self) -> Result<LoginFile, String> {
        let mut text = Zeroizing::new(String::from("[client]\n"));
        let mut put = |word: &str, value: &str| {
            if !value.is_empty() {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"");
                text.push_str(&format!("{word}=\"{value}\"\n"));
            }
        };
        if self.socket.is_empty() {
            put("host", &self.host);
            put("port", &self.port);
            // Else the programs take localhost for the socket of whatever server has the usual one.
            put("protocol", if self.port.is_empty() { "" } else { "tcp" });
        } else {
            put("socket", &self.socket);
            put("protocol", "socket");
        }
        put("user", &self.user);
        put("ssl-ca", &self.ssl_ca);
        put("password", self.password.as_ref().map_or("", |password| password));
        let failed = |error: std::io::Error| format!("a file in memory: {error}");
        let file = memfd_create("restow-login", MemfdFlags::CLOEXEC);
        let mut file = File::from(file.map_err(|error| failed(error.into()))?);
        // One that others may write is passed over by the programs.
        file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        Ok(LoginFile(file))
    }
}

/// The file. It is in memory alone: however this process ends, no password is left behind.
pub struct LoginFile(File);

impl LoginFile {
    /// Where programs of the same user find it while this process has it.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }
}

fn decoded(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| "the address is not UTF-8".to_owned())?;
    match decoded.contains(['\n', '\r', '\0']) {
        true => Err("the address has a line break in it".to_owned()),
        false => Ok(decoded.into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_secrets() {
        let surroundings = Surroundings {
            variables: Box::new(|_| None),
            path: None,
            temporary: std::env::temp_dir(),
            progress: Default::default(),
        };
        let parse = |text: &str| Login::parse(text, &surroundings);
        let login = parse("mysql://ann:s%40fe@db:3307/shop?socket=/tmp/s").unwrap();
        assert_eq!(login.address(), "mysql://ann@/tmp/s:3307/shop");
        assert_eq!(login.password.unwrap().as_str(), "s@fe");
        assert!(parse("mysql://db/shop").is_err_and(|error| error.contains("user")));
        assert!(parse("http://x").is_err() && parse("mysql://a@b/c?x=y").is_err());
    }
}
