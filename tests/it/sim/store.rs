//! The store as one actor sees it.

use std::sync::Arc;

use restow::store::{ObjectInfo, Store, StoreError};

use super::world::{Operation, Reply, Sim};

/// One actor's store.
pub struct ActorStore {
    pub sim: Arc<Sim>,
    pub actor: usize,
}

impl ActorStore {
    fn run(&self, operation: Operation<'_>) -> Result<Reply, StoreError> {
        self.sim.operate(self.actor, operation)
    }

    fn bytes(&self, operation: Operation<'_>) -> Result<Vec<u8>, StoreError> {
        match self.run(operation)? {
            Reply::Bytes(bytes) => Ok(bytes),
            other => unreachable!("a read answers with bytes, not {other:?}"),
        }
    }
}

impl Store for ActorStore {
    fn put_new(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.run(Operation::Put(path, bytes)).map(drop)
    }
    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.bytes(Operation::Get(path))
    }
    fn get_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        self.bytes(Operation::GetRange(path, offset, length))
    }
    fn head(&self, path: &str) -> Result<u64, StoreError> {
        self.bytes(Operation::Head(path)).map(|bytes| bytes.len() as u64)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        match self.run(Operation::List(prefix))? {
            Reply::Listing(listing) => Ok(listing),
            other => unreachable!("a listing is asked for, not {other:?}"),
        }
    }
    fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.run(Operation::Delete(path)).map(drop)
    }
    fn location(&self) -> String {
        format!("actor {}", self.actor)
    }
}
