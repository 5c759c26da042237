//! The match finder of zlib's deflate (and of GNU gzip, which shares it): given the text and the tokens so far,
//! which token comes next at a compression level. Written from the behaviour of zlib 1.x (`deflate_fast`,
//! `deflate_slow`, `longest_match`, the level table), which has not changed since 1995 for levels 1 to 9. That of
//! zlib-ng 2 is close: a hash of four bytes, no lazy search below level 7. What else it does (`deflate_medium`
//! moves a match back now and then) comes out as exceptions.
//!
//! A prediction may be wrong; then the caller tells the right token and the matcher goes on from there. What it
//! predicts is part of the recipe format: it must never change.

use super::inflate::Token;

const MIN_MATCH: usize = 3;
const MAX_MATCH: usize = 258;
/// zlib keeps this much text ahead, and never looks further back than the window less it.
pub(super) const LOOKAHEAD: usize = MAX_MATCH + MIN_MATCH + 1;
const MAX_DISTANCE: u32 = (32 << 10) - LOOKAHEAD as u32;
const TOO_FAR: u32 = 4096;
const WINDOW_MASK: usize = (32 << 10) - 1;
/// A matcher that is carried from segment to segment starts its numbers anew here.
const ORIGIN_MAX: u32 = 1 << 30;

/// A family of compressors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// zlib with the default hash of 15 bits (memLevel 8), and gzip.
    Zlib,
    /// zlib with a hash of 16 bits (memLevel 9).
    ZlibWide,
    /// zlib-ng.
    ZlibNg,
}

/// A compressor's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    /// 1 to 9.
    pub(super) level: u8,
    /// Whose level it is.
    pub(super) family: Family,
}

impl Settings {
    /// Low levels skip the inside of matches, so that what they find depends on all tokens before.
    pub(super) fn is_fast(self) -> bool {
        self.level <= if self.family == Family::ZlibNg { 2 } else { 3 }
    }

    /// Whether it looks for a longer match one byte on.
    fn is_lazy(self) -> bool {
        self.level >= if self.family == Family::ZlibNg { 7 } else { 4 }
    }

