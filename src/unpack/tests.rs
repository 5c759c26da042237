//! Round trips over what real compressors make, damage, and recipes that were tampered with.

use std::io::{self, Read, Write};
use std::process::{Command, Stdio};

use flate2::{Compression, write::GzEncoder, write::ZlibEncoder};

use super::*;

/// A deterministic source of noise (splitmix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Rows as in a dump, `bytes` long, with some noise and some long repeats.
pub(super) fn rows(bytes: usize, seed: u64) -> Vec<u8> {
    let mut noise = Noise(seed);
    let mut out = Vec::new();
    while out.len() < bytes {
        let (id, a, b) = (out.len(), noise.next() % 5, noise.next());
        writeln!(
            out,
            "{id}\t2026-06-{:02}\tuser {a}\t{{\"ref\": \"{b:016x}\", \"n\": {}}}",
            a + 1,
            b % 997
        )
        .unwrap();
        if noise.below(500) == 0 {
            out.extend(std::iter::repeat_n(b'-', noise.below(2000)));
        }
        if noise.below(3000) == 0 {
            out.extend((0..noise.below(40_000)).map(|_| noise.next() as u8));
        }
    }
    out.truncate(bytes);
    out
}

pub(super) fn unpack(input: impl Read + Send) -> (Vec<u8>, Vec<u8>, Unpacked) {
    let mut unpacker = Unpacker::new(input);
    let (mut plain, mut recipe) = (Vec::new(), Vec::new());
    let mut buffer = vec![0; 100_000];
    loop {
        let n = unpacker.read(&mut buffer).unwrap();
        plain.extend_from_slice(&buffer[..n]);
        recipe.extend_from_slice(&unpacker.take_recipe());
        if n == 0 {
            break;
        }
    }
    let stats = unpacker.stats();
    assert_eq!(stats.plain_bytes, plain.len() as u64);
    assert_eq!(stats.recipe_bytes, recipe.len() as u64);
    (plain, recipe, stats)
}

fn repacked(plain: &[u8], recipe: &[u8]) -> Result<Vec<u8>, RepackError> {
    let mut out = Vec::new();
    repack(plain, recipe, &mut out).map(|n| {
        assert_eq!(n, out.len() as u64);
        out
    })
}

pub(super) fn assert_same(input: &[u8]) -> (Vec<u8>, Vec<u8>, Unpacked) {
    let (plain, recipe, stats) = unpack(input);
    assert_eq!(stats.input_bytes, input.len() as u64);
    assert!(repacked(&plain, &recipe).unwrap() == input, "differs");
    (plain, recipe, stats)
}

/// Asserts the round trip, that nothing was kept compressed, and the size of the recipe.
fn assert_unpacks(input: &[u8], text: &[u8], recipe_percent: usize) {
    let (plain, recipe, stats) = assert_same(input);
    assert!(plain == text, "{} plain bytes for {}", plain.len(), text.len());
    assert_eq!((stats.kept_bytes, stats.broken), (0, false));
    let most = input.len() * recipe_percent / 100 + 600;
    assert!(recipe.len() <= most, "a recipe of {} for {}", recipe.len(), input.len());
}

/// What a program makes of an input; panics where it is not installed.
fn piped(program: &str, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new(program);
    let child = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{program}");
        output.stdout
    })
}

/// zlib itself, as Python has it.
fn python_zlib(arguments: &str, input: &[u8]) -> Vec<u8> {
    let program = format!(
        "import sys,zlib; c=zlib.compressobj({arguments}); d=sys.stdin.buffer.read(); \
         sys.stdout.buffer.write(c.compress(d)+c.flush())"
    );
    piped("python3", &["-c", &program], input)
}

