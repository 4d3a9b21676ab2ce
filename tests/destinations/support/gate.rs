//! A way to a server that stops one connection at a chosen word: before the server gets it, or before its answer comes back.
//!
//! Always true: until it is told to catch something it passes everything on; what it has caught stands still, also when the
//! caller dies, until the test says what becomes of it; the other connections go on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// No word that is waited for is longer.
const WORD_MAX_BYTES: usize = 64;
const PATIENCE: Duration = Duration::from_secs(60);

/// The port of a server's URL.
pub fn port(url: &str) -> u16 {
    url.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("no port in {url}"))
}

/// The way.
pub struct Gate {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    server: u16,
    trap: Mutex<Option<Trap>>,
    counted: Mutex<Option<(&'static str, watch::Sender<usize>)>>,
}

/// What is waited for.
struct Trap {
    word: &'static str,
    /// Times that the word is let pass before.
    skip: usize,
    /// Bytes that are passed on from the word's first letter.
    past: usize,
    caught: watch::Sender<bool>,
    order: watch::Receiver<Order>,
}

/// What becomes of what was caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Stand,
    /// To the server with it; no answer comes back.
    Through,
    /// Both sides are closed.
    Cut,
}

/// A connection that is caught, or will be. It is cut with this value.
pub struct Catch {
    caught: watch::Receiver<bool>,
    order: watch::Sender<Order>,
}

impl Catch {
    /// Waits until the word has come; false: it takes too long.
    pub async fn caught(&mut self) -> bool {
        let caught = tokio::time::timeout(PATIENCE, self.caught.wait_for(|caught| *caught)).await;
        matches!(caught, Ok(Ok(_)))
    }

    /// The server gets the rest, whether or not somebody still waits for its answer.
    pub fn through(&self) {
        self.order.send_replace(Order::Through);
    }
}

impl Drop for Catch {
    fn drop(&mut self) {
        self.order.send_replace(Order::Cut);
    }
}

impl Gate {
    /// To a port of loopback.
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let shared = Arc::new(Shared { server, trap: Mutex::default(), counted: Mutex::default() });
        let ours = shared.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let ours = ours.clone();
                tokio::spawn(async move {
                    if let Ok(far) = TcpStream::connect(("127.0.0.1", ours.server)).await {
                        pass(near, far, &ours).await;
                    }
                });
            }
        });
        Self { port, shared }
    }

    /// Catches the connection that sends `word`, after the word was sent `skip` times, `past` bytes behind its beginning.
    pub fn catch(&self, word: &'static str, skip: usize, past: usize) -> Catch {
        assert!(word.len() <= WORD_MAX_BYTES);
        let (caught, is_caught) = watch::channel(false);
        let (order, ordered) = watch::channel(Order::Stand);
        *self.shared.trap.lock().expect("no panic") = Some(Trap { word, skip, past, caught, order: ordered });
        Catch { caught: is_caught, order }
    }

    /// Waits until, from now on, somebody else has sent `word`.
    pub async fn sees(&self, word: &'static str) {
        let (count, mut counted) = watch::channel(0);
        *self.shared.counted.lock().expect("no panic") = Some((word, count));
        let seen = tokio::time::timeout(PATIENCE, counted.wait_for(|count| *count > 0)).await;
        assert!(matches!(seen, Ok(Ok(_))), "nobody sent {word}");
    }
}

/// A connection, as far as it was looked at.
#[derive(Default)]
struct Look {
    /// The end of what was passed on: a word may come in two pieces.
    tail: Vec<u8>,
    /// The trap that it went into, and how many bytes are still passed on.
    trap: Option<(Trap, usize)>,
}

impl Look {
    /// How many of these bytes are passed on before the connection is caught; None: all of them, and it is not.
    fn at(&mut self, bytes: &[u8], shared: &Shared) -> Option<usize> {
        if let Some((word, count)) = &*shared.counted.lock().expect("no panic") {
            let found = starts(&self.tail, bytes, word).len();
            count.send_modify(|count| *count += found);
        }
        if self.trap.is_none() {
            let mut armed = shared.trap.lock().expect("no panic");
            if let Some(mut trap) = armed.take() {
                let found = starts(&self.tail, bytes, trap.word);
                match found.get(trap.skip) {
                    Some(start) => {
                        let left = usize::try_from(*start + isize::try_from(trap.past).expect("small")).unwrap_or(0);
                        self.trap = Some((trap, left));
                    }
                    None => {
                        trap.skip -= found.len();
                        *armed = Some(trap);
                    }
                }
            }
        }
        self.tail.extend_from_slice(bytes);
        self.tail.drain(..self.tail.len().saturating_sub(WORD_MAX_BYTES));
        let (_, left) = self.trap.as_mut()?;
        if *left <= bytes.len() {
            return Some(*left);
        }
        *left -= bytes.len();
        None
    }
}

/// Where a word begins that ends within `bytes`; before 0: in what came before.
fn starts(tail: &[u8], bytes: &[u8], word: &str) -> Vec<isize> {
    let before = &tail[tail.len().saturating_sub(word.len() - 1)..];
    let whole = [before, bytes].concat();
    let at = whole.windows(word.len()).enumerate().filter(|(_, window)| *window == word.as_bytes());
    at.map(|(at, _)| at.cast_signed() - before.len().cast_signed()).collect()
}

/// Both sides are closed when this ends.
async fn pass(near: TcpStream, far: TcpStream, shared: &Shared) {
    near.set_nodelay(true).ok();
    far.set_nodelay(true).ok();
    let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (near.into_split(), far.into_split());
    let (mut look, mut sent, mut answered) = (Look::default(), vec![0; 16 * 1024], vec![0; 16 * 1024]);
    loop {
        tokio::select! {
            read = near_in.read(&mut sent) => {
                let Ok(read @ 1..) = read else { return };
                let bytes = &sent[..read];
                let at = look.at(bytes, shared);
                if far_out.write_all(&bytes[..at.unwrap_or(read)]).await.is_err() {
                    return;
                }
                if let Some(at) = at
                    && let Some((trap, _)) = look.trap.take()
                {
                    return stand(trap, &bytes[at..], near_in, far_in, far_out).await;
                }
            }
            read = far_in.read(&mut answered) => {
                let Ok(read @ 1..) = read else { return };
                if near_out.write_all(&answered[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// What was caught: nothing comes back any more.
async fn stand(trap: Trap, held: &[u8], mut near: OwnedReadHalf, mut far: OwnedReadHalf, mut to: OwnedWriteHalf) {
    trap.caught.send_replace(true);
    let mut order = trap.order;
    // An error: the test has let go of it.
    let Ok(ordered) = order.wait_for(|order| *order != Order::Stand).await.map(|order| *order) else { return };
    if ordered == Order::Cut || to.write_all(held).await.is_err() {
        return;
    }
    let onwards = async {
        let _ = tokio::io::copy(&mut near, &mut to).await;
        // The caller is gone; the server has not been told.
        std::future::pending::<()>().await;
    };
    let unheard = async {
        let _ = tokio::io::copy(&mut far, &mut tokio::io::sink()).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = onwards => {}
        () = unheard => {}
        _ = order.wait_for(|order| *order == Order::Cut) => {}
    }
}

#[test]
fn a_word_in_two_pieces_is_found_once() {
    assert_eq!(starts(b"xxCOM", b"MIT COMMIT", "COMMIT"), [-3, 4]);
    assert_eq!(starts(b"COMMIT", b" x", "COMMIT"), Vec::<isize>::new());
}
