//! Small apps on loopback that do one thing wrong each, and a connector for them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::desk::{Desk, Setup};
use crate::clock::Clock;
use crate::domain::connection::{ConnectionStatus, InitialSync};
use crate::domain::time::Millis;

/// What an app answers to a path with its query, given the `Authorization` header. Status 0: nothing, for ever.
pub(super) type Answer = Arc<dyn Fn(&str, &str) -> (u16, Value) + Send + Sync>;

/// Serves `answer` on loopback, one request per connection.
pub(super) async fn serve(answer: Answer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < 65_536 {
                    let mut part = [0; 4096];
                    match stream.read(&mut part).await {
                        Ok(n) if n > 0 => head.extend_from_slice(&part[..n]),
                        _ => return,
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let token = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(": ")?;
                    name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
                });
                let (status, body) = answer(&path, &token.unwrap_or_default());
                if status == 0 {
                    return std::future::pending().await;
                }
                let body = body.to_string();
                let text = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(text.as_bytes()).await;
            });
        }
    });
    url
}

pub(super) fn parameter(path: &str, name: &str) -> Option<String> {
    let (_, query) = path.split_once('?')?;
    url::form_urlencoded::parse(query.as_bytes()).find(|(n, _)| n == name).map(|(_, value)| value.into_owned())
}

/// A connector `tiny` with one collection `things`, paged by number, with a total.
fn connector(folder: &Path, page_size: usize) {
    let base = folder.join("tiny");
    let write = |path: &str, text: &str| {
        let path = base.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "spec.yml",
        "key: tiny\nname: Tiny\ncategory: crm\ndescription: A test's.\nbaseUri: {givenBy: user}\nauth:\n  - login: \
         {path: /login, body: {user: $credentials.username}, token: $.token}\n",
    );
    write(
        "data/things/spec.yml",
        "name: Things\ntopic: crm/contacts\ndetects: {created: pull, updated: pull, deleted: full-scan}\n\
         record: {id: $.id, createdAt: $.at, updatedAt: $.at, time: unix-millis}\n\
         cursor: {order: ascending, precision: 1s}\n",
    );
    let list = format!(
        "path: /things\nquery: {{page: \"{{{{page.number}}}}\", size: \"{{{{page.size}}}}\"}}\n\
         paging: {{kind: page, size: {page_size}, total: $.total}}\nrecords: $.items\n"
    );
    write("data/things/pull.rest.yml", &format!("{list}since: {{since: \"{{{{since.time}}}}\"}}\n"));
    write("data/things/scan.rest.yml", &list);
    write("data/things/record.map.yml", "firstName: $.name\n");
}

async fn desk(url: String) -> (Desk, tempfile::TempDir) {
    desk_of(url, 10).await
}

async fn desk_of(url: String, page_size: usize) -> (Desk, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    connector(folder.path(), page_size);
    let setup = Setup {
        connector: "tiny",
        base: url,
        credentials: json!({"username": "u", "password": "p"}),
        collections: &["things"],
        initial: InitialSync::Emit,
        connectors: Some(folder.path()),
    };
    (Desk::new(Clock::start(Millis(0)), setup).await, folder)
}

/// A list sorted by time whose ties come in another order each time, and whose page past the end is the last one again.
fn magento(rows: Vec<(u32, u64)>) -> Answer {
    let rng = Mutex::new(fastrand::Rng::with_seed(3));
    Arc::new(move |path, _| {
        if path.starts_with("/login") {
            return (200, json!({"token": "t"}));
        }
        let since: u64 = parameter(path, "since").and_then(|text| text.parse().ok()).unwrap_or(0);
        let page: usize = parameter(path, "page").and_then(|text| text.parse().ok()).unwrap_or(1);
        let mut rows = rows.clone();
        rng.lock().unwrap().shuffle(&mut rows);
        rows.sort_by_key(|(_, at)| *at);
        rows.retain(|(_, at)| *at >= since);
        let total = rows.len();
        let pages = total.div_ceil(10).max(1);
        let items: Vec<Value> = (rows.into_iter().skip((page.clamp(1, pages) - 1) * 10).take(10))
            .map(|(id, at)| json!({"id": id, "at": at, "name": format!("n{id}")}))
            .collect();
        (200, json!({"items": items, "total": total}))
    })
}

