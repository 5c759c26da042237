//! A directory of a snapshot as a tar archive (POSIX pax format).

use std::collections::HashMap;
use std::io::{self, Write};

use super::{StreamTarget, WriterTarget, copy_content};
use crate::error::{Error, Result};
use crate::format::entry::{Entry, Kind};
use crate::id::ChunkId;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::trees::{Step, walk_past};

/// Bytes of a record; everything in an archive is padded to it.
const RECORD: u64 = 512;

/// Writes all below a directory as a tar archive; names in it are relative to the directory.
pub fn write_tar(
    repository: &Repository,
    tree: ChunkId,
    writer: impl Write,
    progress: &Progress,
) -> Result<()> {
    let mut target = WriterTarget { writer, name: "the archive".to_owned() };
    let mut links: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    let mut lost = None;
    let mut visit = |path: &[u8], entry: &Entry| {
        if progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let first = entry.is_hard_link().then(|| links.get(&(entry.device, entry.inode))).flatten();
        let Some(header) = header(path, entry, first.map(Vec::as_slice)) else {
            // A socket: archives know none.
            return Ok(Step::Pass);
        };
        target.write(&header)?;
        if let (Kind::File { size, content }, None) = (&entry.kind, first) {
            copy_content(repository, *size, content, &mut target, progress)?;
            target.zeros(size.next_multiple_of(RECORD) - size)?;
        }
        if entry.is_hard_link() {
            links.entry((entry.device, entry.inode)).or_insert_with(|| path.to_vec());
        }
        Ok(Step::Enter)
    };
    // Directories that are damaged are passed by; the archive of the rest is whole.
    walk_past(repository, tree, b"", &mut visit, &mut |_, error| {
        lost.get_or_insert(error);
    })?;
    target.zeros(2 * RECORD)?;
    target.writer.flush().map_err(|source| Error::Io {
        action: "write",
        path: target.name.clone(),
        source,
    })?;
    lost.map_or(Ok(()), Err)
}

/// The header of an entry with its pax records before it; `first` is the name that it is another of.
fn header(path: &[u8], entry: &Entry, first: Option<&[u8]>) -> Option<Vec<u8>> {
    let mut name = path.to_vec();
    let (mut link, mut size) = (Vec::new(), 0);
    let kind = match (&entry.kind, first) {
        (_, Some(first)) => {
            link = first.to_vec();
            tar::EntryType::Link
        }
        (Kind::File { size: bytes, .. }, _) => {
            size = *bytes;
            tar::EntryType::Regular
        }
        (Kind::Directory { .. }, _) => {
            name.push(b'/');
            tar::EntryType::Directory
        }
        (Kind::Symlink { target }, _) => {
            link.clone_from(target);
            tar::EntryType::Symlink
        }
        (Kind::Fifo, _) => tar::EntryType::Fifo,
        (Kind::BlockDevice { .. }, _) => tar::EntryType::Block,
        (Kind::CharDevice { .. }, _) => tar::EntryType::Char,
        (Kind::Socket, _) => return None,
    };
    let records = pax_records(&name, &link, size, entry);
    let mut out = Vec::new();
    if !records.is_empty() {
        let mut pax = tar::Header::new_ustar();
        pax.set_entry_type(tar::EntryType::XHeader);
        pax.set_size(records.len() as u64);
        fill(&mut pax, b"PaxHeader", b"");
        out.extend_from_slice(pax.as_bytes());
        out.extend_from_slice(&records);
        out.resize(out.len().next_multiple_of(RECORD as usize), 0);
    }
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(entry.mode);
    header.set_uid(entry.user.id.into());
    header.set_gid(entry.group.id.into());
    header.set_mtime(entry.modified.seconds.max(0) as u64);
    header.set_size(size.min(0o77777777777));
    if let Kind::BlockDevice { device } | Kind::CharDevice { device } = entry.kind {
        // Numbers that an archive cannot say are left at zero.
        let _ = header.set_device_major(rustix::fs::major(device));
        let _ = header.set_device_minor(rustix::fs::minor(device));
    }
    for (owner, set) in [(&entry.user, true), (&entry.group, false)] {
        let text = String::from_utf8_lossy(&owner.name);
        let _ = if set { header.set_username(&text) } else { header.set_groupname(&text) };
    }
    fill(&mut header, &name, &link);
    out.extend_from_slice(header.as_bytes());
    Some(out)
}

