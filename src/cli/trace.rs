//! `RUST_LOG`: what the engine tells of its work, to standard error.

use tracing_subscriber::EnvFilter;

/// Listens where `RUST_LOG` says to what; without it nothing is told and nothing costs time.
pub fn install() {
    let Ok(wanted) = std::env::var("RUST_LOG") else { return };
    let filter = match EnvFilter::builder().parse(&wanted) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("warning: RUST_LOG is passed over: {error}");
            return;
        }
    };
    // Another listener can only stand there already in tests.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}
