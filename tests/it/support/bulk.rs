//! Bulk operations of a stand-in shop: the files that they write, on a host of their own.
//!
//! Always true: an operation writes what there was when it began, parts behind their records where they are grouped; one
//! runs at a time; the file opens to whoever has its address, and to nobody who shows a token; a piece may be shorter than
//! what was asked for (RFC 9110, section 14.2). Not here: when one ends (the test says).

use std::sync::{Arc, Mutex};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::{Map, Value, json};

use super::graphql::{Field, parse};
use super::shopify::World;

/// One operation.
#[derive(Clone, Debug)]
pub struct Operation {
    pub id: String,
    pub created: String,
    pub file: Vec<u8>,
    pub objects: usize,
}

/// All of them, and how the shop behaves.
pub struct Bulks {
    pub operations: Vec<Operation>,
    /// How many records of each kind the shop says that it has, if not how many there are.
    pub claims: Option<u64>,
    /// What operations come to; they run as long as there is none.
    pub fate: Option<&'static str>,
    /// Another client's operation runs.
    pub busy: bool,
    /// Starts that were refused since another one ran.
    pub refused: u32,
    /// Where the files are.
    pub url: String,
    pub piece_max: usize,
    /// Pieces that are served before the host answers with this status.
    pub pieces: Option<(u32, u16)>,
    /// Offsets that were served.
    pub served: Vec<usize>,
    /// A token was shown to the host of the files.
    pub leaked: bool,
}

impl Default for Bulks {
    fn default() -> Self {
        Self {
            operations: Vec::new(),
            claims: None,
            fate: None,
            busy: false,
            refused: 0,
            url: String::new(),
            piece_max: usize::MAX,
            pieces: None,
            served: Vec::new(),
            leaked: false,
        }
    }
}

impl World {
    /// The mutation that asks for an operation.
    pub fn bulk_start(&mut self, field: &Field) -> Result<Value, String> {
        let refuse = |code: &str, message: &str| {
            let errors = json!([{"field": ["query"], "code": code, "message": message}]);
            field.of(&json!({"bulkOperation": null, "userErrors": errors}))
        };
        if self.bulks.busy {
            self.bulks.refused += 1;
            return refuse(
                "OPERATION_IN_PROGRESS",
                "A bulk query operation for this app and shop is already in progress",
            );
        }
        let text = field.text("query").ok_or("query is required")?;
        if text.contains('$') {
            return refuse("INVALID", "Bulk queries cannot contain variables");
        }
        let grouped = field.args.get("groupObjects").is_some_and(|grouped| *grouped == json!("true"));
        let (file, objects) = self.written(&parse(text, &Value::Null)?, grouped)?;
        let id = format!("gid://shopify/BulkOperation/{}", self.id());
        let created = self.now();
        self.bulks.operations.push(Operation { id: id.clone(), created, file, objects });
        field.of(&json!({"bulkOperation": {"id": id, "status": "CREATED"}, "userErrors": []}))
    }

    /// How far one is.
    pub fn bulk_status(&self, field: &Field) -> Result<Value, String> {
        let id = field.text("id").ok_or("id is required")?;
        let Some(at) = self.bulks.operations.iter().position(|one| one.id == id) else { return Ok(Value::Null) };
        let one = &self.bulks.operations[at];
        let status = self.bulks.fate.unwrap_or("RUNNING");
        let has_file = status == "COMPLETED" && one.objects > 0;
        let url = has_file.then(|| format!("{}/files/{at}?signature=good", self.bulks.url));
        let error = (status == "FAILED").then_some("INTERNAL_SERVER_ERROR");
        field.of(&json!({"id": id, "status": status, "errorCode": error, "url": url, "createdAt": one.created}))
    }

    /// How many records of a kind there are.
    pub fn bulk_count(&self, field: &Field) -> Result<Value, String> {
        let root = field.name.trim_end_matches("Count");
        let count = self.bulks.claims.unwrap_or(self.records[root].len() as u64);
        field.of(&json!({"count": count}))
    }

