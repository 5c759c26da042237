//! Repairs with faults in between, and with the help of another repository.

use std::sync::Arc;

use restow::format::paths;
use restow::id::ObjectName;
use restow::progress::Progress;
use restow::repair::packs::{PacksOptions, run as repair_packs};
use restow::repository::Repository;
use restow::restore::options::{Overwrite, TreeOptions};
use restow::restore::tree::restore_tree;
use restow::store::fault::{Fault, FaultStore};
use restow::store::memory::MemoryStore;

use crate::files::{back_up_files, picture};
use crate::repair::*;
use crate::support::*;

/// A crash anywhere leaves what there was, and the next run ends the work.
#[test]
fn a_fault_at_any_operation_of_a_repair_loses_nothing() {
    let (store, days) = prepared();
    let all = store.objects();
    let find = |prefix: &str| all.iter().find(|(path, _)| path.starts_with(prefix)).unwrap();
    let lost =
        [find("data/").0.clone(), find("idx/").0.clone(), paths::log(2), "config".to_owned()];
    for path in &lost {
        store.damage(path, |bytes| *bytes.last_mut().unwrap() ^= 1);
    }
    store.damage(&lost[0], |bytes| bytes[70] ^= 1);
    let reference = Arc::new(store.fork());
    mend_all(&reference).unwrap();
    let expected = days_held(&reference);
    let faults =
        [Fault::CrashBefore, Fault::CrashAfter, Fault::LostReply, Fault::LostRequest, Fault::Full];
    for fault in faults {
        for at in 0.. {
            let survivor = Arc::new(store.fork());
            let faulty = Arc::new(FaultStore::new(survivor.clone(), fault, at));
            let result = mend_index(faulty.clone()).and_then(|_| {
                let repository = open(faulty.clone())?;
                mend_packs(&repository)?;
                mend_snapshots(&repository, true)
            });
            mend_all(&survivor).unwrap_or_else(|error| panic!("{fault:?} at {at}: {error}"));
            assert_clean(&survivor, &format!("{fault:?} at {at}"));
            assert_eq!(days_held(&survivor), expected, "{fault:?} at {at}");
            if !faulty.has_struck() {
                result.unwrap();
                break;
            }
        }
    }
    let _ = days;
}

#[test]
fn another_repository_gives_lost_chunks_back() {
    let (store, days) = prepared();
    let other_store = Arc::new(MemoryStore::new());
    let other = init(other_store).unwrap();
    for day in &days {
        back_up(&other, day).unwrap();
    }
    let data: Vec<_> = {
        let repository = open(store.clone()).unwrap();
        let packs = repository.index().packs().unwrap();
        let kind = |name: &ObjectName| repository.index().pack(name).unwrap().unwrap().kind;
        packs.into_iter().map(|(name, _)| name).filter(|name| kind(name).name() == "data").collect()
    };
    // One pack flipped, one cut, one gone.
    store.damage(&paths::pack(&data[0]), |bytes| bytes[100] ^= 1);
    store.damage(&paths::pack(&data[1]), |bytes| bytes.truncate(5000));
    let repository = open(store.clone()).unwrap();
    let options = PacksOptions { from: Some(&other), ..Default::default() };
    let dry = PacksOptions { dry_run: true, from: Some(&other), ..Default::default() };
    let planned = repair_packs(&repository, &dry, &Progress::default()).unwrap();
    let report = repair_packs(&repository, &options, &Progress::default()).unwrap();
    assert!(report.lost_chunks > 0 && report.found_chunks == report.lost_chunks, "{report:?}");
    assert_eq!(planned.found_chunks, report.found_chunks);
    assert_clean(&store, "from another repository");
    assert_eq!(days_held(&store), days.into_iter().collect());
    assert!(mend_snapshots(&repository, false).unwrap().repaired.is_empty());
}

#[test]
fn files_come_back_from_another_repository_or_leave_their_snapshots_alone() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::create_dir_all(source.join("sub/deep")).unwrap();
    for number in 0..30 {
        let name = ["a", "sub/b", "sub/deep/c"][number as usize % 3];
        std::fs::write(source.join(format!("{name}{number}")), rows(number, 100)).unwrap();
    }
    // Big enough to stand in packs without the others.
    std::fs::write(source.join("sub/big"), random_bytes(99, 5 << 20)).unwrap();
    let (store, other_store) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let report = back_up_files(&init(store.clone()).unwrap(), &[&source]);
    let other = init(other_store).unwrap();
    back_up_files(&other, &[&source]);
    let repository = open(store.clone()).unwrap();
    let is_group = |pack: &restow::index::PackDirectory| {
        pack.entries.iter().any(|entry| entry.codec == restow::format::directory::Codec::Member)
    };
    for (number, (name, _)) in repository.index().packs().unwrap().into_iter().enumerate() {
        let pack = repository.index().pack(&name).unwrap().unwrap();
        if pack.kind.name() != "data" || (number % 100 != 0 && !is_group(&pack)) {
            continue;
        }
        let flip = |bytes: &mut Vec<u8>| bytes[pack.offsets[0] as usize + 3] ^= 1;
        // Without help the file goes, and only it.
        let damaged = Arc::new(store.fork());
        damaged.damage(&paths::pack(&name), flip);
        let repository = open(damaged.clone()).unwrap();
        let lost = mend_packs(&repository).unwrap().lost_chunks;
        let mended = mend_snapshots(&repository, true).unwrap();
        assert!(lost > 0 && mended.repaired.len() == 1, "{mended:?}");
        let repaired = &mended.repaired[0];
        assert!(repaired.forgotten && repaired.lost.len() <= lost as usize, "{repaired:?}");
        let snapshot = repository.load_snapshot(&repaired.new.unwrap()).unwrap();
        assert_eq!(snapshot.tags, ["repaired"]);
        let target = folder.path().join(name.short());
        restore(&repository, snapshot.tree.unwrap(), &target);
        for lost in &repaired.lost {
            let path = lost.to_string();
            assert!(!target.join(path.trim_start_matches('/')).exists(), "{path}");
        }
        let files = |root: &std::path::Path| picture(root).len();
        let restored = files(&target.join(source.strip_prefix("/").unwrap()));
        assert_eq!(restored + repaired.lost.len(), files(&source));
        assert_clean(&damaged, "files");
        // The next backup stores what is lost again.
        back_up_files(&repository, &[&source]);
        assert_clean(&damaged, "files backed up again");
        // With another repository nothing is lost.
        let damaged = Arc::new(store.fork());
        damaged.damage(&paths::pack(&name), flip);
        let repository = open(damaged.clone()).unwrap();
        let options = PacksOptions { from: Some(&other), ..Default::default() };
        let report_of = repair_packs(&repository, &options, &Progress::default()).unwrap();
        assert_eq!(report_of.lost_chunks, report_of.found_chunks, "{report_of:?}");
        let target = folder.path().join(format!("{}-whole", name.short()));
        restore(&repository, report.snapshot.tree.unwrap(), &target);
        assert_eq!(picture(&target.join(source.strip_prefix("/").unwrap())), picture(&source));
    }
}

pub fn restore(repository: &Repository, tree: restow::id::ChunkId, target: &std::path::Path) {
    let options = TreeOptions {
        target: target.to_owned(),
        overwrite: Overwrite::Always,
        ..Default::default()
    };
    restore_tree(repository, tree, &options, &Progress::default()).unwrap();
}
