//! Bodies, held against the examples of the brief and against the published schemas.

use serde_json::{Value, json};

use super::*;
use crate::domain::event::Source;
use crate::domain::id::Seq;
use crate::domain::models::Catalogue;

fn hex12(text: &str) -> [u8; 12] {
    text.parse::<EventId>().unwrap().0
}

fn order() -> Event {
    let fields = json!({
        "orderNumber": "0000019375", "totalShipping": 4.95, "totalTax": 12.39, "totalPrice": 66.91, "currency": "USD",
        "lineItems": [{}], "orderStatus": "new", "paymentStatus": "not_paid",
        "billingAddress": {"address1": "43 Main Rd.", "address2": "", "city": "New York", "postalCode": "", "region": "",
            "countryCode": "", "firstName": "Jane", "lastName": "Doe", "phone": ""},
        "customer": {"customerId": "65874bf90eb1e288406fd2ab", "email": "", "firstName": "Jane", "lastName": "Doe",
            "phone": ""},
    });
    Event {
        workspace: WorkspaceNo::DEFAULT,
        topic: "commerce/orders".into(),
        update_type: Some("updated".into()),
        connection: Some(ConnectionId(hex12("65874bebc8100057bf8c2ee8"))),
        user: Some(UserId(hex12("65874bef602dc2e74d26d9fa"))),
        app: Some("Salesforce CommerceCloud".into()),
        user_name: Some("Gregg's Account".into()),
        username: Some("gregg".into()),
        happened_at: Millis(1_703_240_614_123),
        accepted_at: Millis(1_703_240_614_500),
        payload: Payload::Record {
            id: *uuid::uuid!("9b113ba8-20d7-4624-99bb-7e90522a6c5e").as_bytes(),
            remote_id: "0000019375".into(),
            remote_created_at: Some(Millis(1_678_093_506_000)),
            remote_updated_at: Some(Millis(1_678_093_506_999)),
            created_at: Millis(1),
            updated_at: Millis(2),
            deleted: false,
            fields: fields.to_string(),
        },
        changed_fields: vec!["orderStatus".into(), "customer.\"email".into()],
        previous: Some(r#"{"orderStatus":"old"}"#.into()),
        raw: Some(r#"{ "orderNo": 1.10 }"#.into()),
        source: Source::Engine,
        unified_change: true,
        about: None,
    }
}

fn fulfillment() -> Event {
    let time = |text: &str| Millis::parse_rfc3339(text).unwrap();
    let fields = json!({
        "lineItems": [{"lineItemId": "13582898790560", "productId": "", "variantId": "", "price": 1, "quantity": 2,
            "sku": "", "title": "Chocolate Unftle2"}],
        "orderId": "753f7304-aee1-419e-941f-8f16bb02d801", "trackingNumbers": [], "trackingUrls": [],
    });
    Event {
        topic: "commerce/fulfillments".into(),
        connection: Some(ConnectionId(hex12("6622a1a8f4d6e00352f34650"))),
        user: Some(UserId(hex12("6622a1914268110c7ca94986"))),
        app: Some("Magento".into()),
        user_name: Some("Embedded User".into()),
        happened_at: time("2024-05-31T18:37:32.353Z"),
        payload: Payload::Record {
            id: *uuid::uuid!("3bcc9193-c159-4ae0-be7e-6a2f28c11034").as_bytes(),
            remote_id: "5011228328096".into(),
            remote_created_at: Some(time("2024-02-15T10:27:58.000Z")),
            remote_updated_at: Some(time("2024-02-15T10:27:58.000Z")),
            created_at: time("2024-04-19T16:57:18.020Z"),
            updated_at: time("2024-05-31T18:37:32.353Z"),
            deleted: false,
            fields: fields.to_string(),
        },
        ..order()
    }
}

fn text(event: &Event, version: ApiVersion, include: &[Include]) -> String {
    let id = EventId::new(Seq(0xa1f4), WorkspaceNo::DEFAULT);
    String::from_utf8(render(event, id, version, include)).unwrap()
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The example of the 2023-12 page of the brief, as JSON.
#[test]
fn a_2023_12_body_is_the_one_of_the_brief() {
    let expected = json!({
        "connectionId": "65874bebc8100057bf8c2ee8", "userId": "65874bef602dc2e74d26d9fa", "updateType": "updated",
        "dataPayload": {
            "remoteId": "0000019375", "createdTimestamp": 1678093506, "updatedTimestamp": 1678093506,
            "orderNumber": "0000019375", "totalShipping": 4.95, "totalTax": 12.39, "totalPrice": 66.91,
            "currency": "USD", "lineItems": [{}], "orderStatus": "new", "paymentStatus": "not_paid",
            "billingAddress": {"address1": "43 Main Rd.", "address2": "", "city": "New York", "postalCode": "",
                "region": "", "countryCode": "", "firstName": "Jane", "lastName": "Doe", "phone": ""},
            "customer": {"customerId": "65874bf90eb1e288406fd2ab", "email": "", "firstName": "Jane",
                "lastName": "Doe", "phone": ""},
            "id": "9b113ba8-20d7-4624-99bb-7e90522a6c5e",
        },
        "category": "commerce", "name": "Salesforce CommerceCloud", "userName": "Gregg's Account",
        "eventTimestamp": "2023-12-22T10:23:34Z",
    });
    // The order of the keys is the brief's too, so the text is the same.
    assert_eq!(text(&order(), ApiVersion::V2023_12, &[]), expected.to_string());
}

/// The example of the 2024-03 page of the brief (its fields in alphabetical order there).
#[test]
fn a_2024_03_body_is_the_one_of_the_brief() {
    let expected = json!({
        "connectionId": "6622a1a8f4d6e00352f34650", "userId": "6622a1914268110c7ca94986", "updateType": "updated",
        "dataPayload": {
            "id": "3bcc9193-c159-4ae0-be7e-6a2f28c11034", "remoteId": "5011228328096",
            "createdAt": "2024-04-19T16:57:18.020Z",
            "lineItems": [{"lineItemId": "13582898790560", "productId": "", "variantId": "", "price": 1, "quantity": 2,
                "sku": "", "title": "Chocolate Unftle2"}],
            "orderId": "753f7304-aee1-419e-941f-8f16bb02d801", "remoteCreatedAt": "2024-02-15T10:27:58.000Z",
            "remoteDeleted": false, "remoteUpdatedAt": "2024-02-15T10:27:58.000Z", "trackingNumbers": [],
            "trackingUrls": [], "updatedAt": "2024-05-31T18:37:32.353Z",
        },
        "category": "commerce", "app": "Magento", "userName": "Embedded User",
        "eventTimestamp": "2024-05-31T18:37:32Z",
    });
    let body = parsed(&text(&fulfillment(), ApiVersion::V2024_03, &[]));
    assert_eq!(body, expected);
    let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&body), keys(&expected));
}

#[test]
fn money_keeps_its_digits() {
    let fields = r#"{"totalPrice":66.910,"totalTax":123456789012345678901234567890.10,"n":1E+2}"#;
    let mut event = order();
    if let Payload::Record { fields: text, .. } = &mut event.payload {
        *text = fields.into();
    }
    for version in ApiVersion::ALL {
        assert!(text(&event, *version, &[]).contains(&fields[1..fields.len() - 1]), "{version}");
    }
}

#[test]
fn a_published_payload_passes_byte_for_byte_and_the_keys_are_always_there() {
    let payload = "{ \"a\" :\t1.0e0, \"b\":\"\\u00e9\\/\", \"a\":null }";
    let event = Event {
        topic: "crm/contacts".into(),
        update_type: None,
        connection: None,
        user: None,
        app: None,
        user_name: None,
        username: None,
        payload: Payload::Plain(payload.into()),
        ..order()
    };
    assert_eq!(
        text(&event, ApiVersion::V2024_03, &[]),
        format!(
            r#"{{"connectionId":null,"userId":null,"updateType":null,"dataPayload":{payload},"category":"crm","app":null,"userName":null,"eventTimestamp":"2023-12-22T10:23:34Z"}}"#
        )
    );
    let custom = Event { topic: "acme/things".into(), ..event };
    let body = text(&custom, ApiVersion::V2023_12, &[]);
    assert!(body.contains(payload));
    assert!(
        body.ends_with(r#","topic":"acme/things","eventId":"000000000000a1f400000000","username":null}"#),
        "{body}"
    );
    assert!(!text(&custom, ApiVersion::V2023_12, &[Include::Raw]).contains("\"topic\""));
}

#[test]
fn a_subscription_can_ask_for_more_and_gets_it_after_the_rest() {
    let plain = text(&order(), ApiVersion::V2024_03, &[]);
    let all = text(&order(), ApiVersion::V2024_03, &Include::ALL);
    let extra = concat!(
        r#","changedFields":["orderStatus","customer.\"email"],"#,
        r#""previous":{"id":"9b113ba8-20d7-4624-99bb-7e90522a6c5e","remoteId":"0000019375","orderStatus":"old"},"#,
        r#""raw":{ "orderNo": 1.10 },"topic":"commerce/orders","eventId":"000000000000a1f400000000","username":"gregg"}"#
    );
    assert_eq!(all, format!("{}{extra}", &plain[..plain.len() - 1]));
    let twice = [Include::Topic, Include::Topic];
    assert_eq!(text(&order(), ApiVersion::V2024_03, &twice).matches("\"topic\"").count(), 1);
}

#[test]
fn what_there_is_nothing_to_say_about_is_null() {
    let bare = Event { changed_fields: vec![], previous: None, raw: None, username: None, ..order() };
    let body = parsed(&text(&bare, ApiVersion::V2024_03, &Include::ALL));
    assert_eq!(body["changedFields"], json!([]));
    for key in ["previous", "raw", "username"] {
        assert_eq!(body.get(key), Some(&Value::Null), "{key}");
    }
}

#[test]
fn a_time_that_the_app_does_not_tell_is_null_or_in_2023_12_ours() {
    let mut event = order();
    if let Payload::Record { remote_created_at, remote_updated_at, created_at, updated_at, fields, .. } =
        &mut event.payload
    {
        (*remote_created_at, *remote_updated_at) = (None, None);
        (*created_at, *updated_at) = (Millis(7_000), Millis(8_999));
        *fields = "{}".into();
    }
    let old = parsed(&text(&event, ApiVersion::V2023_12, &[]));
    assert_eq!(
        old["dataPayload"].to_string(),
        r#"{"remoteId":"0000019375","createdTimestamp":7,"updatedTimestamp":8,"id":"9b113ba8-20d7-4624-99bb-7e90522a6c5e"}"#
    );
    let new = parsed(&text(&event, ApiVersion::V2024_03, &[]));
    assert_eq!(new["dataPayload"]["remoteCreatedAt"], Value::Null);
    assert_eq!(new["dataPayload"]["createdAt"], "1970-01-01T00:00:07.000Z");
}

#[test]
fn every_example_body_satisfies_the_published_schema_of_its_version() {
    for model in Catalogue::embedded().models() {
        for version in ApiVersion::ALL {
            let body = parsed(&String::from_utf8(example(model, *version)).unwrap());
            let schema = model.payload_schema(*version);
            jsonschema::meta::validate(&schema).unwrap_or_else(|e| panic!("{}: {e}", model.topic));
            let validator = jsonschema::draft202012::options().should_validate_formats(true).build(&schema).unwrap();
            if let Err(error) = validator.validate(&body["dataPayload"]) {
                panic!("{} {version} at {}: {error}", model.topic, error.instance_path());
            }
            assert_eq!(body.get("topic"), None);
        }
    }
}

#[test]
fn a_hostile_name_cannot_break_out_of_its_text() {
    let event = Event { user_name: Some("\",\"x\":\"\n\u{0}\u{2028}".into()), ..order() };
    let body = parsed(&text(&event, ApiVersion::V2024_03, &[]));
    assert_eq!(body["userName"], event.user_name.unwrap());
    assert_eq!(body.get("x"), None);
}
