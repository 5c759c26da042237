//! What a restore may do to what is there already: never more than it was asked for.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use restow::backup::Report;
use restow::progress::Progress;
use restow::repository::Repository;
use restow::restore::options::{Overwrite, TreeOptions, TreeReport};
use restow::restore::tree::restore_tree;
use restow::store::memory::MemoryStore;

use crate::files::back_up_files;
use crate::support::*;

/// A source folder that was backed up, and a target with the place of it.
struct Case {
    folder: tempfile::TempDir,
    source: PathBuf,
    repository: Repository,
    report: Report,
}

impl Case {
    fn new(make: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().canonicalize().unwrap().join("parent/source");
        std::fs::create_dir_all(&source).unwrap();
        make(&source);
        let repository = init(Arc::new(MemoryStore::new())).unwrap();
        let report = back_up_files(&repository, &[&source]);
        Self { folder, source, repository, report }
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("target")
    }

    /// Where the source comes back to; it is there after this.
    fn back(&self) -> PathBuf {
        let back = self.target().join(self.source.strip_prefix("/").unwrap());
        std::fs::create_dir_all(&back).unwrap();
        back
    }

    fn restore(&self, change: impl FnOnce(&mut TreeOptions)) -> TreeReport {
        let mut options = TreeOptions { target: self.target(), ..Default::default() };
        change(&mut options);
        let tree = self.report.snapshot.tree.unwrap();
        restore_tree(&self.repository, tree, &options, &Progress::default()).unwrap()
    }
}

fn write(path: PathBuf, text: &str) {
    std::fs::write(path, text).unwrap();
}

fn read(path: PathBuf) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn delete_removes_only_where_everything_was_backed_up() {
    let case = Case::new(|source| {
        std::fs::create_dir(source.join("cache")).unwrap();
        write(source.join("keep"), "keep");
    });
    let back = case.back();
    write(back.join("stray"), "stray");
    std::fs::create_dir(back.join("straydir")).unwrap();
    write(back.join("straydir/f"), "stray");
    write(back.parent().unwrap().join("sibling"), "precious");
    let said = case.restore(|options| {
        (options.delete, options.overwrite) = (true, Overwrite::Always);
    });
    assert!(said.problems.is_empty(), "{:?}", said.problems);
    assert!(!back.join("stray").exists() && !back.join("straydir").exists());
    assert_eq!(read(back.parent().unwrap().join("sibling")), "precious");
    assert!(said.partial_directories > 0 && said.deleted == 2, "{said:?}");
}

