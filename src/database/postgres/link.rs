//! The line to a server: TCP or a Unix socket, with TLS where it is asked for.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::dsn::Dsn;
use super::tls;

/// A connected socket.
pub enum Link {
    /// A Unix socket.
    Local(UnixStream),
    /// Plain TCP.
    Plain(TcpStream),
    /// TCP with TLS.
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

/// `SSLRequest` of the protocol.
const SSL_REQUEST: i32 = 80_877_103;
/// Where `connect_timeout` says nothing.
const CONNECT_SECONDS: u64 = 30;

impl Link {
    /// Connects to the server that `dsn` names.
    pub fn connect(dsn: &Dsn) -> Result<Self, String> {
        if let Some(path) = dsn.socket() {
            let place = path.display().to_string();
            let socket = UnixStream::connect(path).map_err(|error| format!("{place}: {error}"))?;
            return Ok(Self::Local(socket));
        }
        let socket = connect_tcp(dsn)?;
        let mode = dsn.option("sslmode");
        match mode {
            "disable" | "allow" => return Ok(Self::Plain(socket)),
            "" | "prefer" | "require" | "verify-ca" | "verify-full" => {}
            other => return Err(format!("sslmode '{other}' is not known")),
        }
        let mut socket = socket;
        let answer = request_tls(&mut socket).map_err(|error| format!("ask for TLS: {error}"))?;
        match answer {
            b'S' => Ok(Self::Tls(Box::new(tls::wrap(socket, dsn)?))),
            _ if matches!(mode, "" | "prefer") => Ok(Self::Plain(socket)),
            _ => Err("the server does not support TLS, which sslmode demands".into()),
        }
    }

    /// Lets reads and writes wait so long, or for ever.
    pub fn set_patience(&self, time: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Local(socket) => socket.set_read_timeout(time),
            Self::Plain(socket) => socket.set_read_timeout(time),
            Self::Tls(stream) => stream.sock.set_read_timeout(time),
        }
    }

    /// A second handle on the socket, by which another thread can end a read that hangs.
    pub fn handle(&self) -> io::Result<Arc<OwnedFd>> {
        let copy: OwnedFd = match self {
            Self::Local(socket) => socket.try_clone()?.into(),
            Self::Plain(socket) => socket.try_clone()?.into(),
            Self::Tls(stream) => stream.sock.try_clone()?.into(),
        };
        Ok(Arc::new(copy))
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
        match self {
            Self::Local(socket) => socket.read(buffer),
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Local(socket) => socket.write(bytes),
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Local(socket) => socket.flush(),
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
