//! An app on loopback: what it is asked goes to one function, and its answer back.

use std::sync::Arc;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::Value;

/// One request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// As it stands in the request line, percent-encoded.
    pub path: String,
    /// Decoded pairs, in order.
    pub query: Vec<(String, String)>,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// Scheme, host, port, path and query, as the client called it.
    pub url: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Reply {
    pub fn json(status: u16, body: &Value) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { status, headers, body: body.to_string() }
    }
}

type Answer = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

/// The server; it ends with the test.
pub struct Fake {
    pub url: String,
    server: ServerHandle,
}

async fn take(request: HttpRequest, body: web::Bytes, answer: web::Data<Answer>) -> HttpResponse {
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()));
    let uri = request.uri();
    let host = request.connection_info().host().to_owned();
    let asked = Asked {
        method: request.method().to_string(),
        path: uri.path().to_owned(),
        query: url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect(),
        headers: headers.collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
        url: format!("http://{host}{uri}"),
    };
    let reply = answer(&asked);
    let mut response = HttpResponse::build(reply.status.try_into().expect("a status"));
    for (name, value) in reply.headers {
        response.insert_header((name, value));
    }
    response.body(reply.body)
}

impl Fake {
    /// Starts one on a free port.
    pub fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let answer: web::Data<Answer> = web::Data::new(Arc::new(answer));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(answer.clone())
                .app_data(web::PayloadConfig::new(1 << 20))
                .default_service(web::route().to(take))
        });
        let server = server.workers(1).disable_signals().shutdown_timeout(1).bind(("127.0.0.1", 0)).expect("a port");
        let url = format!("http://{}", server.addrs()[0]);
        let run = server.run();
        let server = run.handle();
        actix_rt::spawn(run);
        Self { url, server }
    }
    pub async fn stop(self) {
        self.server.stop(false).await;
    }
}
