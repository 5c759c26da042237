//! Hashes of definitions that do not depend on the order they stand in.

/// The hash of one definition.
pub(super) type Part = [u8; 32];

/// Hashes one definition: its kind, name and text; where one ends and the next begins counts.
pub(super) fn part(texts: &[&str]) -> Part {
    let mut hasher = blake3::Hasher::new();
    for text in texts {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Hashes definitions, whatever their order, to hex.
pub(super) fn hash(mut parts: Vec<Part>) -> String {
    parts.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&part);
    }
    hex::encode(hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_count_and_borders_do() {
        let (a, b) = (part(&["TABLE", "x"]), part(&["INDEX", "y"]));
        assert_eq!(hash(vec![a, b]), hash(vec![b, a]));
        assert_ne!(hash(vec![a, b]), hash(vec![a]));
        assert_ne!(part(&["ab", "c"]), part(&["a", "bc"]));
    }
}
