//! The versions of the API: the date in the path of a call, and so the shape of what its subscriptions get.
//!
//! Not here: how the shapes differ (`body`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A version of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ApiVersion {
    /// `2023-12`: `name`, and times as Unix seconds.
    #[serde(rename = "2023-12")]
    V2023_12,
    /// `2024-03`: `app`, and times as RFC 3339.
    #[serde(rename = "2024-03")]
    V2024_03,
}

/// The text is no version of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the API versions are 2023-12 and 2024-03")]
pub struct NotAVersion;

impl ApiVersion {
    /// All of them, oldest first.
    pub const ALL: &'static [Self] = &[Self::V2023_12, Self::V2024_03];
    /// As it stands in a path.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2023_12 => "2023-12",
            Self::V2024_03 => "2024-03",
        }
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ApiVersion {
    type Err = NotAVersion;
    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        Self::ALL.iter().copied().find(|v| v.as_str() == text).ok_or(NotAVersion)
    }
}
