//! S3, in the shape of moto: each event in one line of one object, and no index that lists what is not there.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidemill::outbound::Method;

use super::{MOMENTS, Shape, State, Store, Words, World, long_only, rounds};
use crate::support::amazon::Moto;
use crate::support::gate::{Gate, port};

const WORDS: Words = Words { rows: "PUT /lake/", middle: 700, decides: "PUT /lake/" };

impl Store for Moto {
    async fn log(&self) -> Vec<String> {
        let objects = objects(self).await;
        crate::s3::lines(&objects).iter().map(|line| line["eventId"].as_str().unwrap().to_owned()).collect()
    }

    async fn mirror(&self) -> Vec<(String, State)> {
        unreachable!("a bucket is no mirror")
    }

    async fn crash(&mut self, _meanwhile: impl FnOnce()) {
        unreachable!("moto keeps nothing")
    }

    async fn print(&self, _shape: Shape) -> String {
        format!("{:?}", keys(self).await)
    }
}

async fn keys(moto: &Moto) -> Vec<String> {
    let (_, list) = moto.call(Method::GET, "/lake?list-type=2", "", "").await;
    let list = String::from_utf8(list).unwrap();
    assert!(!list.contains("<IsTruncated>true"), "one page is enough");
    list.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()).map(str::to_owned).collect()
}

async fn objects(moto: &Moto) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for key in keys(moto).await {
        let path = format!("/lake/{}", key.replace('=', "%3D"));
        let (_, body) = moto.call(Method::GET, &path, "", "").await;
        all.insert(key, body);
    }
    all
}

#[tokio::test]
async fn each_event_is_in_one_object_once_however_often_the_node_is_killed() {
    if !long_only("S3 while the node is killed") {
        return;
    }
    let Some(moto) = Moto::start().await else { return };
    assert_eq!(moto.call(Method::PUT, "/lake", "", "").await.0, 200);
    let gate = Gate::to(port(&moto.url)).await;
    let settings = json!({"bucket": "lake", "prefix": "events", "region": "us-east-1", "accessKeyId": "testing",
        "secretAccessKey": "testing", "s3Endpoint": format!("http://127.0.0.1:{}", gate.port)});
    let mut world = World::open("s3", settings, Shape::Append).await;
    world.is_killed(&moto, &gate, WORDS, &rounds(&MOMENTS)).await;
    let objects = objects(&moto).await;
    let (indexes, events): (Vec<_>, Vec<_>) = objects.iter().partition(|(key, _)| key.contains("/_index/"));
    let mut listed = Vec::new();
    for (_, index) in indexes {
        let index: Value = serde_json::from_slice(index).unwrap();
        listed.extend(index["objects"].as_array().unwrap().iter().map(|o| o["key"].as_str().unwrap().to_owned()));
    }
    listed.sort();
    assert_eq!(listed, events.iter().map(|(key, _)| (*key).clone()).collect::<Vec<_>>(), "the indexes list each once");
}
