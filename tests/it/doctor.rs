//! The doctor tells what is wrong around a node, and what to do.

use tempfile::TempDir;

use crate::support::node::Node;

fn text(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn url(name: &str, port: u16) -> (String, String) {
    (name.to_owned(), format!("http://127.0.0.1:{port}"))
}

#[actix::test]
async fn the_doctor_tells_a_node_that_is_well_from_one_that_is_not() {
    let folders = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let (mut node, mut other) = (Node::new(folders.0.path()), Node::new(folders.1.path()));
    let none = text(&node.run(&["doctor"]));
    assert!(none.contains("no  no node answers at") && none.contains("no  there is no"), "{none}");
    assert!(none.contains("server.public_url is not set"), "{none}");
    node.env.push(url("TIDEMILL__SERVER__PUBLIC_URL", node.port));
    node.start();
    node.ready().await;
    let found = text(&node.run(&["doctor"]));
    // Whether this machine keeps its clock in time is not ours to say.
    let well = found.lines().filter(|line| !line.contains("clock") && !line.starts_with("tidemill:"));
    let well: Vec<&str> = well.collect();
    assert!(well.len() == 4 && well.iter().all(|line| line.starts_with("ok  ")), "{found}");
    assert!(found.contains(&format!("http://127.0.0.1:{}/ leads to this node", node.port)), "{found}");

    other.start();
    other.ready().await;
    node.env.pop();
    node.env.push(url("TIDEMILL__SERVER__PUBLIC_URL", other.port));
    let output = node.run(&["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("leads to another node"), "{}", text(&output));
    let key = std::process::Command::new("chmod").arg("644").arg(node.folder.join("data/master.key")).status();
    assert!(key.expect("chmod runs").success());
    let open = text(&node.run(&["doctor"]));
    assert!(open.contains("can be read by others"), "{open}");
    assert_eq!(node.stop(), Some(0));
}
