//! Recognising streams that are compressed already: they have nothing in common from day to day.

/// What a stream that begins with `head` is compressed with, and what to do instead.
pub fn compression(head: &[u8]) -> Option<(&'static str, &'static str)> {
    const PIPE: &str = "leave the compressing command out of the pipe: restow compresses itself";
    let known: [(&[u8], &str); 6] = [
        (&[0x1f, 0x8b], "gzip"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
        (b"BZh", "bzip2"),
        (&[0x04, 0x22, 0x4d, 0x18], "lz4"),
        (b"PK\x03\x04", "zip"),
    ];
    if let Some((_, name)) = known.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Some((name, PIPE));
    }
    is_compressed_pg_dump(head)
        .then_some(("pg_dump", "use pg_dump -Fc -Z0: restow compresses itself"))
}

/// The archive header of pg_dump's custom format: "PGDMP", version (3 bytes), size of an int, size of
/// an offset, format, then the compression: one byte from archive version 1.15 on (PostgreSQL 16),
/// before that an int with a sign byte (src/bin/pg_dump/pg_backup_archiver.c, `ReadHead`).
fn is_compressed_pg_dump(head: &[u8]) -> bool {
    if !head.starts_with(b"PGDMP") || head.len() < 16 {
        return false;
    }
    let is_new = (head[5], head[6]) >= (1, 15);
    if is_new { head[11] != 0 } else { head[12..16].iter().any(|&byte| byte != 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_of_pg_dump_are_told_apart() {
        // PostgreSQL 15: archive version 1.14, compression 0 and -1.
        assert_eq!(compression(b"PGDMP\x01\x0e\0\x04\x08\x01\0\0\0\0\0\0more"), None);
        assert!(compression(b"PGDMP\x01\x0e\0\x04\x08\x01\x01\x01\0\0\0\0more").is_some());
        // PostgreSQL 16: archive version 1.15, none and gzip.
        assert_eq!(compression(b"PGDMP\x01\x0f\0\x04\x08\x01\0\x01\0\0\0\0more"), None);
        assert!(compression(b"PGDMP\x01\x0f\0\x04\x08\x01\x01\0\0\0\0\0more").is_some());
    }

    #[test]
    fn plain_text_is_not_compressed() {
        assert_eq!(compression(b"--\n-- PostgreSQL database dump\n"), None);
        assert_eq!(compression(b""), None);
        assert_eq!(compression(&[0x1f, 0x8b, 8]).map(|(name, _)| name), Some("gzip"));
    }
}
