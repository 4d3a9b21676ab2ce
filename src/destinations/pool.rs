//! A few connections, shared by all lanes that write to one place.
//!
//! Always true: there are never more than the limit; a connection that is not given back is dropped, not used again; one
//! that was not used for a while, or that was made under another policy of addresses, is closed. Not here: making a
//! connection, and what is said on it (each driver).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::driver::{Fault, Verdict};
use crate::domain::address::Policy;
use crate::domain::failure::Failure;
use crate::outbound::Client;

/// An unused connection is closed after this.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// The connections of a destination.
pub struct Pool<T> {
    out: Client,
    room: Arc<Semaphore>,
    idle: Mutex<Vec<Idle<T>>>,
    /// Somebody closes unused ones.
    sweeping: AtomicBool,
}

struct Idle<T> {
    connection: T,
    policy: Arc<Policy>,
    since: Instant,
}

/// Room for one connection.
pub struct Room {
    policy: Arc<Policy>,
    permit: OwnedSemaphorePermit,
}

/// A connection in use. Unless it is given back it is closed.
pub struct Lease<T> {
    pub connection: T,
    room: Room,
}

impl Room {
    /// Used by this connection.
    pub fn holding<T>(self, connection: T) -> Lease<T> {
        Lease { connection, room: self }
    }
}

impl<T: Send + 'static> Pool<T> {
    /// Nothing is connected yet.
    pub fn new(out: Client, connections: usize) -> Self {
        let room = Arc::new(Semaphore::new(connections));
        Self { out, room, idle: Mutex::default(), sweeping: AtomicBool::new(false) }
    }

    /// The way out for new connections.
    pub fn out(&self) -> &Client {
        &self.out
    }

    /// Waits until there is room for a connection; the caller's time limit ends the wait.
    ///
    /// # Errors
    /// Never: the room is not closed.
    pub async fn room(&self) -> Result<Room, Verdict> {
        let closed = |_| Verdict::Retry(Fault::way(Failure::ConnectTimeout));
        let permit = self.room.clone().acquire_owned().await.map_err(closed)?;
        Ok(Room { policy: self.out.policy(), permit })
    }

    /// The connection that was used last; None: a new one has to be made.
    pub fn kept(&self, room: &Room) -> Option<T> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(last) = idle.pop() {
            if last.since.elapsed() < IDLE_MAX && Arc::ptr_eq(&last.policy, &room.policy) {
                return Some(last.connection);
            }
        }
        None
    }

    /// Takes a connection back on which nothing is under way.
    pub fn give_back(self: &Arc<Self>, lease: Lease<T>) {
        let Lease { connection, room: Room { policy, permit } } = lease;
        let idle = Idle { connection, policy, since: Instant::now() };
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(idle);
        self.sweep();
        // Whoever waits finds the connection.
        drop(permit);
    }

    /// Closes unused connections, now and then, as long as there are any.
    fn sweep(self: &Arc<Self>) {
        if self.sweeping.swap(true, Ordering::AcqRel) {
            return;
        }
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(IDLE_MAX).await;
                let Some(pool) = pool.upgrade() else { return };
                let mut idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
                idle.retain(|idle| idle.since.elapsed() < IDLE_MAX);
                if idle.is_empty() {
                    // Under the lock, so that nobody adds one and believes that it is looked after.
                    pool.sweeping.store(false, Ordering::Release);
                    return;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::Options;

    fn pool(connections: usize) -> Arc<Pool<u32>> {
        let out = Client::new(&Options::standard(), Arc::new(Policy::new(Vec::new(), false))).expect("a client");
        Arc::new(Pool::new(out, connections))
    }

    #[tokio::test]
    async fn who_waits_gets_the_connection_that_is_given_back() {
        let pool = pool(1);
        let lease = pool.room().await.expect("room").holding(7);
        let mut waiting = std::pin::pin!(pool.room());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        pool.give_back(lease);
        let room = waiting.await.expect("room");
        assert_eq!(pool.kept(&room), Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn an_unused_connection_is_closed() {
        let pool = pool(2);
        pool.give_back(pool.room().await.expect("room").holding(7));
        tokio::time::sleep(IDLE_MAX * 2 + Duration::from_secs(1)).await;
        assert!(pool.idle.lock().expect("idle").is_empty());
        assert!(!pool.sweeping.load(Ordering::Acquire));
    }
}
