//! What was heard of a request, and what that means for the contract of stores.
//!
//! `object_store` folds replies into kinds of errors that are too coarse for a commit: a 409 is
//! "exists already" to it, while S3 says so when two writers meet and neither may have won. So the
//! status of the last reply is taken down where it passes by.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use object_store::Error;
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpService, ReqwestConnector,
};

use super::super::StoreError;

/// The last thing that was heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Last {
    /// Nothing was sent.
    #[default]
    Nothing,
    /// The server could not be reached: it never saw the request.
    Unreachable,
    /// The request went out, no reply came back.
    Lost,
    /// A reply with this status.
    Status(u16),
}

/// Where what was heard is taken down.
#[derive(Debug, Clone, Default)]
pub struct Heard(Arc<Mutex<Last>>);

impl Heard {
    fn set(&self, last: Last) {
        *self.0.lock().expect("no panics here") = last;
    }

    fn get(&self) -> Last {
        *self.0.lock().expect("no panics here")
    }
}

tokio::task_local! {
    static HEARD: Heard;
}

/// Runs a request and takes down what is heard of it.
pub async fn listen<T>(heard: Heard, request: impl Future<Output = T>) -> T {
    HEARD.scope(heard, request).await
}

/// The usual client, with an ear on the line.
#[derive(Debug, Default)]
pub struct ListeningConnector(ReqwestConnector);

impl HttpConnector for ListeningConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Listening(self.0.connect(options)?)))
    }
}

#[derive(Debug)]
struct Listening(HttpClient);

impl HttpService for Listening {
    fn call<'life0, 'future>(
        &'life0 self,
        request: HttpRequest,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'future>>
    where
        'life0: 'future,
        Self: 'future,
    {
        Box::pin(async move {
            let note = |last: Last| {
                let _ = HEARD.try_with(|heard| heard.set(last));
            };
            note(Last::Lost);
            let reply = self.0.execute(request).await;
            match &reply {
                Ok(reply) => note(Last::Status(reply.status().as_u16())),
                Err(error) if error.kind() == HttpErrorKind::Connect => note(Last::Unreachable),
                Err(_) => {}
            }
            reply
        })
    }
}

/// How a request failed.
#[derive(Debug)]
pub struct Reply {
    last: Last,
    error: Option<Box<Error>>,
    /// The words for people.
    text: String,
    /// What a server names its reason with, such as `NoSuchBucket`.
    code: String,
}

impl Reply {
    /// A failure that `object_store` reports.
    pub fn new(heard: &Heard, error: Error) -> Self {
        let (code, text) = explain(&error);
        Self { last: heard.get(), error: Some(Box::new(error)), text, code }
    }

    /// No end within a time.
    pub fn silent(heard: &Heard, limit: Duration) -> Self {
        let last = match heard.get() {
            Last::Nothing => Last::Nothing,
            _ => Last::Lost,
        };
        let text = format!("no reply within {} seconds", limit.as_secs());
        Self { last, error: None, text, code: String::new() }
    }

    /// The outcome of a conditional put.
    pub fn put(self, path: &str) -> StoreError {
        let path = path.to_owned();
        match (self.last, self.error.as_deref()) {
            // Azure says 409 where the others say 412, with a name that leaves no doubt.
            (Last::Status(412 | 304), _) => StoreError::AlreadyExists { path },
            (Last::Status(409), _) if self.code == "BlobAlreadyExists" => {
                StoreError::AlreadyExists { path }
            }
            (Last::Status(409), _) => StoreError::Unknown { path, source: self.into_io() },
            (Last::Status(507), _) => StoreError::Full { path, source: self.into_io() },
            // Never taken in: too many requests, a body that did not come in time.
            (Last::Status(408 | 429), _) => self.failed("put", path),
            (Last::Status(400), _) if self.code == "RequestTimeout" => self.failed("put", path),
            // It never does that: a store without conditional puts, for one.
            (Last::Status(501 | 505), _) => self.failed("put", path),
            (Last::Status(200..=299 | 500..), _) | (Last::Lost, _) => {
                StoreError::Unknown { path, source: self.into_io() }
            }
            (Last::Nothing, Some(Error::AlreadyExists { .. })) => {
                StoreError::AlreadyExists { path }
            }
            _ => self.refused("put", path),
        }
    }

    /// The outcome of a read or stat.
    pub fn read(self, action: &'static str, path: &str) -> StoreError {
        let is_missing = matches!(self.error.as_deref(), Some(Error::NotFound { .. }));
        // A bucket that is not there is no missing object.
        if is_missing && self.code != "NoSuchBucket" && self.code != "ContainerNotFound" {
            return StoreError::NotFound { path: path.to_owned() };
        }
        if self.last == Last::Status(416) {
            let source = io::ErrorKind::UnexpectedEof.into();
            return StoreError::Failed { action, path: path.to_owned(), source };
        }
        self.refused(action, path.to_owned())
    }

    /// The outcome of a listing of a part of `location`.
    pub fn list(self, prefix: &str, location: &str) -> StoreError {
        let path = if prefix.is_empty() { location } else { prefix };
        self.refused("list", path.to_owned())
    }

