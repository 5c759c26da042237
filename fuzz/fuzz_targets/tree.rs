//! Hostile bytes for nodes of trees: what decodes holds names that lead nowhere else, in order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use restow::format::entry::is_name;
use restow::format::tree::TreeNode;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(TreeNode::Leaf(entries)) = TreeNode::decode(bytes) {
        assert!(entries.is_sorted_by(|a, b| a.name < b.name));
        assert!(entries.iter().all(|entry| is_name(&entry.name)));
    }
});
