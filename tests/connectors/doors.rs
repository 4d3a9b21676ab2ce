//! What a person is offered at the connect page.

use std::fs;

use serde_json::{Value, json};
use tidemill::connectors::Door;

use super::{REGISTRY, connector, object};

fn offered(key: &str, integration: Value) -> Vec<Door> {
    let connector = connector(key);
    connector.doors(&connector.parameters.fill(&object(integration)).unwrap())
}

#[test]
fn a_client_that_the_person_can_name_whole_opens_an_account() {
    assert_eq!(offered("netsuite", json!({})), [Door::OAuth1, Door::Open]);
    assert_eq!(offered("sfcc", json!({})), [Door::Open]);
    let own = json!({"clientId": "c", "certificateId": "x", "privateKey": "pem"});
    assert_eq!(offered("netsuite", own), [Door::OAuth1, Door::Open], "at an address that the account's id cannot move");
    // Clients of the integration alone.
    assert_eq!(offered("hubspot", json!({})), [Door::Token]);
    assert!(!offered("salesforce", json!({})).contains(&Door::Open));
    assert!(!offered("shopify", json!({"clientId": "c", "clientSecret": "s"})).contains(&Door::Open));
}

#[test]
fn the_integrations_client_goes_to_no_address_that_a_person_names() {
    let dir = tempfile::tempdir().unwrap();
    let folder = tidemill::connectors::scaffold(dir.path(), "shops").unwrap();
    let doors = |marks: &str, integration: Value| {
        let spec = format!(
            "key: shops\nname: Shops\ncategory: crm\nbaseUri: {{givenBy: user}}\nauth:\n  - oauth2: {{tokenUrl: \"{{{{baseUri}}}}/token\", \
             grants: [client-credentials]}}\nparametersSchema:\n  type: object\n  properties:\n    \
             clientId: {{type: string{marks}}}\n    clientSecret: {{type: string, writeOnly: true{marks}}}\n"
        );
        fs::write(folder.join("spec.yml"), spec).unwrap();
        let shops = REGISTRY.read(&folder).unwrap_or_else(|error| panic!("{error}"));
        shops.doors(&shops.parameters.fill(&object(integration)).unwrap())
    };
    let own = json!({"clientId": "c", "clientSecret": "s"});
    let at = json!({"clientId": "c", "clientSecret": "s", "baseUri": "https://shop.example"});
    for marks in ["", ", x-givenBy: user"] {
        assert_eq!(doors(marks, own.clone()), [], "{marks}");
        assert_eq!(doors(marks, json!({"clientSecret": "s"})), [], "{marks}");
        assert_eq!(doors(marks, at.clone()), [Door::Open], "{marks}");
    }
    assert_eq!(doors("", json!({})), []);
    assert_eq!(
        doors(", x-givenBy: user", json!({})),
        [Door::Open],
        "the person's own client goes where the person says"
    );
}
