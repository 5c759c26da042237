//! Random histories of one stream against a plain model.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use restow::backup::{BackupOptions, StreamSource, run};
use restow::chunker::Profile;
use restow::crypto::slot::Secret;
use restow::progress::Progress;
use restow::repository::{Environment, InitOptions, Repository};
use restow::restore::{WriterTarget, copy_stream};
use restow::source::StreamInput;
use restow::store::memory::MemoryStore;

struct Bytes(std::io::Cursor<Vec<u8>>);

impl StreamInput for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        std::io::Read::read(&mut self.0, buffer)
    }
}

fn secret() -> Secret {
    Secret::KeyFile(vec![7; 32].into())
}

fn environment() -> Environment {
    Environment::system("fuzz".into(), None)
}

// Each edit: where, how many bytes go, what comes instead, whether to open the repository anew.
fuzz_target!(|edits: Vec<(u16, u16, u8, u16, bool)>| {
    let store = Arc::new(MemoryStore::new());
    let options = InitOptions {
        stream_chunks: Profile { min: 64, avg: 256, max: 1024 },
        data_pack_bytes: 4 << 10,
        tree_pack_bytes: 1 << 10,
        ..InitOptions::default()
    };
    let mut repository =
        Repository::init(store.clone(), &secret(), &options, environment()).expect("init");
    let (mut bytes, mut history) = (Vec::new(), Vec::new());
    for (at, gone, letter, come, reopen) in edits.into_iter().take(8) {
        let at = usize::from(at).min(bytes.len());
        let until = (at + usize::from(gone)).min(bytes.len());
        let noise = (0..u32::from(come)).map(|n| letter ^ (n.wrapping_mul(2_654_435_761) >> 24) as u8);
        bytes.splice(at..until, noise);
        if reopen {
            repository = Repository::open(store.clone(), &secret(), environment()).expect("open");
        }
        let input = Box::new(Bytes(std::io::Cursor::new(bytes.clone())));
        let source = StreamSource { name: "s".into(), input, min_bytes: 0 };
        let options = BackupOptions { streams: vec![source], threads: 1, ..Default::default() };
        let report = run(&repository, options, &Progress::default()).expect("backup");
        history.push((report.snapshot.streams[0].clone(), bytes.clone()));
    }
    for (stream, bytes) in &history {
        let mut target = WriterTarget { writer: Vec::new(), name: "memory".into() };
        copy_stream(&repository, stream, &mut target, &Progress::default()).expect("restore");
        assert_eq!(&target.writer, bytes);
    }
});
