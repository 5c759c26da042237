//! Compression of single chunks with zstd (RFC 8878), alone or as a difference to older bytes.
//!
//! A delta is a zstd frame whose matches may reach back into a prefix that the reader must supply:
//! what `zstd --patch-from` does, per chunk. Decoding is bounded by the length the caller expects.

use zstd::zstd_safe::{CCtx, CParameter, DCtx, DParameter, ResetDirective};

/// How hard to try, measured in `docs/decisions/0001-chunks-and-delta.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// zstd level for chunks stored whole.
    pub plain_level: i32,
    /// zstd level of chunks and groups of chunks that come from files.
    pub file_level: i32,
    /// zstd level for deltas.
    pub delta_level: i32,
    /// log2 of the delta match table; 0 leaves the level's own.
    pub delta_hash_log: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { plain_level: 1, file_level: 3, delta_level: 3, delta_hash_log: 0 }
    }
}

/// zstd refused its input; for compressors this means that memory ran out.
#[derive(Debug, thiserror::Error)]
#[error("zstd: {0}")]
pub struct ZstdError(&'static str);

impl ZstdError {
    fn of(code: usize) -> Self {
        Self(zstd::zstd_safe::get_error_name(code))
    }
}

/// Reusable compression state; one for each thread.
pub struct Compressor {
    plain: CCtx<'static>,
    delta: CCtx<'static>,
    buffer: Vec<u8>,
}

impl Compressor {
    /// Chooses the level of [`Compressor::plain`] from here on.
    pub fn set_plain_level(&mut self, level: i32) -> Result<(), ZstdError> {
        let level = CParameter::CompressionLevel(level);
        self.plain.set_parameter(level).map_err(ZstdError::of).map(drop)
    }

    /// A compressor with these settings.
    pub fn new(settings: Settings) -> Result<Self, ZstdError> {
        let context = |level| -> Result<CCtx<'static>, ZstdError> {
            let mut context = CCtx::try_create().ok_or(ZstdError("out of memory"))?;
            for parameter in [
                CParameter::CompressionLevel(level),
                CParameter::ContentSizeFlag(false),
                CParameter::ChecksumFlag(false),
                CParameter::DictIdFlag(false),
            ] {
                context.set_parameter(parameter).map_err(ZstdError::of)?;
            }
            Ok(context)
        };
        let plain = context(settings.plain_level)?;
        let mut delta = context(settings.delta_level)?;
        if settings.delta_hash_log != 0 {
            delta
                .set_parameter(CParameter::HashLog(settings.delta_hash_log))
                .map_err(ZstdError::of)?;
        }
        Ok(Self { plain, delta, buffer: Vec::new() })
    }

    /// `bytes` as a zstd frame of its own.
    pub fn plain(&mut self, bytes: &[u8]) -> Result<Vec<u8>, ZstdError> {
        compress(&mut self.plain, &mut self.buffer, bytes)
    }

    /// `bytes` as a difference to `prefix`.
    pub fn delta(&mut self, prefix: &[u8], bytes: &[u8]) -> Result<Vec<u8>, ZstdError> {
        // The window must reach from the end of the chunk back to the start of the prefix.
        let span = (prefix.len() + bytes.len()).max(1 << 10);
        let window = usize::BITS - (span - 1).leading_zeros();
        self.delta.set_parameter(CParameter::WindowLog(window.min(27))).map_err(ZstdError::of)?;
        reference_prefix(&mut self.delta, prefix)?;
        let result = compress(&mut self.delta, &mut self.buffer, bytes);
        // A finished frame forgets its prefix by itself; a failed one must not keep it.
        self.delta.reset(ResetDirective::SessionOnly).map_err(ZstdError::of)?;
        if result.is_err() {
            reference_prefix(&mut self.delta, &[])?;
        }
        result
    }
}

/// Compresses into a buffer that is used again and again; the frame gets a vector of its own size.
/// Frames wait in packs by the thousand: with the room that zstd wants beforehand they would take
/// as much memory as the plain chunks.
fn compress(
    context: &mut CCtx<'static>,
    buffer: &mut Vec<u8>,
    bytes: &[u8],
) -> Result<Vec<u8>, ZstdError> {
    buffer.clear();
    buffer.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
    context.compress2(buffer, bytes).map_err(ZstdError::of)?;
    Ok(buffer.as_slice().to_vec())
}

/// Lets the next frame of `context` refer to `prefix`.
#[allow(unsafe_code)]
fn reference_prefix(context: &mut CCtx<'static>, prefix: &[u8]) -> Result<(), ZstdError> {
    // SAFETY: zstd keeps the pointer for the next frame alone. The only caller compresses that frame
    // before it returns and, where that failed, replaces the pointer by one to an empty slice, so
    // zstd never reads `prefix` after the borrow ended. The alternatives that need no `unsafe` cost
    // a context (megabytes of tables) or a digested copy of the prefix for each chunk.
    let prefix: &'static [u8] = unsafe { std::mem::transmute::<&[u8], &'static [u8]>(prefix) };
    context.ref_prefix(prefix).map_err(ZstdError::of)?;
    Ok(())
}

