//! Files: every kind and attribute there and back, changes found, rules kept, nothing led astray.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use restow::backup::files::FilesSource;
use restow::backup::{BackupOptions, Report, run};
use restow::check::{ReadData, run as check};
use restow::format::entry::Kind;
use restow::progress::Progress;
use restow::repository::Repository;
use restow::restore::options::{Overwrite, TreeOptions};
use restow::restore::tree::restore_tree;
use restow::store::memory::MemoryStore;

use crate::support::*;

pub fn back_up_files(repository: &Repository, paths: &[&Path]) -> Report {
    let paths = paths.iter().map(|path| path.to_path_buf()).collect();
    let files = Some(FilesSource { paths, explain: true, ..FilesSource::default() });
    let options = BackupOptions { files, ..options(Vec::new()) };
    run(repository, options, &Progress::default()).unwrap()
}

fn restored(repository: &Repository, report: &Report, overwrite: Overwrite, target: &Path) {
    let options =
        TreeOptions { target: target.into(), overwrite, verify: true, ..Default::default() };
    let tree = report.snapshot.tree.unwrap();
    let report = restore_tree(repository, tree, &options, &Progress::default()).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

/// Everything that must come back of a tree, as text by path.
pub fn picture(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_path_buf()];
    let mut inodes: BTreeMap<u64, PathBuf> = BTreeMap::new();
    while let Some(path) = waiting.pop() {
        let metadata = path.symlink_metadata().unwrap();
        let relative = path.strip_prefix(root).unwrap().to_path_buf();
        let first = match metadata.is_dir() {
            true => relative.clone(),
            false => inodes.entry(metadata.ino()).or_insert_with(|| relative.clone()).clone(),
        };
        let content = if metadata.is_file() {
            hex::encode(&blake3::hash(&std::fs::read(&path).unwrap()).as_bytes()[..8])
        } else if metadata.is_symlink() {
            format!("{:?}", std::fs::read_link(&path).unwrap())
        } else {
            format!("{}", metadata.rdev())
        };
        let xattrs = restow::source::walk::xattrs(&path).unwrap();
        let text = format!(
            "{:o} {}:{} {}.{:09} {} {content} {xattrs:?} link {first:?}",
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            if metadata.is_dir() { 0 } else { metadata.len() },
        );
        found.insert(relative, text);
        if metadata.is_dir() {
            let mut below: Vec<_> =
                std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            below.sort_by(|a, b| b.cmp(a));
            waiting.extend(below);
        }
    }
    found
}

