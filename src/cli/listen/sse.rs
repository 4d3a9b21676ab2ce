//! Reading server-sent events out of the pieces of an answer.
//!
//! Always true: what is held is bounded; lines may end in LF, CR LF or CR, and pieces may end anywhere. Not here: where
//! the pieces come from.

/// The longest event.
const EVENT_BYTES_MAX: usize = 64 << 20;

/// One event with data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) id: String,
    /// The topic.
    pub(super) event: String,
    pub(super) data: String,
}

/// An event was longer than what is held.
#[derive(Debug)]
pub(super) struct TooLong;

/// Reads one stream.
#[derive(Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    /// The last byte was a CR: an LF right after it belongs to it.
    after_cr: bool,
    event: String,
    data: String,
    id: Option<String>,
    /// The last id that was told, with data or without: where to go on.
    pub(super) last_id: Option<String>,
    /// How long to wait before coming back, in milliseconds, if the node has said so.
    pub(super) retry_ms: Option<u64>,
}

impl Parser {
    /// Another stream begins, which goes on after the last id: what was half there is forgotten.
    pub(super) fn begin(&mut self) {
        *self = Self { last_id: self.last_id.take(), retry_ms: self.retry_ms, ..Self::default() };
    }

    /// Takes a piece; answers the events that it completes.
    pub(super) fn take(&mut self, piece: &[u8]) -> Result<Vec<Message>, TooLong> {
        let mut messages = Vec::new();
        for byte in piece {
            match byte {
                b'\n' if std::mem::take(&mut self.after_cr) => {}
                b'\n' | b'\r' => {
                    self.after_cr = *byte == b'\r';
                    let line = String::from_utf8_lossy(&self.line).into_owned();
                    self.line.clear();
                    messages.extend(self.end_line(&line));
                }
                _ => {
                    self.after_cr = false;
                    self.line.push(*byte);
                }
            }
            if self.line.len() + self.data.len() > EVENT_BYTES_MAX {
                return Err(TooLong);
            }
        }
        Ok(messages)
    }

    fn end_line(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            return self.end_block();
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "retry" => self.retry_ms = value.parse().ok().or(self.retry_ms),
            // A comment, or a field of a later version.
            _ => {}
        }
        None
    }

    fn end_block(&mut self) -> Option<Message> {
        if let Some(id) = self.id.take() {
            self.last_id = Some(id);
        }
        let (event, mut data) = (std::mem::take(&mut self.event), std::mem::take(&mut self.data));
        // Each line added a line break; the last one is none.
        data.pop()?;
        Some(Message { id: self.last_id.clone().unwrap_or_default(), event, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        ": tidemill\nretry: 2000\nid: 0a\n\nid: 0b\nevent: crm/contacts\ndata: {\"é\":\ndata:  1}\n\n: x\nid: 0c\n\n";

    fn read(parser: &mut Parser, pieces: &[&[u8]]) -> Vec<Message> {
        pieces.iter().flat_map(|piece| parser.take(piece).expect("short")).collect()
    }

    #[test]
    fn pieces_may_end_anywhere_and_lines_as_they_like() {
        let wanted = vec![Message { id: "0b".into(), event: "crm/contacts".into(), data: "{\"é\":\n 1}".into() }];
        for text in [TEXT.to_owned(), TEXT.replace('\n', "\r\n"), TEXT.replace('\n', "\r")] {
            for at in 0..text.len() {
                let (one, two) = text.as_bytes().split_at(at);
                let mut parser = Parser::default();
                assert_eq!(read(&mut parser, &[one, two]), wanted, "{at}");
                assert_eq!((parser.last_id.as_deref(), parser.retry_ms), (Some("0c"), Some(2000)));
            }
        }
    }

    #[test]
    fn half_an_event_is_none_and_does_not_move_the_mark() {
        let mut parser = Parser::default();
        assert!(read(&mut parser, &[b"id: 09\n\nid: 0a\nevent: x/y\ndata: {}\n"]).is_empty());
        assert_eq!(parser.last_id.as_deref(), Some("09"));
        parser.begin();
        assert!(read(&mut parser, &[b"\n: x\n\n"]).is_empty());
        assert_eq!(parser.last_id.as_deref(), Some("09"));
    }

    #[test]
    fn what_has_no_end_is_given_up() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; EVENT_BYTES_MAX + 1];
        assert!(parser.take(&piece).is_err());
    }
}
