//! Inputs that start only when somebody reads them, so that what waits for its turn holds nothing open.

use std::io;
use std::sync::{Arc, OnceLock};

use super::{Stopper, StreamInput};

/// Starts an input, or says why it cannot.
type Start = Box<dyn FnOnce() -> Result<Box<dyn StreamInput>, String> + Send>;

/// An input that is started by the first read.
pub struct LazyInput {
    start: Option<Start>,
    input: Option<Box<dyn StreamInput>>,
    /// Where starting failed: the source's own words.
    failed: Option<String>,
    stopper: Arc<OnceLock<Stopper>>,
}

impl LazyInput {
    /// An input that `start` gives.
    pub fn new(
        start: impl FnOnce() -> Result<Box<dyn StreamInput>, String> + Send + 'static,
    ) -> Self {
        Self { start: Some(Box::new(start)), input: None, failed: None, stopper: Arc::default() }
    }
}

impl StreamInput for LazyInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(start) = self.start.take() {
            match start() {
                Ok(input) => {
                    if let Some(stopper) = input.stopper() {
                        let _ = self.stopper.set(stopper);
                    }
                    self.input = Some(input);
                }
                Err(error) => self.failed = Some(error),
            }
        }
        self.input.as_mut().map_or(Ok(0), |input| input.read(buffer))
    }

    fn finish(&mut self) -> Result<(), String> {
        match (self.failed.take(), &mut self.input) {
            (Some(error), _) => Err(error),
            (None, Some(input)) => input.finish(),
            (None, None) => Err("was never read".to_owned()),
        }
    }

    fn stopper(&self) -> Option<Stopper> {
        Some(Stopper::Later(self.stopper.clone()))
    }
}
