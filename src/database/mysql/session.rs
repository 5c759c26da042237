//! The client programs of a server: where they are, how they log in, what they are asked.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::login::{Login, LoginFile};
use super::{Flavor, MAX_PACKET, UTF8};
use crate::database::{Surroundings, find_program};
use crate::settings::{MysqlConfig, SecretRef};

/// Makes the commands that run programs as somebody else, with nothing of ours around them.
pub type Launcher = Box<dyn Fn(&Path) -> Command + Send + Sync>;

/// Plain texts in strings, names in backquotes: our own statements are written so.
const OUR_MODE: &str = "SET SESSION sql_mode = '';";

/// The client programs of a server and how they log in.
pub struct Session {
    /// The server.
    pub login: Login,
    file: LoginFile,
    launcher: Option<Launcher>,
    client: PathBuf,
    pub(super) dump: PathBuf,
    /// Variables that hold its password: not for the eyes of programs.
    secret_variables: Vec<String>,
    /// What it says it is.
    pub version: String,
    /// Which of both.
    pub flavor: Flavor,
}

impl Session {
    /// Finds the programs and asks the server what it is.
    pub fn open(config: &MysqlConfig, surroundings: &Surroundings) -> Result<Self, String> {
        Self::open_by(config, surroundings, None)
    }

    /// The same with programs that `launcher` runs. They are given no password.
    pub fn open_by(
        config: &MysqlConfig,
        surroundings: &Surroundings,
        launcher: Option<Launcher>,
    ) -> Result<Self, String> {
        let login = Login::parse(&config.dsn, surroundings)?;
        let password = surroundings.password(config.password.as_ref());
        let login = login.with_password(password.map_err(|error| error.to_string())?);
        let find = |names: [&str; 2]| {
            let found = match &config.bin_dir {
                Some(folder) => {
                    let paths = names.map(|name| folder.join(name));
                    paths.into_iter().find(|path| path.is_file())
                }
                None => names.iter().find_map(|name| find_program(name, surroundings)),
            };
            found.ok_or_else(|| {
                format!(
                    "neither {} nor {} is installed: install mariadb-client",
                    names[0], names[1]
                )
            })
        };
        let client = find(["mariadb", "mysql"])?;
        let dump = find(["mariadb-dump", "mysqldump"])?;
        let file = login.write()?;
        let mut secret_variables = vec!["MYSQL_PWD".to_owned()];
        if let Some(SecretRef::Env(name)) = &config.password {
            secret_variables.push(name.clone());
        }
        let (version, flavor) = (String::new(), Flavor::MySql);
        let mut session =
            Self { login, file, launcher, client, dump, secret_variables, version, flavor };
        session.version = session.value("SELECT VERSION()")?;
        session.flavor = Flavor::of(&session.version);
        Ok(session)
    }

    /// A client program that logs in without its password being seen.
    fn client(&self) -> Command {
        self.program(&self.client)
    }

    /// The client that loads a dump: whatever stands in it, it runs no commands, reads and writes no
    /// files, and does not go on by a new connection that lacks the settings of the dump.
    pub fn loader(&self) -> Result<Command, String> {
        let mut command = self.client();
        // In binary mode a client knows no commands of its own but DELIMITER, and changes no byte. Those
        // that lack it refuse it. The rest is a second lock where there is one.
        command.args(["--batch", UTF8, "--binary-mode", "--local-infile=0", "--skip-reconnect"]);
        let options = [("--sandbox", "--sandbox"), ("--system-command", "--system-command=OFF")];
        for (name, option) in options {
            if self.knows(&self.client, name)? {
                command.arg(option);
            }
        }
        Ok(command)
    }

    pub(super) fn program(&self, path: &Path) -> Command {
        let mut command = match &self.launcher {
            // Must be the first option. Only this file: what ~/.my.cnf says of hosts and passwords is
            // read after an extra file and would lead to another server.
            None => {
                let mut command = Command::new(path);
                command.arg(format!("--defaults-file={}", self.file.path().display()));
                command
            }
            Some(launcher) => {
                let mut command = launcher(path);
                command.arg("--no-defaults").args(self.login.arguments());
                command
            }
        };
        command.arg(MAX_PACKET);
        for name in &self.secret_variables {
            command.env_remove(name);
        }
        command
    }

    /// Whether a program has an option.
    pub(super) fn knows(&self, program: &Path, option: &str) -> Result<bool, String> {
        let mut command = match &self.launcher {
            None => Command::new(program),
            Some(launcher) => launcher(program),
        };
        for name in &self.secret_variables {
            command.env_remove(name);
        }
        command.args(["--no-defaults", "--help"]).stdin(Stdio::null());
        let output = command.output().map_err(|error| format!("{}: {error}", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let words = text.split(|letter: char| letter.is_whitespace() || "=[,".contains(letter));
        Ok(words.into_iter().any(|word| word == option))
    }

    /// Runs SQL of our own and gives its rows; columns are separated by tabs.
    pub fn query(&self, sql: &str) -> Result<Vec<String>, String> {
        Ok(self.our_rows(sql)?.into_iter().map(|row| row.join("\t")).collect())
    }

    /// The same with the values apart.
    pub fn our_rows(&self, sql: &str) -> Result<Vec<Vec<String>>, String> {
        self.rows("", &format!("{OUR_MODE} {sql}"))
    }

    /// Runs SQL as it is in a database, or in none, and gives the values of its rows.
    pub fn rows(&self, database: &str, sql: &str) -> Result<Vec<Vec<String>>, String> {
        let mut command = self.client();
        command.args(["--batch", "--skip-column-names", UTF8]);
        if !database.is_empty() {
            command.arg(format!("--database={database}"));
        }
        command.arg("--execute").arg(sql);
        let output =
            command.output().map_err(|error| format!("{}: {error}", self.client.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{}: {}", self.login.address(), said.trim()));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().map(|line| line.split('\t').map(unescaped).collect()).collect())
    }

    /// The first value of a query; empty where there is none.
    pub fn value(&self, sql: &str) -> Result<String, String> {
        Ok(self.query(sql)?.into_iter().next().unwrap_or_default())
    }

    /// The databases to back up: the one that is named, or all but the server's own.
    pub fn databases(&self) -> Result<Vec<String>, String> {
        if !self.login.database.is_empty() {
            return Ok(vec![self.login.database.clone()]);
        }
        let found = self.query(
            "SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN
             ('information_schema', 'performance_schema', 'mysql', 'sys') ORDER BY schema_name",
        )?;
        if found.is_empty() {
            return Err(format!(
                "{}: there is no database that this user may see",
                self.login.address()
            ));
        }
        Ok(found)
    }
}

/// A value as it was before the client wrote it into a line.
fn unescaped(text: &str) -> String {
    let (mut out, mut letters) = (String::new(), text.chars());
    while let Some(letter) = letters.next() {
        let letter = match letter {
            '\\' => match letters.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('0') => '\0',
                Some(other) => other,
                None => '\\',
            },
            other => other,
        };
        out.push(letter);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_the_client_escapes_them() {
        assert_eq!(unescaped(r"a\nb\tc\\n\0"), "a\nb\tc\\n\0");
        assert_eq!(unescaped("Größe"), "Größe");
    }
}
