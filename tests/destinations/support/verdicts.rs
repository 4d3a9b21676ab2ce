//! What an answer says of a batch.

use tidemill::destinations::driver::{Answer, Fault, Verdict};
use tidemill::domain::delivery::AttemptError;

/// The batch is to be tried again; why.
pub fn retry(answer: &Answer) -> AttemptError {
    let Answer::All(Verdict::Retry(fault)) = answer else { panic!("no retry: {answer:?}") };
    fault.error
}

/// Its owner has to mend something; what.
pub fn config(answer: &Answer) -> AttemptError {
    let Answer::All(Verdict::Config(fault)) = answer else { panic!("not the owner's: {answer:?}") };
    fault.error
}

/// An event can never be written; why.
pub fn row(verdict: &Verdict) -> AttemptError {
    let Verdict::Row(fault) = verdict else { panic!("no event is blamed: {verdict:?}") };
    fault.error
}

/// What is recorded of a refusal of the whole batch.
pub fn fault(answer: &Answer) -> &Fault {
    match answer {
        Answer::All(Verdict::Retry(fault) | Verdict::Row(fault) | Verdict::Config(fault)) => fault,
        other => panic!("no refusal of the batch: {other:?}"),
    }
}