    /// The outcome of a deletion.
    pub fn delete(self, path: &str) -> StoreError {
        let path = path.to_owned();
        match (self.last, self.error.as_deref()) {
            // Azure says 409 of a blob that must be kept.
            (Last::Status(409), _) => {
                StoreError::Denied { action: "delete", path, source: self.into_io() }
            }
            (_, Some(Error::NotFound { .. })) if self.code != "NoSuchBucket" => {
                StoreError::NotFound { path }
            }
            _ => self.refused("delete", path),
        }
    }

    fn refused(self, action: &'static str, path: String) -> StoreError {
        match (self.last, self.error.as_deref()) {
            (Last::Status(401 | 403), _)
            | (_, Some(Error::PermissionDenied { .. } | Error::Unauthenticated { .. })) => {
                StoreError::Denied { action, path, source: self.into_io() }
            }
            _ => self.failed(action, path),
        }
    }

    fn failed(self, action: &'static str, path: String) -> StoreError {
        failed(action, &path, self.into_io())
    }

    /// The words, under a kind that tells whether trying again may help.
    fn into_io(self) -> io::Error {
        let kind = match self.last {
            Last::Unreachable => io::ErrorKind::NotConnected,
            Last::Lost => io::ErrorKind::ConnectionAborted,
            Last::Status(401 | 403) => io::ErrorKind::PermissionDenied,
            Last::Status(501 | 505) => io::ErrorKind::Unsupported,
            Last::Status(408 | 429 | 500 | 502..=504 | 509 | 520..=529) => {
                io::ErrorKind::ResourceBusy
            }
            // The head of a reply came, its body did not.
            Last::Status(200..=299) => io::ErrorKind::ConnectionAborted,
            Last::Status(400) if self.code == "RequestTimeout" => io::ErrorKind::ResourceBusy,
            Last::Status(409) => io::ErrorKind::ResourceBusy,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, Words(self.text))
    }
}

#[derive(Debug)]
struct Words(String);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Words {}

/// A failure that is certain.
pub fn failed(action: &'static str, path: &str, source: io::Error) -> StoreError {
    StoreError::Failed { action, path: path.to_owned(), source }
}

/// What an error says, without the wrapping.
pub fn words(error: &Error) -> String {
    explain(error).1
}

/// The server's code and words where it gave any, else the innermost cause: what lies around it is
/// the client's own wrapping, with addresses in it.
fn explain(error: &Error) -> (String, String) {
    let whole = error.to_string();
    let code = element(&whole, "Code").unwrap_or_default();
    let message = element(&whole, "Message").unwrap_or_default();
    // Azure puts several lines into one message.
    let message = message.lines().next().unwrap_or_default().trim_end_matches('.').to_owned();
    if !code.is_empty() {
        let text = if message.is_empty() { code.clone() } else { format!("{message} ({code})") };
        return (code, text);
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    (code, shortened(&innermost.to_string()))
}

/// The text of an element of an XML error, as servers send it.
fn element(text: &str, name: &str) -> Option<String> {
    let from = text.find(&format!("<{name}>"))? + name.len() + 2;
    let length = text[from..].find(&format!("</{name}>"))?;
    Some(text[from..from + length].trim().to_owned())
}

/// One line of bounded length: some servers answer with a page.
fn shortened(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.trim_end_matches([':', ' ']).chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(last: Last, code: &str) -> Reply {
        Reply { last, error: None, text: "said".into(), code: code.into() }
    }

    #[test]
    fn only_a_412_is_a_certain_loss_of_a_race() {
        let put = |last, code| reply(last, code).put("log/1");
        assert!(matches!(put(Last::Status(412), ""), StoreError::AlreadyExists { .. }));
        let lost = put(Last::Status(409), "ConditionalRequestConflict");
        assert!(matches!(lost, StoreError::Unknown { .. }));
        let azure = put(Last::Status(409), "BlobAlreadyExists");
        assert!(matches!(azure, StoreError::AlreadyExists { .. }));
    }

    #[test]
    fn what_may_have_landed_is_unknown_and_what_never_left_is_not() {
        for last in [Last::Lost, Last::Status(500), Last::Status(503), Last::Status(200)] {
            assert!(matches!(reply(last, "").put("log/1"), StoreError::Unknown { .. }), "{last:?}");
        }
        let never = [429, 400, 501].map(Last::Status);
        for last in [Last::Nothing, Last::Unreachable].into_iter().chain(never) {
            assert!(matches!(reply(last, "").put("log/1"), StoreError::Failed { .. }), "{last:?}");
        }
        assert!(matches!(reply(Last::Status(403), "").put("x"), StoreError::Denied { .. }));
        assert!(matches!(reply(Last::Status(507), "").put("x"), StoreError::Full { .. }));
    }

    #[test]
    fn what_a_lock_forbids_is_denied() {
        for last in [Last::Status(403), Last::Status(409)] {
            assert!(matches!(reply(last, "").delete("data/x"), StoreError::Denied { .. }));
        }
    }

    #[test]
    fn the_words_of_the_server_are_told() {
        let source = "<Error><Code>NoSuchBucket</Code><Message>No such bucket.</Message></Error>";
        let error = Error::Generic { store: "S3", source: source.into() };
        assert_eq!(
            explain(&error),
            ("NoSuchBucket".to_owned(), "No such bucket (NoSuchBucket)".to_owned())
        );
        let error = Error::Generic { store: "S3", source: io::Error::other("refused").into() };
        assert_eq!(explain(&error).1, "refused");
    }
}
