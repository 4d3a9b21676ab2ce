//! Decimal numbers as exact text: money never becomes a float.
//!
//! Always true: a number keeps the digits it came with (`165.0000` stays `165.0000`). Not here: rounding; there is none.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Number;

use crate::domain::json::Json;

/// The most digits that sums and comparisons take into account.
const DIGITS_MAX: usize = 34;

/// The digits of a number, or of a text that is a decimal number, as JSON writes them.
pub fn exact<'j>(value: &'j Json<'_>) -> Option<Cow<'j, str>> {
    match value {
        Json::Number(digits) => Some(Cow::Borrowed(digits)),
        Json::Text(text) => parse(text).map(Cow::Owned),
        _ => None,
    }
}

fn parse(text: &str) -> Option<String> {
    let text = text.trim();
    if !text.starts_with(['-', '+', '.', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) {
        return None;
    }
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match digits.find(['e', 'E']) {
        Some(at) => digits.split_at(at),
        None => (digits, ""),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    // JSON has no leading zeros, no bare point at either end.
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if fraction.is_empty() { "" } else { "." };
    let digits = format!("{sign}{whole}{point}{fraction}{exponent}");
    digits.parse::<Number>().is_ok().then_some(digits)
}

/// The number without its sign.
pub fn abs(number: &str) -> Option<String> {
    Some(number.strip_prefix('-').unwrap_or(number).to_owned())
}

/// Without fraction if the fraction is zero (`2.0000` is 2), else as it is: for counts and quantities.
pub fn integer(number: &str) -> Option<String> {
    Some(match number.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|b| b == b'0') => match whole {
            "-0" => "0".to_owned(),
            whole => whole.to_owned(),
        },
        _ => number.to_owned(),
    })
}

/// A decimal as scaled integer: value = mantissa / 10^scale.
#[derive(Clone, Copy, Debug)]
struct Scaled {
    mantissa: i128,
    scale: u32,
}

fn scaled(text: &str) -> Option<Scaled> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.len() + fraction.len() > DIGITS_MAX {
        return None;
    }
    let mut mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    if scale < 0 {
        mantissa = mantissa.checked_mul(10_i128.checked_pow(scale.unsigned_abs())?)?;
    }
    Some(Scaled { mantissa, scale: u32::try_from(scale.max(0)).ok()? })
}

fn aligned(a: Scaled, b: Scaled) -> Option<(i128, i128, u32)> {
    let scale = a.scale.max(b.scale);
    let raise = |n: Scaled| n.mantissa.checked_mul(10_i128.checked_pow(scale - n.scale)?);
    Some((raise(a)?, raise(b)?, scale))
}

/// Compares by value: `2` and `2.00` are equal. None past the limit of digits.
pub fn compare(a: &str, b: &str) -> Option<Ordering> {
    let (a, b, _) = aligned(scaled(a)?, scaled(b)?)?;
    Some(a.cmp(&b))
}

/// The exact sum. None past the limit of digits.
pub fn add(a: &str, b: &str) -> Option<String> {
    let (a, b, scale) = aligned(scaled(a)?, scaled(b)?)?;
    write(Scaled { mantissa: a.checked_add(b)?, scale })
}

/// The number with the other sign.
pub fn negate(number: &str) -> Option<String> {
    let value = scaled(number)?;
    write(Scaled { mantissa: value.mantissa.checked_neg()?, scale: value.scale })
}

/// A fraction as per cent: `0.4` is 40.
pub fn percent(number: &str) -> Option<String> {
    let Scaled { mantissa, scale } = scaled(number)?;
    match scale.checked_sub(2) {
        Some(scale) => write(Scaled { mantissa, scale }),
        None => write(Scaled { mantissa: mantissa.checked_mul(10_i128.pow(2 - scale))?, scale: 0 }),
    }
}

fn write(value: Scaled) -> Option<String> {
    let sign = if value.mantissa < 0 { "-" } else { "" };
    let digits = value.mantissa.unsigned_abs().to_string();
    let scale = usize::try_from(value.scale).ok()?;
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{sign}{whole}{point}{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> String {
        parse(text).unwrap()
    }

    #[test]
    fn money_keeps_its_digits() {
        for (text, kept) in [
            ("165.0000", "165.0000"),
            (" +0.10 ", "0.10"),
            (".5", "0.5"),
            ("007.50", "7.50"),
            ("12345678901234567890.123456789", "12345678901234567890.123456789"),
            ("-3", "-3"),
        ] {
            assert_eq!(number(text), kept);
        }
        assert_eq!(exact(&Json::Text("1,000".into())), None);
        assert_eq!(exact(&Json::Text("free".into())), None);
        assert_eq!(exact(&Json::Text("".into())), None);
    }

    #[test]
    fn sums_are_exact() {
        assert_eq!(add(&number("0.1"), &number("0.20")).unwrap(), "0.30");
        assert_eq!(add(&number("-5"), &number("4.99")).unwrap(), "-0.01");
        assert_eq!(add(&number("1e2"), &number("0.5")).unwrap(), "100.5");
        assert_eq!(add(&number("1e99"), &number("1")), None);
    }

    #[test]
    fn equal_values_compare_equal_however_they_are_written() {
        assert_eq!(compare(&number("2"), &number("2.0000")), Some(Ordering::Equal));
        assert_eq!(compare(&number("-0.0"), &number("0")), Some(Ordering::Equal));
        assert_eq!(compare(&number("9.99"), &number("10")), Some(Ordering::Less));
        assert_eq!(integer(&number("2.0000")).unwrap(), "2");
        assert_eq!(integer(&number("2.5")).unwrap(), "2.5");
        assert_eq!(abs(&number("-5.00")).unwrap(), "5.00");
    }

    #[test]
    fn a_fraction_as_per_cent_is_exact() {
        for (fraction, per_cent) in
            [("0.4", "40"), ("1.0", "100"), ("1", "100"), ("0.125", "12.5"), ("0.07", "7"), ("-0.5", "-50"), ("0", "0")]
        {
            assert_eq!(percent(&number(fraction)).unwrap(), per_cent);
        }
    }
}