pub fn every_kind(root: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat, setxattr};
    let path = |name: &str| root.join(name);
    std::fs::create_dir_all(path("d/deep/er")).unwrap();
    std::fs::create_dir(path("empty")).unwrap();
    std::fs::write(path("d/file"), rows(3, 2000)).unwrap();
    std::fs::write(path("zero"), b"").unwrap();
    std::fs::hard_link(path("d/file"), path("d/deep/other name")).unwrap();
    symlink("../nowhere", path("d/link")).unwrap();
    symlink("/etc", path("to etc")).unwrap();
    std::fs::write(root.join(std::ffi::OsStr::from_bytes(b"a\n\xff\x1b")), b"odd").unwrap();
    mknodat(CWD, path("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    let sparse = std::fs::File::create(path("sparse")).unwrap();
    sparse.set_len(20 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 9 << 20).unwrap();
    // Where the file system has no attributes, there is nothing to lose.
    let _ = setxattr(path("zero"), "user.test", b"v\0", rustix::fs::XattrFlags::empty());
    std::fs::set_permissions(path("zero"), std::fs::Permissions::from_mode(0o4400)).unwrap();
    std::fs::set_permissions(path("empty"), std::fs::Permissions::from_mode(0o1555)).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH - std::time::Duration::new(5, 123_456_789);
    std::fs::File::open(path("d/deep")).unwrap().set_modified(old).unwrap();
}

#[test]
pub fn every_kind_of_file_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::create_dir(&source).unwrap();
    every_kind(&source);
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    let report = back_up_files(&repository, &[&source]);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    let target = folder.path().join("target");
    restored(&repository, &report, Overwrite::Never, &target);
    let back = target.join(source.strip_prefix("/").unwrap());
    assert_eq!(picture(&back), picture(&source));
    let sparse = back.join("sparse").metadata().unwrap();
    assert!(sparse.blocks() * 512 < 1 << 20, "{} blocks", sparse.blocks());
    // Over itself, in place, with damage to mend.
    std::fs::write(back.join("d/file"), b"changed").unwrap();
    std::fs::remove_file(back.join("d/link")).unwrap();
    std::fs::create_dir(back.join("d/link")).unwrap();
    restored(&repository, &report, Overwrite::Always, &target);
    assert_eq!(picture(&back), picture(&source));
    let report = check(&repository, ReadData::All, &Progress::default()).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

#[test]
fn unchanged_files_are_not_read_again() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..20 {
        std::fs::write(folder.path().join(number.to_string()), rows(number, 50)).unwrap();
    }
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    back_up_files(&repository, &[folder.path()]);
    // Just written: a change in the same tick of the clock could not be seen.
    let second = back_up_files(&repository, &[folder.path()]);
    assert_eq!(second.snapshot.summary.unchanged_files, 0);
    assert_eq!(second.snapshot.summary.new_bytes, 0);
    let past = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    for number in 0..20 {
        let file = std::fs::File::open(folder.path().join(number.to_string())).unwrap();
        file.set_modified(past).unwrap();
    }
    let later = |repository: &Repository| {
        let paths = vec![folder.path().into()];
        let files = Some(FilesSource { paths, ignore_ctime: true, ..Default::default() });
        let options = BackupOptions { files, ..options(Vec::new()) };
        run(repository, options, &Progress::default()).unwrap()
    };
    assert_eq!(later(&repository).snapshot.summary.unchanged_files, 0);
    let third = later(&repository);
    assert_eq!(third.snapshot.summary.unchanged_files, 20);
    assert_eq!(third.snapshot.summary.read_bytes, 0);
    std::fs::write(folder.path().join("7"), b"other").unwrap();
    std::fs::remove_file(folder.path().join("8")).unwrap();
    let fourth = later(&repository);
    assert_eq!(fourth.snapshot.summary.unchanged_files, 18);
    let tree = fourth.snapshot.tree.unwrap();
    let path = folder.path().join("7");
    let entry = repository.find_entry(tree, path.as_os_str().as_bytes()).unwrap().unwrap();
    assert!(matches!(entry.kind, Kind::File { size: 5, .. }));
    let gone = folder.path().join("8");
    assert!(repository.find_entry(tree, gone.as_os_str().as_bytes()).unwrap().is_none());
}

#[test]
fn a_changed_big_file_costs_what_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big");
    std::fs::write(&path, rows(1, 20_000)).unwrap();
    let repository = init(Arc::new(MemoryStore::new())).unwrap();
    back_up_files(&repository, &[&path]);
    std::fs::write(&path, changed_rows(1, 20_000, 1, 50)).unwrap();
    let summary = back_up_files(&repository, &[&path]).snapshot.summary;
    assert!(summary.new_bytes < summary.read_bytes / 20, "{summary:?}");
    assert!(summary.delta_bytes > 0, "{summary:?}");
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_kept() {
    let program = Program::initialized();
    let source = program.path("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("good"), b"good").unwrap();
    let missing = program.path("missing");
    let (source, missing) = (source.to_str().unwrap(), missing.to_str().unwrap());
    let said = program.fails(&["backup", source, missing], b"", 3);
    assert!(said.contains("missing"), "{said}");
    let target = program.path("target");
    program.ok(&["restore", "latest", "--target", target.to_str().unwrap()], b"");
    let back = target.join(source.trim_start_matches('/')).join("good");
    assert_eq!(std::fs::read(back).unwrap(), b"good");
    program.fails(&["backup", missing], b"", 1);
}

#[test]
fn rules_leave_files_out() {
    let program = Program::initialized();
    let source = program.path("source");
    for name in ["keep.txt", "drop.o", "cache/x", "cache/CACHEDIR.TAG", "sub/drop.o", "sub/big"] {
        let path = source.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let tag = b"Signature: 8a477f597d28d172789f06886806bc55";
        std::fs::write(path, if name.ends_with("TAG") { &tag[..] } else { b"x" }).unwrap();
    }
    std::fs::write(source.join("sub/big"), [0; 5000]).unwrap();
    let source = source.to_str().unwrap();
    let rules = ["--exclude", "*.o", "--exclude-caches", "--exclude-larger-than", "4K"];
    program.ok(&[&["backup", source], &rules[..]].concat(), b"");
    let listed = text(&program.ok(&["ls", "latest", "-R"], b""));
    let names: Vec<_> = listed.lines().filter_map(|line| line.strip_prefix(source)).collect();
    assert_eq!(names, ["", "/cache", "/cache/CACHEDIR.TAG", "/keep.txt", "/sub"]);
    let found = text(&program.ok(&["find", "keep*"], b""));
    assert!(found.contains("keep.txt"), "{found}");
    program.fails(&["find", "*.o"], b"", 1);
}

#[test]
fn a_link_in_the_target_leads_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    std::fs::create_dir_all(source.join("d")).unwrap();
    std::fs::write(source.join("d/file"), b"new").unwrap();
    let outside = folder.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("file"), b"precious").unwrap();
    let repository = init(Arc::new(MemoryStore::new())).unwrap();
    let report = back_up_files(&repository, &[&source]);
    let below = target.join(source.strip_prefix("/").unwrap());
    std::fs::create_dir_all(&below).unwrap();
    symlink(&outside, below.join("d")).unwrap();
    let tree = report.snapshot.tree.unwrap();
    let mut options = TreeOptions { target: target.clone(), ..Default::default() };
    let told = restore_tree(&repository, tree, &options, &Progress::default()).unwrap();
    assert!(!told.problems.is_empty());
    options.overwrite = Overwrite::Always;
    let told = restore_tree(&repository, tree, &options, &Progress::default()).unwrap();
    assert!(told.problems.is_empty(), "{:?}", told.problems);
    assert_eq!(std::fs::read(outside.join("file")).unwrap(), b"precious");
    assert_eq!(std::fs::read(below.join("d/file")).unwrap(), b"new");
}

