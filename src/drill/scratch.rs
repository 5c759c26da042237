//! A folder and a server in it that live as long as a drill. Whatever ends the drill, both go; what a killed
//! one left is cleared away by the next.

use std::fs::Permissions;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::database::leftover;
use crate::progress::Progress;
use crate::store::pause::{Patience, Pause};

/// What the server says.
const LOG: &str = "log";
const PREFIX: &str = "restow-drill-";
/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it has to end by itself.
const ENDING: Duration = Duration::from_secs(3);

/// The user that a server runs as where this process is root: servers refuse that.
#[derive(Clone, Copy)]
pub struct RunAs {
    user: u32,
    group: u32,
}

impl RunAs {
    /// The user `nobody` where this process is root; else the server runs as we do. Never the user of a
    /// live server: code in the restored database would own that one's files.
    pub fn nobody() -> Result<Option<Self>, String> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let user = uzers::get_user_by_name("nobody");
        let user = user.ok_or("a server does not run as root, and there is no user nobody")?;
        Ok(Some(Self { user: user.uid(), group: user.primary_group_id() }))
    }
}

/// A private folder, and the server in it.
pub struct Scratch {
    folder: PathBuf,
    run_as: Option<RunAs>,
    server: Option<Child>,
    /// Ends the server without ceremony: nothing in it is worth keeping.
    end: Signal,
}

impl Scratch {
    /// Makes a folder that only its server may enter. Clears away what killed drills left.
    pub fn make(temporary: &Path, run_as: Option<RunAs>) -> Result<Self, String> {
        clear(temporary);
        let folder = tempfile::Builder::new()
            .prefix(&leftover::own(PREFIX))
            .rand_bytes(4)
            .tempdir_in(temporary);
        let folder = folder.map_err(|error| format!("{}: {error}", temporary.display()))?.keep();
        let scratch = Self { folder, run_as, server: None, end: Signal::QUIT };
        let named = |error| format!("{}: {error}", scratch.folder.display());
        std::fs::set_permissions(&scratch.folder, Permissions::from_mode(0o700)).map_err(named)?;
        // While the folder is still ours alone: no link of somebody else's stands there.
        let log = std::fs::File::create_new(scratch.folder.join(LOG));
        log.map_err(|error| format!("{}: {error}", scratch.folder.display()))?;
        if let Some(RunAs { user, group }) = scratch.run_as {
            std::os::unix::fs::chown(&scratch.folder, Some(user), Some(group)).map_err(named)?;
        }
        Ok(scratch)
    }

    /// The same with a server that has no processes or shared memory to clear away, and that may pass over
    /// any other signal while it starts.
    pub fn killed(mut self) -> Self {
        self.end = Signal::KILL;
        self
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A command that runs as the server does, in its folder.
    pub fn command(&self, program: &Path) -> Command {
        command_in(&self.folder, self.run_as, program)
    }

    /// Makes such commands while the folder lives.
    pub fn launcher(&self) -> impl Fn(&Path) -> Command + Clone + Send + Sync + 'static {
        let (folder, run_as) = (self.folder.clone(), self.run_as);
        move |program| command_in(&folder, run_as, program)
    }

    /// Runs a command to its end; what it says is the error.
    pub fn run(&self, mut command: Command) -> Result<(), String> {
        let program = command.get_program().display().to_string();
        let output = command.output().map_err(|error| format!("{program}: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rev().take(5).collect::<Vec<_>>();
        let last: Vec<&str> = last.into_iter().rev().collect();
        Err(format!("{program}: {}", last.join(" ")))
    }

    /// Starts the server. It is up when `is_up` says so.
    pub fn serve(
        &mut self,
        mut command: Command,
        progress: &Progress,
        mut is_up: impl FnMut() -> bool,
    ) -> Result<(), String> {
        if progress.is_interrupted() {
            return Err("it was not started".to_owned());
        }
        let log = self.folder.join(LOG);
        let mut options = std::fs::OpenOptions::new();
        options.append(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
        let file = options.open(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let copy = file.try_clone().map_err(|error| error.to_string())?;
        // A group of its own: Ctrl-C on the terminal is ours to answer.
        command.stdout(file).stderr(copy).process_group(0);
        let child = command.spawn().map_err(|error| error.to_string())?;
        let server = self.server.insert(child);
        let waiter = Patience::new(|| progress.is_interrupted());
        let started = Instant::now();
        while !is_up() {
            if let Ok(Some(status)) = server.try_wait() {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                let is_reason = |line: &&str| line.contains("FATAL") || line.contains("ERROR");
                let reason = said.lines().rev().find(is_reason);
                let said = reason.or(said.lines().last()).unwrap_or_default();
                return Err(format!("it ended with {status}: {said}"));
            }
            if started.elapsed() > PATIENCE || !waiter.pause(Duration::from_millis(20)) {
                return Err("it did not come up".to_owned());
            }
        }
        Ok(())
    }
}

fn command_in(folder: &Path, run_as: Option<RunAs>, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
    // A MariaDB server that starts removes what it takes for its own temporary tables from the folder of
    // temporary files: another server's as well.
    command.env("TMPDIR", folder);
    command.env("HOME", folder).stdin(Stdio::null());
    if let Some(RunAs { user, group }) = run_as {
        command.uid(user).gid(group);
    }
    command
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            if let Some(pid) = Pid::from_raw(server.id() as i32) {
                let _ = kill_process(pid, self.end);
            }
            let waiter = Patience::new(|| false);
            let started = Instant::now();
            while matches!(server.try_wait(), Ok(None)) && started.elapsed() < ENDING {
                waiter.pause(Duration::from_millis(10));
            }
            // It may pass over the signal: who ignores it hands that down to his children.
            if let Some(pid) = Pid::from_raw(server.id() as i32) {
                let _ = kill_process_group(pid, Signal::KILL);
            }
            let _ = server.kill();
            let _ = server.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Ends servers of drills that were killed, and removes their folders. Each bears the number of the process
/// that made it.
fn clear(temporary: &Path) {
    for folder in leftover::left(temporary, PREFIX) {
        for file in ["data/postmaster.pid", "server.pid"] {
            stop_left_behind(&folder, &folder.join(file));
        }
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// Ends the server of this folder, if it is that: the number in its file may be another process's by now.
fn stop_left_behind(folder: &Path, pid_file: &Path) {
    let Ok(text) = std::fs::read_to_string(pid_file) else { return };
    let number: Option<i32> = text.lines().next().and_then(|line| line.trim().parse().ok());
    let Some(server) = number.and_then(Pid::from_raw) else { return };
    let cwd = std::fs::read_link(format!("/proc/{}/cwd", server.as_raw_nonzero()));
    if cwd.is_ok_and(|cwd| cwd.starts_with(folder)) {
        let _ = kill_process(server, Signal::QUIT);
    }
}
