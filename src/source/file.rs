//! Standard input and other open files; holes of regular files are passed over unread.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use rustix::fs::SeekFrom as Place;

use super::StreamInput;

/// An open file, pipe or socket.
pub struct FileInput {
    file: File,
    /// Size at opening, for regular files.
    size: Option<u64>,
    position: u64,
    /// No hole starts before this place.
    data_until: u64,
}

impl FileInput {
    /// Reads from here to the end.
    pub fn new(mut file: File) -> Self {
        let metadata = file.metadata();
        let size = metadata.ok().filter(|m| m.is_file()).map(|m| m.len());
        let position = match size {
            Some(_) => file.stream_position().unwrap_or(0),
            None => {
                // A bigger pipe saves context switches; where it is refused the default does.
                let _ = rustix::pipe::fcntl_setpipe_size(&file, 1 << 20);
                0
            }
        };
        Self { file, size, position, data_until: position }
    }

    /// The process's standard input.
    pub fn stdin() -> io::Result<Self> {
        let descriptor = rustix::io::dup(std::io::stdin())?;
        Ok(Self::new(descriptor.into()))
    }
}

impl StreamInput for FileInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut limit = buffer.len();
        if self.size.is_some() && self.data_until > self.position {
            limit = limit.min((self.data_until - self.position) as usize);
        }
        let count = self.file.read(&mut buffer[..limit])?;
        self.position += count as u64;
        Ok(count)
    }

    fn skip_hole(&mut self) -> io::Result<u64> {
        let Some(size) = self.size else { return Ok(0) };
        if self.position < self.data_until || self.position >= size {
            return Ok(0);
        }
        let data = match rustix::fs::seek(&self.file, Place::Data(self.position)) {
            Ok(data) => data,
            // No data after here: a hole up to the end.
            Err(rustix::io::Errno::NXIO) => self.file.metadata()?.len(),
            Err(_) => {
                self.data_until = u64::MAX;
                return Ok(0);
            }
        };
        self.data_until = rustix::fs::seek(&self.file, Place::Hole(data)).unwrap_or(u64::MAX);
        let hole = data.saturating_sub(self.position);
        self.file.seek(SeekFrom::Start(data))?;
        self.position = data;
        Ok(hole)
    }

    fn size_hint(&self) -> Option<u64> {
        self.size.map(|size| size.saturating_sub(self.position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn holes_are_passed_over_and_nothing_is_lost() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"one", 0).unwrap();
        file.write_all_at(b"two", 40 << 20).unwrap();
        let mut input = FileInput::new(file.try_clone().unwrap());
        let (mut total, mut read, mut buffer) = (0, 0, vec![0; 1 << 20]);
        loop {
            total += input.skip_hole().unwrap();
            let count = input.read(&mut buffer).unwrap();
            if count == 0 {
                break;
            }
            total += count as u64;
            read += count;
        }
        assert_eq!(total, 64 << 20);
        assert!(read < 4 << 20, "{read} bytes were read of a file with 6 bytes of data");
    }
}
