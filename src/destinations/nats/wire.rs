//! The protocol of NATS, as far as a publisher needs it (NATS docs, "Client Protocol").
//!
//! Always true: a line has at most 64 KiB and a message at most 1 MiB, and more is not held; a server's `PING` is answered
//! whenever something is read; each wait has its end. Not here: what is said (`link`, `publish`), what `-ERR` means
//! (`verdict`).

use std::io;

use bytes::{Buf, BytesMut};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::verdict;
use crate::destinations::driver::Verdict;
use crate::domain::failure::Failure;

const LINE_MAX_BYTES: usize = 64 << 10;
/// Acknowledgements have a hundred bytes, the description of a stream a few thousand.
const PAYLOAD_MAX_BYTES: usize = 1 << 20;
const READ_BYTES: usize = 16 << 10;

/// What bytes are passed on.
pub(super) trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

/// What a server says of itself.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Info {
    pub(super) version: String,
    pub(super) headers: bool,
    pub(super) max_payload: usize,
    pub(super) nonce: Option<String>,
    pub(super) tls_required: bool,
    pub(super) tls_available: bool,
    /// Lame duck: it is about to stop.
    pub(super) ldm: bool,
}

/// A message that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) subject: String,
    /// In place of a message: 503 if nobody listens.
    pub(super) status: Option<u16>,
    pub(super) body: BytesMut,
}

/// One thing that a server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Info(Info),
    Message(Message),
    Ping,
    Pong,
    Ok,
    /// `-ERR`, in the server's words.
    Error(String),
}

/// Takes the next frame out of what is held; None: it is not whole yet.
///
/// # Errors
/// It is not the protocol of NATS.
pub(super) fn next(held: &mut BytesMut) -> Result<Option<Frame>, Verdict> {
    let Some(end) = held.iter().position(|byte| *byte == b'\n') else {
        return if held.len() > LINE_MAX_BYTES { Err(verdict::foreign()) } else { Ok(None) };
    };
    if end > LINE_MAX_BYTES {
        return Err(verdict::foreign());
    }
    let line = held.get(..end).and_then(|line| std::str::from_utf8(line).ok()).ok_or_else(verdict::foreign)?;
    let line = line.trim();
    let (verb, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let frame = match verb.to_ascii_uppercase().as_str() {
        "PING" => Frame::Ping,
        "PONG" => Frame::Pong,
        "+OK" => Frame::Ok,
        "-ERR" => Frame::Error(rest.trim().trim_matches('\'').to_owned()),
        "INFO" => Frame::Info(serde_json::from_str(rest).map_err(|_| verdict::foreign())?),
        verb @ ("MSG" | "HMSG") => {
            let words: Vec<&str> = rest.split_ascii_whitespace().collect();
            let (subject, head, total) = sizes(&words, verb == "HMSG").ok_or_else(verdict::foreign)?;
            if held.len() < end + 1 + total + 2 {
                return Ok(None);
            }
            held.advance(end + 1);
            let mut body = held.split_to(total);
            held.advance(2);
            let head = body.split_to(head);
            return Ok(Some(Frame::Message(Message { subject, status: status(&head), body })));
        }
        _ => return Err(verdict::foreign()),
    };
    held.advance(end + 1);
    Ok(Some(frame))
}

/// Of `subject sid [reply] [head] total`: subject, bytes of the head, bytes of all.
fn sizes(words: &[&str], has_head: bool) -> Option<(String, usize, usize)> {
    let fixed = if has_head { 4 } else { 3 };
    if words.len() != fixed && words.len() != fixed + 1 {
        return None;
    }
    let mut last = words.iter().rev().map(|word| word.parse::<usize>().ok());
    let total = last.next()??;
    let head = if has_head { last.next()?? } else { 0 };
    let subject = (*words.first()?).to_owned();
    (total <= PAYLOAD_MAX_BYTES && head <= total).then_some((subject, head, total))
}

/// The number in `NATS/1.0 503`.
fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    std::str::from_utf8(line).ok()?.split(' ').nth(1)?.parse().ok()
}

/// A connection on which the protocol is spoken.
pub(super) struct Wire {
    pipe: Box<dyn Pipe>,
    held: BytesMut,
    out: Vec<u8>,
}

impl Wire {
    pub(super) fn new(pipe: impl Pipe + 'static) -> Self {
        Self { pipe: Box::new(pipe), held: BytesMut::new(), out: Vec::new() }
    }

    /// The connection alone, for TLS; None if the server has said more than it should have by then.
    pub(super) fn into_pipe(self) -> Option<Box<dyn Pipe>> {
        self.held.is_empty().then_some(self.pipe)
    }