/// zlib-rs, whose choices are those of zlib-ng.
fn foreign_gzip(text: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn gzip_comes_back_at_every_level_with_a_small_recipe() {
    let text = rows(3 << 20, 1);
    for level in ["-1", "-2", "-3", "-4", "-5", "-6", "-7", "-8", "-9"] {
        assert_unpacks(&piped("gzip", &["-n", level], &text), &text, 1);
    }
}

#[test]
fn zlib_comes_back_at_every_level_with_a_small_recipe() {
    let text = rows(3 << 20, 2);
    for level in 1..=9 {
        assert_unpacks(&python_zlib(&format!("{level}"), &text), &text, 1);
    }
}

#[test]
fn other_parameters_of_zlib_come_back() {
    let text = rows(3 << 20, 3);
    // Level 0, memLevel 9 and 1, a window of 512 bytes, fixed codes, Huffman codes only, run lengths.
    let parameters =
        ["0", "6,8,15,9", "6,8,15,1", "6,8,9", "6,8,15,8,4", "6,8,15,8,2", "6,8,15,8,3"];
    for parameters in parameters {
        assert_same(&python_zlib(parameters, &text));
    }
    assert_unpacks(&python_zlib("6,8,15,9", &text), &text, 1);
}

#[test]
fn rsyncable_gzip_comes_back() {
    let text = rows(3 << 20, 4);
    assert_unpacks(&piped("gzip", &["-n", "--rsyncable"], &text), &text, 6);
}

#[test]
fn pigz_comes_back() {
    let text = rows(3 << 20, 5);
    for args in [&["-n", "-p", "3"][..], &["-n", "-9"], &["-n", "-1"], &["-n", "-p", "1"]] {
        assert_unpacks(&piped("pigz", args, &text), &text, 2);
    }
}

#[test]
fn other_compressors_come_back() {
    let text = rows(3 << 20, 6);
    for level in 1..=9 {
        let (plain, recipe, stats) = assert_same(&foreign_gzip(&text, level));
        // Level 9 searches in another order: it is kept compressed.
        assert!(level == 9 || stats.kept_bytes == 0, "{level}");
        assert!(level == 9 || plain == text && recipe.len() < 40_000, "{level}: {}", recipe.len());
    }
}

#[test]
fn members_one_after_the_other_come_back() {
    let text = rows(100_000, 7);
    let one = piped("gzip", &["-n"], &text);
    let two = piped("gzip", &["-1"], b"");
    assert_unpacks(&[&one[..], &two, &one].concat(), &[&text[..], &text].concat(), 3);
}

#[test]
fn empty_and_tiny_inputs_come_back() {
    for text in [&b""[..], b"a", b"abc", b"aaaaaaaaaaaaaaaa"] {
        assert_same(text);
        assert_same(&piped("gzip", &[], text));
        assert_same(&python_zlib("6", text));
        assert_same(&foreign_gzip(text, 6));
    }
    assert_same(b"\x1f\x8b\x08\x00");
    assert_same(b"PGDMP");
    assert_same(b"PGDMP\x01\x0e\x00\x04\x08\x01\x01\x01\x00\x00\x00");
}

#[test]
fn long_repeats_come_back() {
    let text = vec![0; 30 << 20];
    for level in ["-1", "-6", "-9"] {
        assert_unpacks(&piped("gzip", &["-n", level], &text), &text, 40);
    }
}

#[test]
fn what_is_not_compressed_passes_through() {
    let text = rows(3 << 20, 8);
    let (plain, recipe, stats) = assert_same(&text);
    assert!(plain == text);
    assert!(recipe.len() < 200 && stats.unpacked_bytes == 0);
    assert_eq!(Unpacker::sniff(&text), None);
    assert_eq!(Unpacker::inspect(&text), Err(Refusal::Unknown));
}

#[test]
fn truncated_inputs_come_back() {
    let gzip = piped("gzip", &["-n"], &rows(100_000, 9));
    let archive = archive(&[&rows(60_000, 10)[..], b"", &rows(5_000, 11)]);
    for input in [gzip, archive] {
        let mut noise = Noise(12);
        for _ in 0..40 {
            assert_same(&input[..noise.below(input.len())]);
        }
        for end in (0..60).chain(input.len() - 60..input.len()) {
            assert_same(&input[..end]);
        }
    }
}

#[test]
fn foreign_bytes_after_the_end_come_back() {
    let text = rows(80_000, 13);
    for input in [piped("gzip", &["-n"], &text), python_zlib("6", &text), archive(&[&text[..]])] {
        for garbage in
            [&b"\0"[..], b"\x1f\x8b", b"\x1f\x8b\x08\0\0\0\0\0\0\0\xff\xff", &[1; 70_000]]
        {
            let (plain, _, stats) = assert_same(&[&input[..], garbage].concat());
            assert!(stats.broken && plain.len() >= text.len());
        }
    }
}

#[test]
fn damaged_inputs_come_back() {
    let text = rows(120_000, 14);
    let inputs = [
        piped("gzip", &["-n"], &text),
        foreign_gzip(&text, 6),
        python_zlib("1", &text),
        archive(&[&text[..], b"abc"]),
    ];
    let mut noise = Noise(15);
    for input in inputs {
        for _ in 0..40 {
            let mut damaged = input.clone();
            for _ in 0..=noise.below(3) {
                let at = noise.below(damaged.len());
                damaged[at] ^= 1 << noise.below(8);
            }
            assert_same(&damaged);
        }
    }
}

#[test]
fn input_in_small_pieces_comes_back() {
    struct Dribble<'a>(&'a [u8], Noise);
    impl Read for Dribble<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let n = (1 + self.1.below(50)).min(into.len());
            self.0.read(&mut into[..n])
        }
    }
    let archive = archive(&[&rows(200_000, 16)[..], &rows(3_000, 17)]);
    let (plain, recipe, _) = unpack(Dribble(&archive, Noise(18)));
    let (same_plain, same_recipe, _) = unpack(&archive[..]);
    assert!(plain == same_plain && recipe == same_recipe);
}

#[test]
fn a_read_error_is_passed_on() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("gone"))
        }
    }
    let gzip = piped("gzip", &[], &rows(300_000, 19));
    let mut unpacker = Unpacker::new((&gzip[..100_000.min(gzip.len() / 2)]).chain(Failing));
    assert_eq!(io::copy(&mut unpacker, &mut io::sink()).unwrap_err().to_string(), "gone");
}

