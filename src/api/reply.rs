//! What a call is answered with, and how an error becomes an answer.
//!
//! Always true: every answer of the API has a JSON body, errors included; a fault of ours is logged once with its whole
//! chain and told without detail. Not here: which errors there are (`crate::error`).

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{Code, Error, Fault, Result};
use crate::store::{Remembered, Tx};

const JSON: &str = "application/json";

/// A body that is made as fast as it is read, and no faster.
pub struct Flow(BoxStream<'static, Result<Bytes>>);

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flow")
    }
}

/// One answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: Bytes,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// In place of `body`, if there is one.
    flow: Option<Flow>,
    /// It is kept for a repeated `Idempotency-Key` already.
    pub(super) kept: bool,
}

impl Reply {
    /// 200 with a JSON body.
    pub fn json(body: &impl Serialize) -> Result<Self> {
        Ok(Self::text(JSON, serde_json::to_vec(body).map_err(Error::internal)?))
    }

    /// 200 with a body of another kind.
    pub fn text(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static(content_type))];
        Self { status: 200, body: body.into(), headers, flow: None, kept: false }
    }

    /// 200 with a body that goes on for as long as `pieces` does.
    pub fn flow(content_type: &'static str, pieces: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self::lines(content_type, pieces.map(Ok))
    }

    /// The same of a body that has an end: an error before it cuts the answer, so that its reader sees that it is not whole.
    pub fn lines(content_type: &'static str, pieces: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Self {
        Self { flow: Some(Flow(pieces.boxed())), ..Self::text(content_type, Bytes::new()) }
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The same with a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The answer given before to the same call.
    pub(super) fn again(status: u16, body: Vec<u8>) -> Self {
        let name = HeaderName::from_static("idempotent-replayed");
        let reply = Self::text(JSON, body).with_status(status).with_header(name, HeaderValue::from_static("true"));
        Self { kept: true, ..reply }
    }

    /// Keeps a 2xx for a repeated `Idempotency-Key`, in the commit of what it tells.
    pub(super) fn keep(&mut self, tx: &mut Tx<'_>, place: &Remembered) -> Result<()> {
        if (200..300).contains(&self.status) && !self.kept {
            tx.remember(place, self.status, &self.body)?;
            self.kept = true;
        }
        Ok(())
    }

    pub(super) fn into_response(self) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponse::build(status);
        for header in self.headers {
            response.insert_header(header);
        }
        match self.flow {
            Some(flow) => response.streaming(flow.0),
            None => response.body(self.body),
        }
    }
}

/// The body of every error.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ErrorBody {
    /// What is wrong and what to do. May change.
    pub message: String,
    /// Stable: programs may depend on it.
    pub code: &'static str,
}

/// An error as an answer. Our own faults are logged here, once.
pub fn refusal(error: &Error) -> Reply {
    if error.code.fault() == Fault::Engine {
        tracing::error!(code = error.code.slug(), "{}", error.chain());
    } else {
        tracing::debug!(code = error.code.slug(), "{}", error.chain());
    }
    let body = ErrorBody { message: error.message.clone(), code: error.code.slug() };
    // Two texts always make JSON.
    let text = serde_json::to_vec(&body).unwrap_or_default();
    let mut reply = Reply::text(JSON, text).with_status(error.code.status());
    if let Some(seconds) = error.retry_after {
        reply = reply.with_header(header::RETRY_AFTER, seconds.into());
    }
    if error.code == Code::Unauthorized {
        reply = reply.with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    reply
}
