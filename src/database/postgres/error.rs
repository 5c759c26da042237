//! What a server refuses, and what can go wrong on the way to it.

use std::io;

use super::link::Stopped;

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// There is no session.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The server refused.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The line broke.
    #[error("the connection to the server broke: {0}")]
    Io(io::Error),
    /// The operation was asked to stop.
    #[error(transparent)]
    Stopped(Stopped),
    /// Somebody else keeps a table locked.
    #[error("{0}")]
    Locked(String),
    /// The same, by somebody who came between two locks of ours.
    #[error("{0}")]
    Between(String),
    /// A client program failed.
    #[error("{0}")]
    Program(String),
    /// The server went away.
    #[error("the server closed the connection")]
    Closed,
    /// The other side is no PostgreSQL, or a kind that is not known.
    #[error("the server said what is not understood: {0}")]
    Protocol(String),
}

/// An error as the server words it.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("{severity}: {message}{}", if detail.is_empty() { String::new() } else { format!(" ({detail})") })]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, not translated where the server says so.
    pub severity: String,
    /// SQLSTATE.
    pub code: String,
    /// The text.
    pub message: String,
    /// More of it.
    pub detail: String,
}

impl ServerError {
    /// Whether the session ends with it.
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }
}

impl From<io::Error> for PgError {
    fn from(error: io::Error) -> Self {
        match error.downcast::<Stopped>() {
            Ok(stopped) => Self::Stopped(stopped),
            Err(error) => Self::Io(error),
        }
    }
}

impl PgError {
    /// Some other error.
    pub fn other(error: impl std::fmt::Display) -> Self {
        Self::Program(error.to_string())
    }

    /// The SQLSTATE, where the server gave one.
    pub fn code(&self) -> &str {
        match self {
            Self::Server(error) => &error.code,
            _ => "",
        }
    }
}

/// Reads an `ErrorResponse`.
pub fn server_error(body: &[u8]) -> PgError {
    let mut error = ServerError::default();
    for field in body.split(|byte| *byte == 0) {
        let Some((kind, text)) = field.split_first() else { continue };
        let text = String::from_utf8_lossy(text).into_owned();
        match kind {
            b'V' => error.severity = text,
            b'S' if error.severity.is_empty() => error.severity = text,
            b'C' => error.code = text,
            b'M' => error.message = text,
            b'D' => error.detail = text,
            _ => {}
        }
    }
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_read() {
        let body = b"SFEHLER\0VERROR\0C42P01\0Mrelation \"x\" does not exist\0\0";
        let error = server_error(body);
        assert_eq!(error.code(), "42P01");
        assert_eq!(error.to_string(), "ERROR: relation \"x\" does not exist");
        assert_eq!(server_error(b"").to_string(), ": ");
    }
}