/// Puts in names, cut to their fields (pax records hold them whole), and the checksum.
fn fill(header: &mut tar::Header, name: &[u8], link: &[u8]) {
    if let Some(fields) = header.as_ustar_mut() {
        let cut = name.len().min(fields.name.len());
        fields.name[..cut].copy_from_slice(&name[..cut]);
        let cut = link.len().min(fields.linkname.len());
        fields.linkname[..cut].copy_from_slice(&link[..cut]);
    }
    header.set_cksum();
}

fn pax_records(name: &[u8], link: &[u8], size: u64, entry: &Entry) -> Vec<u8> {
    let mut records = Vec::new();
    if name.len() > 100 || !name.is_ascii() {
        add_record(&mut records, "path", name);
    }
    if link.len() > 100 || !link.is_ascii() {
        add_record(&mut records, "linkpath", link);
    }
    let modified = entry.modified;
    if modified.nanoseconds != 0 || modified.seconds < 0 {
        // Seconds and nanoseconds after them, as one decimal number with its sign.
        let total = i128::from(modified.seconds) * 1_000_000_000 + i128::from(modified.nanoseconds);
        let (whole, part) = (total.abs() / 1_000_000_000, total.abs() % 1_000_000_000);
        let sign = if total < 0 { "-" } else { "" };
        add_record(&mut records, "mtime", format!("{sign}{whole}.{part:09}").as_bytes());
    }
    if size > 0o77777777777 {
        add_record(&mut records, "size", size.to_string().as_bytes());
    }
    for (attribute, value) in &entry.xattrs {
        let key = format!("SCHILY.xattr.{}", String::from_utf8_lossy(attribute));
        add_record(&mut records, &key, value);
        let acl = match &attribute[..] {
            b"system.posix_acl_access" => "SCHILY.acl.access",
            b"system.posix_acl_default" => "SCHILY.acl.default",
            _ => continue,
        };
        if let Some(text) = acl_text(value) {
            add_record(&mut records, acl, text.as_bytes());
        }
    }
    records
}

/// An access control list as tar programs read it (`setfacl`'s short form, with numbers), of the
/// form in which the system keeps it: version 2, then tag, permissions and id of each entry.
fn acl_text(value: &[u8]) -> Option<String> {
    let (entries, rest) = value.strip_prefix(&2u32.to_le_bytes())?.as_chunks::<8>();
    let mut parts = Vec::new();
    for entry in entries {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let who = match tag {
            0x01 => "user:".to_owned(),
            0x02 => format!("user:{id}"),
            0x04 => "group:".to_owned(),
            0x08 => format!("group:{id}"),
            0x10 => "mask:".to_owned(),
            0x20 => "other:".to_owned(),
            _ => return None,
        };
        let may = |bit: u8, letter: char| if entry[2] & bit == 0 { '-' } else { letter };
        parts.push(format!("{who}:{}{}{}", may(4, 'r'), may(2, 'w'), may(1, 'x')));
    }
    rest.is_empty().then(|| parts.join(","))
}

/// `<length> <key>=<value>\n`, where the length counts its own digits.
fn add_record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    let _ = write!(records as &mut dyn io::Write, "{length} {key}=");
    records.extend_from_slice(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_as_setfacl_writes_them() {
        let entry = |tag: u16, bits: u16, id: u32| {
            [&tag.to_le_bytes()[..], &bits.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let none = u32::MAX;
        let value = [
            2u32.to_le_bytes().to_vec(),
            entry(1, 6, none),
            entry(2, 7, 1000),
            entry(4, 4, none),
            entry(16, 7, none),
            entry(32, 0, none),
        ]
        .concat();
        let text = "user::rw-,user:1000:rwx,group::r--,mask::rwx,other::---";
        assert_eq!(acl_text(&value).unwrap(), text);
        assert_eq!(acl_text(&value[..value.len() - 1]), None);
        assert_eq!(acl_text(&[]), None);
    }
}
