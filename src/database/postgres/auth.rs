//! Logging in: SCRAM-SHA-256, MD5, plain passwords, or whatever needs no word from us.

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use zeroize::Zeroizing;

use super::client::Client;
use super::dsn::Dsn;
use super::error::PgError;

/// Answers what the server asks until it is content.
pub fn log_in(client: &mut Client, dsn: &Dsn) -> Result<(), PgError> {
    loop {
        let (tag, body) = client.receive()?;
        let kind = body.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
        let (b'R', Some(kind)) = (tag, kind) else {
            return Err(PgError::Protocol("it is no PostgreSQL server".into()));
        };
        let rest = body[4..].to_vec();
        match kind {
            0 => return Ok(()),
            3 => {
                let mut password = Zeroizing::new(password(dsn)?.as_bytes().to_vec());
                password.push(0);
                client.send(b'p', &password)?;
            }
            5 => {
                let salt = rest.first_chunk::<4>();
                let salt = *salt.ok_or_else(|| PgError::Protocol("a short salt".into()))?;
                let password = password(dsn)?;
                let mut hash = md5_hash(dsn.user().as_bytes(), password.as_bytes(), salt);
                hash.push('\0');
                client.send(b'p', hash.as_bytes())?;
            }
            10 => scram(client, dsn, &rest)?,
            7..=9 => return Err(PgError::Connect("GSSAPI and SSPI are not supported".into())),
            _ => {
                let text = format!("the way to log in ({kind}) is not supported");
                return Err(PgError::Connect(text));
            }
        }
    }
}

fn password(dsn: &Dsn) -> Result<Zeroizing<String>, PgError> {
    dsn.password().ok_or_else(|| {
        let (user, address) = (dsn.user(), dsn.address());
        PgError::Connect(format!(
            "{address} asks for the password of {user}: give it as password = \"env:NAME\" or \
             \"file:PATH\" of the source, in PGPASSWORD, or in a password file"
        ))
    })
}

fn scram(client: &mut Client, dsn: &Dsn, mechanisms: &[u8]) -> Result<(), PgError> {
    let mut offered = mechanisms.split(|byte| *byte == 0);
    if !offered.any(|name| name == SCRAM_SHA_256.as_bytes()) {
        return Err(PgError::Connect("the server offers no SCRAM-SHA-256".into()));
    }
    let password = password(dsn)?;
    let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
    let mut first = SCRAM_SHA_256.as_bytes().to_vec();
    first.push(0);
    first.extend((scram.message().len() as i32).to_be_bytes());
    first.extend(scram.message());
    client.send(b'p', &first)?;
    scram.update(&continued(client, 11)?)?;
    client.send(b'p', scram.message())?;
    // The server proves that it knows the password as well.
    Ok(scram.finish(&continued(client, 12)?)?)
}

fn continued(client: &mut Client, wanted: u32) -> Result<Vec<u8>, PgError> {
    let (tag, body) = client.receive()?;
    match body.split_first_chunk::<4>() {
        Some((kind, rest)) if tag == b'R' && u32::from_be_bytes(*kind) == wanted => Ok(rest.into()),
        _ => Err(PgError::Protocol("an answer that is no part of SCRAM".into())),
    }
}
