//! Files of a server: made, written and read in parts, many of which are on their way at a time.

use futures_util::{StreamExt, TryStreamExt, stream};
use russh_sftp::protocol::{FileAttributes, OpenFlags, StatusCode};

use super::line::{Fault, Line};
use super::{PART, TEMPORARY, WINDOW};

pub fn is_temporary(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.starts_with(TEMPORARY))
}

pub async fn open_new(line: &Line, name: &str) -> Result<String, Fault> {
    let flags = OpenFlags::CREATE | OpenFlags::EXCLUDE | OpenFlags::WRITE;
    let private = FileAttributes { permissions: Some(0o600), ..FileAttributes::empty() };
    Ok(line.session.open(name, flags, private).await?.handle)
}

/// Makes a folder and those above it, where they are missing.
pub async fn make_folders(line: &Line, folder: &str) -> Result<(), Fault> {
    let ends = folder.match_indices('/').map(|(at, _)| at).chain([folder.len()]);
    for end in ends.filter(|end| *end > 0) {
        let private = FileAttributes { permissions: Some(0o700), ..FileAttributes::empty() };
        if let Err(error) = line.session.mkdir(&folder[..end], private).await {
            // It is there already, or was made by somebody else just now.
            line.session.stat(&folder[..end]).await.map_err(|_| Fault::from(error))?;
        }
    }
    Ok(())
}

pub async fn write_all(line: &Line, handle: &str, bytes: &[u8]) -> Result<(), Fault> {
    let parts = bytes.chunks(PART).enumerate();
    stream::iter(parts)
        .map(|(number, part)| line.session.write(handle, (number * PART) as u64, part.to_vec()))
        .buffer_unordered(WINDOW)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    sync(line, handle).await
}

/// Room that is made for a file before it comes.
const MOST_AT_ONCE: usize = 32 << 20;

pub async fn sync(line: &Line, handle: &str) -> Result<(), Fault> {
    if line.has_fsync {
        line.session.fsync(handle).await?;
    }
    Ok(())
}

/// Bytes of an open file; `None` where it ends before they do.
pub async fn read_range(
    line: &Line,
    handle: &str,
    range: Option<(u64, usize)>,
) -> Result<Option<Vec<u8>>, Fault> {
    let size = line.session.fstat(handle).await?.attrs.len();
    let (offset, length) = range.unwrap_or((0, usize::try_from(size).unwrap_or(usize::MAX)));
    if offset.checked_add(length as u64).is_none_or(|end| end > size) {
        return Ok(None);
    }
    let parts = (0..length.div_ceil(PART)).map(|number| {
        let from = number * PART;
        (offset + from as u64, PART.min(length - from))
    });
    // What the server says of the length is not believed before the bytes come.
    let mut bytes = Vec::with_capacity(length.min(MOST_AT_ONCE));
    let mut read = stream::iter(parts)
        .map(|(offset, length)| read_part(line, handle, offset, length))
        .buffered(WINDOW);
    while let Some(part) = read.try_next().await? {
        match part {
            Some(part) => bytes.extend_from_slice(&part),
            None => return Ok(None),
        }
    }
    Ok(Some(bytes))
}

/// A server may give less than was asked for.
async fn read_part(
    line: &Line,
    handle: &str,
    offset: u64,
    length: usize,
) -> Result<Option<Vec<u8>>, Fault> {
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let (at, left) = (offset + bytes.len() as u64, length - bytes.len());
        match line.session.read(handle, at, left as u32).await.map_err(Fault::from) {
            Ok(data) if data.data.is_empty() || data.data.len() > left => return Ok(None),
            Ok(data) => bytes.extend_from_slice(&data.data),
            Err(Fault::Status(StatusCode::Eof, _)) => return Ok(None),
            Err(fault) => return Err(fault),
        }
    }
    Ok(Some(bytes))
}
