//! A receiver of deliveries on loopback: it records what came, and answers as it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use tokio::sync::watch;

/// One request that came.
#[derive(Clone, Debug)]
pub struct Received {
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a delivery's body is JSON")
    }
}

/// What to answer next; 200 when there is nothing more in the list.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
}

struct Shared {
    came: watch::Sender<Vec<Received>>,
    answers: Mutex<VecDeque<Answer>>,
}

/// The receiver; it ends with the test.
#[derive(Clone)]
pub struct Receiver {
    shared: Arc<Shared>,
    pub address: String,
}

async fn take(request: HttpRequest, body: web::Bytes, shared: web::Data<Shared>) -> HttpResponse {
    let headers = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("not text").to_owned()))
        .collect();
    let answer = shared.answers.lock().expect("not poisoned").pop_front();
    shared.came.send_modify(|came| came.push(Received { headers, body: body.to_vec() }));
    let answer = answer.unwrap_or(Answer { status: 200, headers: Vec::new() });
    let mut response = HttpResponse::build(answer.status.try_into().expect("a status"));
    for (name, value) in answer.headers {
        response.insert_header((name, value));
    }
    response.body("answer of the receiver")
}

impl Receiver {
    /// Starts one on a free port.
    pub fn start() -> Self {
        let shared = web::Data::new(Shared { came: watch::Sender::new(Vec::new()), answers: Mutex::default() });
        let data = shared.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(data.clone())
                .app_data(web::PayloadConfig::new(16 << 20))
                .default_service(web::route().to(take))
        })
        .workers(1)
        .disable_signals()
        .bind(("127.0.0.1", 0))
        .expect("a free port");
        let address = format!("http://{}/hook", server.addrs()[0]);
        actix_rt::spawn(server.run());
        Self { shared: shared.into_inner(), address }
    }

    /// Answers that come next, in order.
    pub fn answer(&self, answers: impl IntoIterator<Item = (u16, Vec<(&'static str, String)>)>) {
        let answers = answers.into_iter().map(|(status, headers)| Answer { status, headers });
        self.shared.answers.lock().expect("not poisoned").extend(answers);
    }

    /// Everything that came so far.
    pub fn so_far(&self) -> Vec<Received> {
        self.shared.came.borrow().clone()
    }

    /// Waits until `count` requests came, and answers all that did.
    pub async fn wait(&self, count: usize) -> Vec<Received> {
        let mut came = self.shared.came.subscribe();
        let waited = tokio::time::timeout(Duration::from_secs(30), came.wait_for(|came| came.len() >= count)).await;
        match waited {
            Ok(Ok(came)) => came.clone(),
            _ => panic!("{count} requests were expected, {} came", self.so_far().len()),
        }
    }
}
