//! Values: a version byte, then postcard. JSON inside a value is text.
//!
//! Always true: a reader refuses a version that it does not know, by name. Not here: what the values mean (`domain`).

use rocksdb::MergeOperands;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// The version written by this build.
const VERSION: u8 = 1;

/// A value that cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum CorruptRow {
    #[error("a stored row of {what} has version {found}, this build reads {VERSION}")]
    Version { what: &'static str, found: u8 },
    #[error("a stored row of {what} cannot be read")]
    Decode { what: &'static str, source: postcard::Error },
    #[error("a stored row of {what} has {found} bytes, not {wanted}")]
    Length { what: &'static str, found: usize, wanted: usize },
    #[error("a stored row of {0} cannot be decrypted: it was changed, or sealed with another key")]
    Sealed(&'static str),
}

/// Bytes of a value.
///
/// # Errors
/// Only for types that postcard cannot write, which is a bug that the first test of the type shows.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    postcard::to_extend(value, vec![VERSION]).map_err(Error::internal)
}

/// The same for a value that is known to have about so many bytes.
///
/// # Errors
/// As [`encode`].
pub fn encode_long<T: Serialize>(value: &T, bytes: usize) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes);
    out.push(VERSION);
    postcard::to_extend(value, out).map_err(Error::internal)
}

/// The value of bytes.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let what = std::any::type_name::<T>();
    match bytes.split_first() {
        Some((&VERSION, rest)) => {
            postcard::from_bytes(rest).map_err(|source| Error::internal(CorruptRow::Decode { what, source }))
        }
        other => {
            let found = other.map_or(0, |(v, _)| *v);
            Err(Error::internal(CorruptRow::Version { what, found }))
        }
    }
}

/// A fixed number of bytes out of a row.
pub fn fixed<const N: usize>(what: &'static str, bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| Error::internal(CorruptRow::Length { what, found: bytes.len(), wanted: N }))
}

/// The merge of counters: little-endian 64-bit numbers are added; a sum of zero stays, and is dropped with its hour.
pub(super) fn add(_key: &[u8], before: Option<&[u8]>, more: &MergeOperands) -> Option<Vec<u8>> {
    let number = |bytes: &[u8]| bytes.try_into().map_or(0, i64::from_le_bytes);
    let sum = more.iter().map(number).fold(before.map_or(0, number), i64::wrapping_add);
    Some(sum.to_le_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_another_version_is_refused_by_name() {
        let bytes = encode(&7_u32).unwrap();
        assert_eq!(decode::<u32>(&bytes).unwrap(), 7);
        let error = decode::<u32>(&[9, 7]).unwrap_err();
        assert!(error.chain().contains("has version 9"), "{}", error.chain());
    }
}
