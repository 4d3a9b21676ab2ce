//! Bodies: built once per (event, version, include) and shared by attempts and subscribers.
//!
//! Always true: what is kept is bounded in bytes; the bytes that are signed are the bytes that are sent.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::body;
use crate::domain::event::Event;
use crate::domain::id::{EventId, Seq};
use crate::domain::subscription::Include;
use crate::domain::version::ApiVersion;
use crate::error::Result;
use crate::outbound::Bytes;
use crate::store::{Merged, Store};

/// Which body of an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shape {
    event: Seq,
    version: ApiVersion,
    include: Arc<[Include]>,
}

/// A body with what a delivery needs to know of its event.
#[derive(Clone)]
pub struct Body {
    pub bytes: Bytes,
    pub event: Arc<Event>,
    pub topic: Arc<str>,
}

/// The bodies made last.
pub struct Bodies {
    kept: Mutex<Kept>,
    bytes_max: usize,
}

#[derive(Default)]
struct Kept {
    bodies: HashMap<Shape, Body>,
    order: VecDeque<Shape>,
    bytes: usize,
}

impl Bodies {
    /// Keeps about so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { kept: Mutex::default(), bytes_max }
    }

    /// The body of an event; None if the event is past its time. `include` is sorted.
    pub fn get(
        &self,
        store: &Store,
        event: Seq,
        version: ApiVersion,
        include: &Arc<[Include]>,
    ) -> Result<Option<Body>> {
        let shape = Shape { event, version, include: include.clone() };
        if let Some(body) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).bodies.get(&shape) {
            return Ok(Some(body.clone()));
        }
        let Some(found) = store.event(event)? else { return Ok(None) };
        let body = made(event, found, version, include);
        self.keep(shape, body.clone());
        Ok(Some(body))
    }

    /// The body of an event into which others collapsed: with all that changed since the oldest of them.
    pub fn merged(
        store: &Store,
        event: Seq,
        merged: Merged,
        version: ApiVersion,
        include: &Arc<[Include]>,
    ) -> Result<Option<Body>> {
        let Some(mut found) = store.event(event)? else { return Ok(None) };
        found.changed_fields = merged.changed_fields;
        // The oldest may be past its time; then nothing older is known than what this one has.
        if let Some(first) = store.event(merged.first)? {
            found.previous = first.previous;
        }
        Ok(Some(made(event, found, version, include)))
    }

    /// Forgets the bodies of events that were erased.
    pub fn forget(&self, events: &[Seq]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<Shape> = kept.order.iter().filter(|shape| events.contains(&shape.event)).cloned().collect();
        for shape in gone {
            kept.order.retain(|other| *other != shape);
            if let Some(body) = kept.bodies.remove(&shape) {
                kept.bytes -= size(&body);
            }
        }
    }

    fn keep(&self, shape: Shape, body: Body) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += size(&body);
        if let Some(before) = kept.bodies.insert(shape.clone(), body) {
            kept.bytes -= size(&before);
        } else {
            kept.order.push_back(shape);
        }
        while kept.bytes > self.bytes_max
            && let Some(oldest) = kept.order.pop_front()
        {
            if let Some(body) = kept.bodies.remove(&oldest) {
                kept.bytes -= size(&body);
            }
        }
    }
}

/// The event beside the body is about as large again.
fn size(body: &Body) -> usize {
    2 * body.bytes.len() + 512
}

fn made(seq: Seq, event: Event, version: ApiVersion, include: &[Include]) -> Body {
    let id = EventId::new(seq, event.workspace);
    let bytes = Bytes::from(body::render(&event, id, version, include));
    Body { bytes, topic: event.topic.as_str().into(), event: Arc::new(event) }
}
