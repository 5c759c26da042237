//! Finds the plan of a decoded segment and proves it: the plan is read back from its bytes and rebuilds the
//! segment bit by bit, or there is none.

use super::bits::RawBits;
use super::inflate::{Segment, Token};
use super::matcher::{Family, Matcher, Settings};
use super::plan::{Checked, Guided, Plan, Shape, Text, write};

/// Tokens that tell the level of a stream.
const PROBE_TOKENS: usize = 48 << 10;
/// A level is taken at once if it is wrong about no more than one token in so many.
const GOOD: usize = 1000;
/// Nothing fits if every level is wrong about one token in so many.
const HOPELESS: usize = 5;
/// Levels in the order they are tried: the usual ones first.
const LEVELS: [u8; 9] = [6, 9, 1, 5, 4, 7, 8, 3, 2];
/// A plan must be this many times smaller than the bits it stands for.
const WORTH: usize = 4;

/// A proven plan.
pub(super) struct Sealed {
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// Tokens the matcher got wrong.
    pub(super) exceptions: usize,
}

/// Chooses the settings for a stream by its first segment (or a later one); none if all are wrong too often.
/// `last` is what fitted the stream before.
pub(super) fn choose(segment: &Segment, last: Option<Settings>) -> Option<Settings> {
    let tokens = segment.tokens.len().min(PROBE_TOKENS);
    let families = [Family::Zlib, Family::ZlibNg, Family::ZlibWide];
    let all = families
        .iter()
        .flat_map(|family| LEVELS.iter().map(|level| Settings { level: *level, family: *family }));
    let mut best: Option<(usize, Settings)> = None;
    for settings in last.into_iter().chain(all) {
        let most = best.map_or(tokens / HOPELESS + 1, |(wrong, _)| wrong);
        let wrong = exceptions(segment, settings, tokens, most);
        if wrong * GOOD <= tokens {
            return Some(settings);
        }
        if wrong < most {
            best = Some((wrong, settings));
        }
    }
    best.map(|(_, settings)| settings)
}

/// How often a level is wrong about the first tokens; counts up to `most`.
fn exceptions(segment: &Segment, settings: Settings, tokens: usize, most: usize) -> usize {
    let mut matcher = Matcher::new(settings, &segment.text, segment.before);
    let mut checked = Checked::new(&mut matcher, &segment.tokens[..tokens], most);
    // The tokens end early, so that nothing is written; only the count matters.
    write(shape(segment), text(segment), &mut checked);
    checked.exceptions.len()
}

fn shape(segment: &Segment) -> Shape<'_> {
    let RawBits { start, bits, .. } = segment.raw;
    Shape { start, bits, padded: segment.padded, parts: &segment.parts }
}

fn text(segment: &Segment) -> Text<'_> {
    Text { bytes: &segment.text, before: segment.before, body: segment.body }
}

fn plan(segment: &Segment, settings: Settings, exceptions: Vec<(u64, Token)>) -> Plan {
    Plan {
        start: segment.raw.start,
        begins: segment.begins,
        padded: segment.padded,
        bits: segment.raw.bits,
        tail: segment.text[segment.before + segment.body..].to_vec(),
        parts: segment.parts.clone(),
        settings,
        exceptions,
    }
}

/// Plans a segment with a matcher, which is where the segment begins and ends where it ends.
pub(super) fn seal(segment: &Segment, matcher: &mut Matcher) -> Option<Sealed> {
    let settings = matcher.settings();
    let before = settings.is_fast().then(|| matcher.clone());
    // An exception takes four bytes or more.
    let most = segment.raw.bytes.len() / WORTH / 4 + 16;
    let mut checked = Checked::new(matcher, &segment.tokens, most);
    let written = write(shape(segment), text(segment), &mut checked)?;
    let exceptions = checked.exceptions;
    let wrong = exceptions.len();
    let plan = plan(segment, settings, exceptions);
    let bytes = worthwhile(segment, plan.to_bytes())?;
    let read = Plan::from_bytes(&bytes)?;
    if read != plan || !same_bits(&segment.raw, &written) {
        return None;
    }
    if wrong > 0 {
        // With exceptions, what was written took them from the segment, not from the plan: once more from there.
        let fresh = || Matcher::new(settings, &segment.text, segment.before);
        let mut matcher = before.unwrap_or_else(fresh);
        let again =
            write(shape(segment), text(segment), &mut Guided::new(&mut matcher, &read.exceptions));
        if again.as_ref() != Some(&written) {
            return None;
        }
    }
    Some(Sealed { bytes, exceptions: wrong })
}

/// Small streams may have plans as large as they are: their text is still what deduplicates.
fn worthwhile(segment: &Segment, bytes: Vec<u8>) -> Option<Vec<u8>> {
    (bytes.len() <= segment.raw.bytes.len() / WORTH + 512).then_some(bytes)
}

/// Compares bits that were written alone with those that came.
fn same_bits(raw: &RawBits, written: &[u8]) -> bool {
    let mut came = raw.bytes.clone();
    if let Some(first) = came.first_mut() {
        *first &= 0xff << raw.start;
    }
    let used = (u64::from(raw.start) + raw.bits) % 8;
    if let Some(last) = came.last_mut()
        && used > 0
    {
        *last &= (1 << used) - 1;
    }
    came == written
}
