//! Publishing a batch: many messages on their way at once, each acknowledged by the stream.
//!
//! Always true: messages leave in the order of the batch; the first is alone until it is acknowledged, so what is wrong
//! with all of them is noticed before a second one leaves; two of one record are never on their way together, and after
//! one that has to come again nothing more leaves, so the events of a record keep their order whatever happens; what was
//! not acknowledged is never called done. Not here: what an answer means (`verdict`).

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::RECORD;
use super::link::Link;
use super::verdict;
use super::wire::{Frame, Message};
use crate::destinations::driver::{Answer, Fault, Frozen, Part, Verdict};
use crate::destinations::steps::fault;
use crate::domain::trouble::Trouble;

/// Messages on their way at once.
const OPEN_MAX: usize = 256;
/// Bytes of them; a larger one goes alone.
const OPEN_MAX_BYTES: usize = 4 << 20;
/// How long nothing may be acknowledged.
const ACK_TIMEOUT: Duration = Duration::from_secs(20);

/// How far a batch is.
struct Flight<'a> {
    parts: &'a [Part],
    /// One per part.
    said: Vec<Option<Verdict>>,
    next: usize,
    /// Those on their way, by the number of their answer.
    open: BTreeMap<u64, usize>,
    open_bytes: usize,
    open_records: HashSet<&'a [u8]>,
    /// One was acknowledged.
    proven: bool,
    /// Why no more leave.
    stop: Option<Verdict>,
}

/// Publishes a batch. What is told of it, and whether the connection can be used further.
pub(super) async fn publish(link: &mut Link, frozen: &Frozen, until: Instant) -> (Answer, bool) {
    let mut flight = Flight {
        parts: &frozen.parts,
        said: vec![None; frozen.parts.len()],
        next: 0,
        open: BTreeMap::new(),
        open_bytes: 0,
        open_records: HashSet::new(),
        proven: false,
        stop: None,
    };
    let usable = match flight.run(link, until).await {
        Ok(()) => true,
        Err(verdict) => {
            flight.stop = Some(verdict);
            false
        }
    };
    (flight.told(frozen), usable)
}

impl<'a> Flight<'a> {
    async fn run(&mut self, link: &mut Link, until: Instant) -> Result<(), Verdict> {
        loop {
            self.leave(link);
            if self.open.is_empty() {
                return Ok(());
            }
            let wait = until.min(Instant::now() + ACK_TIMEOUT);
            link.wire.flush(wait).await?;
            let mut frame = Some(link.wire.read(wait).await?);
            while let Some(said) = frame {
                self.hear(link, said)?;
                frame = link.wire.here()?;
            }
        }
    }

    /// Sends what may leave now.
    fn leave(&mut self, link: &mut Link) {
        while let (None, Some(part)) = (&self.stop, self.parts.get(self.next)) {
            let most = link.info.max_payload;
            if most > 0 && part.body.len() > most {
                let detail = format!("it has {} bytes, the server takes {most} (max_payload)", part.body.len());
                self.say(self.next, Verdict::Row(Fault::new(Trouble::TooLarge, detail)));
                self.next += 1;
                continue;
            }
            let record = record(part);
            let full = self.open.len() >= OPEN_MAX || self.open_bytes + part.body.len() > OPEN_MAX_BYTES;
            let waits = full || !self.proven || record.is_some_and(|record| self.open_records.contains(record));
            if waits && !self.open.is_empty() {
                return;
            }
            let (number, reply) = link.reply();
            link.wire.publish(&part.target, &reply, &part.body);
            self.open.insert(number, self.next);
            self.open_bytes += part.body.len();
            self.open_records.extend(record);
            self.next += 1;
        }
    }

    fn hear(&mut self, link: &mut Link, frame: Frame) -> Result<(), Verdict> {
        match frame {
            Frame::Message(message) => {
                if let Some(number) = link.number(&message) {
                    self.answered(number, &message);
                }
            }
            Frame::Error(text) => {
                let verdict = verdict::error(&text);
                // What may not be published has no answer, and the connection goes on.
                let Some(subject) = denied(&text) else { return Err(verdict) };
                let is_it = |place: &usize| self.parts.get(*place).is_some_and(|part| part.target == subject);
                let numbers: Vec<u64> =
                    self.open.iter().filter(|(_, place)| is_it(place)).map(|(number, _)| *number).collect();
                for number in numbers {
                    self.close(number, verdict.clone());
                }
            }
            Frame::Info(info) => link.info.ldm |= info.ldm,
            Frame::Ping | Frame::Pong | Frame::Ok => {}
        }
        Ok(())
    }

    fn answered(&mut self, number: u64, message: &Message) {
        self.close(number, verdict::ack(message));
    }

    fn close(&mut self, number: u64, verdict: Verdict) {
        let Some(place) = self.open.remove(&number) else { return };
        if let Some(part) = self.parts.get(place) {
            self.open_bytes -= part.body.len();
            if let Some(record) = record(part) {
                self.open_records.remove(record);
            }
        }
        match &verdict {
            Verdict::Done => self.proven = true,
            Verdict::Row(_) => {}
            // The first one said is that of the earliest message, or of all.
            Verdict::Retry(_) | Verdict::Config(_) => {
                self.stop.get_or_insert_with(|| verdict.clone());
            }
        }
        self.say(place, verdict);
    }

    fn say(&mut self, place: usize, verdict: Verdict) {
        if let Some(slot) = self.said.get_mut(place) {
            *slot = Some(verdict);
        }
    }

    /// One verdict where nothing was taken or refused by itself, else one per event; the rest of the batch comes again.
    fn told(self, frozen: &Frozen) -> Answer {
        let is_settled = |said: &Option<Verdict>| matches!(said, Some(Verdict::Done | Verdict::Row(_)));
        let Some(stop) = self.stop else {
            if self.said.iter().all(|said| *said == Some(Verdict::Done)) {
                return Answer::All(Verdict::Done);
            }
            return each(frozen, &self.said, &Verdict::Retry(Fault::new(Trouble::Failed, "it was not acknowledged")));
        };
        if self.said.iter().any(is_settled) { each(frozen, &self.said, &stop) } else { Answer::All(stop) }
    }
}

fn each(frozen: &Frozen, said: &[Option<Verdict>], rest: &Verdict) -> Answer {
    let again = Verdict::Retry(fault(rest.clone()));
    // Whoever sends batches tells of the refused ones, which are in no part.
    let mut all = vec![again; frozen.items];
    for (part, said) in frozen.parts.iter().zip(said) {
        let verdict = match said {
            Some(verdict @ (Verdict::Done | Verdict::Row(_))) => verdict.clone(),
            Some(Verdict::Retry(fault) | Verdict::Config(fault)) => Verdict::Retry(fault.clone()),
            None => continue,
        };
        for place in &part.items {
            if let Some(slot) = all.get_mut(*place) {
                *slot = verdict.clone();
            }
        }
    }
    Answer::Each(all)
}

/// The record that a message tells of, as its header says.
fn record(part: &Part) -> Option<&[u8]> {
    let head = part.body.windows(4).position(|bytes| bytes == b"\r\n\r\n").and_then(|end| part.body.get(..end))?;
    head.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(RECORD.as_bytes()))
}

/// The subject of `Permissions Violation for Publish to "…"`.
fn denied(text: &str) -> Option<&str> {
    let (what, rest) = text.split_once('"')?;
    let (subject, _) = rest.split_once('"')?;
    what.to_ascii_lowercase().contains("for publish to").then_some(subject)
}
