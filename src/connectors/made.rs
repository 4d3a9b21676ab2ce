//! What a templated connector was made into lately: a webhook's request must not compile a folder each time.
//!
//! Always true: bounded; the parameters are remembered by their hash only, since there are secrets among them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest;

use super::{Connector, Parameters, SpecError};

/// How many are kept.
const KEPT_MAX: usize = 64;

/// The latest ones, the newest last.
#[derive(Default)]
pub struct Made(Mutex<VecDeque<([u8; 32], Arc<Connector>)>>);

impl Made {
    /// The connector of these parameters, made by `make` if it is not here.
    pub fn get(
        &self,
        parameters: &Parameters,
        make: impl FnOnce() -> Result<Connector, SpecError>,
    ) -> Result<Arc<Connector>, SpecError> {
        let text = serde_json::to_string(parameters).unwrap_or_default();
        let mut key = [0; 32];
        key.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        if let Some(found) = self.take(key) {
            self.keep(key, Arc::clone(&found));
            return Ok(found);
        }
        // Made outside the lock; two at once make the same thing twice, which harms nobody.
        let made = Arc::new(make()?);
        self.keep(key, Arc::clone(&made));
        Ok(made)
    }
    fn take(&self, key: [u8; 32]) -> Option<Arc<Connector>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(k, _)| *k == key)?;
        kept.remove(at).map(|(_, connector)| connector)
    }
    fn keep(&self, key: [u8; 32], connector: Arc<Connector>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((key, connector));
        if kept.len() > KEPT_MAX {
            kept.pop_front();
        }
    }
}
