//! `tidemill status`: the worst lanes and connections, of a running node or of a store that no node uses.
//!
//! Always true: a workspace's key shows that workspace; the operator's key shows the node with its disk and all
//! workspaces. Not here: what counts as bad (`api::status`).

use std::fmt::Write as _;

use serde_json::Value;

use super::node::Reach;
use super::{Context, Outcome};

/// Said below the help.
pub(super) const KEY_HELP: &str = "With TIDEMILL_API_KEY (or its _FILE form, or --key-file) it shows that key's \
                                   workspace. With --node it shows the disk and all workspaces, and needs the \
                                   operator's key: TIDEMILL_OPERATOR_KEY, its _FILE form, or --key-file. A store that \
                                   no node has open (storage.path) is looked at itself, without a key.";

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    reach: Reach,
    /// On a store that no node has open: the workspace, by name or id [default: the default one]
    #[arg(long, value_name = "WORKSPACE", conflicts_with = "node")]
    workspace: Option<String>,
    /// The node as a whole: disk, and all workspaces
    #[arg(long)]
    node: bool,
    /// How many of the worst of each
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=250))]
    limit: u32,
}

pub(super) fn run(args: Args, context: &Context) -> Outcome {
    let (variable, path) = match args.node {
        true => ("TIDEMILL_OPERATOR_KEY", "/status"),
        false => ("TIDEMILL_API_KEY", "/2024-03/one/status"),
    };
    let node = args.reach.open(context, args.workspace.as_deref(), variable)?;
    node.show("GET", &format!("{path}?limit={}", args.limit), None, |answer| text(&answer["status"]))
}

fn text(status: &Value) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = told(&mut out, status);
    out
}

fn told(out: &mut String, status: &Value) -> std::fmt::Result {
    let number = |of: &Value, name: &str| of[name].as_u64().unwrap_or_default();
    if let Some(node) = status.get("node") {
        writeln!(
            out,
            "node         {} {}, store {}, disk {} free of {}, {} workspaces, {} commits waiting",
            node["version"].as_str().unwrap_or_default(),
            if node["refusesWork"] == true { "REFUSES WORK" } else { "takes work" },
            bytes(number(node, "storeBytes")),
            bytes(number(node, "diskFreeBytes")),
            bytes(number(node, "diskBytes")),
            number(node, "workspaces"),
            number(node, "commitsWaiting"),
        )?;
    }
    let (lanes, connections) = (&status["subscriptionTotals"], &status["connectionTotals"]);
    write!(out, "lanes        ")?;
    counts(out, lanes, &["active", "retrying", "paused", "disabled", "breakersOpen", "pending", "dead"])?;
    write!(out, "connections  ")?;
    counts(out, connections, &["active", "paused", "authFailed", "error", "stalled", "failing", "held"])?;
    if status["complete"] == false {
        writeln!(out, "not everything was looked at: there is too much")?;
    }
    let all = |name: &str| status[name].as_array().cloned().unwrap_or_default();
    let home = |of: &Value| of["workspaceId"].as_str().map_or_else(String::new, |id| format!("  workspace {id}"));
    for lane in all("lanes") {
        let word = |name: &str| lane[name].as_str().unwrap_or("-").to_owned();
        write!(out, "{}  {:<9} pending {}", word("subscriptionId"), word("status"), lane["pending"])?;
        write!(out, " since {}", word("oldestPendingAt"))?;
        write!(out, "  dead {}  failing since {}", lane["dead"], word("failingSince"))?;
        let open = if lane["breakerOpen"] == true { "  breaker open" } else { "" };
        writeln!(out, "{open}{}  {}{}", home(&lane), word("address"), reason(&lane["statusReason"]))?;
    }
    for connection in all("connections") {
        let word = |name: &str| connection[name].as_str().unwrap_or("-").to_owned();
        write!(out, "{}  {:<11} since {}", word("connectionId"), word("trouble"), word("since"))?;
        write!(out, "{}  {} of user {}", home(&connection), word("app"), word("userId"))?;
        writeln!(out, "{}", reason(&connection["message"]))?;
    }
    Ok(())
}

fn reason(text: &Value) -> String {
    text.as_str().map_or_else(String::new, |text| format!(": {text}"))
}

fn counts(out: &mut String, of: &Value, names: &[&str]) -> std::fmt::Result {
    let all: Vec<String> =
        names.iter().map(|name| format!("{} {name}", of[*name].as_u64().unwrap_or_default())).collect();
    writeln!(out, "{}", all.join(", "))
}

/// `12.3 GB`, in steps of a thousand.
fn bytes(n: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut whole = n;
    let mut tenths = 0;
    let mut unit = 0;
    while whole >= 1000 && unit + 1 < units.len() {
        tenths = whole % 1000 / 100;
        whole /= 1000;
        unit += 1;
    }
    if unit == 0 { format!("{whole} B") } else { format!("{whole}.{tenths} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trouble_is_one_line() {
        let status = serde_json::json!({
            "lanes": [{"subscriptionId": "s1", "workspaceId": "w1", "address": "https://a.example/", "status": "retrying",
                "statusReason": "it said no", "pending": 7, "oldestPendingAt": "2026-01-01T00:00:00.000Z", "dead": 2,
                "failingSince": null, "breakerOpen": true}],
            "connections": [{"connectionId": "c1", "app": "Shop", "userId": "u1", "trouble": "stalled",
                "message": "timed out", "since": null}],
            "subscriptionTotals": {"active": 1, "retrying": 1, "pending": 7},
            "connectionTotals": {"active": 3, "stalled": 1},
            "complete": false,
            "node": {"version": "0.1.0", "refusesWork": true, "storeBytes": 1500, "diskFreeBytes": 2, "diskBytes": 3,
                "workspaces": 4, "commitsWaiting": 5},
        });
        let expected = "\
node         0.1.0 REFUSES WORK, store 1.5 kB, disk 2 B free of 3 B, 4 workspaces, 5 commits waiting
lanes        1 active, 1 retrying, 0 paused, 0 disabled, 0 breakersOpen, 7 pending, 0 dead
connections  3 active, 0 paused, 0 authFailed, 0 error, 1 stalled, 0 failing, 0 held
not everything was looked at: there is too much
s1  retrying  pending 7 since 2026-01-01T00:00:00.000Z  dead 2  failing since -  breaker open  workspace w1  \
https://a.example/: it said no
c1  stalled     since -  Shop of user u1: timed out
";
        assert_eq!(text(&status), expected);
    }

    #[test]
    fn bytes_are_written_for_people() {
        let all = [0, 999, 1000, 1_999, 12_345_678, u64::MAX].map(bytes);
        assert_eq!(all, ["0 B", "999 B", "1.0 kB", "1.9 kB", "12.3 MB", "18.4 EB"]);
    }
}
