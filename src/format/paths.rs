//! Where objects stand in the store.

use crate::id::ObjectName;

/// The configuration.
pub const CONFIG: &str = "config";
/// Folder of the key slots.
pub const KEYS: &str = "keys/";
/// Folder of the commit log.
pub const LOG: &str = "log/";
/// Folder of the packs.
pub const DATA: &str = "data/";
/// Folder of the idx objects.
pub const INDEX: &str = "idx/";
/// Folder of the snapshots.
pub const SNAPSHOTS: &str = "snap/";

/// Folder of the parity of packs.
pub const PARITY: &str = "parity/";

/// `data/<first two digits>/<name>`
pub fn pack(name: &ObjectName) -> String {
    named(DATA, name)
}

/// `parity/<first two digits>/<name of the pack>`
pub fn parity(pack: &ObjectName) -> String {
    named(PARITY, pack)
}

/// `idx/<first two digits>/<name>`
pub fn index(name: &ObjectName) -> String {
    named(INDEX, name)
}

/// `snap/<first two digits>/<name>`
pub fn snapshot(name: &ObjectName) -> String {
    named(SNAPSHOTS, name)
}

/// `log/<20 decimal digits>`
pub fn log(number: u64) -> String {
    format!("{LOG}{number:020}")
}

/// The number of a log entry's path.
pub fn log_number(path: &str) -> Option<u64> {
    let digits = path.strip_prefix(LOG)?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// The name at the end of a path in one of the three folders of named objects.
pub fn object_name(path: &str) -> Option<ObjectName> {
    let (folders, digits) = path.rsplit_once('/')?;
    let name = ObjectName::from_hex(digits).ok()?;
    folders.ends_with(&digits[..2]).then_some(name)
}

fn named(folder: &str, name: &ObjectName) -> String {
    let digits = name.to_hex();
    format!("{folder}{}/{digits}", &digits[..2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_parse_back() {
        let name = ObjectName::of(b"x");
        assert_eq!(object_name(&pack(&name)), Some(name));
        assert_eq!(object_name(&snapshot(&name)), Some(name));
        assert_eq!(log_number(&log(42)), Some(42));
        assert_eq!(log_number("log/42"), None);
        assert_eq!(object_name("data/00/zz"), None);
    }
}
