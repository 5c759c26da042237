//! The stages of a backup one after the other, for tests that replay a history: the same input, time and
//! randomness make the same calls to the store in the same order. All that is between two stages is
//! in memory, so this is not for real backups.

use crossbeam_channel::unbounded;

use super::pipeline::{BUFFERS, FilesWithParent, Finished, Shared, Streams, finish};
use super::{encode, stream, walk};
use crate::error::Result;

impl Shared<'_> {
    /// What [`Shared::store`] does, each stage when the one before it has ended.
    pub(super) fn store_in_order(
        &self,
        streams: Streams,
        files: Option<FilesWithParent<'_>>,
    ) -> Result<Finished> {
        let (work, queue) = unbounded();
        let plan = |(source, parent)| stream::plan(self, source, parent, work.clone(), BUFFERS);
        let planned: Vec<_> = streams.sources.into_iter().map(plan).collect();
        let planned = self.close(planned, streams.closing, work.clone());
        let walked =
            files.map(|(source, parent)| walk::plan(self, source, parent, work.clone(), 1));
        drop(work);
        let encoded = vec![encode::encode_all(self, queue)];
        let closed = self.writer.close();
        self.writer.store_packs();
        finish(planned, walked, encoded, closed)
    }
}