    fn written(&self, fields: &[Field], grouped: bool) -> Result<(Vec<u8>, usize), String> {
        let [root] = fields else { return Err("Bulk queries have one top-level field".to_owned()) };
        let node = node(root).ok_or("Bulk queries must contain at least one connection")?;
        let (connections, depth) = connections(root);
        if connections > 5 || depth > 3 {
            return Err("Bulk queries have at most five connections, nested at most two levels deep".to_owned());
        }
        let (mut records, mut parts) = (Vec::new(), Vec::new());
        for record in self.records[root.name.as_str()].values() {
            let (line, mut behind) = lines(node, record)?;
            records.push(line);
            if grouped { records.append(&mut behind) } else { parts.append(&mut behind) }
        }
        records.append(&mut parts);
        let objects = records.len();
        let text: String = records.iter().map(|line| format!("{line}\n")).collect();
        Ok((text.into_bytes(), objects))
    }
}

/// What stands in `edges { node { … } }`.
fn node(field: &Field) -> Option<&Field> {
    let edges = field.fields.iter().find(|inner| inner.name == "edges")?;
    edges.fields.iter().find(|inner| inner.name == "node")
}

/// How many connections there are in a field, itself included, and how deep they go.
fn connections(field: &Field) -> (usize, usize) {
    let inside = node(field).map_or(&field.fields, |node| &node.fields).iter().map(connections);
    let (count, depth) = inside.fold((0, 0), |all, one| (all.0 + one.0, all.1.max(one.1)));
    let own = usize::from(node(field).is_some());
    (count + own, depth + own)
}

/// A record's own line, and those of its parts, each with its own parts behind it.
fn lines(selected: &Field, record: &Value) -> Result<(Value, Vec<Value>), String> {
    let (mut own, mut parts) = (Map::new(), Vec::new());
    for field in &selected.fields {
        let value = record.get(&field.name).ok_or_else(|| format!("Field '{}' doesn't exist", field.name))?;
        match node(field) {
            None => drop(own.insert(field.name.clone(), field.of(value)?)),
            Some(inner) => {
                if inner.fields.iter().all(|field| field.name != "id") {
                    return Err("Bulk queries must select the id of every node".to_owned());
                }
                let items = value.as_array().ok_or("not a connection")?;
                for item in field.by_keys(items).as_ref().unwrap_or(items) {
                    let (mut part, behind) = lines(inner, item)?;
                    part["__parentId"] = record["id"].clone();
                    parts.push(part);
                    parts.extend(behind);
                }
            }
        }
    }
    Ok((Value::Object(own), parts))
}

/// The host of the files. Answers where it is.
pub fn serve(world: &Arc<Mutex<World>>) -> String {
    let data = web::Data::from(world.clone());
    let server = HttpServer::new(move || App::new().app_data(data.clone()).route("/files/{at}", web::get().to(file)));
    let server = server.workers(1).disable_signals().bind(("127.0.0.1", 0)).expect("a free port");
    let url = format!("http://{}", server.addrs()[0]);
    actix_rt::spawn(server.run());
    url
}

async fn file(request: HttpRequest, at: web::Path<usize>, world: web::Data<Mutex<World>>) -> HttpResponse {
    let mut world = world.lock().expect("not poisoned");
    let shown = ["x-shopify-access-token", "authorization", "cookie"];
    world.bulks.leaked |= shown.iter().any(|name| request.headers().contains_key(*name));
    if request.query_string() != "signature=good" {
        return HttpResponse::Forbidden().finish();
    }
    if let Some((left, status)) = &mut world.bulks.pieces {
        if *left == 0 {
            return HttpResponse::build((*status).try_into().expect("a status")).finish();
        }
        *left -= 1;
    }
    let file = world.bulks.operations[*at].file.clone();
    let range = request.headers().get("range").and_then(|range| range.to_str().ok()).expect("a range");
    let (first, last) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).expect("a range");
    let (first, last): (usize, usize) = (first.parse().expect("a number"), last.parse().expect("a number"));
    if first >= file.len() {
        return HttpResponse::RangeNotSatisfiable().finish();
    }
    let end = (last + 1).min(file.len()).min(first.saturating_add(world.bulks.piece_max));
    world.bulks.served.push(first);
    let range = format!("bytes {first}-{}/{}", end - 1, file.len());
    HttpResponse::PartialContent().insert_header(("content-range", range)).body(file[first..end].to_vec())
}
