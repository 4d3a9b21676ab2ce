//! Whose turn it is among the batches of one lane.
//!
//! Always true: one batch is with the destination at a time; one more stands behind it, read and made ready, and goes when
//! nothing of the one before is left, or else goes back untried. Not here: what is in them (`write`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Answers once it is one's turn; an error: one goes back.
pub(super) type Cue = oneshot::Receiver<()>;

/// Those of one lane.
#[derive(Default)]
pub(in crate::actors::courier) struct Line(Mutex<State>);

#[derive(Default)]
struct State {
    /// A batch is with the destination, and another may stand behind it.
    is_open: bool,
    behind: Option<oneshot::Sender<()>>,
}

/// A batch is with the destination. Dropped: the one behind it goes back.
pub(super) struct Ahead {
    line: Arc<Line>,
    is_over: bool,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch goes to the destination, and another may stand behind it.
    pub(super) fn open(self: &Arc<Self>) -> Ahead {
        self.lock().is_open = true;
        Ahead { line: self.clone(), is_over: false }
    }

    /// The place behind the batch that is with the destination, if it is free.
    pub(super) fn stand(&self) -> Option<Cue> {
        let mut state = self.lock();
        let is_free = state.behind.as_ref().is_none_or(oneshot::Sender::is_closed);
        if !state.is_open || !is_free {
            return None;
        }
        let (turn, comes) = oneshot::channel();
        state.behind = Some(turn);
        Some(comes)
    }
}

impl Ahead {
    /// Nothing of it is left: it is the next one's turn.
    pub(super) fn pass_on(mut self) {
        if let Some(turn) = self.end() {
            // Whoever does not stand there any more has gone back.
            let _ = turn.send(());
        }
    }

    fn end(&mut self) -> Option<oneshot::Sender<()>> {
        self.is_over = true;
        let mut state = self.line.lock();
        state.is_open = false;
        state.behind.take()
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // Once it is over, the line is the next one's.
        if !self.is_over {
            self.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stands_behind_and_goes_when_nothing_is_left() {
        let line = Arc::new(Line::default());
        assert!(line.stand().is_none(), "nothing is with the destination");
        let first = line.open();
        let mut second = line.stand().expect("a place");
        assert!(line.stand().is_none(), "one place");
        assert_eq!(second.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        first.pass_on();
        assert_eq!(second.try_recv(), Ok(()));
        assert!(line.stand().is_none(), "the second has not gone yet");
        let _second = line.open();
        assert!(line.stand().is_some());
    }

    #[test]
    fn one_goes_back_if_something_is_left_and_its_place_is_free_if_it_goes_by_itself() {
        let line = Arc::new(Line::default());
        let first = line.open();
        drop(line.stand());
        let mut second = line.stand().expect("the place is free again");
        drop(first);
        assert_eq!(second.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert!(line.stand().is_none());
    }
}
