//! What is told of a batch whose parts are sent one after the other.
//!
//! Always true: each item of a part has a verdict; an event is blamed only if it was alone in its part. Not here: how a
//! part is sent (each driver), what could never be written (the caller of drivers).

use super::driver::{Answer, Fault, Frozen, Verdict};
use super::steps::fault;
use crate::domain::trouble::Trouble;

/// After `done` parts were taken and `verdict` was said of the next one, or `Done` of all. What came after it was not
/// sent. Events of parts that were not taken come again, then at the head of a batch: a verdict on a whole part is then
/// one on the whole batch, which is paused or split for it.
pub fn told(frozen: &Frozen, done: usize, verdict: Verdict) -> Answer {
    if done == 0 || verdict == Verdict::Done {
        return Answer::All(verdict);
    }
    let mut all: Vec<Option<Verdict>> = vec![None; frozen.items];
    let mut put = |place: usize, verdict: Verdict| {
        if let Some(slot) = all.get_mut(place) {
            *slot = Some(verdict);
        }
    };
    for (number, part) in frozen.parts.iter().enumerate() {
        for place in &part.items {
            let said = match &verdict {
                _ if number < done => Verdict::Done,
                Verdict::Row(_) if number == done && part.items.len() == 1 => verdict.clone(),
                other => Verdict::Retry(fault(other.clone())),
            };
            put(*place, said);
        }
    }
    // Whoever sends batches tells of the refused ones.
    let unknown = || Verdict::Retry(Fault::new(Trouble::Failed, "it was in no request"));
    Answer::Each(all.into_iter().map(|said| said.unwrap_or_else(unknown)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destinations::driver::Part;
    use crate::outbound::Bytes;

    fn frozen(parts: &[&[usize]]) -> Frozen {
        let part = |items: &&[usize]| Part { target: String::new(), body: Bytes::new(), items: items.to_vec() };
        let items = parts.iter().map(|items| items.len()).sum::<usize>();
        Frozen {
            id: "x".to_owned(),
            parts: parts.iter().map(part).collect(),
            items,
            refused: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn an_event_is_blamed_only_if_it_was_alone() {
        let row = || Verdict::Row(Fault::new(Trouble::ValueRefused, "no"));
        let retry = || Verdict::Retry(Fault::new(Trouble::ValueRefused, "no"));
        let three = frozen(&[&[0, 1], &[2], &[3, 4]]);
        assert_eq!(told(&three, 3, Verdict::Done), Answer::All(Verdict::Done));
        assert_eq!(told(&three, 0, row()), Answer::All(row()));
        let done = Verdict::Done;
        let each = Answer::Each(vec![done.clone(), done.clone(), row(), retry(), retry()]);
        assert_eq!(told(&three, 1, row()), each);
        let each = Answer::Each(vec![done.clone(), done.clone(), done.clone(), retry(), retry()]);
        assert_eq!(told(&three, 2, row()), each);
    }
}
