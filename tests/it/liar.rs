//! A small S3 server that does wrong on request.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use restow::store::object::{Bucket, BucketStore, Service};

/// What it does instead of what it should.
#[derive(Debug, Clone, Copy)]
pub enum Lie {
    /// Does nothing and says this status and code.
    Refuse(u16, &'static str),
    /// Does it, and says this.
    DoAndSay(u16, &'static str),
    /// Does it, and hangs up.
    DoAndHangUp,
    /// Hangs up.
    HangUp,
    /// Promises the whole body and hangs up half way.
    HalfABody,
    /// Reads the request and says nothing.
    Silence,
}

/// The server.
pub struct Liar {
    port: u16,
    lies: Arc<Mutex<VecDeque<Lie>>>,
    /// Requests so far: method and path.
    pub seen: Arc<Mutex<Vec<String>>>,
}

type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

impl Liar {
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let lies: Arc<Mutex<VecDeque<Lie>>> = Arc::default();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let objects = Objects::default();
        let (my_lies, my_seen) = (lies.clone(), seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (objects, lies, seen) = (objects.clone(), my_lies.clone(), my_seen.clone());
                std::thread::spawn(move || answer(stream, &objects, &lies, &seen));
            }
        });
        Self { port, lies, seen }
    }

    /// The next answers.
    pub fn will(&self, lies: &[Lie]) {
        self.lies.lock().unwrap().extend(lies);
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn store(&self) -> BucketStore {
        let option = |name: &str| (name.to_owned(), "x".to_owned());
        BucketStore::open(&Bucket {
            service: Service::S3,
            name: "bucket".into(),
            prefix: String::new(),
            options: vec![option("AWS_ACCESS_KEY_ID"), option("AWS_SECRET_ACCESS_KEY")],
            endpoint: Some(self.endpoint()),
            virtual_host: None,
            silence: Duration::from_millis(300),
            location: "s3://bucket".into(),
        })
        .unwrap()
    }
}

struct Request {
    method: String,
    path: String,
    range: Option<(usize, usize)>,
    body: Vec<u8>,
}

fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let mut request =
        Request { method: words.next()?, path: words.next()?, range: None, body: Vec::new() };
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "range" => {
                let (from, to) = value.strip_prefix("bytes=")?.split_once('-')?;
                request.range = Some((from.parse().ok()?, to.parse().ok()?));
            }
            _ => {}
        }
    }
    request.body.resize(length, 0);
    stream.read_exact(&mut request.body).ok()?;
    Some(request)
}

fn answer(
    stream: TcpStream,
    objects: &Objects,
    lies: &Mutex<VecDeque<Lie>>,
    seen: &Mutex<Vec<String>>,
) {
    let mut reader = BufReader::new(stream);
    let Some(request) = read_request(&mut reader) else { return };
    seen.lock().unwrap().push(format!("{} {}", request.method, request.path));
    let lie = lies.lock().unwrap().pop_front();
    if let Some(Lie::Refuse(status, code)) = lie {
        return say(reader.into_inner(), status, &error(code), None);
    }
    match lie {
        Some(Lie::HangUp) => return,
        Some(Lie::Silence) => {
            // Until the client hangs up.
            let _ = reader.read(&mut [0]);
            return;
        }
        _ => {}
    }
    let (status, body, range) = act(&request, objects);
    match lie {
        Some(Lie::DoAndHangUp) => {}
        Some(Lie::DoAndSay(status, code)) => say(reader.into_inner(), status, &error(code), None),
        Some(Lie::HalfABody) => {
            let head = head(status, body.len(), range);
            let mut stream = reader.into_inner();
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&body[..body.len() / 2]);
        }
        _ if request.method == "HEAD" => {
            let _ = reader.into_inner().write_all(head(status, body.len(), None).as_bytes());
        }
        _ => say(reader.into_inner(), status, &body, range),
    }
}

/// What a server does that keeps its word.
fn act(request: &Request, objects: &Objects) -> (u16, Vec<u8>, Option<String>) {
    let mut objects = objects.lock().unwrap();
    let found = objects.get(&request.path).cloned();
    match (request.method.as_str(), found) {
        ("PUT", Some(_)) => (412, error("PreconditionFailed"), None),
        ("PUT", None) => {
            objects.insert(request.path.clone(), request.body.clone());
            (200, Vec::new(), None)
        }
        ("DELETE", _) => {
            objects.remove(&request.path);
            (204, Vec::new(), None)
        }
        (_, None) => (404, error("NoSuchKey"), None),
        (_, Some(body)) => match request.range {
            None => (200, body, None),
            Some((from, _)) if from >= body.len() => (416, error("InvalidRange"), None),
            Some((from, to)) => {
                let to = to.min(body.len() - 1);
                let range = format!("Content-Range: bytes {from}-{to}/{}\r\n", body.len());
                (206, body[from..=to].to_vec(), Some(range))
            }
        },
    }
}

fn error(code: &str) -> Vec<u8> {
    format!("<Error><Code>{code}</Code><Message>said on purpose</Message></Error>").into_bytes()
}

fn head(status: u16, length: usize, range: Option<String>) -> String {
    format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\nETag: \"e\"\r\n\
         Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n{}\r\n",
        range.unwrap_or_default()
    )
}

fn say(mut stream: TcpStream, status: u16, body: &[u8], range: Option<String>) {
    let _ = stream.write_all(head(status, body.len(), range).as_bytes());
    let _ = stream.write_all(body);
}
