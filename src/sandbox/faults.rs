//! The app at its worst: the next requests are answered with errors, rubbish, half an answer, or nothing.
//!
//! Always true: nothing happens that a test has not asked for through `POST /control/answers`; even an endless body
//! and a hanging answer end some time.

use std::convert::Infallible;
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpResponse, web};
use futures_util::stream;
use serde::{Deserialize, Serialize};

use super::app::App;
use super::refusal::Refusal;

/// Faults that wait, at most.
pub const FAULTS_MAX: usize = 100;
const HANG: Duration = Duration::from_secs(120);
const CHUNK: &str =
    "{\"id\":\"endless\",\"padding\":\"................................................................\"},";
/// About 1 GiB.
const CHUNKS_MAX: u32 = 256 * 1024;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wrong {
    /// An error status with the app's own error body.
    Status,
    /// 200 with a page of HTML.
    Html,
    /// 200 with JSON that stops in the middle.
    HalfJson,
    /// 200 with JSON of another shape.
    OtherJson,
    /// 200 with a body that does not end.
    Endless,
    /// The connection closes in the middle of the body.
    Close,
    /// What was asked is done, and its answer gets lost.
    Lost,
    /// No answer.
    Hang,
    /// A list that always answers its first page and says there is more.
    SamePage,
}

/// One wish for wrong answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    pub kind: Wrong,
    /// For `status`; 500 if absent.
    pub status: Option<u16>,
    pub retry_after_seconds: Option<u64>,
    /// Only requests whose path starts with this; all if absent.
    pub path: Option<String>,
    /// Only after this many requests that it would have met.
    #[serde(default)]
    pub skip: u32,
    /// How many requests are met.
    #[serde(default = "one")]
    pub count: u32,
}

fn one() -> u32 {
    1
}

/// The faults that wait, oldest first.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Adds one. Refused past [`FAULTS_MAX`].
    pub fn add(&mut self, fault: Fault) -> Result<(), Refusal> {
        if self.0.len() >= FAULTS_MAX {
            return Err(Refusal::full("too many faults wait"));
        }
        if fault.status.is_some_and(|status| !(400..600).contains(&status)) {
            return Err(Refusal::invalid("status is one from 400 to 599"));
        }
        self.0.push(fault);
        Ok(())
    }
    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.0.clear();
    }
    /// What waits.
    pub fn list(&self) -> &[Fault] {
        &self.0
    }
    /// The fault that meets a request, if one does.
    pub fn meet(&mut self, path: &str) -> Option<Fault> {
        self.0.retain(|fault| fault.count > 0);
        for fault in &mut self.0 {
            if !fault.path.as_deref().is_none_or(|prefix| path.starts_with(prefix)) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            fault.count -= 1;
            return Some(fault.clone());
        }
        None
    }
}

/// Tells the list that it must answer its first page.
#[derive(Clone, Copy)]
pub struct SamePage;

/// Meets requests with the faults that wait for them.
pub async fn meet(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let fault = request.app_data::<web::Data<App>>().and_then(|app| app.meet(request.path()));
    let Some(fault) = fault else { return Ok(next.call(request).await?.map_into_boxed_body()) };
    if fault.kind == Wrong::SamePage {
        request.extensions_mut().insert(SamePage);
        return Ok(next.call(request).await?.map_into_boxed_body());
    }
    if fault.kind == Wrong::Lost {
        let (request, _) = next.call(request).await?.into_parts();
        return Ok(ServiceResponse::new(request, answer(&fault).await));
    }
    let answer = answer(&fault).await;
    Ok(request.into_response(answer))
}

async fn answer(fault: &Fault) -> HttpResponse {
    const JSON: &str = "application/json";
    match fault.kind {
        Wrong::Status | Wrong::SamePage => {
            let status = fault.status.and_then(|s| StatusCode::from_u16(s).ok());
            let mut answer = HttpResponse::build(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
            if let Some(seconds) = fault.retry_after_seconds {
                answer.insert_header((RETRY_AFTER, seconds.to_string()));
            }
            answer.json(serde_json::json!({"error": {"code": "asked_for", "message": "a test asked for this answer"}}))
        }
        Wrong::Html => HttpResponse::Ok()
            .content_type("text/html; charset=utf-8")
            .body("<!doctype html><title>Maintenance</title><h1>We will be back soon</h1>"),
        Wrong::HalfJson => HttpResponse::Ok().content_type(JSON).body("{\"data\":[{\"id\":\"con_0000"),
        Wrong::OtherJson => HttpResponse::Ok().content_type(JSON).body("[true,{\"data\":7}]"),
        Wrong::Endless => {
            let chunk = web::Bytes::from(CHUNK.repeat(40));
            let chunks = stream::unfold(0, move |n| {
                let chunk = if n == 0 { web::Bytes::from_static(b"{\"data\":[") } else { chunk.clone() };
                async move { (n < CHUNKS_MAX).then(|| (Ok::<_, Infallible>(chunk), n + 1)) }
            });
            HttpResponse::Ok().content_type(JSON).streaming(chunks)
        }
        Wrong::Close | Wrong::Lost => {
            let parts = stream::unfold(0, |n| async move {
                let part = if n == 0 {
                    Ok(web::Bytes::from_static(b"{\"data\":["))
                } else {
                    // So that the head is on its way before the connection goes.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Err(std::io::Error::other("a test asked for this"))
                };
                Some((part, n + 1))
            });
            HttpResponse::Ok().content_type(JSON).streaming(parts)
        }
        Wrong::Hang => {
            tokio::time::sleep(HANG).await;
            HttpResponse::GatewayTimeout().finish()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_meets_as_many_requests_as_asked() {
        let mut faults = Faults::default();
        let fault: Fault =
            serde_json::from_str(r#"{"kind":"html","path":"/api/orders","skip":1,"count":2}"#).expect("a fault");
        faults.add(fault).expect("room");
        let met: Vec<_> = ["/api/contacts", "/api/orders", "/api/orders/1", "/api/orders", "/api/orders"]
            .into_iter()
            .map(|path| faults.meet(path).is_some())
            .collect();
        assert_eq!(met, [false, false, true, true, false]);
    }
}
