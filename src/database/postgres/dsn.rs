//! How to reach a PostgreSQL server: `postgres://` addresses and `key=value` words, as libpq reads
//! them (PostgreSQL documentation, "Connection Strings"), with the environment variables that libpq heeds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::progress::Progress;

/// Looks up environment variables.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Words of a connection string; the password is kept apart.
#[derive(Clone, Default)]
pub struct Dsn {
    words: BTreeMap<String, String>,
    password: Option<Zeroizing<String>>,
    stop: Option<Arc<Progress>>,
}

/// Words that this program understands itself, with the variables that stand for them.
const KNOWN: [(&str, &str); 13] = [
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("user", "PGUSER"),
    ("dbname", "PGDATABASE"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("options", "PGOPTIONS"),
    ("passfile", "PGPASSFILE"),
    ("application_name", "PGAPPNAME"),
];

/// What libpq takes from the environment (PostgreSQL documentation, "Environment Variables").
const LIBPQ: [&str; 20] = [
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGDATABASE",
    "PGUSER",
    "PGPASSWORD",
    "PGPASSFILE",
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGOPTIONS",
    "PGAPPNAME",
    "PGSSLMODE",
    "PGSSLROOTCERT",
    "PGSSLCERT",
    "PGSSLKEY",
    "PGCLIENTENCODING",
    "PGDATESTYLE",
    "PGTZ",
    "PGTARGETSESSIONATTRS",
    "PGLOCALEDIR",
];

impl Dsn {
    /// Parses an address or words. The error is for people and holds no password.
    pub fn parse(text: &str, variables: Variables<'_>) -> Result<Self, String> {
        let mut dsn = Self::default();
        let url = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        match url {
            Some(rest) => dsn.parse_url(rest)?,
            None => dsn.parse_words(text)?,
        }
        for (word, variable) in KNOWN.iter().filter(|(_, variable)| !variable.is_empty()) {
            if let Some(value) = variables(variable).filter(|value| !value.is_empty())
                && !dsn.words.contains_key(*word)
            {
                dsn.words.insert((*word).to_owned(), value);
            }
        }
        if dsn.password.is_none() {
            dsn.password = variables("PGPASSWORD").map(Zeroizing::new);
        }
        let user = variables("USER").or_else(|| variables("LOGNAME"));
        if !dsn.words.contains_key("user") {
            let user = user.ok_or("no user is named")?;
            dsn.words.insert("user".into(), user);
        }
        if !dsn.words.contains_key("dbname") {
            let user = dsn.user().to_owned();
            dsn.words.insert("dbname".into(), user);
        }
        if !dsn.words.contains_key("passfile")
            && let Some(home) = variables("HOME")
        {
            dsn.words.insert("passfile".into(), format!("{home}/.pgpass"));
        }
        if dsn.host().contains(',') {
            return Err("several hosts are not supported: name the one to read from".into());
        }
        dsn.port()?;
        Ok(dsn)
    }

    fn parse_url(&mut self, rest: &str) -> Result<(), String> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
        if database.contains('@') {
            return Err("a '/' in the user or password must be written as %2F".into());
        }
        let (login, server) = match place.rsplit_once('@') {
            Some((login, server)) => (Some(login), server),
            None => (None, place),
        };
        if let Some(login) = login {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            self.put_decoded("user", user)?;
            if !password.is_empty() {
                self.put_decoded("password", password)?;
            }
        }
        let (host, port) = split_port(server);
        self.put_decoded("host", host)?;
        self.put_decoded("port", port)?;
        self.put_decoded("dbname", database)?;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (word, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("'{pair}' in the address has no value"))?;
            self.put_decoded(word, value)?;
        }
        Ok(())
    }

    fn put_decoded(&mut self, word: &str, value: &str) -> Result<(), String> {
        if value.is_empty() {
            return Ok(());
        }
        let decoded = percent_decode_str(value).decode_utf8();
        let decoded = decoded.map_err(|_| format!("{word} is not UTF-8"))?;
        self.put(word, &decoded)
    }

    fn put(&mut self, word: &str, value: &str) -> Result<(), String> {
        if word == "password" {
            self.password = Some(Zeroizing::new(value.to_owned()));
            return Ok(());
        }
        if !KNOWN.iter().any(|(known, _)| *known == word) {
            let known = KNOWN.iter().map(|(known, _)| *known);
            let near = crate::settings::nearest(word, known);
            let near = near.map_or_else(String::new, |near| format!("; is it '{near}'?"));
            return Err(format!("'{word}' is not supported in a connection string{near}"));
        }
        self.words.insert(word.to_owned(), value.to_owned());
        Ok(())
    }

    /// `key = 'value with \' quotes' …`
    fn parse_words(&mut self, text: &str) -> Result<(), String> {
        let mut letters = text.chars().peekable();
        loop {
            while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
            if letters.peek().is_none() {
                return Ok(());
            }
            let mut word = String::new();
            while let Some(letter) = letters.next_if(|l| *l != '=' && !l.is_whitespace()) {
                word.push(letter);
            }
            while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
            if letters.next() != Some('=') {
                return Err("it is neither postgres://… nor words as host=… dbname=…".to_owned());
            }
            while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
            let quoted = letters.next_if(|letter| *letter == '\'').is_some();
            let mut value = String::new();
            loop {
                match letters.next() {
                    Some('\\') => value.extend(letters.next()),
                    Some('\'') if quoted => break,
                    Some(letter) if !quoted && letter.is_whitespace() => break,
                    Some(letter) => value.push(letter),
                    None if quoted => return Err(format!("the quotes of {word} are not closed")),
                    None => break,
                }
            }
            self.put(&word, &value)?;
        }
    }

    /// The password that is to be used, where the address has none.
    pub fn with_password(mut self, password: Option<Zeroizing<String>>) -> Self {
        self.password = password.or(self.password);
        self
    }

    /// The same server, another database.
    pub fn with_database(mut self, database: &str) -> Self {
        self.words.insert("dbname".into(), database.to_owned());
        self
    }

    /// The same, where nobody waits any longer once this operation was asked to stop.
    pub fn stopped_by(mut self, progress: &Arc<Progress>) -> Self {
        self.stop = Some(progress.clone());
        self
    }

    /// Whether the words hold a password.
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// What may end waiting for the server.
    pub fn stop(&self) -> Option<Arc<Progress>> {
        self.stop.clone()
    }

    fn word(&self, word: &str) -> &str {
        self.words.get(word).map_or("", String::as_str)
    }

    /// A name, an address, or the folder of a socket.
    pub fn host(&self) -> &str {
        match self.word("hostaddr") {
            "" => match self.word("host") {
                "" => "/var/run/postgresql",
                host => host,
            },
            address => address,
        }
    }

    /// The name in the server's certificate.
    pub fn host_name(&self) -> &str {
        match self.word("host") {
            "" => self.host(),
            host => host,
        }
    }

    /// The port.
    pub fn port(&self) -> Result<u16, String> {
        match self.word("port") {
            "" => Ok(5432),
            port => port.parse().map_err(|_| format!("'{port}' is no port")),
        }
    }

    /// The socket, where the server is reached by one.
    pub fn socket(&self) -> Option<PathBuf> {
        let port = self.port().unwrap_or(5432);
        let host = self.host();
        host.starts_with('/').then(|| PathBuf::from(host).join(format!(".s.PGSQL.{port}")))
    }

    /// The role to log in as.
    pub fn user(&self) -> &str {
        self.word("user")
    }

    /// The database.
    pub fn database(&self) -> &str {
        self.word("dbname")
    }

    /// Another word; empty where it is not given.
    pub fn option(&self, word: &str) -> &str {
        self.word(word)
    }

    /// The password: given, or from the password file, as libpq looks it up.
    pub fn password(&self) -> Option<Zeroizing<String>> {
        self.password.clone().or_else(|| self.in_password_file())
    }

    fn in_password_file(&self) -> Option<Zeroizing<String>> {
        use std::os::unix::fs::PermissionsExt;
        let path = PathBuf::from(self.word("passfile"));
        let metadata = std::fs::metadata(&path).ok()?;
        // As libpq: a file that others may read does not count.
        if !metadata.is_file() || metadata.permissions().mode() & 0o077 != 0 {
            return None;
        }
        let text = Zeroizing::new(std::fs::read_to_string(path).ok()?);
        let host = if self.socket().is_some() { "localhost" } else { self.host_name() };
        let port = self.port().ok()?.to_string();
        let wanted = [host, &port, self.database(), self.user()];
        text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
            let fields = split_passfile(line);
            let [.., password] = &fields[..] else { return None };
            let fits = |(field, wanted): (&String, &&str)| field == "*" || field == wanted;
            let is_it = fields.len() == 5 && fields.iter().zip(&wanted).all(fits);
            is_it.then(|| Zeroizing::new(password.clone()))
        })
    }

    /// Words for `-d` of the client programs, without the password. Host and port are always among them:
    /// nothing in the surroundings may lead to another server.
    pub fn words(&self) -> String {
        let quoted = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
        let mut all = self.words.clone();
        if !all.contains_key("hostaddr") {
            all.insert("host".into(), self.host().to_owned());
        }
        all.insert("port".into(), self.port().unwrap_or(5432).to_string());
        let words = all.iter();
        let words: Vec<String> =
            words.map(|(word, value)| format!("{word}='{}'", quoted(value))).collect();
        words.join(" ")
    }

    /// A client program that is told where to go by us alone. The password is not on its command line, where
    /// everybody may read it.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.arg("--dbname").arg(self.words()).arg("--no-password");
        for variable in LIBPQ {
            command.env_remove(variable);
        }
        if let Some(password) = self.password() {
            command.env("PGPASSWORD", password.as_str());
        }
        command
    }

    /// The address without secrets, for people.
    pub fn address(&self) -> String {
        let place = match self.socket() {
            Some(socket) => socket.parent().map(|it| it.display().to_string()).unwrap_or_default(),
            None => self.host_name().to_owned(),
        };
        let port = self.port().unwrap_or(5432);
        format!("postgres://{}@{place}:{port}/{}", self.user(), self.database())
    }
}

