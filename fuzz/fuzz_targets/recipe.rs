//! Hostile bytes for recipe nodes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use restow::format::recipe::Node;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(node) = Node::decode(bytes) {
        assert_eq!(node.encode(), bytes);
    }
});
