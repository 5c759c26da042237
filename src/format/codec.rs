//! The few primitives that binary objects are made of: fixed bytes, LEB128 numbers, counted lists.

use super::FormatError;

/// Appends primitives to a buffer.
#[derive(Default)]
pub struct Encoder(Vec<u8>);

impl Encoder {
    /// The encoded bytes.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    /// Bytes of a length that the reader knows.
    pub fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// One byte.
    pub fn byte(&mut self, byte: u8) -> &mut Self {
        self.0.push(byte);
        self
    }

    /// An unsigned number as LEB128: seven bits a byte, low bits first, 1 to 10 bytes.
    pub fn number(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    /// A count, then the bytes.
    pub fn counted(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64).fixed(bytes)
    }
}

/// Reads primitives from a buffer.
pub struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    /// A reader of all of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Succeeds when everything was read.
    pub fn finish(self) -> Result<(), FormatError> {
        match self.0.len() {
            0 => Ok(()),
            more => Err(FormatError::TrailingBytes(more)),
        }
    }

    /// What was not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// The next `N` bytes.
    pub fn fixed<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], FormatError> {
        let (head, tail) = self.0.split_first_chunk().ok_or(FormatError::Truncated(what))?;
        self.0 = tail;
        Ok(*head)
    }

    /// The next byte.
    pub fn byte(&mut self, what: &'static str) -> Result<u8, FormatError> {
        self.fixed::<1>(what).map(|[byte]| byte)
    }

    /// A LEB128 number in its shortest form.
    pub fn number(&mut self, what: &'static str) -> Result<u64, FormatError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(FormatError::Invalid(what));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                let shortest = byte != 0 || shift == 0;
                return if shortest { Ok(value) } else { Err(FormatError::Invalid(what)) };
            }
        }
        Err(FormatError::Invalid(what))
    }

    /// A number of at most `limit`.
    pub fn bounded(&mut self, limit: u64, what: &'static str) -> Result<u64, FormatError> {
        let value = self.number(what)?;
        if value <= limit { Ok(value) } else { Err(FormatError::Invalid(what)) }
    }

    /// A count of items of at least `item_len` bytes each, which therefore fits what is left.
    pub fn count(&mut self, item_len: usize, what: &'static str) -> Result<usize, FormatError> {
        let count = self.number(what)?;
        if count > (self.0.len() / item_len.max(1)) as u64 {
            return Err(FormatError::Truncated(what));
        }
        Ok(count as usize)
    }

    /// Counted bytes.
    pub fn counted(&mut self, what: &'static str) -> Result<&'a [u8], FormatError> {
        let count = self.count(1, what)?;
        let (head, tail) = self.0.split_at(count);
        self.0 = tail;
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn long_and_overlong_numbers_are_refused() {
        assert!(Decoder::new(&[0x80, 0x00]).number("n").is_err());
        assert!(Decoder::new(&[0xff; 10]).number("n").is_err());
        assert!(Decoder::new(&[0x80]).number("n").is_err());
        assert!(Decoder::new(&[5, 1]).counted("bytes").is_err());
    }

    proptest! {
        #[test]
        fn numbers_round_trip(value: u64) {
            let mut encoder = Encoder::default();
            encoder.number(value);
            let bytes = encoder.finish();
            let mut decoder = Decoder::new(&bytes);
            prop_assert_eq!(decoder.number("n").unwrap(), value);
            decoder.finish().unwrap();
        }

        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let mut decoder = Decoder::new(&bytes);
            while decoder.counted("bytes").is_ok() && !decoder.rest().is_empty() {}
        }
    }
}
