//! How the app says no: `{"error": {"code", "message"}}`, its own shape, unlike Tidemill's.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use actix_web::{HttpResponse, ResponseError};
use serde_json::json;

/// An answer other than success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    code: &'static str,
    message: String,
    retry_after_seconds: Option<u64>,
}

impl Refusal {
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after_seconds: None }
    }
    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, "unauthorized", "send the account's key as `Authorization: Bearer …` or `X-API-Key: …`")
    }
    /// 404 for a path.
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::new(404, "not_found", what)
    }
    /// 404 for a record.
    pub fn no_record(id: &str) -> Self {
        let shown: String = id.chars().take(64).collect();
        Self::not_found(format!("there is no record {shown}"))
    }
    /// 422.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(422, "invalid", message)
    }
    /// 400.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(400, "malformed", message)
    }
    /// 410, for a webhook whose time is over.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, "gone", message)
    }
    /// 507: a limit of the sandbox.
    pub fn full(message: impl Into<String>) -> Self {
        Self::new(507, "full", message)
    }
    /// 429 with `Retry-After`.
    pub fn too_fast(retry_after_seconds: u64) -> Self {
        let mut refusal = Self::new(429, "rate_limited", "too many requests");
        refusal.retry_after_seconds = Some(retry_after_seconds);
        refusal
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
    fn error_response(&self) -> HttpResponse {
        let mut answer = HttpResponse::build(self.status_code());
        if let Some(seconds) = self.retry_after_seconds {
            answer.insert_header((RETRY_AFTER, seconds.to_string()));
        }
        answer.json(json!({"error": {"code": self.code, "message": self.message}}))
    }
}
