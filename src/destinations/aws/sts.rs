//! A role taken on: AssumeRole with keys, AssumeRoleWithWebIdentity with a token.
//!
//! Always true: nothing that the service answers is kept but the credentials and when they end. Not here: how long they
//! are held (`aws`). Source: AWS STS API Reference, AssumeRole and AssumeRoleWithWebIdentity.

use std::time::Duration;

use aws_credential_types::Credentials;
use url::Url;
use url::form_urlencoded::Serializer;

use super::super::driver::{Fault, Verdict};
use super::{Call, faults, signed};
use crate::domain::secret::Secret;
use crate::domain::time::Millis;
use crate::domain::trouble::Trouble;
use crate::outbound::{Client, HeaderName, HeaderValue, Method, Request};

/// How long a role is taken on for: what every role allows.
const LASTS_SECONDS: &str = "3600";

/// A role, and what lets us take it on.
pub struct Role {
    pub url: Url,
    pub arn: String,
    pub external_id: Option<String>,
    pub proof: Proof,
}

/// What lets us take a role on.
pub enum Proof {
    Keys(Credentials),
    Token(Secret),
}

impl Role {
    /// Fresh credentials, and when they end.
    pub async fn assume(
        &self,
        client: &Client,
        now: Millis,
        region: &str,
    ) -> std::result::Result<(Credentials, Millis), Verdict> {
        let request = self.request(now, region)?;
        let answer = client.send(request).await.map_err(|failure| Verdict::Retry(Fault::way(failure)))?;
        if answer.status != 200 {
            return Err(faults::judge(&answer, &faults::Said::of(&answer)));
        }
        read(&answer.body).ok_or_else(|| Verdict::Retry(Fault::new(Trouble::Failed, "STS gave no credentials")))
    }

    fn request(&self, now: Millis, region: &str) -> std::result::Result<Request, Verdict> {
        let mut form = Serializer::new(String::new());
        form.append_pair("Version", "2011-06-15")
            .append_pair("RoleArn", &self.arn)
            .append_pair("RoleSessionName", "tidemill")
            .append_pair("DurationSeconds", LASTS_SECONDS);
        let call = |body: String| Call {
            service: "sts",
            method: Method::POST,
            url: self.url.clone(),
            headers: vec![(
                HeaderName::from_static("content-type"),
                HeaderValue::from_static("application/x-www-form-urlencoded"),
            )],
            body: body.into(),
            timeout: Duration::from_secs(15),
            read_limit: 256 << 10,
            repeatable: true,
        };
        match &self.proof {
            Proof::Keys(keys) => {
                form.append_pair("Action", "AssumeRole");
                if let Some(id) = &self.external_id {
                    form.append_pair("ExternalId", id);
                }
                signed(call(form.finish()), keys.clone(), region, now)
            }
            Proof::Token(token) => {
                form.append_pair("Action", "AssumeRoleWithWebIdentity");
                form.append_pair("WebIdentityToken", token.expose());
                Ok(unsigned(call(form.finish())))
            }
        }
    }
}

fn unsigned(call: Call) -> Request {
    let mut request = Request::new(call.method, call.url);
    request.headers = call.headers;
    request.body = call.body;
    request.timeout = call.timeout;
    request.read_limit = call.read_limit;
    request.repeatable = call.repeatable;
    request
}

fn read(body: &[u8]) -> Option<(Credentials, Millis)> {
    let document = roxmltree::Document::parse(std::str::from_utf8(body).ok()?).ok()?;
    let found = document.descendants().find(|node| node.has_tag_name_any("Credentials"))?;
    let text = |name: &str| found.children().find(|node| node.has_tag_name_any(name))?.text();
    let until = Millis::parse_rfc3339(text("Expiration")?)?;
    let token = Some(text("SessionToken")?.to_owned());
    let credentials = Credentials::new(text("AccessKeyId")?, text("SecretAccessKey")?, token, None, "role");
    Some((credentials, until))
}

/// A tag's name, whatever its namespace.
trait AnyNamespace {
    fn has_tag_name_any(&self, name: &str) -> bool;
}

impl AnyNamespace for roxmltree::Node<'_, '_> {
    fn has_tag_name_any(&self, name: &str) -> bool {
        self.tag_name().name() == name
    }
}
