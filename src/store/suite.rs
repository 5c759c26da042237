//! The contract of [`Store`] as a test that every store has to pass.

use std::sync::Barrier;

use super::{Store, StoreError};

/// Runs the whole suite; `make` gives an empty store each time.
///
/// # Panics
/// Where the store breaks the contract.
#[doc(hidden)]
pub fn conformance(make: &dyn Fn() -> Box<dyn Store>) {
    creates_and_never_overwrites(&*make());
    reads_ranges(&*make());
    lists_by_prefix_in_order(&*make());
    deletes(&*make());
    replaces(&*make());
    refuses_odd_paths(&*make());
    one_of_many_wins(&*make());
}

fn creates_and_never_overwrites(store: &dyn Store) {
    store.put_new("data/ab/one", b"first").expect("put");
    let second = store.put_new("data/ab/one", b"second");
    assert!(matches!(second, Err(StoreError::AlreadyExists { .. })), "{second:?}");
    assert_eq!(store.get("data/ab/one").expect("get"), b"first");
    assert_eq!(store.head("data/ab/one").expect("head"), 5);
    store.put_new("empty", b"").expect("put nothing");
    assert_eq!(store.get("empty").expect("get nothing"), b"");
    assert!(matches!(store.get("none"), Err(StoreError::NotFound { .. })));
    assert!(matches!(store.head("data/zz/none"), Err(StoreError::NotFound { .. })));
    let large = vec![7; 8 << 20];
    store.put_new("large", &large).expect("put 8 MiB");
    assert!(store.get("large").expect("get 8 MiB") == large);
}

fn reads_ranges(store: &dyn Store) {
    store.put_new("object", b"0123456789").expect("put");
    assert_eq!(store.get_range("object", 3, 4).expect("range"), b"3456");
    assert_eq!(store.get_range("object", 10, 0).expect("empty range"), b"");
    assert!(store.get_range("object", 8, 3).is_err(), "a short range is an error");
    assert!(matches!(store.get_range("none", 0, 1), Err(StoreError::NotFound { .. })));
}

fn lists_by_prefix_in_order(store: &dyn Store) {
    for path in ["log/2", "data/ff/x", "data/00/y", "log/1", "config"] {
        store.put_new(path, path.as_bytes()).expect("put");
    }
    let paths = |prefix: &str| -> Vec<String> {
        store.list(prefix).expect("list").into_iter().map(|object| object.path).collect()
    };
    assert_eq!(paths("log/"), ["log/1", "log/2"]);
    assert_eq!(paths("data/"), ["data/00/y", "data/ff/x"]);
    assert_eq!(paths("").len(), 5);
    for (after, expected) in [("log/1", vec!["log/2"]), ("log/0", vec!["log/1", "log/2"])] {
        let listed = store.list_after("log/", after).expect("list the rest");
        assert_eq!(listed.iter().map(|object| &object.path[..]).collect::<Vec<_>>(), expected);
    }
    assert!(paths("snap/").is_empty());
    assert_eq!(store.list("data/").expect("list")[0].size, 9);
}

fn deletes(store: &dyn Store) {
    store.put_new("data/00/x", b"1").expect("put");
    store.get_range("data/00/x", 0, 1).expect("range");
    store.delete("data/00/x").expect("delete");
    assert!(matches!(store.delete("data/00/x"), Err(StoreError::NotFound { .. })));
    assert!(matches!(store.get_range("data/00/x", 0, 1), Err(StoreError::NotFound { .. })));
    store.put_new("data/00/x", b"2").expect("put again");
    assert_eq!(store.get("data/00/x").expect("get"), b"2");
}

/// A store may refuse to, but it must not do half of it.
fn replaces(store: &dyn Store) {
    store.put_new("data/00/x", b"old").expect("put");
    store.get_range("data/00/x", 0, 1).expect("range");
    match store.replace("data/00/x", b"newer") {
        Ok(()) => {
            assert_eq!(store.get("data/00/x").expect("get"), b"newer");
            assert_eq!(store.get_range("data/00/x", 3, 2).expect("range"), b"er");
            store.replace("data/01/y", b"made").expect("make");
            assert_eq!(store.get("data/01/y").expect("get"), b"made");
        }
        Err(error) => {
            assert!(error.to_string().contains("cannot put mended bytes"), "{error}");
            assert_eq!(store.get("data/00/x").expect("get"), b"old");
        }
    }
}

fn refuses_odd_paths(store: &dyn Store) {
    for path in ["", "/etc/x", "../x", "a/../b", "a//b", ".hidden", "A", "a b", "a/"] {
        assert!(store.put_new(path, b"").is_err(), "'{path}' was accepted");
    }
}

fn one_of_many_wins(store: &dyn Store) {
    for round in 0..8 {
        let path = format!("log/{round}");
        let barrier = Barrier::new(16);
        let winners: Vec<u8> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16u8)
                .map(|number| {
                    let (path, barrier) = (&path, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        store.put_new(path, &[number; 100]).is_ok().then_some(number)
                    })
                })
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!(winners.len(), 1, "winners of {path}: {winners:?}");
        assert_eq!(store.get(&path).expect("get"), [winners[0]; 100]);
    }
}
