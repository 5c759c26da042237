//! Writers beside a prune: what is condemned is rescued, what is gone is never relied on.

use std::sync::Arc;
use std::time::Duration;

use restow::backup::{StreamSource, run};
use restow::check::{ReadData, run as check};
use restow::clock::Clock;
use restow::error::Error;
use restow::format::log::{EntryKind, LogEntry};
use restow::format::paths;
use restow::id::ObjectName;
use restow::index::Fate;
use restow::progress::Progress;
use restow::prune::{PruneOptions, run as prune};
use restow::repository::snapshots::Filter;
use restow::repository::{Environment, Repository};
use restow::source::StreamInput;
use restow::store::Store;
use restow::store::memory::MemoryStore;
use restow::store::record::{Call, RecordingStore};

use crate::support::*;

/// A stream that lets something else happen when it has given its last byte.
struct WithEvent<F: FnOnce() + Send> {
    bytes: Box<Bytes>,
    event: Option<F>,
}

impl<F: FnOnce() + Send> StreamInput for WithEvent<F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.bytes.read(buffer)
    }
    fn finish(&mut self) -> Result<(), String> {
        if let Some(event) = self.event.take() {
            event();
        }
        Ok(())
    }
}

fn pack_names(repository: &Repository) -> Vec<ObjectName> {
    repository.index().packs().unwrap().into_iter().map(|(name, _)| name).collect()
}

fn forget_all(repository: &Repository) {
    let names = repository.index().snapshot_names().unwrap();
    let mut entry = LogEntry::new(EntryKind::Forget);
    entry.snapshot_remove = names;
    repository.commit(&mut || Ok(entry.clone())).unwrap();
}

fn condemn(repository: &Repository, packs: &[ObjectName]) {
    let mut entry = LogEntry::new(EntryKind::Gc);
    entry.condemn = packs.to_vec();
    repository.commit(&mut || Ok(entry.clone())).unwrap();
}

fn kill(repository: &Repository, store: &MemoryStore, packs: &[ObjectName]) {
    let mut entry = LogEntry::new(EntryKind::Dead);
    entry.dead = packs.to_vec();
    repository.commit(&mut || Ok(entry.clone())).unwrap();
    for pack in packs {
        store.delete(&paths::pack(pack)).unwrap();
    }
}

fn back_up_during(
    repository: &Repository,
    bytes: &[u8],
    event: impl FnOnce() + Send + 'static,
) -> restow::error::Result<restow::backup::Report> {
    let input = Box::new(WithEvent { bytes: Bytes::new(bytes), event: Some(event) });
    let source = StreamSource { name: "s".into(), input, min_bytes: 0 };
    run(repository, options(vec![source]), &Progress::default())
}

