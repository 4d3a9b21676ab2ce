//! What is read is what `serde_json` reads, and is not copied; what it does not read is an error.

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

/// As text, with `serde_json` as the judge of what it says.
fn check(text: &str) {
    let raw = raw(text);
    let read = read(&raw).unwrap();
    let value: Value = serde_json::from_str(text).unwrap();
    assert_eq!(read.to_value(), value, "{text}");
    assert_eq!(read.lend(), read);
    assert_eq!(Json::from(&value).to_value(), value);
    let mut out = Vec::new();
    read.clone().keep().write(&mut out);
    assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), value, "{text}");
}

#[test]
fn what_is_read_is_what_serde_json_reads() {
    for text in [
        "null",
        " [ ] ",
        "{}",
        "-0.50e+7",
        "12345678901234567890.10",
        r#"" a \" \\ \u00e9\ud83d\ude00\n é ""#,
        "[1 ,\n[true,false, null],{\"a\" : {\"\":[]}}]",
        r#"{"a":1,"b":2,"a":{"c":3}}"#,
        "\"\u{7f}\u{2028}\"",
    ] {
        check(text);
    }
    let many: Vec<String> = (0..40).map(|n| format!("\"n{}\":{n}", n % 30)).collect();
    check(&format!("{{{}}}", many.join(",")));
}

#[test]
fn texts_and_digits_are_not_copied() {
    let raw = raw(r#"{"a":"plain","n":1.50,"e":"\n"}"#);
    let Json::Object(members) = read(&raw).unwrap() else { panic!("an object") };
    assert!(matches!(members.get("a"), Some(Json::Text(Cow::Borrowed("plain")))));
    assert!(matches!(members.get("n"), Some(Json::Number(Cow::Borrowed("1.50")))));
    assert!(matches!(members.get("e"), Some(Json::Text(Cow::Owned(_)))));
    assert_eq!(members.to_text(), raw.get());
}

#[test]
fn objects_are_equal_whatever_the_order_of_their_members() {
    let (one, two) = (raw(r#"{"a":1,"b":[2]}"#), raw(r#"{"b":[2],"a":1}"#));
    assert_eq!(read(&one).unwrap(), read(&two).unwrap());
    let other = raw(r#"{"b":[2],"c":1}"#);
    assert_ne!(read(&one).unwrap(), read(&other).unwrap());
}

#[test]
fn what_serde_json_does_not_read_is_an_error() {
    let nested = |depth: usize| raw(&format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
    let deepest = nested(127);
    assert!(read(&deepest).is_ok() && serde_json::from_str::<Value>(deepest.get()).is_ok());
    let deeper = nested(128);
    assert_eq!(read(&deeper).unwrap_err(), "it nests deeper than 127");
    assert!(serde_json::from_str::<Value>(deeper.get()).is_err());
    // Nobody has looked at what an escape says.
    let half = serde_json::from_str::<Box<RawValue>>(r#""\ud800""#).unwrap();
    assert!(read(&half).unwrap_err().starts_with("a text in it cannot be read: "));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,2})?"
            .prop_map(|text| Value::Number(text.parse().unwrap())),
        ".{0,9}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 20, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec(("[ab\"\\\\é]{0,2}", inner), 0..20)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_read_as_serde_json_reads_it(value in any_json()) {
        check(&value.to_string());
        check(&serde_json::to_string_pretty(&value).unwrap());
    }
}
