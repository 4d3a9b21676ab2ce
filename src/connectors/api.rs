//! The `apiClient` of scripts: calls with the connection's credentials, budget and deadline.

use super::caller::{CallFailure, Outgoing};
use super::script::{ApiCaller, ApiFailure, ApiOutcome, ApiReply, ApiRequest};
use super::{CallError, Session};
use crate::outbound::{Bytes, Method};

impl ApiCaller for Session {
    fn call(&self, request: ApiRequest) -> ApiOutcome<'_> {
        Box::pin(async move {
            let outgoing = outgoing(request).map_err(|error| failed(CallFailure::silent(error)))?;
            let incoming = self.caller.call(outgoing).await.map_err(failed)?;
            Ok(ApiReply { status: incoming.status, headers: incoming.headers, body: incoming.body })
        })
    }
}

fn outgoing(request: ApiRequest) -> Result<Outgoing, CallError> {
    let method = Method::from_bytes(request.method.as_bytes())
        .map_err(|_| CallError::Script(format!("{:?} is not an HTTP method", request.method)))?;
    let mut outgoing = Outgoing::new(method, request.path);
    outgoing.query = request.query;
    outgoing.headers = request.headers;
    outgoing.raw_body = request.body.map(|body| {
        let content_type = request.content_type.unwrap_or_else(|| "application/json".to_owned());
        (content_type, Bytes::from(body))
    });
    Ok(outgoing)
}

fn failed(failure: CallFailure) -> ApiFailure {
    let CallFailure { error, status, content_type, body, .. } = failure;
    ApiFailure { status, content_type, body, error }
}
