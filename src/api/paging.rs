//! Pages of lists: `limit`, `cursor` and `next`.
//!
//! Always true: a cursor is opaque text that only the list that gave it understands; a page has at most 250 things,
//! except Alloy's own lists, whose clients know no `next` and so get up to 1,000 when they ask for no number.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::call::Call;
use crate::error::{Code, Error, Result};

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 250;
const LIMIT_ALLOY: usize = 1000;

/// What page is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paging {
    pub limit: usize,
    /// The bytes that the page before gave to `next`.
    pub before: Option<Vec<u8>>,
}

impl Paging {
    /// Reads `limit` and `cursor`.
    pub fn of(call: &Call) -> Result<Self> {
        Self::with_default(call, LIMIT_DEFAULT)
    }

    /// The same for a list that Alloy's clients read without paging.
    pub fn of_alloy_list(call: &Call) -> Result<Self> {
        Self::with_default(call, LIMIT_ALLOY)
    }

    fn with_default(call: &Call, default: usize) -> Result<Self> {
        let limit = match call.query("limit") {
            None => default,
            Some(text) => match text.parse::<usize>() {
                Ok(limit) if limit > 0 => limit.min(LIMIT_MAX),
                _ => return Err(Error::new(Code::Malformed, format!("limit: use a number from 1 to {LIMIT_MAX}"))),
            },
        };
        let before = call.query("cursor").map(decode).transpose()?;
        Ok(Self { limit, before })
    }

    /// The cursor as an array of exactly `N` bytes.
    pub fn before_exactly<const N: usize>(&self) -> Result<Option<[u8; N]>> {
        self.before.as_ref().map(|bytes| bytes.as_slice().try_into().map_err(|_| foreign())).transpose()
    }
}

fn foreign() -> Error {
    Error::new(Code::Malformed, "cursor: use the `next` of the page before, or leave it out to start anew")
}

fn decode(text: &str) -> Result<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| foreign())?;
    if (1..=64).contains(&bytes.len()) { Ok(bytes) } else { Err(foreign()) }
}

/// The text of `next`.
pub fn next(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A page of a list that is short enough to be held in memory. The cursor is a position.
///
/// # Errors
/// The cursor is of another list.
pub fn cut<T>(all: Vec<T>, page: &Paging) -> Result<(Vec<T>, Option<String>)> {
    let start = page.before_exactly::<4>()?.map_or(0, u32::from_be_bytes);
    let start = usize::try_from(start).unwrap_or(usize::MAX);
    let end = start.saturating_add(page.limit);
    let more = (end < all.len()).then(|| u32::try_from(end).unwrap_or(u32::MAX).to_be_bytes());
    Ok((all.into_iter().skip(start).take(page.limit).collect(), more.map(next)))
}
