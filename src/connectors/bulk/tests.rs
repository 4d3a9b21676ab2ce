//! What reading a file in pieces promises.

use super::*;
use crate::connectors::files::RecordFile;
use crate::connectors::yaml;

fn parts() -> Parts {
    let key = |name: &str| Path::parse(&format!("$.{name}")).unwrap();
    let lines = PartFile { at: Path::parse("$.lines.nodes").unwrap(), max: Some(2) };
    Parts {
        picker: Picker::new(&[Some(&key("__parentId")), Some(&key("id"))]),
        parts: vec![("gid://x/Line/".to_owned(), lines)],
    }
}

fn spec() -> RecordSpec {
    RecordSpec::new(&yaml::read::<RecordFile>("spec.yml", "{id: $.id, idAfter: gid://x/Order/}").unwrap())
}

const FILE: &str = concat!(
    r#"{"id":"gid://x/Order/1","n":1.50,"lines":null}"#,
    "\n",
    r#"{"id":"gid://x/Line/1","q":1,"__parentId":"gid://x/Order/1"}"#,
    "\n",
    r#"{"id":"gid://x/Line/2","q":2,"__parentId":"gid://x/Order/1"}"#,
    "\n",
    r#"{"id":"gid://x/Line/3","q":3,"__parentId":"gid://x/Order/1"}"#,
    "\n",
    r#"{"id":"gid://x/Order/2","n":"ß"}"#,
    "\n",
    r#"{"id":"gid://x/Order/3"}"#,
    "\n",
);

#[test]
fn a_file_read_in_pieces_of_any_size_gives_each_record_once_and_whole() {
    for size in [1, 7, 60, 150, 400, 10_000] {
        let (mut offset, mut bytes, mut all) = (0, size, Vec::new());
        loop {
            let end = (offset + bytes).min(FILE.len());
            let is_last = end == FILE.len();
            let piece = parts().piece(&FILE.as_bytes()[offset..end], offset as u64, is_last, &spec()).unwrap();
            all.extend(piece.records.into_iter().map(|record| (record.remote_id, record.raw.get().to_owned())));
            let next = usize::try_from(piece.next).unwrap();
            bytes = if next == offset { bytes * 2 } else { size };
            offset = next;
            if piece.is_last {
                break;
            }
        }
        assert_eq!(offset, FILE.len());
        let whole = r#"{"id":"gid://x/Order/1","n":1.50,"lines":{"nodes":[{"id":"gid://x/Line/1","q":1},{"id":"gid://x/Line/2","q":2}]}}"#;
        let [one, two, three] = &all[..] else { panic!("{size}: {all:?}") };
        assert_eq!((one.0.as_str(), one.1.as_str()), ("1", whole));
        assert_eq!((two.0.as_str(), three.0.as_str()), ("2", "3"));
        assert!(two.1.contains("ß") && two.1.contains(r#""lines":{"nodes":[]}"#), "{}", two.1);
    }
}

#[test]
fn a_file_that_is_not_what_was_promised_is_a_failure() {
    for bad in [
        "<html>",
        r#"{"n":1}"#,
        r#"{"id":"gid://x/Line/1","__parentId":"gid://x/Order/1"}"#,
        "{\"id\":\"gid://x/Order/1\"}\n{\"id\":\"gid://x/Line/1\",\"__parentId\":\"gid://x/Order/9\"}",
        "{\"id\":\"gid://x/Order/1\"}\n{\"id\":\"gid://x/Refund/1\",\"__parentId\":\"gid://x/Order/1\"}",
        "{\"id\":\"gid://x/Order/1\"}\n{\"id\":\"gid://x/Or",
        r#"{"id":"gid://x/Order/1","lines":7}"#,
        "{\"id\":\"gid://x/Order/1\"}\n{\"id\":\"gid://x/Line/1\",\"__parentId\":\"gid://x/Order/1\"}\n{\"id\":\"gid://x/Line/2\",\"__parentId\":\"gid://x/Line/1\"}\n{\"id\":\"gid://x/Line/3\",\"__parentId\":\"gid://x/Line/2\"}",
    ] {
        assert!(matches!(parts().piece(bad.as_bytes(), 0, true, &spec()), Err(CallError::BadAnswer(_))), "{bad}");
    }
}

#[test]
fn a_piece_that_was_not_asked_for_is_refused() {
    assert_eq!(ends(Some("bytes 10-19/20"), 10, 10), Ok(true));
    assert_eq!(ends(Some("bytes 10-19/21"), 10, 10), Ok(false));
    for bad in [None, Some("bytes 0-9/20"), Some("bytes 10-19/*"), Some("bytes 10-18/20"), Some("10-19/20")] {
        assert!(ends(bad, 10, 10).is_err(), "{bad:?}");
    }
}

#[test]
fn a_part_of_a_part_is_put_into_it() {
    let parts = Parts::new(
        "__parentId",
        BTreeMap::from([
            ("gid://x/Line/".to_owned(), PartFile { at: Path::parse("$.lines.nodes").unwrap(), max: None }),
            ("gid://x/Field/".to_owned(), PartFile { at: Path::parse("$.fields.nodes").unwrap(), max: None }),
        ]),
    );
    let file = concat!(
        r#"{"id":"gid://x/Order/1"}"#,
        "\n",
        r#"{"id":"gid://x/Field/1","v":"order","__parentId":"gid://x/Order/1"}"#,
        "\n",
        r#"{"id":"gid://x/Line/1","__parentId":"gid://x/Order/1"}"#,
        "\n",
        r#"{"id":"gid://x/Line/2","__parentId":"gid://x/Order/1"}"#,
        "\n",
        r#"{"id":"gid://x/Field/2","v":"line","__parentId":"gid://x/Line/1"}"#,
        "\n",
        r#"{"id":"gid://x/Field/3","v":"too","__parentId":"gid://x/Line/1"}"#,
        "\n",
    );
    let piece = parts.unwrap().piece(file.as_bytes(), 0, true, &spec()).unwrap();
    let record: Value = serde_json::from_str(piece.records[0].raw.get()).unwrap();
    assert_eq!(record["fields"]["nodes"][0]["v"], "order");
    let lines = record["lines"]["nodes"].as_array().unwrap();
    assert_eq!(lines[0]["fields"]["nodes"][1]["v"], "too");
    assert!(lines.len() == 2 && lines[1]["fields"].is_null(), "{record}");
}
