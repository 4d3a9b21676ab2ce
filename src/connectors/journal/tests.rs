//! Hosts, packed files, and what must not be shown.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_host_is_allowed_by_its_name_or_by_what_it_is_below() {
    for (host, allowed, is_allowed) in [
        ("s3.amazonaws.com", "s3.amazonaws.com", true),
        ("b.s3.amazonaws.com", "s3.amazonaws.com", false),
        ("b.s3.amazonaws.com", "*.amazonaws.com", true),
        ("amazonaws.com", "*.amazonaws.com", false),
        ("evilamazonaws.com", "*.amazonaws.com", false),
        ("amazonaws.com.evil.example", "*.amazonaws.com", false),
        ("anything.example", "*.", false),
    ] {
        assert_eq!(is_below(host, allowed), is_allowed, "{host} {allowed}");
    }
}

#[test]
fn a_packed_file_is_unpacked_and_a_plain_one_is_left() {
    assert_eq!(unpacked(br#"{"a":1}"#).unwrap(), None);
    assert_eq!(unpacked(&packed(b"{}")).unwrap().as_deref(), Some(b"{}".as_slice()));
    let half = packed(&[b'x'; 10_000]);
    assert!(unpacked(&half[..half.len() / 2]).is_err());
}

#[test]
fn a_file_that_unpacks_without_end_is_refused_in_bounded_memory() {
    let bomb = packed(&vec![0; FILE_BYTES_MAX + 1]);
    assert!(bomb.len() < 1 << 20);
    let error = unpacked(&bomb).unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
}

#[test]
fn the_address_of_a_file_is_never_shown() {
    let file = Url::parse("https://s3.amazonaws.com/b/f.json?X-Amz-Signature=secret").unwrap();
    let entry = JournalEntry { offset: "o-1".to_owned(), file };
    assert_eq!(format!("{entry:?}"), r#"JournalEntry { offset: "o-1", .. }"#);
}

#[test]
fn a_registration_at_a_journal_is_told_from_an_address() {
    assert_eq!(key_of(&place("app")), Some("app"));
    assert_eq!(key_of("https://tide.example/in/c/token"), None);
}
