//! Recovery kits: a key slot's secret as something that can be printed, typed and scanned.
//!
//! The secret is 32 random bytes in Crockford's base32 in groups of four, with 20 bits of BLAKE3 behind
//! them so that a slip in typing is noticed; the slot follows, for the case that `keys/` is lost too.

use data_encoding::{BASE64, Encoding, Specification};
use zeroize::Zeroizing;

use super::CryptoError;

/// Begins a secret.
const SECRET: &str = "RESTOW1-";
/// Begins a line of the slot.
const SLOT: &str = "slot: ";
const GROUP: usize = 4;
const SLOT_LINE: usize = 72;
/// Characters of the check behind the secret.
const CHECK_LEN: usize = 4;

/// Crockford's alphabet: no letter looks like a digit, and what is read as one counts as one.
fn base32() -> Encoding {
    let mut spec = Specification::new();
    spec.symbols.push_str("0123456789ABCDEFGHJKMNPQRSTVWXYZ");
    spec.translate.from.push_str("abcdefghjkmnpqrstvwxyzOoIiLl");
    spec.translate.to.push_str("ABCDEFGHJKMNPQRSTVWXYZ001111");
    spec.check_trailing_bits = false;
    spec.encoding().expect("32 letters")
}

fn check(secret: &[u8]) -> String {
    let hash = blake3::derive_key("restow 2026-11 recovery kit check", secret);
    base32().encode(&hash[..3])[..CHECK_LEN].to_owned()
}

/// The secret as one line of text.
pub fn encode_secret(secret: &[u8; 32]) -> Zeroizing<String> {
    let letters = Zeroizing::new(base32().encode(secret) + &check(secret));
    let mut line = Zeroizing::new(SECRET.to_owned());
    for (number, letter) in letters.chars().enumerate() {
        if number > 0 && number % GROUP == 0 {
            line.push('-');
        }
        line.push(letter);
    }
    line
}

/// The secret in the text of a kit, or in what somebody typed of it. `None` where there is none.
pub fn find_secret(text: &str) -> Option<Result<Zeroizing<[u8; 32]>, CryptoError>> {
    let upper = Zeroizing::new(text.to_ascii_uppercase());
    let start = upper.find(SECRET)? + SECRET.len();
    let wanted = base32().encode_len(32) + CHECK_LEN;
    let letters: Zeroizing<String> = Zeroizing::new(
        upper[start..].chars().filter(|c| !c.is_whitespace() && *c != '-').take(wanted).collect(),
    );
    Some(decode_secret(&letters))
}

fn decode_secret(letters: &str) -> Result<Zeroizing<[u8; 32]>, CryptoError> {
    let slip = CryptoError::Malformed("recovery kit: letters are missing or mistyped");
    let length = base32().encode_len(32);
    let Some((secret, rest)) = letters.split_at_checked(length) else { return Err(slip) };
    let bytes = Zeroizing::new(base32().decode(secret.as_bytes()).map_err(|_| slip.clone())?);
    let found: [u8; 32] = bytes[..].try_into().map_err(|_| slip.clone())?;
    let typed = rest.get(..CHECK_LEN).ok_or(slip.clone())?;
    // The check is compared as it would be printed.
    let normal = |text: &str| text.replace('O', "0").replace(['I', 'L'], "1");
    if normal(typed) != check(&found) || base32().encode(&found) != normal(secret) {
        return Err(slip);
    }
    Ok(Zeroizing::new(found))
}

/// The slot as lines of text.
pub fn encode_slot(slot: &[u8]) -> String {
    let text = BASE64.encode(slot);
    let lines = text
        .as_bytes()
        .chunks(SLOT_LINE)
        .map(|line| format!("{SLOT}{}\n", std::str::from_utf8(line).expect("base64 is ASCII")));
    lines.collect()
}

/// The slot in the text of a kit.
pub fn find_slot(text: &str) -> Result<Vec<u8>, CryptoError> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix(SLOT.trim_end()));
    let letters: String = lines.flat_map(str::split_whitespace).collect();
    if letters.is_empty() {
        return Err(CryptoError::Malformed("recovery kit: it holds no slot"));
    }
    BASE64
        .decode(letters.as_bytes())
        .map_err(|_| CryptoError::Malformed("recovery kit: the slot is incomplete or mistyped"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(text: &str) -> Result<Zeroizing<[u8; 32]>, CryptoError> {
        find_secret(text).expect("there is a secret")
    }

    proptest! {
        #[test]
        fn secrets_and_slots_come_back(secret: [u8; 32], slot in prop::collection::vec(any::<u8>(), 1..900)) {
            let text = format!("# kit\n\n{}\n\n{}", &*encode_secret(&secret), encode_slot(&slot));
            prop_assert_eq!(&*found(&text).unwrap(), &secret);
            prop_assert_eq!(find_slot(&text).unwrap(), slot);
        }

        #[test]
        fn hostile_text_never_panics(text: String) {
            let _ = find_secret(&format!("RESTOW1-{text}"));
            let _ = find_slot(&format!("slot: {text}"));
        }
    }

    #[test]
    fn it_can_be_typed_as_people_type() {
        let line = encode_secret(&[0x5a; 32]);
        let typed =
            line.to_lowercase().replace('1', "l").replace('0', "o").replace("restowl", "restow1");
        assert_eq!(&*found(&typed).unwrap(), &[0x5a; 32]);
        assert_eq!(
            &*found(&line.replace('-', " ").replacen("RESTOW1 ", "RESTOW1-", 1)).unwrap(),
            &[0x5a; 32]
        );
    }

    #[test]
    fn every_slip_is_noticed() {
        let line = encode_secret(&[0x5a; 32]);
        for at in SECRET.len()..line.len() {
            let mut typed = line.to_string().into_bytes();
            if typed[at] == b'-' {
                continue;
            }
            typed[at] = if typed[at] == b'7' { b'8' } else { b'7' };
            assert!(found(std::str::from_utf8(&typed).unwrap()).is_err(), "{at}");
            assert!(found(&line[..at]).is_err());
        }
        assert!(find_secret("nothing here").is_none());
    }
}
