//! The few fields of an X.509 certificate that a person wants to see: whose, by whom, until when.
//!
//! Always true: nothing here decides whether a certificate is trusted; what cannot be read is simply not shown. DER as
//! in X.690, fields as in RFC 5280 section 4.1.

use serde::Serialize;

use crate::domain::time::Millis;

/// One certificate of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// The common name, else the organisation; empty if there is neither.
    pub subject: String,
    /// The same of the issuer.
    pub issuer: String,
    pub not_before: Millis,
    pub not_after: Millis,
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const EXPLICIT_VERSION: u8 = 0xa0;
const OID_COMMON_NAME: &[u8] = &[0x55, 4, 3];
const OID_ORGANISATION: &[u8] = &[0x55, 4, 10];

/// Reads a certificate in DER. None if it is none.
pub fn read(der: &[u8]) -> Option<Certificate> {
    let (mut whole, _) = within(der, SEQUENCE)?;
    let mut signed = enter(&mut whole, SEQUENCE)?;
    if signed.first() == Some(&EXPLICIT_VERSION) {
        next(&mut signed)?;
    }
    let (_serial, _algorithm) = (next(&mut signed)?, next(&mut signed)?);
    let issuer = name(enter(&mut signed, SEQUENCE)?);
    let mut validity = enter(&mut signed, SEQUENCE)?;
    let not_before = time(next(&mut validity)?)?;
    let not_after = time(next(&mut validity)?)?;
    let subject = name(enter(&mut signed, SEQUENCE)?);
    Some(Certificate { subject, issuer, not_before, not_after })
}

/// The content of the element at the front, if it has that tag, and what follows it.
fn within(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let mut rest = der;
    let (found, content) = next(&mut rest)?;
    (found == tag).then_some((content, rest))
}

/// Takes the element at the front, which must have that tag, and gives its content.
fn enter<'a>(der: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (found, content) = next(der)?;
    (found == tag).then_some(content)
}

/// Takes the element at the front: its tag and its content.
fn next<'a>(der: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *der = rest;
    Some((tag, content))
}

fn name(mut parts: &[u8]) -> String {
    let (mut common, mut organisation) = (None, None);
    while let Some(mut set) = enter(&mut parts, SET) {
        while let Some(mut pair) = enter(&mut set, SEQUENCE) {
            let (Some((_, oid)), Some((_, value))) = (next(&mut pair), next(&mut pair)) else { continue };
            match oid {
                OID_COMMON_NAME => common = Some(value),
                OID_ORGANISATION => organisation = Some(value),
                _ => {}
            }
        }
    }
    String::from_utf8_lossy(common.or(organisation).unwrap_or_default()).into_owned()
}

/// `YYMMDDHHMMSSZ` (from 1950 to 2049) or `YYYYMMDDHHMMSSZ`. A time before 1970 is shown as 1970.
fn time((tag, text): (u8, &[u8])) -> Option<Millis> {
    let text = std::str::from_utf8(text).ok()?;
    let full = match tag {
        UTC_TIME if text < "5" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let stamp = jiff::civil::DateTime::strptime("%Y%m%d%H%M%SZ", &full).ok()?;
    let stamp = jiff::tz::TimeZone::UTC.to_timestamp(stamp).ok()?;
    Some(u64::try_from(stamp.as_millisecond()).map_or(Millis(0), Millis))
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn the_fields_a_person_wants_are_read() {
        let pem = include_bytes!("../../tests/certs/expired.pem");
        let der = CertificateDer::from_pem_slice(pem).expect("a certificate");
        let read = read(&der).expect("readable");
        assert_eq!(read.subject, "localhost");
        assert_eq!(read.issuer, "Tidemill test CA");
        assert_eq!(read.not_before.rfc3339_seconds(), "2020-01-01T00:00:00Z");
        assert_eq!(read.not_after.rfc3339_seconds(), "2020-02-01T00:00:00Z");
    }

    #[test]
    fn what_is_no_certificate_is_none_and_never_a_panic() {
        let pem = include_bytes!("../../tests/certs/expired.pem");
        let der = CertificateDer::from_pem_slice(pem).expect("a certificate");
        for end in 0..der.len() {
            let _ = read(&der[..end]);
        }
        for position in 0..der.len() {
            let mut bent = der.to_vec();
            bent[position] = !bent[position];
            let _ = read(&bent);
        }
        assert_eq!(read(b""), None);
        assert_eq!(read(b"hello"), None);
    }
}
