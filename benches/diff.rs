//! How fast unchanged records are recognised, beside the limit: parsing the same bytes, in the same run.
//!
//! Three ways through the diff: the app's own bytes are the same (no mapping needed, the usual case of a poll), the bytes
//! differ but the unified record is the same (both hashes), and one field differs (the paths too). Not here: fetching,
//! mapping, the store.

#![allow(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Map, Value};
use tidemill::domain::id::ConnectionId;
use tidemill::domain::json::Members;
use tidemill::domain::record::{Unified, record_id};
use tidemill::domain::snapshot::{
    Baseline, Change, Context, Hashed, IgnoredFields, SnapshotRow, decide, raw_hash, unmapped,
};
use tidemill::domain::time::Millis;

const RECORDS: usize = 100_000;
const RECORD_BYTES: usize = 1024;
const RUNS: usize = 5;
/// The goal: at least this part of the speed of parsing.
const GOAL: f64 = 0.5;
const TOPIC: &str = "commerce/orders";
const MAPPING: [u8; 16] = [7; 16];
const CONNECTION: ConnectionId = ConnectionId([1; 12]);

/// The typed limit: an order with its text borrowed from the page.
#[derive(Deserialize)]
#[allow(dead_code, reason = "parsed to be measured")]
struct Typed<'a> {
    #[serde(borrow)]
    increment_id: &'a str,
    grand_total: serde_json::Number,
    tax_amount: serde_json::Number,
    order_currency_code: &'a str,
    status: &'a str,
    customer_email: &'a str,
    items: Vec<TypedItem<'a>>,
    note: &'a str,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "parsed to be measured")]
struct TypedItem<'a> {
    sku: &'a str,
    name: &'a str,
    qty_ordered: serde_json::Number,
    price: serde_json::Number,
}

/// An order as a shop shows it, exactly [`RECORD_BYTES`] long.
fn record(n: usize, note: &str) -> String {
    let item = |at: usize| {
        format!(
            r#"{{"sku":"SKU-{n}-{at}","name":"Straight leg trousers, navy {at}","qty_ordered":{at},"price":{n}.{at}9}}"#
        )
    };
    let items = (1..=5).map(item).collect::<Vec<_>>().join(",");
    let head = format!(
        concat!(
            r#"{{"increment_id":"{:010}","grand_total":{}.91,"tax_amount":12.39,"order_currency_code":"USD","#,
            r#""status":"processing","customer_email":"jane.doe.{}@example.com","items":[{}],"note":"{}"#
        ),
        n, n, n, items, note
    );
    let padding = RECORD_BYTES.saturating_sub(head.len() + 2);
    format!("{head}{}\"}}", "x".repeat(padding))
}

fn unified(n: usize, raw: &str) -> Unified<'static> {
    let fields: Map<String, Value> = serde_json::from_str(raw).unwrap_or_default();
    let fields = Members::from(&fields).keep();
    Unified { remote_id: n.to_string(), remote_created_at: Some(Millis(1)), remote_updated_at: Some(Millis(2)), fields }
}

fn shown(row: Option<&SnapshotRow>, raw: &str, unified: &Unified<'_>, at: Millis, context: &Context<'_>) -> Change {
    let Unified { remote_id, remote_created_at, remote_updated_at, fields } = unified;
    let unified = Unified {
        remote_id: remote_id.clone(),
        remote_created_at: *remote_created_at,
        remote_updated_at: *remote_updated_at,
        fields: fields.lend(),
    };
    let hashed = Hashed::new(raw_hash(context.mapping, raw), context.mapping, unified, context.ignored);
    decide(row, raw, hashed, at, context)
}

/// The middle of the times of [`RUNS`] runs.
fn median(mut run: impl FnMut()) -> Duration {
    run();
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort();
    times.get(RUNS / 2).copied().unwrap_or_default()
}

fn report(name: &str, time: Duration, limit: Duration) {
    let (per_second, ratio) = (RECORDS as f64 / time.as_secs_f64(), limit.as_secs_f64() / time.as_secs_f64());
    println!("{name:<44} {per_second:>12.0}/s   {ratio:>6.2} of parsing to a Value");
}

fn main() {
    let ignored = IgnoredFields::none();
    let context = Context {
        now: Millis(10),
        mapping: &MAPPING,
        ignored: &ignored,
        baseline: Baseline::Complete,
        remap_emits: false,
        touch_before: None,
    };
    let raws: Vec<String> = (0..RECORDS).map(|n| record(n, "")).collect();
    let remote_ids: Vec<String> = (0..RECORDS).map(|n| n.to_string()).collect();
    let mut rows: HashMap<[u8; 16], SnapshotRow> = HashMap::with_capacity(RECORDS);
    for (n, raw) in raws.iter().enumerate() {
        let change = shown(None, raw, &unified(n, raw), Millis(3), &context);
        if let Some(row) = change.row() {
            rows.insert(record_id(CONNECTION, TOPIC, &row.remote_id).into_bytes(), row.clone());
        }
    }
    let row_of = |remote_id: &str| rows.get(record_id(CONNECTION, TOPIC, remote_id).as_bytes());

    let to_value = median(|| {
        for raw in &raws {
            black_box(serde_json::from_str::<Value>(raw).is_ok());
        }
    });
    let typed = median(|| {
        for raw in &raws {
            black_box(serde_json::from_str::<Typed<'_>>(raw).is_ok());
        }
    });
    let same_bytes = median(|| {
        for (remote_id, raw) in remote_ids.iter().zip(&raws) {
            let change = unmapped(row_of(remote_id), &raw_hash(&MAPPING, raw), Some(Millis(2)), Millis(4), &context);
            assert_eq!(change, Some(Change::Unchanged));
        }
    });
    // A thousand mapped records, over and over: a hundred thousand parsed trees would measure the memory.
    let sample: Vec<Unified<'_>> = (0..1000).map(|n| unified(n, &raws[n])).collect();
    let changed: Vec<Unified<'_>> = (0..1000).map(|n| unified(n, &record(n, "changed "))).collect();
    let each = |records: &[Unified<'_>], raw: &str, expected: fn(&Change) -> bool| {
        for n in 0..RECORDS {
            let unified = &records[n % records.len()];
            let row = row_of(&unified.remote_id);
            assert!(expected(&shown(row, raw, unified, Millis(4), &context)));
        }
    };
    let other_bytes = median(|| each(&sample, &raws[0][1..], |change| matches!(change, Change::RawOnly { .. })));
    let updated = median(|| each(&changed, &raws[0][1..], |change| matches!(change, Change::Updated { .. })));

    println!("diff of {RECORDS} records of {RECORD_BYTES} bytes, one thread, median of {RUNS} runs");
    report("limit: parsing to serde_json::Value", to_value, to_value);
    report("limit: parsing to a typed struct", typed, to_value);
    report("unchanged, same bytes (id, row, hash)", same_bytes, to_value);
    report("unchanged, other bytes (both hashes)", other_bytes, to_value);
    report("changed (both hashes, paths, row)", updated, to_value);
    let faster_limit = to_value.min(typed);
    let ratio = faster_limit.as_secs_f64() / same_bytes.as_secs_f64();
    let verdict = if ratio >= GOAL { "met" } else { "MISSED" };
    println!("goal: unchanged records at {GOAL} of the faster limit or more; measured {ratio:.2}: {verdict}");
}
