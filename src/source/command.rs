//! The output of a command. The stream is complete only if the command says so by exiting with 0.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};

use super::{Stopper, StreamInput};

/// A running command whose standard output is read; its standard error is ours, or kept for the
/// text of a failure.
pub struct CommandInput {
    child: Child,
    output: ChildStdout,
    errors: Option<JoinHandle<String>>,
    finished: bool,
}

/// How much of the end of what a command says is kept.
const SAID_BYTES: usize = 2048;

impl CommandInput {
    /// Starts a command, in a process group of its own so that all of it can be ended.
    pub fn start(arguments: &[OsString]) -> io::Result<Self> {
        let (program, rest) = arguments
            .split_first()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no command given"))?;
        let mut command = Command::new(program);
        command.args(rest);
        Self::spawn(command)
    }

    /// Starts a command that is set up already and keeps what it says on its standard error.
    pub fn start_quiet(mut command: Command) -> io::Result<Self> {
        command.stderr(Stdio::piped());
        let mut input = Self::spawn(command)?;
        input.errors = input.child.stderr.take().map(|errors| thread::spawn(move || tail(errors)));
        Ok(input)
    }

    fn spawn(mut command: Command) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        let output = child.stdout.take().expect("the output is a pipe");
        let _ = rustix::pipe::fcntl_setpipe_size(&output, 1 << 20);
        Ok(Self { child, output, errors: None, finished: false })
    }

    /// Starts a command line in `/bin/sh`; a failure anywhere in a pipeline of it is the shell's
    /// to report.
    pub fn start_shell(line: &str) -> io::Result<Self> {
        Self::start(&["/bin/sh".into(), "-c".into(), line.into()])
    }
}

impl StreamInput for CommandInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.output.read(buffer)
    }

    fn finish(&mut self) -> Result<(), String> {
        let status = self.child.wait().map_err(|error| format!("wait for command: {error}"))?;
        self.finished = true;
        let said = self.errors.take().and_then(|errors| errors.join().ok()).unwrap_or_default();
        match (status.success(), said.trim()) {
            (true, _) => Ok(()),
            (false, "") => Err(describe(status)),
            (false, said) => Err(format!("{}: {said}", describe(status))),
        }
    }

    fn stopper(&self) -> Option<Stopper> {
        rustix::process::Pid::from_raw(self.child.id() as i32).map(Stopper::Group)
    }
}

impl Drop for CommandInput {
    fn drop(&mut self) {
        if !self.finished {
            if let Some(stopper) = self.stopper() {
                stopper.stop();
            }
            let _ = self.child.wait();
        }
    }
}

/// The last of what somebody says.
fn tail(mut errors: impl Read) -> String {
    let (mut kept, mut buffer) = (Vec::new(), [0; 1024]);
    while let Ok(count @ 1..) = errors.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..count]);
        if kept.len() > 2 * SAID_BYTES {
            kept.drain(..kept.len() - SAID_BYTES);
        }
    }
    let start = kept.len().saturating_sub(SAID_BYTES);
    String::from_utf8_lossy(&kept[start..]).into_owned()
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("command exited with status {code}"),
        (None, Some(signal)) => format!("command was killed by signal {signal}"),
        (None, None) => "command ended in an unknown way".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> (Vec<u8>, Result<(), String>) {
        let mut input = CommandInput::start_shell(line).unwrap();
        let (mut bytes, mut buffer) = (Vec::new(), [0; 100]);
        loop {
            match input.read(&mut buffer).unwrap() {
                0 => break,
                count => bytes.extend_from_slice(&buffer[..count]),
            }
        }
        let end = input.finish();
        (bytes, end)
    }

    #[test]
    fn exit_codes_and_signals_are_told() {
        assert_eq!(run("printf abc"), (b"abc".to_vec(), Ok(())));
        assert_eq!(run("printf a; exit 3").1, Err("command exited with status 3".into()));
        assert_eq!(run("kill -9 $$").1, Err("command was killed by signal 9".into()));
    }

    #[test]
    fn a_missing_program_is_an_error() {
        assert!(CommandInput::start(&["/no/such/program".into()]).is_err());
        assert!(CommandInput::start(&[]).is_err());
    }
}
