//! ChaCha20-Poly1305 (RFC 8439) over whole buffers, with counters as nonces.
//!
//! Every key here belongs to one object (see `envelope`), so a counter can never repeat under it.

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag};
use zeroize::Zeroizing;

use super::CryptoError;

/// Bytes that sealing adds.
pub const TAG_LEN: usize = 16;

/// The cipher of one object.
pub struct ObjectCipher(ChaCha20Poly1305);

impl ObjectCipher {
    /// A cipher under `key`, which must never be used for another object.
    pub fn new(key: &Zeroizing<[u8; 32]>) -> Self {
        Self(ChaCha20Poly1305::new((&**key).into()))
    }

    /// Appends ciphertext and tag of `plain` to `out`.
    pub fn seal_into(&self, counter: u64, associated: &[u8], plain: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(plain);
        let tag = self
            .0
            .encrypt_inout_detached(&nonce(counter), associated, (&mut out[start..]).into())
            .expect("objects are far below the cipher's 256 GiB limit");
        out.extend_from_slice(&tag);
    }

    /// Decrypts `sealed` in place and returns its plain bytes; on failure nothing was decrypted.
    pub fn open_in_place<'a>(
        &self,
        counter: u64,
        associated: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], CryptoError> {
        let split = sealed.len().checked_sub(TAG_LEN).ok_or(CryptoError::Malformed("too short"))?;
        let (text, tag) = sealed.split_at_mut(split);
        let tag: [u8; TAG_LEN] = (&*tag).try_into().expect("split at the tag's length");
        self.0
            .decrypt_inout_detached(
                &nonce(counter),
                associated,
                (&mut *text).into(),
                &Tag::from(tag),
            )
            .map_err(|_| CryptoError::NotAuthentic)?;
        Ok(text)
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&counter.to_le_bytes());
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher() -> ObjectCipher {
        ObjectCipher::new(&Zeroizing::new([3; 32]))
    }

    #[test]
    fn round_trips_and_binds_counter_and_associated_data() {
        let mut sealed = Vec::new();
        cipher().seal_into(5, b"context", b"secret", &mut sealed);
        assert_eq!(sealed.len(), 6 + TAG_LEN);
        let opened = cipher().open_in_place(5, b"context", &mut sealed.clone()).map(|b| b.to_vec());
        assert_eq!(opened.unwrap(), b"secret");
        assert!(cipher().open_in_place(6, b"context", &mut sealed.clone()).is_err());
        assert!(cipher().open_in_place(5, b"other", &mut sealed.clone()).is_err());
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let mut sealed = Vec::new();
        cipher().seal_into(0, b"", b"secret", &mut sealed);
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert_eq!(cipher().open_in_place(0, b"", &mut bad), Err(CryptoError::NotAuthentic));
        }
        assert!(cipher().open_in_place(0, b"", &mut [0; 5]).is_err());
    }
}
