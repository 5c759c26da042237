//! A small blocking client: the simple query protocol and `COPY` in both directions.
//!
//! Rows of `COPY` pass through as bytes, thousands in one read; general clients hand them over one by
//! one. Source: PostgreSQL documentation, "Frontend/Backend Protocol", version 3.0.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::dsn::Dsn;
use super::error::{PgError, server_error};
use super::link::Link;

/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;
/// The longest message that is not a row of `COPY`.
const MAX_MESSAGE: usize = 256 << 20;
/// Bytes of one message of `COPY … FROM STDIN`.
const COPY_BYTES: usize = 64 << 10;

/// Rows of a result; all values as text.
pub type Rows = Vec<Vec<Option<String>>>;

/// A session.
pub struct Client {
    link: Link,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the current `CopyData` message that were not handed over yet.
    copy_left: usize,
    parameters: HashMap<String, String>,
}

/// What a message of the server says. Bodies stand in the buffer.
struct Message {
    tag: u8,
    body: std::ops::Range<usize>,
}

impl Client {
    /// Connects and logs in.
    pub fn connect(dsn: &Dsn) -> Result<Self, PgError> {
        let link = Link::connect(dsn).map_err(PgError::Connect)?;
        let mut client = Self {
            link,
            buffer: vec![0; READ_BYTES],
            start: 0,
            end: 0,
            copy_left: 0,
            parameters: HashMap::new(),
        };
        client.start_up(dsn)?;
        super::auth::log_in(&mut client, dsn)?;
        client.until_ready()?;
        client.link.logged_in();
        // Nobody else's functions and operators in what we ask.
        client.query("SET search_path = ''")?;
        Ok(client)
    }

    fn start_up(&mut self, dsn: &Dsn) -> Result<(), PgError> {
        let mut body = 196_608_i32.to_be_bytes().to_vec();
        let mut put = |word: &str, value: &str| {
            for text in [word, value] {
                body.extend(text.bytes().filter(|byte| *byte != 0));
                body.push(0);
            }
        };
        put("user", dsn.user());
        put("database", dsn.database());
        let name = dsn.option("application_name");
        put("application_name", if name.is_empty() { "restow" } else { name });
        if !dsn.option("options").is_empty() {
            put("options", dsn.option("options"));
        }
        body.push(0);
        let mut message = (body.len() as i32 + 4).to_be_bytes().to_vec();
        message.extend(body);
        Ok(self.link.write_all(&message)?)
    }

    /// A handle on the socket, by which another thread can end a read that hangs.
    pub fn handle(&self) -> io::Result<Arc<OwnedFd>> {
        self.link.handle()
    }

