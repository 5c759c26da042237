//! The line to an SFTP server: the system's `ssh`, with all that its configuration says about hosts,
//! keys, agents and jumps.

use std::io;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh_sftp::client::RawSftpSession;
use russh_sftp::client::error::Error;
use russh_sftp::protocol::StatusCode;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};

use super::Server;

/// How long the server may think about one request, seconds. Making a big file durable takes a while.
const SILENCE_SECONDS: u64 = 120;
/// How long it may take until the line stands.
const CONNECT: Duration = Duration::from_secs(60);
/// Lines of what `ssh` says that are kept.
const KEPT_LINES: usize = 4;

/// Why a request failed.
#[derive(Debug)]
pub enum Fault {
    /// The server says so.
    Status(StatusCode, String),
    /// There is no line, and trying again may help or not.
    Dead(io::Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Status(status) => Self::Status(status.status_code, status.error_message),
            other => {
                let kind = io::ErrorKind::ConnectionAborted;
                Self::Dead(io::Error::new(kind, format!("the line broke: {other}")))
            }
        }
    }
}

/// A line that stands.
pub struct Line {
    /// Requests go here.
    pub session: RawSftpSession,
    /// Whether files can be made durable.
    pub has_fsync: bool,
    /// Ends with this value.
    _ssh: Child,
}

impl Line {
    /// Calls the server.
    pub async fn open(server: &Server) -> Result<Self, Fault> {
        let (program, before) = server.program.split_first().ok_or_else(|| {
            Fault::Dead(io::Error::new(io::ErrorKind::InvalidInput, "no ssh command given"))
        })?;
        let mut command = Command::new(program);
        command.args(before);
        // Nobody may be there to answer; a server that is gone must be noticed.
        for option in ["BatchMode=yes", "ServerAliveInterval=20", "ServerAliveCountMax=6"] {
            command.args(["-o", option]);
        }
        server.port.map(|port| command.arg("-p").arg(port.to_string()));
        server.user.as_ref().map(|user| command.arg("-l").arg(user));
        command.arg("-s").arg("--").arg(&server.host).arg("sftp");
        // Of a group of its own: Ctrl-C is for us, who still want to bring things to an end.
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut ssh = command.spawn().map_err(|error| {
            Fault::Dead(io::Error::new(
                io::ErrorKind::NotFound,
                format!("start {program}: {error}"),
            ))
        })?;
        let (stdin, stdout) = (ssh.stdin.take(), ssh.stdout.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = (stdin, stdout, ssh.stderr.take()) else {
            return Err(Fault::Dead(io::Error::other("ssh was started without pipes")));
        };
        let said = Arc::new(Mutex::new(Vec::new()));
        let listener = tokio::spawn(listen(stderr, said.clone()));
        let session = RawSftpSession::new(tokio::io::join(stdout, stdin));
        session.set_timeout(SILENCE_SECONDS);
        let version = match tokio::time::timeout(CONNECT, session.init()).await {
            Ok(Ok(version)) => version,
            Ok(Err(_)) => {
                // It has hung up: its last words tell why.
                let _ = tokio::time::timeout(Duration::from_secs(2), listener).await;
                return Err(Fault::Dead(why(&said)));
            }
            Err(_) => {
                let kind = io::ErrorKind::NotConnected;
                return Err(Fault::Dead(io::Error::new(kind, "no reply within 60 seconds")));
            }
        };
        if !version.extensions.contains_key("hardlink@openssh.com") {
            let text = "the server has no hardlink@openssh.com, without which two writers could take \
                        the same place; OpenSSH has it";
            return Err(Fault::Dead(io::Error::new(io::ErrorKind::Unsupported, text)));
        }
        let has_fsync = version.extensions.contains_key("fsync@openssh.com");
        Ok(Self { session, has_fsync, _ssh: ssh })
    }
}

/// Keeps the last of what `ssh` says.
async fn listen(stderr: ChildStderr, said: Arc<Mutex<Vec<String>>>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let line = line.trim().to_owned();
        let mut said = said.lock().expect("no panics here");
        if !line.is_empty() {
            said.push(line);
        }
        let many = said.len().saturating_sub(KEPT_LINES);
        said.drain(..many);
    }
}

/// What became of the call, by the words of `ssh`.
fn why(said: &Mutex<Vec<String>>) -> io::Error {
    let said = said.lock().expect("no panics here").join("; ");
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let kind = if has(&["Permission denied", "Host key verification", "HOST IDENTIFICATION"]) {
        io::ErrorKind::PermissionDenied
    } else if has(&["Could not resolve", "subsystem request failed", "Bad configuration"]) {
        io::ErrorKind::InvalidInput
    } else {
        io::ErrorKind::NotConnected
    };
    let said = if said.is_empty() { "ssh ended without a word".to_owned() } else { said };
    io::Error::new(kind, said)
}
