//! A way to a server that breaks: passes bytes on until it has passed so many, then closes both sides.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Which bytes are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Those to the server.
    Sent,
    /// Those from the server.
    Answered,
}

/// A broken way.
pub struct Cutter {
    pub port: u16,
    left: Arc<AtomicI64>,
}

impl Cutter {
    /// A way to a port of loopback, which is whole for now.
    pub async fn to(server: u16, counted: Counted) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let left = Arc::new(AtomicI64::new(i64::MAX));
        let shared = left.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let left = shared.clone();
                tokio::spawn(async move {
                    if let Ok(far) = TcpStream::connect(("127.0.0.1", server)).await {
                        pass(near, far, &left, counted).await;
                    }
                });
            }
        });
        Self { port, left }
    }

    /// From now on so many bytes are passed on, over all connections.
    pub fn cut_after(&self, bytes: i64) {
        self.left.store(bytes, Ordering::SeqCst);
    }

    /// Whole again.
    pub fn mend(&self) {
        self.left.store(i64::MAX, Ordering::SeqCst);
    }
}

/// Both sides are closed when this ends.
async fn pass(near: TcpStream, far: TcpStream, left: &AtomicI64, counted: Counted) {
    let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (near.into_split(), far.into_split());
    let none = AtomicI64::new(i64::MAX);
    let (sent, answered) = if counted == Counted::Sent { (left, &none) } else { (&none, left) };
    tokio::select! {
        () = one_way(&mut near_in, &mut far_out, sent) => {}
        () = one_way(&mut far_in, &mut near_out, answered) => {}
    }
}

async fn one_way(from: &mut (impl AsyncReadExt + Unpin), to: &mut (impl AsyncWriteExt + Unpin), left: &AtomicI64) {
    let mut held = [0; 4096];
    loop {
        let Ok(read) = from.read(&mut held).await else { return };
        let size = i64::try_from(read).expect("4096 at most");
        let before = left.fetch_sub(size, Ordering::SeqCst);
        let passed = usize::try_from(before.clamp(0, size)).expect("not negative");
        if read == 0 || to.write_all(&held[..passed]).await.is_err() || passed < read {
            return;
        }
    }
}
