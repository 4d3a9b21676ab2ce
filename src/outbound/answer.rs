//! Reading an answer within its limit, and naming what went wrong.

use std::error::Error;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Incoming};
use hyper_util::client::legacy::Error as PoolError;

use crate::domain::failure::Failure;

/// The most that is set aside before the bytes are there, whatever the answer's head promises.
const RESERVED_MAX_BYTES: usize = 64 * 1024;

/// Reads at most `limit` bytes; true if there was more. The rest is never read: the connection is given up.
pub(super) async fn read(mut body: Incoming, limit: usize) -> Result<(Bytes, bool), Failure> {
    let promised = usize::try_from(body.size_hint().lower()).unwrap_or(limit);
    let mut first = Bytes::new();
    let mut rest: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| classify_http(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        if data.is_empty() {
            continue;
        }
        let held = first.len() + rest.len();
        if held + data.len() > limit {
            let mut all = Vec::with_capacity(limit);
            all.extend_from_slice(&first);
            all.extend_from_slice(&rest);
            all.extend_from_slice(&data[..limit - held]);
            return Ok((all.into(), true));
        }
        if held == 0 {
            // Most answers are one piece: that one is kept without a copy.
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.reserve(promised.min(limit).min(RESERVED_MAX_BYTES));
            rest.extend_from_slice(&first);
            first = Bytes::new();
        }
        rest.extend_from_slice(&data);
    }
    Ok((if rest.is_empty() { first } else { rest.into() }, false))
}

/// Names the failure of a request that got no answer: the connector's own word if it has one, else what HTTP says.
pub(super) fn classify(error: &PoolError) -> Failure {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(failure) = error.downcast_ref::<Failure>() {
            return *failure;
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            return classify_http(error);
        }
        cause = error.source();
    }
    // The pool's own errors without a cause are all about a connection that went away.
    Failure::ConnectionClosed
}

fn classify_http(error: &hyper::Error) -> Failure {
    if error.is_parse() || error.is_parse_status() {
        Failure::BadAnswer
    } else if error.is_user() {
        Failure::BadRequest
    } else if error.is_timeout() {
        Failure::ResponseTimeout
    } else {
        Failure::ConnectionClosed
    }
}
