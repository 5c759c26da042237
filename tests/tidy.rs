//! The habits of the project as a test: what may import what, how long a file or a function may
//! get, which calls the library never makes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};

/// Top-level modules by layer. A module imports lower layers, its own layer where it says so below,
/// and its own folder.
const LAYERS: &[&[&str]] = &[
    &["id", "clock", "entropy", "progress"],
    &["catalogue", "chunker", "compress", "crypto", "format", "delta", "unpack"],
    &["store", "index", "source"],
    &["error"],
    &["repository"],
    &["retention", "settings"],
    &[
        "backup", "restore", "check", "copy", "diff", "find", "forget", "mount", "prune", "repair",
        "stats", "tag",
    ],
    &["database"],
    &["drill"],
    &["cli"],
];

/// Imports within one layer that the design allows: the format is made of crypto, the rules for
/// deltas speak of entries, codecs name chunk profiles.
const ALLOWED: &[(&str, &str)] =
    &[("format", "crypto"), ("format", "chunker"), ("delta", "format"), ("crypto", "format")];

const MAX_FILE_LINES: usize = 420;
const MAX_FUNCTION_LINES: usize = 70;

/// What the library never does, and where it may all the same.
const BANNED: &[(&str, &[&str])] = &[
    ("Timestamp::now()", &["src/clock.rs"]),
    ("SystemTime::now()", &["src/store/local.rs"]),
    ("getrandom::", &["src/entropy.rs"]),
    ("println!(", &["src/cli"]),
    ("eprintln!(", &["src/cli"]),
    ("eprint!(", &["src/cli"]),
    ("process::exit", &["src/cli"]),
    ("std::env::", &["src/cli"]),
    ("unsafe ", &["src/compress.rs", "src/main.rs"]),
    ("todo!(", &[]),
    ("unimplemented!(", &[]),
    ("dbg!(", &[]),
    ("#[ignore", &[]),
    ("thread::sleep", &[]),
];

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut files, mut folders) = (Vec::new(), vec![root.join("src")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(root).unwrap().to_owned(), text));
            }
        }
    }
    files.sort();
    files
}

/// The part of a file before its tests.
fn without_tests(text: &str) -> &str {
    text.find("#[cfg(test)]").map_or(text, |end| &text[..end])
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn module_of(path: &Path) -> String {
    let first = path.components().nth(1).unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// Modules that a text imports from its own crate.
fn imports(text: &str, prefix: &str) -> Vec<String> {
    let name = |rest: &str| -> String {
        rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
    };
    text.match_indices(prefix).map(|(at, _)| name(&text[at + prefix.len()..])).collect()
}

fn layer_faults(path: &Path, text: &str) -> Vec<String> {
    let module = module_of(path);
    let Some(own) = layer(&module) else { return Vec::new() };
    let prefix = if module == "cli" { "restow::" } else { "crate::" };
    imports(without_tests(text), prefix)
        .into_iter()
        .filter(|used| *used != module)
        .filter(|used| {
            let allowed = ALLOWED.contains(&(module.as_str(), used.as_str()));
            layer(used).is_some_and(|used| used >= own) && !allowed
        })
        .map(|used| format!("{} imports {used}, which is not below it", path.display()))
        .collect()
}

fn function_faults(path: &Path, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut start: Option<(usize, usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let word = line.trim_start();
        let begins = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn "]
            .iter()
            .any(|prefix| word.starts_with(prefix));
        if begins && start.is_none() {
            start = Some((number, indent, word.to_owned()));
        }
        if let Some((first, depth, name)) = &start
            && indent == *depth
            && (word == "}" || word.ends_with(';') || (number == *first && word.ends_with('}')))
        {
            if number - first >= MAX_FUNCTION_LINES {
                let length = number - first + 1;
                faults.push(format!("{}: {length} lines: {name}", path.display()));
            }
            start = None;
        }
    }
    faults
}

fn file_faults(path: &Path, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = without_tests(text).lines().count();
    if lines > MAX_FILE_LINES {
        faults.push(format!("{}: {lines} lines", path.display()));
    }
    let is_command = path.starts_with("src/cli/commands") && !path.ends_with("mod.rs");
    if !text.starts_with("//!") && !is_command {
        faults.push(format!("{} does not open with what it owns", path.display()));
    }
    if text.lines().any(|line| line.chars().count() > 120) {
        faults.push(format!("{} has lines of more than 120 letters", path.display()));
    }
    faults
}

fn banned_faults(path: &Path, text: &str) -> Vec<String> {
    let text = without_tests(text);
    BANNED
        .iter()
        .filter(|(call, allowed)| {
            text.contains(call) && !allowed.iter().any(|place| path.starts_with(place))
        })
        .map(|(call, _)| format!("{} uses {call}", path.display()))
        .collect()
}

#[test]
fn the_sources_are_tidy() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        faults.extend(layer_faults(&path, &text));
        faults.extend(function_faults(&path, &text));
        faults.extend(file_faults(&path, &text));
        faults.extend(banned_faults(&path, &text));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_module_has_a_layer() {
    for (path, _) in sources() {
        let module = module_of(&path);
        let is_root = ["lib", "main"].contains(&module.as_str());
        assert!(is_root || layer(&module).is_some(), "{module} is in no layer");
    }
}

#[test]
fn this_test_finds_faults() {
    let path = Path::new("src/chunker.rs");
    assert_eq!(layer_faults(path, "use crate::repository::Repository;").len(), 1);
    assert!(layer_faults(path, "use crate::id::ChunkId;").is_empty());
    let long = format!("fn long() {{\n{}}}\n", "    call();\n".repeat(80));
    assert_eq!(function_faults(path, &long).len(), 1);
    assert!(function_faults(path, "fn short() {\n    call();\n}\n").is_empty());
    assert_eq!(file_faults(path, &"x\n".repeat(500)).len(), 2);
    assert_eq!(banned_faults(path, "Timestamp::now()").len(), 1);
    assert!(banned_faults(path, "#[cfg(test)]\nTimestamp::now()").is_empty());
}
