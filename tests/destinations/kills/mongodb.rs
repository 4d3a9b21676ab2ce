//! MongoDB: what a batch is does not happen all at once there, so a batch that was cut may be half of it, until it is
//! repeated.

use std::sync::Arc;

use futures_util::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};
use serde_json::json;

use super::{Moment, Shape, State, Store, Words, World, long_only, rounds};
use crate::support::gate::Gate;
use crate::support::mongodb::{Server, own, shared};

struct Database {
    server: Arc<Server>,
    name: &'static str,
}

impl Database {
    async fn documents(&self, collection: &str) -> Vec<Document> {
        let database = self.server.database(self.name).await;
        let found = database.collection::<Document>(collection).find(doc! {}).sort(doc! { "_id": 1 }).await.unwrap();
        found.try_collect().await.unwrap()
    }

    async fn world(&self, gate: &Gate, shape: Shape) -> World {
        let url = format!("mongodb://admin:admin@127.0.0.1:{}/?directConnection=true", gate.port);
        World::open("mongodb", json!({"url": url, "database": self.name}), shape).await
    }
}

impl Store for Database {
    async fn log(&self) -> Vec<String> {
        let all = self.documents("tidemill_events").await;
        all.iter().map(|document| document.get_str("_id").unwrap().to_owned()).collect()
    }

    async fn mirror(&self) -> Vec<(String, State)> {
        let row = |document: &Document| {
            let number = document.get_document("payload").unwrap().get_i64("number").unwrap();
            let event = document.get_str("eventId").unwrap().to_owned();
            let deleted = document.get("deletedAt") != Some(&Bson::Null);
            let record = document.get_str("remoteId").unwrap().to_owned();
            (record, (event, u64::try_from(number).unwrap(), deleted))
        };
        let mut rows: Vec<_> = self.documents("shop_carts").await.iter().map(row).collect();
        rows.sort();
        rows
    }

    async fn crash(&mut self, meanwhile: impl FnOnce()) {
        self.server.kill();
        meanwhile();
        self.server.restart().await;
    }
}

fn words(shape: Shape) -> Words {
    // A command names its collection; an event names its topic in another way.
    let word = if shape == Shape::Append { "tidemill_events" } else { "shop_carts" };
    Words { rows: word, middle: 8_000, decides: word }
}

async fn node_is_killed(name: &'static str, shape: Shape) {
    if !long_only("MongoDB while the node is killed") {
        return;
    }
    let Some(server) = shared().await else { return };
    let database = Database { server, name };
    let gate = Gate::to(database.server.port).await;
    let mut moments = vec![Moment::After, Moment::Middle, Moment::Before];
    // Nothing remembers what was removed: a command that the network holds back may bring it back (docs/destinations).
    if shape != Shape::Remove {
        moments.push(Moment::Late);
    }
    database.world(&gate, shape).await.is_killed(&database, &gate, words(shape), &rounds(&moments)).await;
}

#[tokio::test]
async fn a_log_has_each_event_once_however_often_the_node_is_killed() {
    node_is_killed("killed_log", Shape::Append).await;
}

#[tokio::test]
async fn a_mirror_is_the_last_state_however_often_the_node_is_killed() {
    node_is_killed("killed_mark", Shape::Mark).await;
}

#[tokio::test]
async fn a_mirror_that_removes_is_the_last_state_however_often_the_node_is_killed() {
    node_is_killed("killed_remove", Shape::Remove).await;
}

#[tokio::test]
async fn a_mirror_is_the_last_state_however_often_the_server_is_killed() {
    if !long_only("MongoDB that is killed") {
        return;
    }
    let Some(server) = own().await else { return };
    let mut database = Database { server: Arc::new(server), name: "outlived" };
    let gate = Gate::to(database.server.port).await;
    let mut world = database.world(&gate, Shape::Mark).await;
    let moments = rounds(&[Moment::After, Moment::Middle, Moment::Before]);
    world.outlives(&mut database, &gate, words(Shape::Mark), &moments).await;
}
