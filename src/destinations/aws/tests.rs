//! Signatures as the service computes them, settings that are refused, and errors by what they mean.

use super::*;
use crate::domain::delivery::AttemptError;
use crate::outbound::HeaderMap;

fn access() -> Access {
    Access {
        region: "us-east-1".to_owned(),
        access_key_id: Some("AKIAIOSFODNN7EXAMPLE".to_owned()),
        secret_access_key: Some(Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")),
        session_token: None,
        role_arn: None,
        external_id: None,
        web_identity_token: None,
        sts_endpoint: None,
    }
}

/// Amazon S3 API Reference, "Signature Calculations for the Authorization Header": the example of PUT Object.
#[test]
fn an_object_is_signed_as_in_the_example_of_the_reference() {
    let headers = vec![
        (HeaderName::from_static("date"), HeaderValue::from_static("Fri, 24 May 2013 00:00:00 GMT")),
        (HeaderName::from_static("x-amz-storage-class"), HeaderValue::from_static("REDUCED_REDUNDANCY")),
    ];
    let call = Call {
        service: "s3",
        method: Method::PUT,
        url: Url::parse("https://examplebucket.s3.amazonaws.com/test%24file.text").unwrap(),
        headers,
        body: Bytes::from_static(b"Welcome to Amazon S3."),
        timeout: Duration::from_secs(1),
        read_limit: 1,
        repeatable: true,
    };
    let keys = Credentials::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", None, None, "test");
    let now = Millis::parse_rfc3339("2013-05-24T00:00:00Z").unwrap();
    let request = signed(call, keys, "us-east-1", now).unwrap();
    let header = |name: &str| {
        request.headers.iter().find(|(n, _)| n.as_str() == name).map(|(_, value)| value.to_str().unwrap().to_owned())
    };
    let wanted = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
                  SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class, \
                  Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd";
    assert_eq!(header("authorization").as_deref(), Some(wanted));
    let sum = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
    assert_eq!(header("x-amz-content-sha256").as_deref(), Some(sum));
}

#[test]
fn credentials_that_are_not_whole_are_refused_by_name() {
    let refused = |change: fn(&mut Access)| {
        let mut given = access();
        change(&mut given);
        source(given).err().unwrap().to_string()
    };
    assert!(refused(|a| a.secret_access_key = None).contains("settings.secretAccessKey"));
    assert!(refused(|a| a.access_key_id = None).contains("settings.accessKeyId"));
    let none = refused(|a| (a.access_key_id, a.secret_access_key) = (None, None));
    assert!(none.contains("nothing is taken from the machine"), "{none}");
    assert!(refused(|a| a.external_id = Some("x".to_owned())).contains("settings.roleArn"));
    assert!(refused(|a| a.role_arn = Some("tidemill".to_owned())).contains("settings.roleArn"));
    assert!(refused(|a| a.web_identity_token = Some(Secret::new("t"))).contains("settings.webIdentityToken"));
    assert!(refused(|a| a.sts_endpoint = Some("https://u:p@host".to_owned())).contains("settings.stsEndpoint"));
}

#[test]
fn services_are_called_in_their_region_and_partition() {
    let at = |region| endpoint("s3", region, "s3Endpoint", None).unwrap().to_string();
    assert_eq!(at("eu-central-1"), "https://s3.eu-central-1.amazonaws.com/");
    assert_eq!(at("cn-north-1"), "https://s3.cn-north-1.amazonaws.com.cn/");
}

fn answer(status: u16, body: &str) -> Answer {
    let body = Bytes::from(body.to_owned());
    let none = Duration::ZERO;
    Answer { status, headers: HeaderMap::new(), body, cut: false, first_byte: none, elapsed: none }
}

#[test]
fn errors_mean_what_follows_from_them() {
    let judge = |status, body: &str| {
        let answer = answer(status, body);
        faults::judge(&answer, &faults::Said::of(&answer))
    };
    let xml = |code: &str| format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>");
    let trouble = |verdict: &Verdict| match verdict {
        Verdict::Retry(fault) => ("retry", fault.error),
        Verdict::Row(fault) => ("row", fault.error),
        Verdict::Config(fault) => ("config", fault.error),
        Verdict::Done => ("done", AttemptError::Destination(Trouble::Failed)),
    };
    for (status, code, kind, what) in [
        (503, "SlowDown", "retry", Trouble::Throttled),
        (500, "InternalError", "retry", Trouble::Failed),
        (409, "ConditionalRequestConflict", "retry", Trouble::Conflict),
        (400, "RequestTimeout", "retry", Trouble::Busy),
        (507, "XMinioStorageFull", "retry", Trouble::Full),
        (403, "InvalidAccessKeyId", "config", Trouble::CredentialsRefused),
        (403, "AccessDenied", "config", Trouble::PermissionDenied),
        (404, "NoSuchBucket", "config", Trouble::TargetMissing),
        (301, "PermanentRedirect", "config", Trouble::SettingsRefused),
        (400, "EntityTooLarge", "row", Trouble::TooLarge),
        (502, "", "retry", Trouble::Failed),
        (429, "", "retry", Trouble::Throttled),
    ] {
        let verdict = judge(status, &xml(code));
        assert_eq!(trouble(&verdict), (kind, AttemptError::Destination(what)), "{status} {code}");
    }
    let json = judge(400, r#"{"__type":"com.amazonaws.events#AccessDeniedException","message":"no"}"#);
    let Verdict::Config(fault) = json else { panic!("{json:?}") };
    assert_eq!(fault.detail, "AccessDeniedException: no");
}

#[test]
fn an_error_about_a_signature_does_not_repeat_what_was_signed() {
    let body =
        r#"{"__type":"InvalidSignatureException","message":"The Canonical String was x-amz-security-token:hush"}"#;
    let answer = answer(400, body);
    let verdict = faults::judge(&answer, &faults::Said::of(&answer));
    let Verdict::Config(fault) = verdict else { panic!("{verdict:?}") };
    assert_eq!(fault.detail, "InvalidSignatureException");
}