fn assert_sound(store: &Arc<MemoryStore>) {
    let repository = open(store.clone()).unwrap();
    let report = check(&repository, ReadData::All, &Progress::default()).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

#[test]
fn packs_condemned_during_a_backup_are_rescued() {
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    let bytes = rows(1, 3000);
    back_up(&repository, &bytes).unwrap();
    for next in [bytes.clone(), changed_rows(1, 3000, 1, 10)] {
        let pruner = open(store.clone()).unwrap();
        let packs = pack_names(&pruner);
        let report = back_up_during(&repository, &next, move || {
            forget_all(&pruner);
            condemn(&pruner, &pack_names(&pruner));
        })
        .unwrap();
        assert!(packs.iter().any(|pack| repository.index().fate(pack).is_none()));
        assert!(read(&repository, &report.snapshot.streams[0]).unwrap() == next);
        // What was not rescued goes for good; the snapshot must not miss it.
        let pruner = open(store.clone()).unwrap();
        let condemned = pruner.index().condemned();
        kill(&pruner, &store, &condemned);
        assert_sound(&store);
    }
}

/// Unchanged chunks, whole unchanged recipes, and bases of deltas, each gone before the commit.
#[test]
fn a_backup_that_relies_on_dead_packs_is_refused_and_the_next_one_works() {
    for next in [rows(1, 3000), changed_rows(1, 3000, 1, 10)] {
        let store = Arc::new(MemoryStore::new());
        let repository = init(store.clone()).unwrap();
        back_up(&repository, &rows(1, 3000)).unwrap();
        let (pruner, files) = (open(store.clone()).unwrap(), store.clone());
        let result = back_up_during(&repository, &next, move || {
            forget_all(&pruner);
            let packs = pack_names(&pruner);
            condemn(&pruner, &packs);
            kill(&pruner, &files, &packs);
        });
        match result {
            Err(Error::Pruned { .. }) => {
                assert!(repository.snapshots(&Filter::default()).unwrap().is_empty());
            }
            // The event may come before the first delta: then everything was stored whole.
            Ok(report) => {
                let summary = report.snapshot.summary;
                assert_eq!(summary.dedup_bytes + summary.delta_bytes, 0, "{summary:?}");
            }
            Err(other) => panic!("{other}"),
        }
        let report = back_up(&repository, &next).unwrap();
        assert!(read(&repository, &report.snapshot.streams[0]).unwrap() == next);
        assert_sound(&store);
    }
}

/// A rescued pack is live as a whole: who finds any chunk in it may rely on it, so what its other
/// deltas are made against is rescued too.
#[test]
fn rescued_packs_are_readable_as_a_whole() {
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    let second = changed_rows(1, 3000, 1, 10);
    back_up(&repository, &rows(1, 3000)).unwrap();
    back_up(&repository, &second).unwrap();
    let pruner = open(store.clone()).unwrap();
    // A part of the second day: not all chunks of its packs.
    back_up_during(&repository, &second[second.len() / 2..], move || {
        forget_all(&pruner);
        condemn(&pruner, &pack_names(&pruner));
    })
    .unwrap();
    let pruner = open(store.clone()).unwrap();
    kill(&pruner, &store, &pruner.index().condemned());
    back_up(&open(store.clone()).unwrap(), &second).unwrap();
    assert_sound(&store);
}

/// Of two condemned packs the older may be due and the other not, by clocks that differ. What can
/// still be rescued must stay readable.
#[test]
fn condemned_packs_outlive_what_is_made_of_them() {
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    back_up(&repository, &rows(1, 3000)).unwrap();
    let bases = pack_names(&repository);
    let second = changed_rows(1, 3000, 1, 10);
    back_up(&repository, &second).unwrap();
    let mut all = pack_names(&repository);
    all.retain(|pack| !bases.contains(pack));
    forget_all(&repository);
    back_up(&repository, b"something else").unwrap();
    let long_ago = Environment { clock: Arc::new(LongAgo), ..repository.environment().clone() };
    condemn(&Repository::open(store.clone(), &secret(), long_ago).unwrap(), &bases);
    condemn(&repository, &all);
    let pruner = open(store.clone()).unwrap();
    prune(&pruner, &PruneOptions::default(), &Progress::default()).unwrap();
    let mut entry = LogEntry::new(EntryKind::Add);
    entry.rescue = all;
    repository.commit(&mut || Ok(entry.clone())).unwrap();
    back_up(&repository, &second).unwrap();
    assert_sound(&store);
}

struct LongAgo;

impl Clock for LongAgo {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::from_second(1_000_000_000).unwrap()
    }
}

#[test]
fn new_backups_do_not_deduplicate_against_condemned_packs() {
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    let bytes = rows(1, 3000);
    back_up(&repository, &bytes).unwrap();
    let packs = pack_names(&repository);
    condemn(&repository, &packs);
    back_up(&repository, &bytes).unwrap();
    let pruner = open(store.clone()).unwrap();
    let still: Vec<_> = packs
        .into_iter()
        .filter(|pack| pruner.index().fate(pack) == Some(Fate::Condemned))
        .collect();
    let held = contents(&pruner).unwrap();
    assert_eq!(held.len(), 2);
    // The first snapshot shares what the second stored again: the old packs may go.
    kill(&pruner, &store, &still);
    assert_sound(&store);
}

