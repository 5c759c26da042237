//! Exit codes and how errors are printed.

use std::io::Write;
use std::process::ExitCode;

use restow::error::{Error, ErrorKind};

use super::{Global, interrupt, output};

/// A snapshot was made, but some files are not in it as they should be.
pub const INCOMPLETE: u8 = 3;
/// A drill was held and did not pass.
pub const DRILL_FAILED: u8 = 4;
/// Wrong flags or arguments.
pub const USAGE: u8 = 2;

/// Prints an error with its causes and a hint, and gives its exit code.
pub fn report(error: &anyhow::Error, global: &Global) -> ExitCode {
    if is_closed_pipe(error) {
        // The reader of our output went away: it has what it wanted.
        return ExitCode::from(1);
    }
    let known = error.downcast_ref::<Error>();
    let code = match known.map_or(ErrorKind::Failed, Error::kind) {
        // What fails after it was asked to stop most likely fails because of that.
        ErrorKind::Failed if interrupt::progress().is_interrupted() => ErrorKind::Interrupted,
        kind => kind,
    };
    let code = code_of(code);
    let text = describe(error);
    let hint = known.and_then(Error::hint);
    let mut stderr = std::io::stderr().lock();
    if global.json {
        let record = serde_json::json!({
            "message_type": "error", "code": code, "message": text, "hint": hint,
        });
        let _ = writeln!(stderr, "{record}");
    } else {
        let _ = writeln!(stderr, "restow: {}", output::plain(&text));
        if let Some(hint) = hint {
            let _ = writeln!(stderr, "hint: {hint}");
        }
    }
    ExitCode::from(code)
}

fn code_of(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Failed => 1,
        ErrorKind::Usage => USAGE,
        ErrorKind::NoRepository => 10,
        ErrorKind::Conflict => 11,
        ErrorKind::WrongSecret => 12,
        ErrorKind::Interrupted => 130,
    }
}

/// The chain of causes, without those that the one before already tells.
fn describe(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
