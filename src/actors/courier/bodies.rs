//! Bodies: built once per (event, version, include) and shared by attempts and subscribers.
//!
//! Always true: what is kept is bounded in bytes; the bytes that are signed are the bytes that are sent.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::body;
use crate::domain::event::Event;
use crate::domain::id::{EventId, Seq};
use crate::domain::subscription::{Include, Subscription};
use crate::domain::version::ApiVersion;
use crate::error::Result;
use crate::outbound::Bytes;
use crate::store::Store;

/// Which body of an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shape {
    event: Seq,
    version: ApiVersion,
    include: Vec<Include>,
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

    /// The body of an event for a subscription; None if the event is past its time.
    pub fn get(&self, store: &Store, event: Seq, subscription: &Subscription) -> Result<Option<Body>> {
        let mut include = subscription.include.clone();
        include.sort_unstable();
        let shape = Shape { event, version: subscription.api_version, include };
        if let Some(body) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).bodies.get(&shape) {
            return Ok(Some(body.clone()));
        }
        let Some(found) = store.event(event)? else { return Ok(None) };
        let id = EventId::new(event, found.workspace);
        let bytes = Bytes::from(body::render(&found, id, shape.version, &shape.include));
        let body = Body { bytes, topic: found.topic.as_str().into(), event: Arc::new(found) };
        self.keep(shape, body.clone());
        Ok(Some(body))
    }

    fn keep(&self, shape: Shape, body: Body) {
        // The event beside the body is about as large again.
        let size = |body: &Body| 2 * body.bytes.len() + 512;
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
