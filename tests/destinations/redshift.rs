//! Rows in Redshift: PostgreSQL and a stand-in of S3 behind a stand-in of the Data API.

use std::sync::Arc;

use serde_json::{Value, json};
use tidemill::destinations::driver::{Answer, Batch, Driver, Verdict};
use tidemill::domain::delivery::AttemptError;
use tidemill::domain::destination::{Deletes, Shape};
use tidemill::domain::trouble::Trouble;

use crate::support::amazon::{Conditions, KEY, Mishap, SECRET, Store};
use crate::support::data_api::{DataApi, ROLE};
use crate::support::{batches, open, promises, unknown_setting};

struct World {
    store: Store,
    api: DataApi,
    driver: Arc<dyn Driver>,
}

impl World {
    /// None, said loudly: there is no PostgreSQL.
    fn start() -> Option<Self> {
        let store = Store::start(Conditions::Honoured);
        let api = DataApi::start(store.held.clone())?;
        let driver = open("redshift", settings(&api.server.url, &store.server.url)).unwrap();
        Some(Self { store, api, driver })
    }
    fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.api.postgres.run(sql).unwrap()
    }
    fn text(&self, sql: &str) -> String {
        let field = |field: &Option<String>| field.clone().unwrap_or_else(|| "null".to_owned());
        let rows = self.rows(sql);
        rows.iter().map(|row| row.iter().map(field).collect::<Vec<_>>().join("|")).collect::<Vec<_>>().join(" ")
    }
    async fn send(&self, batch: &Batch) -> Verdict {
        let frozen = self.driver.prepare(batch).unwrap();
        match self.driver.send(&frozen).await {
            Answer::All(verdict) => verdict,
            Answer::Each(all) => panic!("{all:?}"),
        }
    }
}

fn settings(api: &str, store: &str) -> Value {
    json!({
        "region": "eu-central-1", "clusterIdentifier": "tide", "database": "dev", "dbUser": "tidemill",
        "copyRoleArn": ROLE, "bucket": "lake", "s3Endpoint": store, "endpoint": api,
        "accessKeyId": KEY, "secretAccessKey": SECRET,
    })
}