/// Reusable decompression state; one for each thread.
pub struct Decompressor(DCtx<'static>);

impl Decompressor {
    /// A decompressor.
    pub fn new() -> Result<Self, ZstdError> {
        let mut context = DCtx::try_create().ok_or(ZstdError("out of memory"))?;
        context.set_parameter(DParameter::WindowLogMax(27)).map_err(ZstdError::of)?;
        Ok(Self(context))
    }

    /// Decodes a frame made by [`Compressor::plain`] that must give exactly `length` bytes.
    pub fn plain(&mut self, frame: &[u8], length: usize) -> Result<Vec<u8>, ZstdError> {
        self.plain_into(Vec::new(), frame, length)
    }

    /// The same into a used buffer, which is returned with the decoded bytes alone in it.
    pub fn plain_into(
        &mut self,
        mut out: Vec<u8>,
        frame: &[u8],
        length: usize,
    ) -> Result<Vec<u8>, ZstdError> {
        out.clear();
        out.reserve(length);
        let got = self.0.decompress(&mut out, frame).map_err(ZstdError::of)?;
        if got == length { Ok(out) } else { Err(ZstdError("unexpected length")) }
    }

    /// Decodes a frame made by [`Compressor::delta`] against the same `prefix`.
    pub fn delta(
        &mut self,
        prefix: &[u8],
        frame: &[u8],
        length: usize,
    ) -> Result<Vec<u8>, ZstdError> {
        self.delta_into(Vec::new(), prefix, frame, length)
    }

    /// The same into a used buffer.
    #[allow(unsafe_code)]
    pub fn delta_into(
        &mut self,
        out: Vec<u8>,
        prefix: &[u8],
        frame: &[u8],
        length: usize,
    ) -> Result<Vec<u8>, ZstdError> {
        // SAFETY: as in `reference_prefix`: the prefix is used by the next frame only, that frame is
        // decoded before this function returns, and the reset below drops the reference on failure.
        let forever: &'static [u8] = unsafe { std::mem::transmute::<&[u8], &'static [u8]>(prefix) };
        self.0.ref_prefix(forever).map_err(ZstdError::of)?;
        let result = self.plain_into(out, frame, length);
        if result.is_err() {
            self.0.reset(ResetDirective::SessionAndParameters).map_err(ZstdError::of)?;
            self.0.set_parameter(DParameter::WindowLogMax(27)).map_err(ZstdError::of)?;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn compressor() -> Compressor {
        Compressor::new(Settings::default()).unwrap()
    }

    #[test]
    fn a_small_change_costs_little() {
        let mut base = vec![0; 200_000];
        blake3::Hasher::new().finalize_xof().fill(&mut base);
        let mut changed = base.clone();
        changed[100_000] ^= 1;
        let delta = compressor().delta(&base, &changed).unwrap();
        assert!(delta.len() < 100, "{}", delta.len());
        let mut decompressor = Decompressor::new().unwrap();
        assert_eq!(decompressor.delta(&base, &delta, changed.len()).unwrap(), changed);
    }

    #[test]
    fn state_survives_failures() {
        let (mut compressor, mut decompressor) = (compressor(), Decompressor::new().unwrap());
        let frame = compressor.delta(b"base base base", b"base base base!").unwrap();
        assert!(decompressor.delta(b"base base base", &frame, 3).is_err());
        assert!(decompressor.plain(b"junk", 4).is_err());
        assert_eq!(decompressor.delta(b"base base base", &frame, 15).unwrap(), b"base base base!");
        let plain = compressor.plain(b"alone").unwrap();
        assert_eq!(decompressor.plain(&plain, 5).unwrap(), b"alone");
    }

    /// A prefix that begins like a trained dictionary is raw bytes all the same.
    #[test]
    fn prefixes_are_raw_bytes() {
        let base = [&[0x37, 0xa4, 0x30, 0xec][..], &[9; 300]].concat();
        let delta = compressor().delta(&base, &base).unwrap();
        assert_eq!(Decompressor::new().unwrap().delta(&base, &delta, base.len()).unwrap(), base);
    }

    proptest! {
        #[test]
        fn round_trips(base: Vec<u8>, bytes: Vec<u8>) {
            let (mut compressor, mut decompressor) = (compressor(), Decompressor::new().unwrap());
            let plain = compressor.plain(&bytes).unwrap();
            prop_assert_eq!(decompressor.plain(&plain, bytes.len()).unwrap(), bytes.clone());
            let delta = compressor.delta(&base, &bytes).unwrap();
            prop_assert_eq!(decompressor.delta(&base, &delta, bytes.len()).unwrap(), bytes);
        }
    }
}