#[test]
fn tampered_recipes_fail_without_a_panic() {
    let text = rows(50_000, 20);
    let inputs = [
        piped("gzip", &["-n", "-1"], &text),
        piped("pigz", &["-n"], &text),
        archive(&[&text[..], b"abc", b""]),
    ];
    let mut noise = Noise(21);
    for input in inputs {
        let (plain, recipe, _) = unpack(&input[..]);
        for _ in 0..200 {
            let mut bad = recipe.clone();
            for _ in 0..=noise.below(3) {
                let most = 400 + noise.below(bad.len());
                let at = noise.below(bad.len().min(most));
                bad[at] = noise.next() as u8;
            }
            assert_fails_or_is(&plain, &bad, &input);
        }
        for _ in 0..50 {
            assert!(repacked(&plain, &recipe[..noise.below(recipe.len())]).is_err());
            assert!(repacked(&plain[..noise.below(plain.len())], &recipe).is_err());
        }
    }
}

#[test]
fn a_changed_plain_stream_is_noticed() {
    let gzip = piped("gzip", &["-n"], &rows(150_000, 22));
    let (mut plain, recipe, _) = unpack(&gzip[..]);
    plain[70_000] ^= 1;
    assert!(repacked(&plain, &recipe).is_err());
}

#[test]
fn tampered_recipes_of_foreign_streams_fail() {
    let gzip = foreign_gzip(&rows(100_000, 23), 6);
    let (plain, recipe, _) = unpack(&gzip[..]);
    let mut noise = Noise(24);
    for _ in 0..60 {
        let mut bad = recipe.clone();
        let at = noise.below(bad.len());
        bad[at] ^= 1 << noise.below(8);
        assert_fails_or_is(&plain, &bad, &gzip);
    }
}

/// A change may hit what has no effect, such as text after a segment: then the result is proven all the same.
fn assert_fails_or_is(plain: &[u8], recipe: &[u8], input: &[u8]) {
    if let Ok(out) = repacked(plain, recipe) {
        assert!(out == input, "a false result");
    }
}

#[test]
fn recipes_of_other_versions_are_refused() {
    assert!(matches!(repacked(b"", b"RWUNPK\0\x02\0\0"), Err(RepackError::Version)));
    assert!(matches!(repacked(b"", b"RW"), Err(RepackError::Truncated("recipe"))));
}

/// Recipes of version 1, kept for ever: each holds the hash of what it must give. The plain stream is
/// `rows(120_000, 99)`. Made by `gzip -6`, `gzip -1`, `pigz -b 32`, zlib-rs at level 6.
#[test]
fn recipes_of_the_past_still_give_the_same_bytes() {
    let recipes: [&[u8]; 4] = [
        include_bytes!("golden/gzip-6.recipe"),
        include_bytes!("golden/gzip-1.recipe"),
        include_bytes!("golden/pigz.recipe"),
        include_bytes!("golden/zlib-rs.recipe"),
    ];
    for recipe in recipes {
        repacked(&rows(120_000, 99), recipe).unwrap();
    }
}

/// An archive as pg_dump 15 writes it, with these tables, each compressed by zlib-rs at level 6.
fn archive(tables: &[&[u8]]) -> Vec<u8> {
    let mut out = b"PGDMP\x01\x0e\x00\x04\x08\x01".to_vec();
    let int = |out: &mut Vec<u8>, n: i32| {
        out.push(u8::from(n < 0));
        out.extend_from_slice(&n.unsigned_abs().to_le_bytes());
    };
    let string = |out: &mut Vec<u8>, text: &str| {
        int(out, text.len() as i32);
        out.extend_from_slice(text.as_bytes());
    };
    for n in [-1, 1, 2, 3, 4, 5, 126, 0] {
        int(&mut out, n);
    }
    ["shop", "15.20", "15.20"].iter().for_each(|text| string(&mut out, text));
    int(&mut out, tables.len() as i32);
    for id in 0..tables.len() as i32 {
        int(&mut out, id);
        int(&mut out, 1);
        ["0", "0", "orders", "TABLE DATA"].iter().for_each(|text| string(&mut out, text));
        int(&mut out, 3);
        ["", "", "COPY orders FROM stdin;\n", "public", "", "", "me", "false", "7"]
            .iter()
            .for_each(|text| string(&mut out, text));
        int(&mut out, -1);
        out.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    for (id, table) in tables.iter().enumerate() {
        out.push(1);
        int(&mut out, id as i32);
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
        encoder.write_all(table).unwrap();
        for chunk in encoder.finish().unwrap().chunks(4096) {
            int(&mut out, chunk.len() as i32);
            out.extend_from_slice(chunk);
        }
        int(&mut out, 0);
    }
    out
}

#[test]
fn archives_come_back_and_their_rows_are_plain() {
    let (a, b) = (rows(3 << 20, 25), rows(10_000, 26));
    let archive = archive(&[&a[..], b"", &b]);
    let (plain, _, stats) = assert_same(&archive);
    assert!(!stats.broken);
    assert!(stats.kept_bytes > 0 || plain.windows(b.len()).any(|text| text == b));
    assert_eq!(Unpacker::sniff(&archive[..16]), Some(Kind::PgCustom));
}
