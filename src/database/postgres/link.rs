//! The line to a server: TCP or a Unix socket, with TLS where it is asked for.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dsn::Dsn;
use super::tls;
use crate::progress::Progress;

/// A connected socket, and who may end its waiting.
pub struct Link {
    socket: Socket,
    stop: Option<Arc<Progress>>,
    deadline: Option<Instant>,
}

enum Socket {
    Local(UnixStream),
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

/// The operation was asked to stop while it waited for the server.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Stopped;

/// `SSLRequest` of the protocol.
const SSL_REQUEST: i32 = 80_877_103;
/// Where `connect_timeout` says nothing.
const CONNECT_SECONDS: u64 = 30;
/// How long a server may keep us waiting until we are logged in.
const LOGIN: Duration = Duration::from_secs(60);
/// How often a wait looks whether it is to end.
const LOOK: Duration = Duration::from_millis(200);

impl Link {
    /// Connects to the server that `dsn` names. Until [`Link::logged_in`] the server has a minute in all.
    pub fn connect(dsn: &Dsn) -> Result<Self, String> {
        let socket = Socket::connect(dsn)?;
        let timeouts = socket.set_timeouts(LOOK);
        timeouts.map_err(|error| format!("set a timeout: {error}"))?;
        Ok(Self { socket, stop: dsn.stop(), deadline: Some(Instant::now() + LOGIN) })
    }

    /// From here on the server may take its time.
    pub fn logged_in(&mut self) {
        self.deadline = None;
    }

    /// Whether to wait on, after nothing has come for a while.
    fn wait(&self) -> io::Result<()> {
        if self.stop.as_ref().is_some_and(|stop| stop.is_interrupted()) {
            return Err(io::Error::other(Stopped));
        }
        if self.deadline.is_some_and(|deadline| Instant::now() > deadline) {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    fn patiently<T>(&mut self, mut act: impl FnMut(&mut Socket) -> io::Result<T>) -> io::Result<T> {
        loop {
            match act(&mut self.socket) {
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    self.wait()?;
                }
                other => return other,
            }
        }
    }

    /// A second handle on the socket, by which another thread can end a read that hangs.
    pub fn handle(&self) -> io::Result<Arc<OwnedFd>> {
        let copy: OwnedFd = match &self.socket {
            Socket::Local(socket) => socket.try_clone()?.into(),
            Socket::Plain(socket) => socket.try_clone()?.into(),
            Socket::Tls(stream) => stream.sock.try_clone()?.into(),
        };
        Ok(Arc::new(copy))
    }
}

impl Socket {
    fn connect(dsn: &Dsn) -> Result<Self, String> {
        if let Some(path) = dsn.socket() {
            let place = path.display().to_string();
            let socket = UnixStream::connect(path).map_err(|error| format!("{place}: {error}"))?;
            return Ok(Self::Local(socket));
        }
        let mut socket = connect_tcp(dsn)?;
        let _ = socket.set_read_timeout(Some(LOGIN));
        let mode = dsn.option("sslmode");
        match mode {
            "disable" | "allow" => return Ok(Self::Plain(socket)),
            "" | "prefer" | "require" | "verify-ca" | "verify-full" => {}
            other => return Err(format!("sslmode '{other}' is not known")),
        }
        let answer = request_tls(&mut socket).map_err(|error| format!("ask for TLS: {error}"))?;
        match answer {
            b'S' => Ok(Self::Tls(Box::new(tls::wrap(socket, dsn)?))),
            _ if matches!(mode, "" | "prefer") => Ok(Self::Plain(socket)),
            _ => Err("the server does not support TLS, which sslmode demands".into()),
        }
    }

    fn set_timeouts(&self, time: Duration) -> io::Result<()> {
        let tcp = match self {
            Self::Local(socket) => {
                socket.set_read_timeout(Some(time))?;
                return socket.set_write_timeout(Some(time));
            }
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        };
        tcp.set_read_timeout(Some(time))?;
        tcp.set_write_timeout(Some(time))
    }
}

fn connect_tcp(dsn: &Dsn) -> Result<TcpStream, String> {
    let seconds = dsn.option("connect_timeout").parse().ok().filter(|seconds| *seconds > 0);
    let timeout = Duration::from_secs(seconds.unwrap_or(CONNECT_SECONDS));
    let place = format!("{}:{}", dsn.host(), dsn.port()?);
    let addresses = (dsn.host(), dsn.port()?).to_socket_addrs();
    let addresses = addresses.map_err(|error| format!("{place}: {error}"))?;
    let mut last = format!("{place}: no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(socket) => {
                let _ = socket.set_nodelay(true);
                let _ = rustix::net::sockopt::set_socket_keepalive(&socket, true);
                return Ok(socket);
            }
            Err(error) => last = format!("{place}: {error}"),
        }
    }
    Err(last)
}

fn request_tls(socket: &mut TcpStream) -> io::Result<u8> {
    let mut request = 8_i32.to_be_bytes().to_vec();
    request.extend(SSL_REQUEST.to_be_bytes());
    socket.write_all(&request)?;
    let mut answer = [0];
    // Exactly one byte: what would follow it in plain text must not be taken for encrypted.
    socket.read_exact(&mut answer)?;
    Ok(answer[0])
}

impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.patiently(|socket| match socket {
            Socket::Local(socket) => socket.read(buffer),
            Socket::Plain(socket) => socket.read(buffer),
            Socket::Tls(stream) => stream.read(buffer),
        })
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.patiently(|socket| match socket {
            Socket::Local(socket) => socket.write(bytes),
            Socket::Plain(socket) => socket.write(bytes),
            Socket::Tls(stream) => stream.write(bytes),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.patiently(|socket| match socket {
            Socket::Local(socket) => socket.flush(),
            Socket::Plain(socket) => socket.flush(),
            Socket::Tls(stream) => stream.flush(),
        })
    }
}