/// Another process moves the shared index file past a GC: this one must not go on believing that the
/// packs are live.
#[test]
fn fates_set_through_a_shared_index_file_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    init(store.clone()).unwrap();
    let cached = || {
        let mut environment = environment(Arc::new(restow::entropy::OsEntropy));
        environment.cache = Some(folder.path().to_owned());
        Repository::open(store.clone(), &secret(), environment).unwrap()
    };
    let (writer, pruner) = (cached(), cached());
    let bytes = rows(1, 3000);
    back_up(&writer, &bytes).unwrap();
    pruner.sync().unwrap();
    forget_all(&pruner);
    condemn(&pruner, &pack_names(&pruner));
    let condemned = pruner.index().condemned();
    back_up(&writer, &bytes).unwrap();
    pruner.sync().unwrap();
    let still: Vec<_> =
        condemned.into_iter().filter(|pack| pruner.index().fate(pack).is_some()).collect();
    kill(&pruner, &store, &still);
    assert_sound(&store);
}

/// Prunes until the dead are forgotten as well.
fn prune_to_the_end(store: &Arc<MemoryStore>) {
    let repository = open(store.clone()).unwrap();
    let options = PruneOptions { grace: Duration::ZERO, allow_empty: true, ..Default::default() };
    for _ in 0..3 {
        prune(&repository, &options, &Progress::default()).unwrap();
    }
    assert!(repository.index().dead().len() < 64);
    assert!(repository.index().turns().horizon > 0);
}

#[test]
fn a_writer_whose_packs_died_and_were_forgotten_is_refused() {
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    let bytes = random_bytes(1, 16 << 20);
    let beside = store.clone();
    let input = WithEvent {
        bytes: Bytes::new(&bytes),
        event: Some(move || {
            // What was read goes on to be stored meanwhile.
            while beside.list("data/").unwrap().len() < 100 {
                std::thread::yield_now();
            }
            let before = beside.objects();
            prune_to_the_end(&beside);
            // Requests that were on their way all the time arrive only now: that packs are there
            // proves nothing, some prune may be about to delete them.
            for (path, bytes) in before.iter().filter(|(path, _)| path.starts_with("data/")) {
                beside.put_new(path, bytes).unwrap();
            }
        }),
    };
    let source = StreamSource { name: "s".into(), input: Box::new(input), min_bytes: 0 };
    let result = run(&repository, options(vec![source]), &Progress::default());
    assert!(matches!(result, Err(Error::Pruned { .. })), "{result:?}");
    assert_eq!(repository.snapshots(&Filter::default()).unwrap().len(), 0);
    back_up(&repository, &bytes).unwrap();
    let report = check(&repository, ReadData::All, &Progress::default()).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    // Who reads the log from the first entry on and who begins at a state agree.
    let anew = open(Arc::new(store.fork())).unwrap();
    assert_eq!(anew.index().dump_rows().unwrap(), repository.index().dump_rows().unwrap());
}

#[test]
fn a_writer_that_began_after_the_dead_were_forgotten_is_not_disturbed() {
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    back_up(&repository, &random_bytes(1, 2 << 20)).unwrap();
    forget_all(&repository);
    prune_to_the_end(&store);
    repository.sync().unwrap();
    let recorded = Arc::new(RecordingStore::new(store.clone()));
    let again = open(recorded.clone()).unwrap();
    drop(recorded.take());
    back_up(&again, &random_bytes(1, 64 << 10)).unwrap();
    // Nor does it walk over what it relies on.
    assert!(!recorded.take().iter().any(|call| matches!(call, Call::GetRange(..))));
}
