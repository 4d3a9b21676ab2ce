//! Numbers that JavaScript cannot hold, given back their exact text.
//!
//! Always true: a number of the result that equals, as a double, exactly one number of what went in, gets that number's
//! text: a 19-digit id and a price of `10.00` pass through a script unharmed. A number that the script made itself is
//! left alone, unless it equals such a one, and then both texts mean the same double. Not here: arithmetic; a script
//! that adds prices gets what doubles give.

use std::collections::HashMap;

use serde_json::{Number, Value};

/// The texts of the numbers that went in, by the double that JavaScript makes of them.
#[derive(Default)]
pub(super) struct Exact {
    /// None: several texts share the double.
    texts: HashMap<u64, Option<Number>>,
    /// True when some text would not survive as it is.
    needed: bool,
}

/// How many digits a whole number may have to survive in a double whatever they are.
const SAFE_DIGITS: usize = 15;

fn survives(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.len() <= SAFE_DIGITS && digits.bytes().all(|b| b.is_ascii_digit()) && text != "-0"
}

impl Exact {
    /// Remembers every number of `text`, if it is JSON.
    pub(super) fn read(&mut self, text: &str) {
        if let Ok(value) = serde_json::from_str::<Value>(text) {
            self.note(&value);
        }
    }

    fn note(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.note(item)),
            Value::Object(fields) => fields.values().for_each(|item| self.note(item)),
            Value::Number(number) => {
                let text = number.as_str();
                let Ok(double) = text.parse::<f64>() else { return };
                self.needed |= !survives(text);
                let seen = self.texts.entry(double.to_bits()).or_insert_with(|| Some(number.clone()));
                if seen.as_ref().is_some_and(|seen| seen.as_str() != text) {
                    *seen = None;
                }
            }
            _ => {}
        }
    }

    /// The result with the exact texts put back.
    pub(super) fn restore(&self, result: String) -> String {
        if !self.needed {
            return result;
        }
        let Ok(mut value) = serde_json::from_str::<Value>(&result) else { return result };
        self.put_back(&mut value);
        serde_json::to_string(&value).unwrap_or(result)
    }

    fn put_back(&self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.put_back(item)),
            Value::Object(fields) => fields.values_mut().for_each(|item| self.put_back(item)),
            Value::Number(number) => {
                let double = number.as_str().parse::<f64>().unwrap_or(f64::NAN);
                if let Some(Some(exact)) = self.texts.get(&double.to_bits()) {
                    *number = exact.clone();
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_text_through_doubles() {
        let mut exact = Exact::default();
        exact.read(r#"{"id":9007199254740993123,"price":10.00,"n":3,"same":[1.0,1]}"#);
        let through = r#"{"id":9007199254740993000,"p":10,"n":3,"one":1,"own":7}"#.to_owned();
        assert_eq!(exact.restore(through), r#"{"id":9007199254740993123,"p":10.00,"n":3,"one":1,"own":7}"#);
    }

    #[test]
    fn plain_results_are_left_as_they_are() {
        let mut exact = Exact::default();
        exact.read(r#"{"n":3}"#);
        assert_eq!(exact.restore(r#"{ "n" : 3 }"#.to_owned()), r#"{ "n" : 3 }"#);
    }
}
