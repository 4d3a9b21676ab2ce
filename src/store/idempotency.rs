//! Answers kept for a repeated `Idempotency-Key`, in the same commit as what they answer.
//!
//! Always true: an answer is encrypted, lives 24 h, and is found only under the workspace, path and key that it was
//! given for. Not here: refusing a second call while the first runs (`api::idempotency`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::codec;
use super::keys::{Key, hash16};
use super::rows::Rows;
use super::tables::Table;
use super::tx::Tx;
use crate::domain::id::WorkspaceNo;
use crate::domain::time::Millis;
use crate::error::Result;

/// How long an answer is kept.
pub const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Where an answer belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    pub workspace: WorkspaceNo,
    /// Method, path and the caller's key, as one text.
    pub place: String,
    /// First 16 bytes of the SHA-256 of the request's body.
    pub body: [u8; 16],
}

/// A kept answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub status: u16,
    /// The answer's body.
    pub text: Vec<u8>,
    /// Hash of the body that was asked with.
    pub asked: [u8; 16],
    pub at: Millis,
}

impl Remembered {
    /// For a call's path, key and body bytes.
    pub fn new(workspace: WorkspaceNo, path: &str, key: &str, body: &[u8]) -> Self {
        Self { workspace, place: format!("{path}\n{key}"), body: hash16(body) }
    }
    fn key(&self) -> Key {
        Key::workspace(self.workspace).text(&self.place)
    }
}

impl Rows {
    /// The answer kept for this place, if it is not too old.
    pub fn remembered(&self, place: &Remembered, now: Millis) -> Result<Option<Answer>> {
        let key = place.key();
        let Some(plain) = self.open_sealed(&place.workspace.0.to_be_bytes(), Table::Idempotency, &key)? else {
            return Ok(None);
        };
        let answer: Answer = codec::decode(&plain)?;
        Ok(Some(answer).filter(|a| now < a.at.after(KEPT)))
    }
}

impl Tx<'_> {
    /// Keeps a 2xx answer.
    pub fn remember(&mut self, place: &Remembered, status: u16, text: &[u8]) -> Result<()> {
        let answer = Answer { status, text: text.to_vec(), asked: place.body, at: self.now() };
        let plain = codec::encode(&answer)?;
        self.put_sealed(&place.workspace.0.to_be_bytes(), Table::Idempotency, place.key(), &plain)
    }
}
