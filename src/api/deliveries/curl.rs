//! A line for a shell that sends a delivery once more, by hand.
//!
//! Always true: each argument is quoted, so nothing in a body or an address is run or expanded; the subscription's own
//! headers and its authentication are masked; signatures are made of now for keys that may write (they could publish and
//! resend anyway), and masked for those that may only read, which must not be able to speak for us; nothing of the
//! network that the node stands in is told. Not here: what an attempt is made of (`actors::courier`).

use url::Url;

use crate::destinations::Parcel;
use crate::destinations::Signing;
use crate::destinations::http::headers::{self, Names};
use crate::error::{Error, Result};
use crate::outbound::USER_AGENT;

/// A longer body is not in the line, but beside it.
const BODY_BYTES_MAX: usize = 8192;
const MASK: &str = "***";

/// The line, and what belongs into `body.json` if that is not in it.
pub(super) struct Curl {
    pub(super) line: String,
    pub(super) body: Option<String>,
}

impl Curl {
    /// `prefix` is that of our headers; `signs` says whether the caller may have signatures.
    pub(super) fn of(mut parcel: Parcel, prefix: &str, signs: bool) -> Result<Self> {
        let was = parcel.signing;
        if !signs {
            parcel.signing = Signing { rsa: false, hmac: false, ed25519: false };
        }
        let mut shown = headers::signed(&Names::new(prefix)?, &parcel)?;
        if !signs && was.rsa {
            shown.push((format!("{prefix}-signature"), MASK.to_owned()));
        }
        if !signs && (was.hmac || was.ed25519) {
            shown.push(("webhook-signature".to_owned(), MASK.to_owned()));
        }
        shown.push(("user-agent".to_owned(), USER_AGENT.to_owned()));
        shown.extend(parcel.headers.iter().map(|(name, _)| (name.clone(), MASK.to_owned())));
        let body = std::str::from_utf8(&parcel.body).map_err(Error::internal)?;
        // As it is sent: international names in ASCII, odd characters escaped.
        let address = Url::parse(&parcel.address).map_or_else(|_| parcel.address.to_string(), String::from);
        // -g: brackets and braces of the address mean themselves.
        let mut line = format!("curl -sS -i -g -m {} -X POST", parcel.timeout.as_secs().max(1));
        for (name, value) in &shown {
            line.push_str(" -H ");
            line.push_str(&quoted(&format!("{name}: {value}")));
        }
        let is_long = body.len() > BODY_BYTES_MAX;
        line.push_str(" --data-binary ");
        // What begins with @ would be the name of a file; a body is a JSON object.
        line.push_str(&if is_long { quoted("@body.json") } else { quoted(body) });
        line.push(' ');
        line.push_str(&quoted(&address));
        Ok(Self { line, body: is_long.then(|| body.to_owned()) })
    }
}

/// One word of a POSIX shell: within single quotes everything but the quote itself stands for itself.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::destinations::http::keys::{KeyKind, KeyRing, StoredKey};
    use crate::destinations::http::sign::HmacKey;
    use crate::domain::id::{EventId, Seq, WorkspaceNo};
    use crate::domain::secret::Secret;
    use crate::domain::time::Millis;

    const BODY: &str = "{\"a\":\"it's $HOME `id` $(id) \\\\ \\\"x\\\" !! \u{e9}\",\n\t\"b\":'\n}";

    fn parcel(address: &str, body: &str) -> Parcel {
        let key = |kind| StoredKey::generate(kind, Millis(0), Millis(0)).expect("a key");
        let ring = KeyRing::open(&[key(KeyKind::Rsa), key(KeyKind::Ed25519)], Duration::ZERO).expect("a ring");
        Parcel {
            address: address.into(),
            topic: "crm/contacts".into(),
            event: EventId::new(Seq(258), WorkspaceNo(7)),
            body: body.to_owned().into(),
            attempt: 3,
            replay: true,
            at: Millis(1_700_000_000_000),
            wall: Millis(1_700_000_000_000),
            signing: Signing { rsa: true, hmac: true, ed25519: true },
            secrets: Arc::new([HmacKey::parse(&HmacKey::generate().expect("drawn")).expect("a secret")]),
            keys: Arc::new(ring),
            headers: Arc::new([("X-Team".to_owned(), Secret::new("s3cret"))]),
            timeout: Duration::from_secs(15),
        }
    }

    /// The arguments that a real shell makes of a line.
    fn arguments(line: &str) -> Vec<String> {
        let script = format!("curl() {{ for word in \"$@\"; do printf '%s\\0' \"$word\"; done; }}\n{line}\n");
        let told = Command::new("sh").arg("-c").arg(script).output().expect("there is a shell");
        assert!(told.status.success() && told.stderr.is_empty(), "{}", String::from_utf8_lossy(&told.stderr));
        let all = String::from_utf8(told.stdout).expect("UTF-8");
        all.split_terminator('\0').map(str::to_owned).collect()
    }

    fn after<'a>(arguments: &'a [String], option: &str) -> Vec<&'a str> {
        arguments.windows(2).filter(|pair| pair[0] == option).map(|pair| pair[1].as_str()).collect()
    }

    #[test]
    fn a_shell_reads_exactly_what_was_sent() {
        let address = "https://example.com/it's/[1-3]/{a,b}?q=$HOME&x=`id`#part";
        let curl = Curl::of(parcel(address, BODY), "x-alloy", true).expect("a line");
        let told = arguments(&curl.line);
        assert_eq!((after(&told, "--data-binary"), curl.body), (vec![BODY], None));
        assert_eq!(told.last().map(String::as_str), Url::parse(address).ok().as_ref().map(Url::as_str));
        let headers = after(&told, "-H");
        for header in ["webhook-id: 000000000000010200000007", "tidemill-attempt: 3", "X-Team: ***"] {
            assert!(headers.contains(&header), "{headers:?}");
        }
        assert!(headers.iter().any(|h| h.starts_with("webhook-signature: v1,") && h.contains(" v1a,")), "{headers:?}");
        assert!(!curl.line.contains("s3cret"));
    }

    #[test]
    fn a_key_that_may_only_read_gets_no_signature() {
        let curl = Curl::of(parcel("https://example.com/", "{}"), "x-alloy", false).expect("a line");
        let told = arguments(&curl.line);
        let headers = after(&told, "-H");
        assert!(headers.contains(&"webhook-signature: ***") && headers.contains(&"x-alloy-signature: ***"));
        assert!(!curl.line.contains("v1,") && !curl.line.contains("v1a,"));
    }

    #[test]
    fn a_long_body_stands_beside_the_line() {
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(BODY_BYTES_MAX));
        let curl = Curl::of(parcel("https://example.com/", &long), "x-alloy", true).expect("a line");
        assert_eq!(after(&arguments(&curl.line), "--data-binary"), ["@body.json"]);
        assert_eq!(curl.body, Some(long));
    }
}