#[tokio::test]
async fn unordered_ties_and_the_page_past_the_end_lose_nothing() {
    for count in [10, 20, 37] {
        let rows = (0..count).map(|n| (n, if n < 28 { 1_000_000 } else { 2_000_000 })).collect();
        let (desk, _folder) = desk(serve(magento(rows)).await).await;
        desk.look().await;
        for _ in 0..2 {
            desk.pull("things").await;
            desk.scan("things").await;
        }
        assert_eq!(desk.live("things").len(), count as usize);
        assert_eq!(desk.told().len(), count as usize, "each is told once");
        assert!(desk.pulls().iter().all(|pull| pull.outcome == "completed"), "{:?}", desk.pulls());
    }
}

/// The page is long enough to be made ready in parts, and the two are in different ones.
#[tokio::test]
async fn of_a_record_that_comes_twice_on_a_page_the_later_one_stands() {
    let page = 400;
    let mut items: Vec<Value> =
        (1..page).map(|id| json!({"id": id, "at": id * 1000, "name": format!("n{id}")})).collect();
    items.push(json!({"id": 7, "at": page * 1000, "name": "changed"}));
    let answer: Answer = Arc::new(move |path, _| match path.starts_with("/login") {
        true => (200, json!({"token": "t"})),
        false => (200, json!({"items": items, "total": page})),
    });
    let (desk, _folder) = desk_of(serve(answer).await, page).await;
    desk.look().await;
    let live = desk.live("things");
    assert_eq!((live.len(), desk.state("things").records), (page - 1, page as u64 - 1));
    for row in live {
        let name = if row.remote_id == "7" { "changed".to_owned() } else { format!("n{}", row.remote_id) };
        assert_eq!(row.fields, format!("{{\"firstName\":\"{name}\"}}"), "{}", row.remote_id);
    }
    let mut wanted: Vec<_> = (1..page).map(|id| ("created".to_owned(), id.to_string())).collect();
    wanted.push(("updated".to_owned(), "7".to_owned()));
    assert_eq!(desk.told(), wanted, "in the order of the page");
}

#[tokio::test]
async fn a_token_is_renewed_once_and_then_the_connection_stops() {
    let seen: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    let (log, refuse) = (seen.clone(), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let refusing = refuse.clone();
    let answer: Answer = Arc::new(move |path, token| {
        let mut seen = log.lock().unwrap();
        let logins = seen.get("/login").copied().unwrap_or_default();
        *seen.entry(path.split('?').next().unwrap_or_default().to_owned()).or_default() += 1;
        let refused = refusing.load(std::sync::atomic::Ordering::Relaxed);
        match path.starts_with("/login") {
            true => (200, json!({"token": format!("t{}", logins + 1)})),
            false if refused || token != format!("Bearer t{logins}") => (401, json!({"message": "who?"})),
            false => (200, json!({"items": [{"id": 1, "at": 5, "name": "n"}], "total": 1})),
        }
    });
    let (desk, _folder) = desk(serve(answer).await).await;
    desk.look().await;
    assert_eq!((desk.live("things").len(), seen.lock().unwrap()["/login"]), (1, 1));
    // The token is kept: no new login.
    desk.pull("things").await;
    assert_eq!(seen.lock().unwrap()["/login"], 1);
    // The app forgets it: one login, and the pull goes on.
    *seen.lock().unwrap().get_mut("/login").unwrap() += 1;
    desk.pull("things").await;
    assert_eq!((desk.pulls()[0].outcome.as_str(), seen.lock().unwrap()["/login"]), ("completed", 3));
    refuse.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(desk.pull("things").await, None);
    assert_eq!(seen.lock().unwrap()["/login"], 4, "tried once");
    assert!(matches!(desk.connection().status, ConnectionStatus::AuthFailed { .. }));
    assert_eq!(desk.count("connection/authentication_failure"), 1);
}