#[test]
fn rsync_finds_no_difference() {
    let program = Program::initialized();
    let source = program.path("source");
    std::fs::create_dir(&source).unwrap();
    every_kind(&source);
    let path = source.to_str().unwrap();
    program.ok(&["backup", path], b"");
    let target = program.path("target");
    program.ok(&["restore", "latest", "-t", target.to_str().unwrap()], b"");
    let back = target.join(path.trim_start_matches('/'));
    let compare = || {
        let mut rsync = std::process::Command::new("rsync");
        rsync.args(["-aHAXin", "--checksum", "--delete", &format!("{path}/")]).arg(&back);
        text(&crate::postgres::succeeded(rsync).stdout)
    };
    assert_eq!(compare(), "");
    // It would have found one.
    std::fs::write(back.join("d/file"), b"changed").unwrap();
    assert!(compare().contains("d/file"));
}

#[test]
fn directories_become_archives() {
    let program = Program::initialized();
    let source = program.path("source");
    std::fs::create_dir_all(source.join("d")).unwrap();
    std::fs::write(source.join("d/file"), rows(1, 5_000)).unwrap();
    symlink("d/file", source.join("link")).unwrap();
    let path = source.to_str().unwrap();
    program.ok(&["backup", path], b"");
    for (kind, list) in [
        (
            "zip",
            "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None; print(sorted(z.namelist()), z.getinfo('d/file').file_size)",
        ),
        (
            "tar",
            "import sys, tarfile; t = tarfile.open(sys.argv[1]); print(sorted(m.name + '/' * m.isdir() for m in t), t.getmember('d/file').size)",
        ),
    ] {
        let archive = program.path("archive");
        std::fs::write(&archive, program.ok(&["dump", "latest", path, "-a", kind], b"")).unwrap();
        let mut python = std::process::Command::new("python3");
        python.args(["-c", list]).arg(&archive);
        let listed = text(&crate::postgres::succeeded(python).stdout);
        let size = std::fs::metadata(source.join("d/file")).unwrap().len();
        assert_eq!(listed.trim(), format!("['d/', 'd/file', 'link'] {size}"), "{kind}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Random trees and edits; every snapshot restores to what was there.
    #[test]
    fn every_snapshot_is_the_tree_that_was_there(
        edits in proptest::collection::vec((0..30u32, 0..4u8, 0..3000usize), 1..40)
    ) {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        std::fs::create_dir(&source).unwrap();
        let repository = init(Arc::new(MemoryStore::new())).unwrap();
        let mut kept = Vec::new();
        for (number, edit) in edits.chunks(10).enumerate() {
            for (place, action, size) in edit {
                let path = source.join(format!("{}/{}", place % 3, place % 10));
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                let _ = std::fs::remove_file(&path);
                let _ = std::fs::remove_dir(&path);
                match action {
                    0 => {}
                    1 => symlink(format!("{size}"), &path).unwrap(),
                    2 => std::fs::create_dir(&path).unwrap(),
                    _ => std::fs::write(&path, random_bytes(u64::from(*place), *size)).unwrap(),
                }
            }
            let report = back_up_files(&repository, &[&source]);
            kept.push((report, picture(&source), folder.path().join(number.to_string())));
        }
        for (report, expected, target) in kept {
            restored(&repository, &report, Overwrite::Never, &target);
            prop_assert_eq!(picture(&target.join(source.strip_prefix("/").unwrap())), expected);
        }
    }
}
