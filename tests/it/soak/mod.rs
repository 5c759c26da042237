//! A short round of real processes that are killed; `cargo bench --bench soak` runs many.

use std::path::Path;
use std::time::Duration;

mod processes;

use processes::{Soak, local};

#[test]
fn killed_processes_leave_a_sound_repository() {
    let folder = tempfile::tempdir().unwrap();
    let soak = Soak {
        program: Path::new(env!("CARGO_BIN_EXE_restow")).to_owned(),
        repository: local(folder.path()),
        folder: folder.path().to_owned(),
        writers: 2,
        prunes: 1,
        round: Duration::from_secs(2),
        kill_one_in: 3,
        seed: 1,
    };
    soak.init().unwrap();
    let mut done = vec![0; soak.writers as usize];
    let round = soak.run(0, &mut done).unwrap();
    soak.converge().unwrap();
    assert!(round.backups + round.conflicts + round.kills > 0, "{round:?}");
}
