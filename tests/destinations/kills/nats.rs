//! NATS: the messages of a batch are stored one by one, so a batch that was cut may be some of it, until it is repeated; the
//! stream drops what it has stored within its window for duplicates.

use serde_json::json;

use super::{MOMENTS, Moment, Shape, State, Store, Words, World, long_only, rounds};
use crate::support::gate::Gate;
use crate::support::nats::Server;

/// Each message has them: what is caught is one of the first of a batch, with all behind it.
const WORDS: Words = Words { rows: "HPUB tidemill.shop.carts", middle: 3_000, decides: "HPUB tidemill.shop.carts" };

impl Store for Server {
    const WHOLE: bool = false;

    async fn log(&self) -> Vec<String> {
        self.held().iter().map(|held| held.header("Nats-Msg-Id").unwrap().to_owned()).collect()
    }

    async fn mirror(&self) -> Vec<(String, State)> {
        unreachable!("a stream is no mirror")
    }

    async fn crash(&mut self, meanwhile: impl FnOnce()) {
        self.kill();
        meanwhile();
        self.restart("");
    }
}

async fn world(server: &Server) -> (Gate, World) {
    server.stream(json!({}));
    let gate = Gate::to(server.port).await;
    let servers = [format!("nats://127.0.0.1:{}", gate.port)];
    let world = World::open("nats", json!({ "servers": servers }), Shape::Append).await;
    // What the test of the destination stored.
    server.admin(json!({})).ask("STREAM.PURGE.EVENTS", &serde_json::Value::Null);
    (gate, world)
}

/// Nothing was refused, so what was repeated did not change the order either.
async fn is_in_order(server: &Server, world: &World) {
    let sent: Vec<&str> = world.sent.iter().map(|sent| sent.event.as_str()).collect();
    assert_eq!(server.log().await, sent);
}

#[tokio::test]
async fn a_stream_has_each_event_once_and_in_order_however_often_the_node_is_killed() {
    if !long_only("NATS while the node is killed") {
        return;
    }
    let Some(server) = Server::start("") else { return };
    let (gate, mut world) = world(&server).await;
    world.is_killed(&server, &gate, WORDS, &rounds(&MOMENTS)).await;
    is_in_order(&server, &world).await;
}

#[tokio::test]
async fn a_stream_has_each_event_once_and_in_order_however_often_the_server_is_killed() {
    if !long_only("NATS that is killed") {
        return;
    }
    let Some(mut server) = Server::start("") else { return };
    let (gate, mut world) = world(&server).await;
    let moments = rounds(&[Moment::After, Moment::Middle, Moment::Before]);
    world.outlives(&mut server, &gate, WORDS, &moments).await;
    is_in_order(&server, &world).await;
}