#[test]
fn delete_spares_directories_that_were_left_out() {
    let program = Program::initialized();
    let source = program.path("source");
    std::fs::create_dir_all(source.join("cache")).unwrap();
    write(source.join("cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55");
    write(source.join("cache/thing"), "only copy");
    write(source.join("drop.o"), "only copy");
    write(source.join("keep"), "keep");
    let path = source.to_str().unwrap();
    program.ok(&["backup", path, "--exclude-caches", "--exclude", "*.o"], b"");
    write(source.join("keep"), "changed");
    program.ok(&["restore", "latest", "-t", "/", "--overwrite", "--delete"], b"");
    assert_eq!(read(source.join("keep")), "keep");
    assert_eq!(read(source.join("cache/thing")), "only copy");
    assert_eq!(read(source.join("drop.o")), "only copy");
}

#[test]
fn a_link_is_never_made_to_a_foreign_file() {
    let case = Case::new(|source| {
        write(source.join("a"), "snapshot");
        std::fs::hard_link(source.join("a"), source.join("b")).unwrap();
        std::fs::hard_link(source.join("a"), source.join("c")).unwrap();
    });
    let back = case.back();
    write(back.join("a"), "foreign");
    let said = case.restore(|_| {});
    assert_eq!(said.problems.len(), 1, "{:?}", said.problems);
    assert_eq!(read(back.join("a")), "foreign");
    assert_eq!(read(back.join("b")), "snapshot");
    let inode = |name: &str| back.join(name).metadata().unwrap().ino();
    assert_eq!(inode("b"), inode("c"));
    let said = case.restore(|options| options.overwrite = Overwrite::Always);
    assert!(said.problems.is_empty(), "{:?}", said.problems);
    assert_eq!((inode("a"), inode("b")), (inode("b"), inode("c")));
    assert_eq!(read(back.join("a")), "snapshot");
}

#[test]
fn newer_files_and_full_directories_stay() {
    let case = Case::new(|source| {
        write(source.join("older"), "snapshot");
        write(source.join("newer"), "snapshot");
        symlink("nowhere", source.join("link")).unwrap();
        std::fs::create_dir(source.join("directory")).unwrap();
        write(source.join("directory/x"), "snapshot");
    });
    let back = case.back();
    let set = |path: PathBuf, time: SystemTime| {
        std::fs::File::open(path).unwrap().set_modified(time).unwrap();
    };
    for (name, time) in [
        ("older", SystemTime::now() - Duration::from_secs(1000)),
        ("newer", SystemTime::now() + Duration::from_secs(1000)),
        ("directory", SystemTime::now() + Duration::from_secs(1000)),
    ] {
        write(back.join(name), "here");
        set(back.join(name), time);
    }
    std::fs::create_dir(back.join("link")).unwrap();
    write(back.join("link/precious"), "precious");
    let said = case.restore(|options| options.overwrite = Overwrite::IfNewer);
    assert_eq!(read(back.join("older")), "snapshot");
    assert_eq!(read(back.join("newer")), "here");
    assert_eq!(read(back.join("directory")), "here");
    assert_eq!(read(back.join("link/precious")), "precious");
    assert_eq!(said.problems.len(), 1, "{:?}", said.problems);
    let said = case.restore(|options| options.overwrite = Overwrite::Always);
    assert_eq!(said.problems.len(), 1, "{:?}", said.problems);
    assert_eq!(read(back.join("link/precious")), "precious");
    assert_eq!(read(back.join("directory/x")), "snapshot");
    let said = case.restore(|options| {
        (options.delete, options.overwrite) = (true, Overwrite::Always);
    });
    assert!(said.problems.is_empty(), "{:?}", said.problems);
    assert_eq!(std::fs::read_link(back.join("link")).unwrap(), Path::new("nowhere"));
}

#[test]
fn attributes_of_unchanged_files_are_set_and_strange_ones_removed() {
    let case = Case::new(|source| {
        write(source.join("file"), "12345678");
        write(source.join("other"), "12345678");
    });
    let said = case.restore(|_| {});
    assert!(said.problems.is_empty(), "{:?}", said.problems);
    let back = case.back();
    let time = back.join("file").metadata().unwrap().modified().unwrap();
    std::fs::set_permissions(back.join("file"), std::fs::Permissions::from_mode(0o666)).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    let has_xattrs = rustix::fs::setxattr(back.join("file"), "user.strange", b"x", flags).is_ok();
    write(back.join("other"), "overlaid");
    std::fs::File::open(back.join("other")).unwrap().set_modified(time).unwrap();
    let said = case.restore(|options| options.overwrite = Overwrite::IfChanged);
    assert_eq!((said.unchanged, said.problems.len()), (2, 0), "{said:?}");
    let mode = |name: &str| back.join(name).metadata().unwrap().mode() & 0o777;
    assert_eq!(mode("file"), case.source.join("file").metadata().unwrap().mode() & 0o777);
    let left = restow::source::walk::xattrs(&back.join("file")).unwrap();
    assert!(!has_xattrs || left.iter().all(|(name, _)| name != b"user.strange"));
    // Size and time are the same; only reading tells.
    assert_eq!(read(back.join("other")), "overlaid");
    let said = case.restore(|options| {
        (options.overwrite, options.verify) = (Overwrite::IfChanged, true);
    });
    assert_eq!((read(back.join("other")).as_str(), said.written_bytes), ("12345678", 8));
}

#[test]
fn set_id_bits_are_only_for_the_owner_they_were_set_for() {
    let case = Case::new(|source| {
        write(source.join("program"), "x");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(source.join("program"), Some(1234), Some(1234)).unwrap();
        }
        let mode = std::fs::Permissions::from_mode(0o6755);
        std::fs::set_permissions(source.join("program"), mode).unwrap();
    });
    case.restore(|options| options.no_owner = true);
    let mode = || case.back().join("program").metadata().unwrap().mode() & 0o7777;
    let is_root = rustix::process::geteuid().is_root();
    assert_eq!(mode(), if is_root { 0o755 } else { 0o6755 });
    case.restore(|options| options.overwrite = Overwrite::Always);
    assert_eq!(mode(), 0o6755);
}

#[test]
fn streams_do_not_follow_links_either() {
    let program = Program::initialized();
    program.ok(&["backup", "--stdin", "--stdin-filename", "etc/x"], b"stream");
    let (outside, target) = (program.path("outside"), program.path("target"));
    std::fs::create_dir(&outside).unwrap();
    std::fs::create_dir(&target).unwrap();
    symlink(&outside, target.join("etc")).unwrap();
    let target = target.to_str().unwrap();
    program.fails(&["restore", "latest", "-t", target, "--overwrite"], b"", 1);
    assert!(std::fs::read_dir(&outside).unwrap().next().is_none());
    let fresh = program.path("fresh");
    program.ok(&["restore", "latest", "-t", fresh.to_str().unwrap()], b"");
    assert_eq!(read(fresh.join("etc/x")), "stream");
    program.fails(&["restore", "latest", "-t", fresh.to_str().unwrap()], b"", 1);
    let left: Vec<_> = std::fs::read_dir(fresh.join("etc")).unwrap().collect();
    assert_eq!(left.len(), 1);
}