impl std::fmt::Debug for Dsn {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.address())
    }
}

/// `host:port`, where the host may be an IPv6 address in brackets.
fn split_port(server: &str) -> (&str, &str) {
    if let Some(rest) = server.strip_prefix('[') {
        let (host, port) = rest.split_once(']').unwrap_or((rest, ""));
        return (host, port.strip_prefix(':').unwrap_or(""));
    }
    server.rsplit_once(':').unwrap_or((server, ""))
}

/// The fields of a line, where `\:` and `\\` stand for themselves.
fn split_passfile(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => fields.last_mut().expect("never empty").extend(letters.next()),
            ':' if fields.len() < 5 => fields.push(String::new()),
            letter => fields.last_mut().expect("never empty").push(letter),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Dsn, String> {
        Dsn::parse(text, &|name| (name == "USER").then(|| "me".to_owned()))
    }

    #[test]
    fn addresses_and_words_say_the_same() {
        let url = parse("postgres://ann:s%40fe@db.example:5433/my%20shop?sslmode=require").unwrap();
        let words = parse(
            "host=db.example port = 5433 user=ann password='s@fe' dbname='my shop' sslmode=require",
        )
        .unwrap();
        for dsn in [&url, &words] {
            assert_eq!((dsn.host(), dsn.port()), ("db.example", Ok(5433)));
            assert_eq!((dsn.user(), dsn.database()), ("ann", "my shop"));
            assert_eq!(dsn.password().unwrap().as_str(), "s@fe");
            assert_eq!(dsn.option("sslmode"), "require");
            assert!(!dsn.words().contains("s@fe") && !format!("{dsn:?}").contains("s@fe"));
        }
        assert_eq!(url.words(), words.words());
    }

    #[test]
    fn what_is_left_out_has_defaults() {
        let dsn = parse("postgres:///shop").unwrap();
        assert_eq!(dsn.socket().unwrap().to_str(), Some("/var/run/postgresql/.s.PGSQL.5432"));
        assert_eq!((dsn.user(), dsn.database()), ("me", "shop"));
        let dsn = parse("postgres://[::1]:7777").unwrap();
        assert_eq!((dsn.host(), dsn.port(), dsn.database()), ("::1", Ok(7777), "me"));
        let dsn = parse("postgres://%2Ftmp%2Fpg:6000/x").unwrap();
        assert_eq!(dsn.socket().unwrap().to_str(), Some("/tmp/pg/.s.PGSQL.6000"));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(parse("host=a,b").unwrap_err().contains("several hosts"));
        assert!(parse("hots=a").unwrap_err().contains("is it 'host'?"));
        assert!(parse("shop").unwrap_err().contains("neither"));
        assert!(parse("port=x").is_err() && parse("host='a").is_err());
    }

    #[test]
    fn password_files_are_read_as_libpq_does() {
        assert_eq!(
            split_passfile(r"a\:b:5432:*:me:pa:ss\\"),
            ["a:b", "5432", "*", "me", "pa:ss\\"]
        );
    }
}