fn trouble(verdict: &Verdict) -> (&'static str, AttemptError) {
    match verdict {
        Verdict::Done => panic!("it was taken"),
        Verdict::Retry(fault) => ("retry", fault.error),
        Verdict::Row(fault) => ("row", fault.error),
        Verdict::Config(fault) => ("config", fault.error),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_has_each_event_once() {
    let Some(world) = World::start() else { return };
    let count = || async {
        let there = world.rows("SELECT to_regclass('public.tidemill_events') IS NOT NULL");
        if there[0][0].as_deref() != Some("t") {
            return 0;
        }
        world.rows("SELECT count(*) FROM tidemill_events")[0][0].as_ref().unwrap().parse().unwrap()
    };
    promises::writes_once(&world.driver, count).await;
    promises::tests_well(&world.driver, count).await;
    assert!(world.store.objects().is_empty(), "what was staged is gone");

    // The same events in batches of other names, as after a replay.
    let again = batches::contacts(77, 90_001, 7);
    assert_eq!(world.send(&again).await, Verdict::Done);
    assert_eq!(count().await, 12);

    let odd = "{\"n\":123456789012345678901234567890.10,\n\"nul\":\"a\\u0000b\",\"a.b\":{\"$c\":1}}";
    let batch = batches::batch(78, Shape::Append, 99_000, vec![batches::custom("shop/parcels", odd)]);
    promises::prepares_the_same(&world.driver, &batch);
    assert_eq!(world.send(&batch).await, Verdict::Done);
    let found = world.text("SELECT payload, topic, event_time FROM tidemill_events WHERE topic = 'shop/parcels'");
    assert!(found.contains("123456789012345678901234567890.10"), "{found}");
    assert!(found.contains("a\u{fffd}b") && found.contains("\"a.b\": {\"$c\": 1}"), "{found}");
    assert!(found.contains("2026-03-01 12:00:00+00"), "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_equals_the_records_and_never_goes_back() {
    let Some(world) = World::start() else { return };
    let mirror = |number, deletes, from, events| batches::batch(number, Shape::Mirror(deletes), from, events);
    let contact = batches::contact;
    let first = vec![contact("created", "1", "A"), contact("created", "2", "B"), contact("updated", "1", "A2")];
    assert_eq!(world.send(&mirror(1, Deletes::Mark, 10, first.clone())).await, Verdict::Done);
    let table = "SELECT remote_id, first_name, deleted_at IS NULL FROM crm_contacts ORDER BY remote_id";
    assert_eq!(world.text(table), "1|A2|t 2|B|t");
    // An older change comes late.
    assert_eq!(world.send(&mirror(2, Deletes::Mark, 5, vec![contact("updated", "1", "Old")])).await, Verdict::Done);
    assert_eq!(world.text(table), "1|A2|t 2|B|t");
    assert_eq!(world.send(&mirror(3, Deletes::Mark, 20, vec![contact("deleted", "2", "B")])).await, Verdict::Done);
    assert_eq!(world.text(table), "1|A2|t 2|B|f");
    assert_eq!(world.send(&mirror(4, Deletes::Remove, 30, vec![contact("deleted", "1", "A2")])).await, Verdict::Done);
    assert_eq!(world.text(table), "2|B|f");

    // A column that the owner took away comes back; one of another type stops everything.
    world.rows("ALTER TABLE crm_contacts DROP COLUMN last_name");
    let fresh = open("redshift", settings(&world.api.server.url, &world.store.server.url)).unwrap();
    promises::write(&fresh, &mirror(5, Deletes::Mark, 40, vec![contact("created", "3", "C")])).await;
    assert_eq!(world.text("SELECT last_name FROM crm_contacts WHERE remote_id = '3'"), "Doe");
    world.rows("ALTER TABLE crm_contacts DROP COLUMN last_name; ALTER TABLE crm_contacts ADD COLUMN last_name BIGINT");
    let fresh = open("redshift", settings(&world.api.server.url, &world.store.server.url)).unwrap();
    let frozen = fresh.prepare(&mirror(6, Deletes::Mark, 50, vec![contact("created", "4", "D")])).unwrap();
    let Answer::All(verdict) = fresh.send(&frozen).await else { panic!("one verdict for all") };
    assert_eq!(trouble(&verdict), ("config", AttemptError::Destination(Trouble::TableMismatch)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_lost_after_the_transaction_leaves_each_row_once() {
    let Some(world) = World::start() else { return };
    let batch = batches::contacts(1, 1, 5);
    world.api.state.lock().unwrap().mishaps.push_back(Mishap::CutAfter);
    assert_eq!(trouble(&world.send(&batch).await).0, "retry");
    assert_eq!(world.send(&batch).await, Verdict::Done);
    assert_eq!(world.api.state.lock().unwrap().runs, 1, "the token gives the outcome of the first run");
    assert_eq!(world.text("SELECT count(*), count(DISTINCT event_id) FROM tidemill_events"), "5|5");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_failed_is_run_anew() {
    let Some(world) = World::start() else { return };
    let batch = batches::contacts(1, 1, 3);
    for (error, kind, what) in [
        ("ERROR: 1023 DETAIL: Serializable isolation violation on table - 1", "retry", Trouble::Deadlock),
        ("ERROR: Disk Full", "retry", Trouble::Full),
    ] {
        world.api.state.lock().unwrap().errors.push_back(error);
        assert_eq!(trouble(&world.send(&batch).await), (kind, AttemptError::Destination(what)));
    }
    world.api.state.lock().unwrap().mishaps.push_back(Mishap::Status(400, "ActiveStatementsExceededException"));
    assert_eq!(trouble(&world.send(&batch).await), ("retry", AttemptError::Destination(Trouble::Busy)));
    assert_eq!(world.send(&batch).await, Verdict::Done);
    world.rows("DROP TABLE tidemill_events");
    let next = batches::contacts(2, 10, 3);
    assert_eq!(trouble(&world.send(&next).await).0, "retry");
    assert_eq!(world.send(&next).await, Verdict::Done);
    assert_eq!(world.text("SELECT count(*) FROM tidemill_events"), "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_copy_refuses_is_named_with_its_column() {
    let Some(world) = World::start() else { return };
    let events = vec![batches::contact("created", "1", "Fine"), batches::contact("created", "2", "POISON")];
    let verdict = world.send(&batches::batch(1, Shape::Append, 1, events)).await;
    let Verdict::Row(fault) = verdict else { panic!("{verdict:?}") };
    assert_eq!(fault.detail, "tidemill_events.payload: Invalid JSON");
    assert_eq!(world.text("SELECT count(*) FROM tidemill_events"), "0", "nothing of the batch is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_the_owner_can_mend_pauses() {
    let Some(world) = World::start() else { return };
    let batch = batches::contacts(1, 1, 3);
    let told = |more: (&'static str, Value)| {
        let mut given = settings(&world.api.server.url, &world.store.server.url);
        given[more.0] = more.1;
        let batch = batch.clone();
        async move {
            let driver = open("redshift", given).unwrap();
            let frozen = driver.prepare(&batch).unwrap();
            match driver.send(&frozen).await {
                Answer::All(verdict) => trouble(&verdict),
                Answer::Each(all) => panic!("{all:?}"),
            }
        }
    };
    let config = |what| ("config", AttemptError::Destination(what));
    assert_eq!(told(("secretAccessKey", json!("wrong"))).await, config(Trouble::CredentialsRefused));
    assert_eq!(told(("database", json!("nowhere"))).await, config(Trouble::TargetMissing));
    assert_eq!(told(("schema", json!("nowhere"))).await, config(Trouble::TargetMissing));
    assert_eq!(told(("bucket", json!("nowhere"))).await, config(Trouble::TargetMissing));
    let role = json!("arn:aws:iam::123456789012:role/other");
    assert_eq!(told(("copyRoleArn", role)).await, config(Trouble::PermissionDenied));
    world.rows("CREATE ROLE narrow LOGIN; CREATE SCHEMA shut");
    world.api.state.lock().unwrap().user = "narrow".to_owned();
    assert_eq!(told(("schema", json!("shut"))).await, config(Trouble::PermissionDenied));
}

#[test]
fn a_field_that_its_column_cannot_hold_is_kept_beside() {
    let driver = open("redshift", settings("http://127.0.0.1:1", "http://127.0.0.1:1")).unwrap();
    let long = "x".repeat(70_000);
    let batch = batches::batch(1, Shape::Mirror(Deletes::Mark), 1, vec![batches::contact("created", "1", &long)]);
    promises::prepares_the_same(&driver, &batch);
    let frozen = driver.prepare(&batch).unwrap();
    assert_eq!(frozen.notes, ["crm_contacts: first_name: it is longer than a VARCHAR takes, so it is kept in _extra"]);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&frozen.parts[0].body[..]), &mut text).unwrap();
    let row: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&row["_extra"]["first_name"], &row["first_name"]), (&json!(long), &Value::Null));
    let huge = batches::contact("created", "2", &"y".repeat(4_100_000));
    let frozen = driver.prepare(&batches::batch(2, Shape::Append, 1, vec![huge])).unwrap();
    assert_eq!((frozen.parts.len(), frozen.refused.len()), (0, 1));
}

#[test]
fn a_line_has_these_bytes() {
    let driver = open("redshift", settings("http://127.0.0.1:1", "http://127.0.0.1:1")).unwrap();
    let batch = batches::batch(1, Shape::Append, 7, vec![batches::custom("shop/parcels", "{\"n\":1.50}")]);
    let frozen = driver.prepare(&batch).unwrap();
    let destination = crate::support::DESTINATION.to_string();
    let key = format!("tidemill-staging/{destination}/00000001-0000000000000001/0.jsonl.gz");
    let target =
        format!("{{\"table\":\"tidemill_events\",\"topic\":\"shop/parcels\",\"shape\":\"Append\",\"key\":\"{key}\"}}");
    assert_eq!(frozen.parts[0].target, target);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&frozen.parts[0].body[..]), &mut text).unwrap();
    let id = batch.items[0].id;
    let at = "2026-03-01 12:00:00.000000+00";
    let wanted = format!(
        "{{\"event_id\":\"{id}\",\"seq\":7,\"topic\":\"shop/parcels\",\"update_type\":\"updated\",\
         \"event_time\":\"{at}\",\"received_at\":\"{at}\",\"payload\":{{\"n\":1.50}}}}\n"
    );
    assert_eq!(text, wanted);
}

#[test]
fn bad_settings_are_refused_by_name() {
    let refused = |name: &str, value: Value| {
        let mut given = settings("http://127.0.0.1:1", "http://127.0.0.1:1");
        given[name] = value;
        open("redshift", given).err().unwrap().to_string()
    };
    let unknown = unknown_setting();
    let (name, value) = unknown.as_object().unwrap().iter().next().unwrap();
    assert!(refused(name, value.clone()).contains("noSuchSetting"));
    assert!(refused("workgroupName", json!("w")).contains("settings.clusterIdentifier"));
    assert!(refused("secretArn", json!("arn:x")).contains("settings.dbUser"));
    assert!(refused("schema", json!("a\"b")).contains("settings.schema"));
    assert!(refused("table", json!("Events")).contains("settings.table"));
    assert!(refused("copyRoleArn", json!("x' y")).contains("settings.copyRoleArn"));
    assert!(refused("stagingPrefix", json!("a/../b")).contains("settings.stagingPrefix"));
    let kind = tidemill::destinations::kinds::find("redshift").unwrap();
    assert_eq!(kind.secrets(), ["secretAccessKey", "sessionToken", "webIdentityToken"]);
}