    /// Keeps a line, to be sent with [`Wire::flush`].
    pub(super) fn line(&mut self, line: &str) {
        self.out.extend_from_slice(line.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    /// The same for a message: `body` is its headers and what follows them.
    pub(super) fn publish(&mut self, subject: &str, reply: &str, body: &[u8]) {
        const BETWEEN: &[u8] = b"\r\n\r\n";
        let head = body.windows(BETWEEN.len()).position(|bytes| bytes == BETWEEN).map_or(0, |at| at + BETWEEN.len());
        self.line(&format!("HPUB {subject} {reply} {head} {}", body.len()));
        self.out.extend_from_slice(body);
        self.out.extend_from_slice(b"\r\n");
    }

    /// Sends what was kept.
    ///
    /// # Errors
    /// The verdict on whoever waits for it.
    pub(super) async fn flush(&mut self, until: Instant) -> Result<(), Verdict> {
        let sent = async {
            self.pipe.write_all(&self.out).await?;
            self.pipe.flush().await
        };
        let sent = timeout_at(until, sent).await;
        self.out.clear();
        match sent {
            Ok(sent) => sent.map_err(|error| verdict::broken(&error)),
            Err(_) => Err(verdict::way(Failure::ResponseTimeout)),
        }
    }

    /// What is here already, pings answered.
    ///
    /// # Errors
    /// It is not the protocol of NATS.
    pub(super) fn here(&mut self) -> Result<Option<Frame>, Verdict> {
        while let Some(frame) = next(&mut self.held)? {
            match frame {
                Frame::Ping => self.line("PONG"),
                Frame::Ok => {}
                frame => return Ok(Some(frame)),
            }
        }
        Ok(None)
    }

    /// The next thing that the server says.
    ///
    /// # Errors
    /// The verdict on whoever waits for it.
    pub(super) async fn read(&mut self, until: Instant) -> Result<Frame, Verdict> {
        loop {
            if let Some(frame) = self.here()? {
                return Ok(frame);
            }
            if !self.out.is_empty() {
                self.flush(until).await?;
            }
            self.held.reserve(READ_BYTES);
            match timeout_at(until, self.pipe.read_buf(&mut self.held)).await {
                Ok(Ok(0)) => return Err(verdict::broken(&io::ErrorKind::UnexpectedEof.into())),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(verdict::broken(&error)),
                Err(_) => return Err(verdict::way(Failure::ResponseTimeout)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Result<Vec<Frame>, Verdict> {
        let (mut held, mut frames) = (BytesMut::from(text), Vec::new());
        while let Some(frame) = next(&mut held)? {
            frames.push(frame);
        }
        Ok(frames)
    }

    fn message(subject: &str, status: Option<u16>, body: &str) -> Frame {
        Frame::Message(Message { subject: subject.to_owned(), status, body: BytesMut::from(body) })
    }

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let text = b"INFO {\"version\":\"2.15.1\",\"headers\":true,\"max_payload\":1048576,\"connect_urls\":[\"a\"]}\r\n\
            PING\r\npong\r\n+OK\r\nMSG a.b 1 5\r\nhe\r\no\r\nMSG a.b 1 reply 0\r\n\r\n\
            HMSG a.b 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\nHMSG c 1 r 12 14\r\nNATS/1.0\r\n\r\nok\r\n-ERR 'Stale Connection'\r\n";
        let info = Info { version: "2.15.1".to_owned(), headers: true, max_payload: 1 << 20, ..Info::default() };
        let expected = vec![
            Frame::Info(info),
            Frame::Ping,
            Frame::Pong,
            Frame::Ok,
            message("a.b", None, "he\r\no"),
            message("a.b", None, ""),
            message("a.b", Some(503), ""),
            message("c", None, "ok"),
            Frame::Error("Stale Connection".to_owned()),
        ];
        assert_eq!(all(text).unwrap(), expected);
        let (mut held, mut frames) = (BytesMut::new(), Vec::new());
        for byte in text {
            held.extend_from_slice(&[*byte]);
            frames.extend(next(&mut held).unwrap());
        }
        assert_eq!(frames, expected);
    }

    #[test]
    fn what_is_not_nats_or_too_long_is_refused_and_not_held() {
        let long = vec![b'x'; LINE_MAX_BYTES + 1];
        let texts: [&[u8]; 8] = [
            b"HTTP/1.1 400 Bad Request\r\n",
            b"INFO nothing\r\n",
            b"MSG a 1 9999999\r\n",
            b"MSG a 1 -1\r\n",
            b"MSG a 1\r\n",
            b"HMSG a 1 9 8\r\n",
            b"PING\xff\r\n",
            &long,
        ];
        for text in texts {
            assert!(all(text).is_err(), "{:?}", String::from_utf8_lossy(text));
        }
    }
}
