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

impl<N: Clone + PartialEq> Nodes<N> {
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
    /// which have one identity, share a number. Where the name stands for something else than
    /// before, it has another number: the kernel must not take what it holds for it.
    pub fn number_of(
        &mut self,
        parent: u64,
        name: &[u8],
        identity: Option<Identity>,
        node: N,
    ) -> u64 {
        let key = (parent, name.to_vec());
        let known = self.by_name.get(&key).copied();
        let known = known.filter(|number| self.get(*number).is_some_and(|known| known == node));
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
        if self.by_name.insert(key.clone(), number) != Some(number) {
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
            if self.by_name.get(name) == Some(&number) {
                self.by_name.remove(name);
            }
        }
        if let Some(identity) = &known.identity {
            self.by_identity.remove(identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_stands_for_something_else_has_another_number() {
        let mut nodes = Nodes::new("root");
        let old = nodes.number_of(ROOT, b"latest", None, "monday");
        assert_eq!(nodes.number_of(ROOT, b"latest", None, "monday"), old);
        let new = nodes.number_of(ROOT, b"latest", None, "tuesday");
        assert_ne!(new, old);
        assert_eq!((nodes.get(old), nodes.get(new)), (Some("monday"), Some("tuesday")));
        nodes.forget(old, 2);
        assert_eq!(nodes.get(old), None);
        assert_eq!(nodes.number_of(ROOT, b"latest", None, "tuesday"), new);
        nodes.forget(new, 2);
        assert!(nodes.by_name.is_empty() && nodes.by_number.len() == 1);
    }
}