    /// What the server said about itself when the session began.
    pub fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }

    /// Sends one message.
    pub(super) fn send(&mut self, tag: u8, body: &[u8]) -> Result<(), PgError> {
        let mut message = vec![tag];
        message.extend((body.len() as i32 + 4).to_be_bytes());
        message.extend(body);
        let sent = self.link.write_all(&message).and_then(|()| self.link.flush());
        sent.map_err(|error| self.last_words(error.into()))
    }

    /// What the server said before it went away, where it did: that the line is broken follows from it.
    fn last_words(&mut self, error: PgError) -> PgError {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        let kinds = [BrokenPipe, ConnectionAborted, ConnectionReset];
        if !matches!(&error, PgError::Io(error) if kinds.contains(&error.kind())) {
            return error;
        }
        loop {
            match self.receive() {
                Ok(_) => {}
                Err(said @ PgError::Server(_)) => return said,
                Err(_) => return error,
            }
        }
    }

    /// The next message: its tag and body. Notices and parameters are taken note of on the way, errors
    /// become one.
    pub(super) fn receive(&mut self) -> Result<(u8, &[u8]), PgError> {
        loop {
            let Message { tag, body } = self.message()?;
            match tag {
                b'N' | b'A' => {}
                b'S' => {
                    let mut parts = self.buffer[body].split(|byte| *byte == 0);
                    let mut text = || String::from_utf8_lossy(parts.next().unwrap_or(&[])).into();
                    let (name, value) = (text(), text());
                    self.parameters.insert(name, value);
                }
                b'E' => return Err(server_error(&self.buffer[body])),
                _ => return Ok((tag, &self.buffer[body])),
            }
        }
    }

    /// Reads a whole message into the buffer.
    fn message(&mut self) -> Result<Message, PgError> {
        self.fill(5)?;
        let (tag, length) = self.header();
        if length > MAX_MESSAGE {
            return Err(PgError::Protocol(format!("a message of {length} bytes")));
        }
        self.fill(5 + length)?;
        let body = self.start + 5..self.start + 5 + length;
        self.start = body.end;
        Ok(Message { tag, body })
    }

    /// Tag and length of the body of the message that begins at `start`.
    fn header(&self) -> (u8, usize) {
        let bytes = &self.buffer[self.start..self.start + 5];
        let length = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
        (bytes[0], (length as usize).saturating_sub(4))
    }

    /// Reads until at least `count` bytes stand in the buffer.
    fn fill(&mut self, count: usize) -> Result<(), PgError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.start + count > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            self.buffer.resize(self.buffer.len().max(count), 0);
        }
        while self.end - self.start < count {
            match self.link.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(PgError::Closed),
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads on until the server waits for a command. The first error is given when it does.
    fn until_ready(&mut self) -> Result<Rows, PgError> {
        let (mut rows, mut failed) = (Rows::new(), None);
        loop {
            match self.receive() {
                Ok((b'Z', _)) => return failed.map_or(Ok(rows), Err),
                Ok((b'D', body)) => rows.push(data_row(body)?),
                Ok((b'G', _)) => self.send(b'f', b"no rows to copy\0")?,
                Ok((b'T', _)) => rows.clear(),
                Ok(_) => {}
                Err(PgError::Server(error)) if error.is_fatal() => return Err(error.into()),
                Err(error @ PgError::Server(_)) => failed = failed.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Runs SQL and gives the rows of its last query.
    pub fn query(&mut self, sql: &str) -> Result<Rows, PgError> {
        self.send_query(sql)?;
        self.until_ready()
    }

    /// The first value of the first row; empty for NULL and where there is no row.
    pub fn value(&mut self, sql: &str) -> Result<String, PgError> {
        let rows = self.query(sql)?;
        Ok(rows.into_iter().flatten().next().flatten().unwrap_or_default())
    }

    fn send_query(&mut self, sql: &str) -> Result<(), PgError> {
        if sql.contains('\0') {
            return Err(PgError::Protocol("SQL with a NUL in it".into()));
        }
        let mut body = sql.as_bytes().to_vec();
        body.push(0);
        self.send(b'Q', &body)
    }

    /// Starts `COPY … TO STDOUT`.
    pub fn copy_out(&mut self, sql: &str) -> Result<(), PgError> {
        self.send_query(sql)?;
        self.expect_copy(b'H')
    }

    fn expect_copy(&mut self, wanted: u8) -> Result<(), PgError> {
        match self.receive() {
            Ok((tag, _)) if tag == wanted => Ok(()),
            Ok((tag, _)) => Err(PgError::Protocol(format!("COPY was answered by {tag:#x}"))),
            // Nothing follows.
            Err(PgError::Server(error)) if error.is_fatal() => Err(error.into()),
            Err(error) => {
                self.until_ready()?;
                Err(error)
            }
        }
    }

    /// Reads rows of `COPY … TO STDOUT`; 0 at their end, which [`Client::copy_end`] must follow.
    pub fn copy_read(&mut self, out: &mut [u8]) -> Result<usize, PgError> {
        let mut done = 0;
        while done < out.len() {
            if self.copy_left == 0 && !self.next_copy_data(done > 0)? {
                break;
            }
            if self.start == self.end {
                if done > 0 && self.copy_left > 0 {
                    break;
                }
                self.fill(1)?;
            }
            let take = self.copy_left.min(self.end - self.start).min(out.len() - done);
            out[done..done + take].copy_from_slice(&self.buffer[self.start..self.start + take]);
            self.start += take;
            self.copy_left -= take;
            done += take;
        }
        Ok(done)
    }

    /// Passes to the next `CopyData`. False at the end of the rows, and where it would have to wait
    /// although there is something to hand over.
    fn next_copy_data(&mut self, has_some: bool) -> Result<bool, PgError> {
        loop {
            if has_some && self.end - self.start < 5 {
                return Ok(false);
            }
            self.fill(5)?;
            match self.header() {
                (b'd', 0) => self.start += 5,
                (b'd', length) => {
                    self.start += 5;
                    self.copy_left = length;
                    return Ok(true);
                }
                (b'c', _) => return Ok(false),
                // What came before it is handed over first.
                _ if has_some => return Ok(false),
                (b'N' | b'S' | b'A', _) => {
                    self.message()?;
                }
                (tag, _) => {
                    let failed = self.receive().map(drop);
                    if !matches!(&failed, Err(PgError::Server(error)) if error.is_fatal()) {
                        self.until_ready()?;
                    }
                    failed?;
                    return Err(PgError::Protocol(format!("COPY was ended by {tag:#x}")));
                }
            }
        }
    }

    /// Ends a `COPY` and gives the number of rows that the server counted.
    pub fn copy_end(&mut self) -> Result<u64, PgError> {
        let (mut rows, mut failed) = (0, None);
        loop {
            match self.receive() {
                Ok((b'C', body)) => rows = copied_rows(body),
                Ok((b'Z', _)) => return failed.map_or(Ok(rows), Err),
                Ok(_) => {}
                Err(PgError::Server(error)) if error.is_fatal() => return Err(error.into()),
                Err(error @ PgError::Server(_)) => failed = failed.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Starts `COPY … FROM STDIN`.
    pub fn copy_in(&mut self, sql: &str) -> Result<(), PgError> {
        self.send_query(sql)?;
        self.expect_copy(b'G')
    }

    /// Sends rows, cut anywhere.
    pub fn copy_write(&mut self, bytes: &[u8]) -> Result<(), PgError> {
        for part in bytes.chunks(COPY_BYTES) {
            let mut header = [b'd', 0, 0, 0, 0];
            header[1..].copy_from_slice(&(part.len() as u32 + 4).to_be_bytes());
            let sent = self.link.write_all(&header).and_then(|()| self.link.write_all(part));
            sent.map_err(|error| self.last_words(error.into()))?;
        }
        Ok(())
    }

    /// Says that all rows were sent, and gives how many the server took.
    pub fn copy_done(&mut self) -> Result<u64, PgError> {
        self.send(b'c', &[])?;
        self.copy_end()
    }

    /// Takes back a `COPY … FROM STDIN`.
    pub fn copy_fail(&mut self, why: &str) -> Result<(), PgError> {
        let mut body: Vec<u8> = why.bytes().filter(|byte| *byte != 0).collect();
        body.push(0);
        self.send(b'f', &body)?;
        match self.copy_end() {
            Ok(_) | Err(PgError::Server(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.send(b'X', &[]);
    }
}

fn data_row(body: &[u8]) -> Result<Vec<Option<String>>, PgError> {
    let broken = || PgError::Protocol("a broken row".into());
    let (count, mut rest) = body.split_first_chunk::<2>().ok_or_else(broken)?;
    let mut values = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(broken)?;
        let length = i32::from_be_bytes(*length);
        let Ok(length) = usize::try_from(length) else {
            values.push(None);
            rest = after;
            continue;
        };
        let value = after.get(..length).ok_or_else(broken)?;
        values.push(Some(String::from_utf8_lossy(value).into_owned()));
        rest = &after[length..];
    }
    Ok(values)
}

/// `COPY 123`
fn copied_rows(body: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(body);
    text.trim_end_matches('\0').rsplit(' ').next().and_then(|rows| rows.parse().ok()).unwrap_or(0)
}
