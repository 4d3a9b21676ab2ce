//! MariaDB.

use std::sync::Arc;

use mysql_async::prelude::{FromRow, Queryable};
use serde_json::json;

use super::{MOMENTS, Moment, Shape, State, Store, Words, World, long_only, rounds};
use crate::support::gate::Gate;
use crate::support::mysql::{Server, own, shared};

const WORDS: Words = Words { rows: "INSERT INTO", middle: 8_000, decides: "COMMIT" };

struct Database {
    server: Arc<Server>,
    name: &'static str,
}

impl Database {
    async fn of(server: Arc<Server>, name: &'static str) -> Self {
        server.database(name).await;
        Self { server, name }
    }

    /// None of a table that is not there.
    async fn rows<T: FromRow + Send + 'static>(&self, columns: &str, table: &str) -> Vec<T> {
        let question = format!("SELECT {columns} FROM {}.{table}", self.name);
        self.server.conn().await.query(question).await.unwrap_or_default()
    }

    /// The way can only be looked into where it is not encrypted.
    async fn world(&self, gate: &Gate, shape: Shape) -> World {
        let settings = json!({"host": "127.0.0.1", "port": gate.port, "user": "admin", "password": "admin",
            "database": self.name, "sslMode": "disable"});
        World::open("mariadb", settings, shape).await
    }
}

impl Store for Database {
    async fn log(&self) -> Vec<String> {
        self.rows("event_id", "tidemill_events").await
    }

    async fn mirror(&self) -> Vec<(String, State)> {
        let columns = "remote_id, _event_id, JSON_VALUE(payload, '$.number'), deleted_at IS NOT NULL";
        let mut rows: Vec<(String, State)> = self
            .rows::<(String, String, u64, bool)>(columns, "shop_carts")
            .await
            .into_iter()
            .map(|(record, event, number, deleted)| (record, (event, number, deleted)))
            .collect();
        rows.sort();
        rows
    }

    async fn crash(&mut self, meanwhile: impl FnOnce()) {
        self.server.kill();
        meanwhile();
        self.server.restart().await;
    }
}

async fn node_is_killed(name: &'static str, shape: Shape) {
    if !long_only("MariaDB while the node is killed") {
        return;
    }
    let Some(server) = shared("mariadb").await else { return };
    let database = Database::of(server, name).await;
    let gate = Gate::to(database.server.port).await;
    database.world(&gate, shape).await.is_killed(&database, &gate, WORDS, &rounds(&MOMENTS)).await;
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

async fn server_is_killed(shape: Shape) {
    if !long_only("MariaDB that is killed") {
        return;
    }
    let Some(server) = own("mariadb").await else { return };
    let mut database = Database::of(Arc::new(server), "outlived").await;
    let gate = Gate::to(database.server.port).await;
    let mut world = database.world(&gate, shape).await;
    let moments = rounds(&[Moment::After, Moment::Middle, Moment::Before]);
    world.outlives(&mut database, &gate, WORDS, &moments).await;
}

#[tokio::test]
async fn a_log_has_each_event_once_however_often_the_server_is_killed() {
    server_is_killed(Shape::Append).await;
}

#[tokio::test]
async fn a_mirror_is_the_last_state_however_often_the_server_is_killed() {
    server_is_killed(Shape::Remove).await;
}
