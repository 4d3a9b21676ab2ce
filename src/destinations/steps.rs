//! The steps of a destination's test, taken one after the other until one fails.
//!
//! Always true: after a step that failed there are no others. Not here: what the steps do (each driver).

use std::time::Instant;

use super::driver::{Answer, Fault, Step, Verdict};
use crate::domain::trouble::Trouble;

/// The steps so far.
#[derive(Default)]
pub struct Steps(Vec<Step>);

impl Steps {
    /// Takes a step, unless one before it failed. What it found is kept; None: it was not taken, or it failed.
    pub async fn take<T>(
        &mut self,
        name: &'static str,
        step: impl Future<Output = Result<(T, String), Verdict>>,
    ) -> Option<T> {
        if self.0.last().is_some_and(|step| step.fault.is_some()) {
            return None;
        }
        let began = Instant::now();
        let (value, fault, found) = match step.await {
            Ok((value, found)) => (Some(value), None, found),
            Err(verdict) => (None, Some(fault(verdict)), String::new()),
        };
        self.0.push(Step { name, took: began.elapsed(), fault, found });
        value
    }

    /// All of them.
    pub fn done(self) -> Vec<Step> {
        self.0
    }
}

/// What a test makes of the answer to its only event.
///
/// # Errors
/// The verdict, if it is not `Done`.
pub fn written(answer: Answer) -> Result<(), Verdict> {
    match answer {
        Answer::All(Verdict::Done) => Ok(()),
        Answer::All(verdict) => Err(verdict),
        Answer::Each(all) => all.into_iter().find(|verdict| *verdict != Verdict::Done).map_or(Ok(()), Err),
    }
}

/// What a verdict has against a request.
pub fn fault(verdict: Verdict) -> Fault {
    match verdict {
        Verdict::Done => Fault::new(Trouble::Failed, "it was there before"),
        Verdict::Retry(fault) | Verdict::Row(fault) | Verdict::Config(fault) => fault,
    }
}