#[test]
fn a_path_through_a_link_is_backed_up_where_it_is() {
    let program = Program::initialized();
    let real = program.path("real").canonicalize().unwrap_or(program.path("real"));
    std::fs::create_dir(&real).unwrap();
    write(real.join("file"), "content");
    symlink(&real, program.path("link")).unwrap();
    let through = program.path("link/file");
    program.ok(&["backup", through.to_str().unwrap()], b"");
    let place = real.join("file");
    let out = program.ok(&["dump", "latest", place.to_str().unwrap()], b"");
    assert_eq!(out, b"content");
    // What was asked for and cannot be there is said.
    program.fails(&["backup", real.to_str().unwrap(), place.join("x").to_str().unwrap()], b"", 3);
    for bad in ["a/b", "..", "."] {
        let path = real.to_str().unwrap();
        program.fails(&["backup", path, "--exclude-if-present", bad], b"", 2);
    }
}

#[test]
fn one_damaged_directory_takes_no_other_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    for name in ["a", "m", "z"] {
        std::fs::create_dir_all(source.join(name)).unwrap();
        write(source.join(name).join("file"), name);
    }
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    let report = back_up_files(&repository, &[&source]);
    let tree = report.snapshot.tree.unwrap();
    use std::os::unix::ffi::OsStrExt;
    let path = source.join("m");
    let entry = repository.find_entry(tree, path.as_os_str().as_bytes()).unwrap().unwrap();
    let restow::format::entry::Kind::Directory { tree: node, .. } = entry.kind else { panic!() };
    let found = repository.index().find(&node.key()).unwrap().unwrap();
    let (name, at) = (found.pack.name, found.offset() as usize);
    store.damage(&restow::format::paths::pack(&name), |bytes| bytes[at + 5] ^= 1);
    let target = folder.path().join("target");
    let options = TreeOptions { target: target.clone(), ..Default::default() };
    let said = restore_tree(&repository, tree, &options, &Progress::default()).unwrap();
    assert_eq!(said.problems.len(), 1, "{:?}", said.problems);
    assert!(said.problems[0].0.to_string().ends_with("/m"), "{:?}", said.problems);
    let back = target.join(source.strip_prefix("/").unwrap());
    assert_eq!((read(back.join("a/file")), read(back.join("z/file"))), ("a".into(), "z".into()));
}

#[test]
fn what_another_run_left_half_written_is_completed() {
    let case = Case::new(|source| {
        write(source.join("file"), &text(&rows(1, 2_000)));
        let old = SystemTime::now() - Duration::from_secs(100_000);
        std::fs::File::open(source.join("file")).unwrap().set_modified(old).unwrap();
    });
    case.restore(|_| {});
    let back = case.back();
    // Left by a run that died: half a file, under the name that it bears until it is complete.
    std::fs::remove_file(back.join("file")).unwrap();
    let half = read(case.source.join("file"));
    let name = restow::restore::content::temporary_name("file".as_ref());
    write(back.join(&name), &half[..half.len() / 2]);
    let said = case.restore(|options| options.overwrite = Overwrite::IfNewer);
    assert!(said.problems.is_empty() && said.written_bytes < half.len() as u64, "{said:?}");
    assert_eq!(read(back.join("file")), half);
    assert!(!back.join(&name).exists());
    // An older file is never half of it: it is replaced when all is there.
    write(back.join("file"), "older");
    let older = SystemTime::now() - Duration::from_secs(200_000);
    std::fs::File::open(back.join("file")).unwrap().set_modified(older).unwrap();
    let inode = back.join("file").metadata().unwrap().ino();
    case.restore(|options| options.overwrite = Overwrite::IfNewer);
    assert_eq!(read(back.join("file")), half);
    assert_ne!(back.join("file").metadata().unwrap().ino(), inode);
}

#[test]
fn directories_that_are_there_keep_what_they_are_unless_told() {
    let case = Case::new(|source| {
        std::fs::create_dir(source.join("d")).unwrap();
        write(source.join("d/file"), "x");
    });
    let back = case.back();
    std::fs::create_dir(back.join("d")).unwrap();
    let closed = std::fs::Permissions::from_mode(0o500);
    std::fs::set_permissions(back.join("d"), closed).unwrap();
    let mode = || back.join("d").metadata().unwrap().mode() & 0o777;
    let said = case.restore(|_| {});
    assert!(said.problems.is_empty(), "{:?}", said.problems);
    assert_eq!((mode(), read(back.join("d/file"))), (0o500, "x".into()));
    case.restore(|options| options.overwrite = Overwrite::IfChanged);
    assert_eq!(mode(), case.source.join("d").metadata().unwrap().mode() & 0o777);
}

