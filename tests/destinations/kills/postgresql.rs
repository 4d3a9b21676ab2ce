//! PostgreSQL.

use std::sync::Arc;

use serde_json::json;

use super::{MOMENTS, Moment, Shape, State, Store, Words, World, long_only, rounds};
use crate::support::gate::Gate;
use crate::support::postgres::{Postgres, shared};

const WORDS: Words = Words { rows: "INSERT INTO", middle: 8_000, decides: "COMMIT" };

struct Database {
    server: Arc<Postgres>,
    name: &'static str,
}

impl Database {
    async fn of(server: Arc<Postgres>, name: &'static str) -> Self {
        server.database(name).await;
        Self { server, name }
    }

    async fn rows(&self, question: &str) -> Vec<tokio_postgres::Row> {
        let client = self.server.admin(self.name).await;
        client.query(question, &[]).await.unwrap_or_default()
    }

    async fn world(&self, gate: &Gate, shape: Shape) -> World {
        World::open("postgresql", self.server.settings(self.name, json!({"port": gate.port})), shape).await
    }
}

impl Store for Database {
    async fn log(&self) -> Vec<String> {
        self.rows("SELECT event_id FROM tidemill_events").await.iter().map(|row| row.get(0)).collect()
    }

    async fn mirror(&self) -> Vec<(String, State)> {
        let rows = "SELECT remote_id, _event_id, (payload->>'number')::bigint, deleted_at IS NOT NULL FROM shop_carts \
                    ORDER BY remote_id COLLATE \"C\"";
        let row = |row: &tokio_postgres::Row| {
            (row.get(0), (row.get(1), u64::try_from(row.get::<_, i64>(2)).unwrap(), row.get(3)))
        };
        self.rows(rows).await.iter().map(row).collect()
    }

    async fn crash(&mut self, meanwhile: impl FnOnce()) {
        let server = Arc::get_mut(&mut self.server).expect("a server of its own");
        server.kill();
        meanwhile();
        server.run();
    }
}

async fn node_is_killed(name: &'static str, shape: Shape) {
    let Some(server) = shared() else { return };
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
    if long_only("a mirror in PostgreSQL while the node is killed") {
        node_is_killed("killed_mark", Shape::Mark).await;
    }
}

#[tokio::test]
async fn a_mirror_that_removes_is_the_last_state_however_often_the_node_is_killed() {
    if long_only("a mirror that removes in PostgreSQL while the node is killed") {
        node_is_killed("killed_remove", Shape::Remove).await;
    }
}

async fn server_is_killed(shape: Shape) {
    let Some(server) = Postgres::start() else { return };
    let mut database = Database::of(Arc::new(server), "outlived").await;
    let gate = Gate::to(database.server.port).await;
    let mut world = database.world(&gate, shape).await;
    let moments = rounds(&[Moment::After, Moment::Middle, Moment::Before]);
    world.outlives(&mut database, &gate, WORDS, &moments).await;
}

#[tokio::test]
async fn a_log_has_each_event_once_however_often_the_server_is_killed() {
    if long_only("a log in PostgreSQL while the server is killed") {
        server_is_killed(Shape::Append).await;
    }
}

#[tokio::test]
async fn a_mirror_is_the_last_state_however_often_the_server_is_killed() {
    server_is_killed(Shape::Remove).await;
}
