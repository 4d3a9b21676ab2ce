//! Takes secrets out of a webhook's body before it is stored: `redact:` of webhook/spec.yml names them.
//!
//! Always true: what stands in a named XML element, or at a named JSON member, goes; everything else stays byte for byte;
//! it takes one walk, whatever the body is. It is done after the signature was judged, and what is understood later never
//! had the secret. Not here: encryption of what is stored (`store::inbox`).

use bytes::Bytes;

/// The body without what stands under these names. The same bytes, where none of them is in it.
pub fn redact(body: &Bytes, names: &[String]) -> Bytes {
    let mut left = body.clone();
    for name in names {
        left = elements(&members(&left, name), name);
    }
    left
}

/// Empties `<name …>…</`, with any prefix before the name.
fn elements(body: &Bytes, name: &str) -> Bytes {
    let (mut kept, mut at, mut copied) = (Vec::new(), 0, 0);
    while let Some(open) = find(body, at, b"<") {
        let tag_end =
            body[open + 1..].iter().position(|b| b" \t\r\n/>".contains(b)).map_or(body.len(), |n| open + 1 + n);
        let tag = &body[open + 1..tag_end];
        let local = tag.iter().rposition(|b| *b == b':').map_or(tag, |colon| &tag[colon + 1..]);
        at = tag_end.max(open + 1);
        if local != name.as_bytes() {
            continue;
        }
        let Some(start) = find(body, tag_end, b">").map(|end| end + 1) else { break };
        if body[start - 2] == b'/' {
            continue;
        }
        // A secret holds no element; one that never ends is taken whole.
        let end = find(body, start, b"</").unwrap_or(body.len());
        kept.extend_from_slice(&body[copied..start]);
        (copied, at) = (end, end);
    }
    whole(body, kept, copied)
}

/// Empties `"name": "…"`.
fn members(body: &Bytes, name: &str) -> Bytes {
    let quoted = format!("\"{name}\"");
    let (mut kept, mut at, mut copied) = (Vec::new(), 0, 0);
    while let Some(key) = find(body, at, quoted.as_bytes()) {
        at = key + quoted.len();
        let mut rest = body[at..].iter().enumerate().filter(|(_, b)| !b.is_ascii_whitespace());
        let (Some((_, b':')), Some((quote, b'"'))) = (rest.next(), rest.next()) else { continue };
        let start = at + quote + 1;
        let mut escaped = false;
        let end = body[start..].iter().position(|b| {
            let ends = *b == b'"' && !escaped;
            escaped = *b == b'\\' && !escaped;
            ends
        });
        let end = end.map_or(body.len(), |length| start + length);
        kept.extend_from_slice(&body[copied..start]);
        (copied, at) = (end, end);
    }
    whole(body, kept, copied)
}

fn whole(body: &Bytes, mut kept: Vec<u8>, copied: usize) -> Bytes {
    if copied == 0 {
        return body.clone();
    }
    kept.extend_from_slice(&body[copied..]);
    Bytes::from(kept)
}

fn find(body: &[u8], from: usize, wanted: &[u8]) -> Option<usize> {
    let rest = body.get(from..)?;
    rest.windows(wanted.len()).position(|window| window == wanted).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(body: &str) -> String {
        let left = redact(&Bytes::copy_from_slice(body.as_bytes()), &["SessionId".to_owned()]);
        String::from_utf8(left.to_vec()).unwrap()
    }

    #[test]
    fn what_stands_in_a_named_element_goes_and_nothing_else() {
        assert_eq!(without("<a><SessionId>s3cret</SessionId><b>x</b></a>"), "<a><SessionId></SessionId><b>x</b></a>");
        assert_eq!(without("<n:SessionId x='1'>s3cret</n:SessionId>"), "<n:SessionId x='1'></n:SessionId>");
        assert_eq!(
            without("<SessionId>a</SessionId><SessionId>b</SessionId>"),
            "<SessionId></SessionId><SessionId></SessionId>"
        );
        for same in ["<SessionIds>x</SessionIds>", "<SessionId/>y", "<SessionId />y", "", "plain < text", "<"] {
            assert_eq!(without(same), same);
        }
        assert_eq!(without("<SessionId>never ends"), "<SessionId>");
        assert_eq!(without("<SessionId"), "<SessionId");
    }

    #[test]
    fn what_stands_at_a_named_member_goes() {
        assert_eq!(without(r#"{"SessionId": "a\"b", "x": "SessionId"}"#), r#"{"SessionId": "", "x": "SessionId"}"#);
        assert_eq!(without(r#"{"SessionId":7}"#), r#"{"SessionId":7}"#);
        assert_eq!(without(r#"{"SessionId":"cut"#), r#"{"SessionId":""#);
    }
}
