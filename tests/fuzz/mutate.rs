//! How an input is changed: bytes, tokens, pieces of other inputs, nesting, numbers at their edges.
//!
//! Always true: the same generator gives the same input; an input stays within [`BYTES_MAX`].

use fastrand::Rng;

/// The longest input.
pub const BYTES_MAX: usize = 64 * 1024;

/// What parsers of text stumble over.
const TOKENS: &[&str] = &[
    "\0",
    "\n",
    "\r\n",
    "\t",
    " ",
    "\u{a0}",
    "\u{2028}",
    "\u{feff}",
    "\u{ad}",
    "\u{202e}",
    "é",
    "ﬀ",
    "İ",
    "😀",
    "\u{301}",
    "\"",
    "'",
    "\\",
    "\\u0000",
    "\\ud800",
    "`",
    "%",
    "%00",
    "%2e",
    "%zz",
    "%ff",
    "+",
    "&",
    "=",
    ";",
    ",",
    ":",
    "::",
    "/",
    "//",
    "../",
    "?",
    "#",
    "@",
    "*",
    "**",
    "|",
    "~",
    "^",
    "$",
    "$$",
    "{{",
    "}}",
    "${",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "<",
    ">",
    "<!--",
    "null",
    "true",
    "false",
    "NaN",
    "Infinity",
    "-",
    "--",
    "---",
    "...",
    "&a",
    "*a",
    "!!binary",
    "!!float",
    "<<: *a",
    "? ",
    "- ",
    "0",
    "-0",
    "1",
    "-1",
    "00",
    "0x",
    "0xffffffffffffffff",
    "1e999",
    "1e-999",
    "1E+400",
    "0.1",
    ".5",
    "5.",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "-2147483648",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999999999999",
    "1970-01-01T00:00:00Z",
    "9999-12-31T23:59:60Z",
    "-000001-01-01T00:00:00Z",
    "2024-02-30T25:61:61+99:99",
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Thu, 01 Jan 1970 00:00:00 -9999",
    "ffffffffffffffffffffffff",
    "000000000000000000000000",
    "limit=0",
    "limit=18446744073709551616",
    "cursor=",
    "sha256=",
    "v1,",
    "t=",
    "whsec_",
    "Bearer ",
    "matches('(a*)*b')",
    ".map(x, x)",
    ".filter(x, true)",
    ".all(x, x)",
    "size(",
    "duration('1h')",
];

/// Pairs that nest.
const NESTS: &[(&str, &str)] = &[
    ("(", ")"),
    ("[", "]"),
    ("{\"a\":", "}"),
    ("{", "}"),
    ("!", ""),
    ("-", ""),
    ("- ", ""),
    ("? ", ""),
    ("<a>", "</a>"),
    ("%25", ""),
    ("a.", "a"),
    ("[a,", "]"),
    ("true?", ":x"),
    ("{{", "}}"),
];

/// A child of one input, and pieces of another.
pub fn mutate(rng: &mut Rng, parent: &[u8], other: &[u8], words: &[&str]) -> Vec<u8> {
    let mut input = parent.to_vec();
    for _ in 0..=rng.usize(..6) {
        once(rng, &mut input, other, words);
        input.truncate(BYTES_MAX);
    }
    input
}

fn once(rng: &mut Rng, input: &mut Vec<u8>, other: &[u8], words: &[&str]) {
    let at = rng.usize(..=input.len());
    let len = [1, 1, 2, 4, 16, 64][rng.usize(..6)];
    let end = (at + rng.usize(..=len)).min(input.len());
    match rng.u32(..16) {
        0 | 1 => replace(input, at, at, TOKENS[rng.usize(..TOKENS.len())].as_bytes()),
        2 => replace(input, at, end, TOKENS[rng.usize(..TOKENS.len())].as_bytes()),
        3 | 4 if !words.is_empty() => replace(input, at, end, words[rng.usize(..words.len())].as_bytes()),
        5 => replace(input, at, end, &[]),
        6 => input.truncate(at),
        7 if at < input.len() => input[at] ^= 1 << rng.u32(..8),
        8 if at < input.len() => input[at] = rng.u8(..),
        9 => {
            let from = rng.usize(..=other.len());
            let to = (from + rng.usize(..256)).min(other.len());
            replace(input, at, end, &other[from..to]);
        }
        10 => {
            let piece = input[at..end].to_vec();
            let times = [2, 3, 16, 256, 4096][rng.usize(..5)];
            let room = BYTES_MAX.saturating_sub(input.len()) / piece.len().max(1);
            replace(input, at, at, &piece.repeat(room.min(times)));
        }
        11 => {
            let (open, close) = NESTS[rng.usize(..NESTS.len())];
            let deep = [2, 10, 100, 500, 5_000][rng.usize(..5)];
            let whole = [open.repeat(deep).as_bytes(), &input[at..end], close.repeat(deep).as_bytes()].concat();
            replace(input, at, end, &whole);
        }
        12 => number(rng, input),
        13 => {
            let (from, to) = (rng.usize(..=input.len()), rng.usize(..=input.len()));
            let piece = input[from.min(to)..from.max(to)].to_vec();
            replace(input, at, at, &piece[..piece.len().min(1_024)]);
        }
        14 => {
            let piece = other[rng.usize(..=other.len())..].to_vec();
            input.truncate(at);
            input.extend(piece);
        }
        _ => {
            let noise: Vec<u8> = (0..rng.usize(..16)).map(|_| rng.u8(..)).collect();
            replace(input, at, end, &noise);
        }
    }
}

fn replace(input: &mut Vec<u8>, from: usize, to: usize, with: &[u8]) {
    input.splice(from..to, with.iter().copied());
}

/// Puts another number where one stands.
fn number(rng: &mut Rng, input: &mut Vec<u8>) {
    let is_digit = |at: &usize| input[*at].is_ascii_digit();
    let places: Vec<usize> = (0..input.len()).filter(is_digit).collect();
    if places.is_empty() {
        return;
    }
    let from = places[rng.usize(..places.len())];
    let to = (from..input.len()).find(|at| !input[*at].is_ascii_digit()).unwrap_or(input.len());
    let edge = [0, 1, 127, 255, 65_535, u64::from(u32::MAX), i64::MAX as u64, u64::MAX][rng.usize(..8)];
    let number = edge.wrapping_add(rng.u64(..3)).wrapping_sub(1).to_string();
    replace(input, from, to, number.as_bytes());
}

#[test]
fn the_same_generator_gives_the_same_input_and_no_input_is_too_long() {
    let child = |seed| mutate(&mut Rng::with_seed(seed), b"a: [1, 2]", b"{\"b\": 3}", &["word"]);
    let mut different = std::collections::BTreeSet::new();
    for seed in 0..2_000 {
        assert_eq!(child(seed), child(seed));
        assert!(child(seed).len() <= BYTES_MAX);
        different.insert(child(seed));
    }
    assert!(different.len() > 1_500, "{}", different.len());
}
