//! Numbers for nodes, as long as the kernel holds on to them.

use std::collections::HashMap;

use crate::id::ObjectName;

/// The number of the root.
pub const ROOT: u64 = 1;

/// Snapshot, device and inode number of a file with several names.
pub type Identity = (ObjectName, u64, u64);

struct Known<N> {
    node: N,
    /// Where it is looked up: several places for a file with several names.
    names: Vec<(u64, Vec<u8>)>,
    identity: Option<Identity>,
    /// How often the kernel was told of it and has not forgotten it.
    lookups: u64,
}

/// All nodes that the kernel knows.
pub struct Nodes<N> {
    by_number: HashMap<u64, Known<N>>,
    by_name: HashMap<(u64, Vec<u8>), u64>,
    by_identity: HashMap<Identity, u64>,
    next: u64,
}

impl<N: Clone> Nodes<N> {
    /// The root alone.
    pub fn new(root: N) -> Self {
        let root = Known { node: root, names: Vec::new(), identity: None, lookups: 1 };
        Self {
            by_number: HashMap::from([(ROOT, root)]),
            by_name: HashMap::new(),
            by_identity: HashMap::new(),
            next: ROOT + 1,
        }
    }

    /// The node of a number.
    pub fn get(&self, number: u64) -> Option<N> {
        self.by_number.get(&number).map(|known| known.node.clone())
    }

    /// The number of a child, which the kernel holds once more from here on. Names of one file,
    /// which have one identity, share a number.
    pub fn number_of(
        &mut self,
        parent: u64,
        name: &[u8],
        identity: Option<Identity>,
        node: N,
    ) -> u64 {
        let key = (parent, name.to_vec());
        let known = self.by_name.get(&key).copied();
        let number = known.or_else(|| self.by_identity.get(identity.as_ref()?).copied());
        let number = number.unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        let names = Vec::new();
        let known = self.by_number.entry(number).or_insert_with(|| Known {
            node,
            names,
            identity,
            lookups: 0,
        });
        known.lookups += 1;
        if self.by_name.insert(key.clone(), number).is_none() {
            known.names.push(key);
        }
        if let Some(identity) = known.identity {
            self.by_identity.insert(identity, number);
        }
        number
    }

    /// The kernel gave back so many references.
    pub fn forget(&mut self, number: u64, count: u64) {
        let Some(known) = self.by_number.get_mut(&number) else { return };
        known.lookups = known.lookups.saturating_sub(count);
        if known.lookups > 0 || number == ROOT {
            return;
        }
        let Some(known) = self.by_number.remove(&number) else { return };
        for name in &known.names {
            self.by_name.remove(name);
        }
        if let Some(identity) = &known.identity {
            self.by_identity.remove(identity);
        }
    }
}
