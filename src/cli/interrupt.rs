//! Ctrl-C and SIGTERM: the first asks the running operation to stop at a safe point, the second
//! ends the process at once.

use std::sync::{Arc, OnceLock};

use restow::progress::Progress;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

static PROGRESS: OnceLock<Arc<Progress>> = OnceLock::new();

/// The progress of this process's one operation.
pub fn progress() -> Arc<Progress> {
    PROGRESS.get_or_init(Arc::default).clone()
}

/// Starts to listen for signals.
pub fn install() {
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if progress().is_interrupted() {
                std::process::exit(128 + signal);
            }
            progress().interrupt();
        }
    });
}