    /// Good length, lazy length (in fast levels the longest match whose inside is not skipped), nice length,
    /// chain length: the configuration tables of zlib and zlib-ng.
    fn limits(self) -> (usize, usize, usize, u32) {
        match (self.family, self.level) {
            (Family::ZlibNg, 0..=1) => (4, 0, 258, 1),
            (Family::ZlibNg, 2) => (4, 4, 8, 4),
            (Family::ZlibNg, 3) => (4, 6, 16, 6),
            (Family::ZlibNg, 4) => (4, 12, 32, 24),
            (_, 0..=1) => (4, 4, 8, 4),
            (_, 2) => (4, 5, 16, 8),
            (_, 3) => (4, 6, 32, 32),
            (_, 4) => (4, 4, 16, 16),
            (_, 5) => (8, 16, 32, 32),
            (_, 6) => (8, 16, 128, 128),
            (_, 7) => (8, 32, 128, 256),
            (_, 8) => (32, 128, 258, 1024),
            _ => (32, 258, 258, 4096),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Match {
    length: usize,
    distance: u32,
}

const NO_MATCH: Match = Match { length: MIN_MATCH - 1, distance: 0 };

/// Hash chains over a text. Places are kept as index plus `origin`; 0 is no place.
#[derive(Clone)]
pub(super) struct Matcher {
    settings: Settings,
    good: usize,
    lazy: usize,
    nice: usize,
    chain: u32,
    head: Vec<u32>,
    prev: Vec<u32>,
    origin: u32,
    /// All places before this index are in the chains, or never will be.
    inserted: usize,
    /// A match already sought at the place after a literal.
    pending: Option<(usize, Match)>,
}

impl Matcher {
    /// A matcher for a segment whose first `before` bytes of text were passed already. At the beginning of a
    /// stream (`before` 0) the first byte is never matched, as in zlib.
    pub(super) fn new(settings: Settings, text: &[u8], before: usize) -> Self {
        let (good, lazy, nice, chain) = settings.limits();
        let head = vec![0; 1 << if settings.family == Family::Zlib { 15 } else { 16 }];
        let origin = u32::from(before > 0);
        let prev = vec![0; WINDOW_MASK + 1];
        let (inserted, pending) = (0, None);
        let mut matcher =
            Matcher { settings, good, lazy, nice, chain, head, prev, origin, inserted, pending };
        matcher.insert_to(text, before);
        matcher
    }

    /// Goes on to the next segment of the stream, whose text begins `moved` bytes later.
    pub(super) fn carry(&mut self, moved: usize) {
        self.origin = self.origin.saturating_add(u32::try_from(moved).unwrap_or(u32::MAX));
        self.inserted = self.inserted.saturating_sub(moved);
        self.pending = None;
        if self.origin > ORIGIN_MAX {
            // A multiple of the window, so that places keep their index in `prev`.
            let back = (self.origin - 1) & !(WINDOW_MASK as u32);
            self.origin -= back;
            for place in self.head.iter_mut().chain(&mut self.prev) {
                *place = place.saturating_sub(back);
            }
        }
    }

    /// The settings.
    pub(super) fn settings(&self) -> Settings {
        self.settings
    }

    /// The token at `at`, to which [`Matcher::accept`] brought it.
    #[inline]
    pub(super) fn predict(&mut self, text: &[u8], at: usize) -> Token {
        let pending = self.pending.take().filter(|(place, _)| *place == at);
        let found = match pending {
            Some((_, found)) => found,
            None => self.find(text, at, NO_MATCH),
        };
        let ng = self.settings.family == Family::ZlibNg;
        if found.length < MIN_MATCH + usize::from(ng) {
            return Token::LITERAL;
        }
        if self.settings.is_lazy() && found.length < self.lazy {
            self.insert_to(text, at + 1);
            let later = self.find(text, at + 1, found);
            if later.length > found.length {
                self.pending = Some((at + 1, later));
                return Token::LITERAL;
            }
        }
        Token::matching(found.length as u32, found.distance)
    }

    /// Goes past the token that is at `at`.
    #[inline]
    pub(super) fn accept(&mut self, text: &[u8], at: usize, token: Token) {
        let end = at + token.span();
        if self.settings.is_fast() && token.span() > self.lazy {
            self.insert_to(text, at + 1);
            self.inserted = self.inserted.max(end);
        } else {
            self.insert_to(text, end);
        }
    }

    /// Goes past text that was stored: it is in the chains, but no token.
    pub(super) fn pass(&mut self, text: &[u8], to: usize) {
        self.insert_to(text, to);
    }

    /// The hash of the text at `at`; none too near to the end.
    #[inline]
    fn hash(&self, text: &[u8], at: usize) -> Option<usize> {
        if self.settings.family == Family::ZlibNg {
            let word: [u8; 4] = text.get(at..at + 4)?.try_into().ok()?;
            return Some((u32::from_le_bytes(word).wrapping_mul(2_654_435_761) >> 16) as usize);
        }
        let &[a, b, c] = text.get(at..at + MIN_MATCH)? else { return None };
        let [a, b, c] = [a, b, c].map(usize::from);
        Some(match self.settings.family {
            Family::Zlib => (a << 10 ^ b << 5 ^ c) & 0x7fff,
            Family::ZlibWide | Family::ZlibNg => (a << 12 ^ b << 6 ^ c) & 0xffff,
        })
    }

    #[inline]
    fn insert_to(&mut self, text: &[u8], to: usize) {
        for at in self.inserted..to {
            let Some(hash) = self.hash(text, at) else { break };
            let place = at as u32 + self.origin;
            self.prev[place as usize & WINDOW_MASK] = self.head[hash];
            self.head[hash] = place;
        }
        self.inserted = self.inserted.max(to);
    }

    /// The best match at `at` if it is longer than `than`.
    fn find(&self, text: &[u8], at: usize, than: Match) -> Match {
        let Some(hash) = self.hash(text, at) else { return NO_MATCH };
        let place = at as u32 + self.origin;
        let first = self.head[hash];
        if first == 0 || place.wrapping_sub(first) > MAX_DISTANCE {
            return NO_MATCH;
        }
        let found = self.longest(text, at, first, than.length);
        let far = found.length == MIN_MATCH && found.distance > TOO_FAR;
        if far && self.settings.is_lazy() { NO_MATCH } else { found }
    }

    fn longest(&self, text: &[u8], at: usize, first: u32, than: usize) -> Match {
        let longest = (text.len() - at).min(MAX_MATCH);
        let nice = self.nice.min(longest);
        let place = at as u32 + self.origin;
        let limit = place.saturating_sub(MAX_DISTANCE);
        let mut chain = if than >= self.good { self.chain >> 2 } else { self.chain };
        let mut best = Match { length: than, distance: 0 };
        if than >= longest {
            return best;
        }
        let scan = &text[at..at + longest];
        let mut end = [scan[than - 1], scan[than]];
        let mut start = [scan[0], scan[1]];
        let mut candidate = first;
        while let Some(index) = candidate.checked_sub(self.origin).map(|i| i as usize) {
            let tail = index + best.length - 1;
            if text.get(tail..tail + 2) == Some(&end) && text.get(index..index + 2) == Some(&start)
            {
                let length = common(scan, &text[index..]);
                if length > best.length {
                    best = Match { length, distance: place - candidate };
                    if length >= nice {
                        break;
                    }
                    end = [scan[length - 1], scan[length]];
                    start = [scan[0], scan[1]];
                }
            }
            candidate = self.prev[candidate as usize & WINDOW_MASK];
            chain -= 1;
            if candidate <= limit || chain == 0 {
                break;
            }
        }
        best
    }
}

/// How many bytes two texts have in common, at most all of `a`.
#[inline]
fn common(a: &[u8], b: &[u8]) -> usize {
    let b = &b[..a.len().min(b.len())];
    let mut n = 0;
    for (x, y) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        let x = u64::from_le_bytes(x.try_into().expect("a chunk of 8"));
        let y = u64::from_le_bytes(y.try_into().expect("a chunk of 8"));
        if x != y {
            return n + ((x ^ y).trailing_zeros() / 8) as usize;
        }
        n += 8;
    }
    n + a[n..].iter().zip(&b[n..]).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens are part of the format: a recipe names only the places where they differ.
    #[test]
    fn tokens_of_every_level_stay_as_they_are() {
        let mut text = Vec::new();
        for i in 0..20_000u32 {
            let noise = i.wrapping_mul(0x9e37_79b1) >> 20;
            text.extend_from_slice(format!("{i}\tname {noise}\t{:x}\n", noise * noise).as_bytes());
        }
        let digest = |level, family| {
            let mut matcher = Matcher::new(Settings { level, family }, &text, 0);
            let (mut at, mut hasher) = (0, blake3::Hasher::new());
            while at < text.len() {
                let token = matcher.predict(&text, at);
                matcher.accept(&text, at, token);
                hasher.update(&token.length().to_le_bytes());
                hasher.update(&token.distance().to_le_bytes());
                at += token.span();
            }
            hasher.finalize().to_hex()[..8].to_owned()
        };
        let digests: Vec<_> = (1..=9).map(|level| digest(level, Family::Zlib)).collect();
        let wanted =
            "bf9fb273 54f7cbcc 7733bdcf 782cc143 ea6fcc96 d22c3fa2 19663848 e4b4ff65 e4b4ff65";
        assert_eq!(digests.join(" "), wanted);
        assert_eq!(digest(6, Family::ZlibWide), "d22c3fa2");
        let digests: Vec<_> = (1..=9).map(|level| digest(level, Family::ZlibNg)).collect();
        let wanted =
            "a44ce14d 34738496 3eb02a04 0970c94c b619aac1 7c83f006 28e99666 dc97f52e c0bdea6c";
        assert_eq!(digests.join(" "), wanted);
    }

    #[test]
    fn a_carried_matcher_finds_what_one_over_all_finds() {
        let text: Vec<u8> = (0..400_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8 & 15).collect();
        let settings = Settings { level: 3, family: Family::Zlib };
        let tokens = |matcher: &mut Matcher, text: &[u8], mut at: usize, end: usize| {
            let mut tokens = Vec::new();
            while at < end {
                let token = matcher.predict(text, at);
                matcher.accept(text, at, token);
                tokens.push(token);
                at += token.span();
            }
            (tokens, at)
        };
        let (whole, _) = tokens(&mut Matcher::new(settings, &text, 0), &text, 0, text.len());
        let mut matcher = Matcher::new(settings, &text, 0);
        let (mut parts, mut at, mut base) = (Vec::new(), 0, 0);
        while at < text.len() {
            let end = (at + 100_000).min(text.len()) - base;
            let (part, passed) = tokens(&mut matcher, &text[base..], at - base, end);
            parts.extend(part);
            at = base + passed;
            let next = at.saturating_sub(32 << 10);
            matcher.carry(next - base);
            base = next;
            // As after a GiB: the next carry starts the numbers anew.
            let far = ORIGIN_MAX;
            matcher.origin += far;
            for place in matcher.head.iter_mut().chain(&mut matcher.prev).filter(|p| **p > 0) {
                *place += far;
            }
        }
        assert!(parts == whole);
    }
}