#[test]
fn streams_are_dealt_with_like_files() {
    let program = Program::initialized();
    let source = program.path("source");
    std::fs::create_dir(&source).unwrap();
    write(source.join("file"), "file");
    let path = source.to_str().unwrap();
    let stream = format!("{path}/db.sql");
    program.ok(&["backup", path, "--stream", &format!("{stream}=echo dump")], b"");
    let target = program.path("target");
    let restore = |more: &[&str]| {
        let words = ["restore", "latest", "-t", target.to_str().unwrap()];
        program.ok(&[&words[..], more].concat(), b"")
    };
    let there = target.join(stream.trim_start_matches('/'));
    restore(&["--delete"]);
    assert_eq!(read(there.clone()), "dump\n");
    write(there.clone(), "precious");
    let later = SystemTime::now() + Duration::from_secs(1000);
    std::fs::File::open(&there).unwrap().set_modified(later).unwrap();
    restore(&["--overwrite=if-newer"]);
    assert_eq!(read(there.clone()), "precious");
    std::fs::remove_file(&there).unwrap();
    restore(&["--overwrite", "--exclude", "*.sql"]);
    assert!(!there.exists());
    // One that is in the way is told; everything else is restored.
    write(there.clone(), "precious");
    std::fs::remove_file(there.with_file_name("file")).unwrap();
    let words = ["restore", "latest", "-t", target.to_str().unwrap()];
    let said = program.fails(&words, b"", 1);
    assert!(said.contains("db.sql"), "{said}");
    assert_eq!(read(there.with_file_name("file")), "file");
    assert_eq!(read(there), "precious");
}

#[test]
fn patterns_may_use_the_name_that_was_given() {
    let program = Program::initialized();
    let real = program.path("real");
    std::fs::create_dir_all(real.join("www/cache")).unwrap();
    write(real.join("www/cache/secret"), "x");
    write(real.join("www/page"), "x");
    symlink(&real, program.path("link")).unwrap();
    let given = program.path("link/www");
    let pattern = program.path("link/www/cache");
    let (given, pattern) = (given.to_str().unwrap(), pattern.to_str().unwrap());
    program.ok(&["backup", given, "--exclude", pattern], b"");
    let listed = text(&program.ok(&["ls", "latest", "-R"], b""));
    assert!(listed.contains("/real/www/page") && !listed.contains("cache"), "{listed}");
    let found = text(&program.ok(&["snapshots", "--path", given], b""));
    assert!(found.contains("1 snapshots"), "{found}");
}

#[test]
fn names_that_look_alike_stand_in_a_zip_both() {
    use std::os::unix::ffi::OsStrExt;
    let program = Program::initialized();
    let source = program.path("source");
    std::fs::create_dir(&source).unwrap();
    for name in [&b"a\xff"[..], b"a\xfe", b"a%FF", b"z"] {
        write(source.join(std::ffi::OsStr::from_bytes(name)), "x");
    }
    program.ok(&["backup", source.to_str().unwrap()], b"");
    let archive = program.path("archive.zip");
    let bytes = program.ok(&["dump", "latest", source.to_str().unwrap(), "-a", "zip"], b"");
    std::fs::write(&archive, bytes).unwrap();
    let mut python = std::process::Command::new("python3");
    python.args([
        "-c",
        "import sys, zipfile; print(sorted(zipfile.ZipFile(sys.argv[1]).namelist()))",
    ]);
    python.arg(&archive);
    let listed = text(&crate::postgres::succeeded(python).stdout);
    assert_eq!(listed.trim(), "['a%FE', 'a%FF', 'a%FF_', 'z']");
}

#[test]
fn a_long_hole_costs_nothing() {
    let case = Case::new(|source| {
        let file = std::fs::File::create(source.join("sparse")).unwrap();
        file.set_len(100 << 30).unwrap();
    });
    let back = case.back();
    let started = std::time::Instant::now();
    for overwrite in [Overwrite::Never, Overwrite::Always] {
        let said = case.restore(|options| {
            (options.overwrite, options.verify) = (overwrite, true);
        });
        assert!(said.problems.is_empty(), "{:?}", said.problems);
    }
    assert!(started.elapsed() < Duration::from_secs(20));
    let metadata = back.join("sparse").metadata().unwrap();
    assert_eq!((metadata.len(), metadata.blocks() < 10_000), (100 << 30, true));
}
