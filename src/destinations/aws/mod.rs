//! Amazon's APIs: requests signed with Signature Version 4, over the guarded way out.
//!
//! Always true: credentials are those of the settings, or of a role taken on with them; nothing of the machine (its
//! environment, files, metadata service) is looked at. Not here: what is asked for (`s3`, `eventbridge`, `redshift`), how
//! a role is taken on (`sts`), what an error means (`faults`).

#[cfg(any(feature = "s3", feature = "redshift"))]
pub mod bucket;
pub mod faults;
mod sts;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode,
    sign,
};
use aws_sigv4::sign::v4;
use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::driver::{Fault, Step, Verdict};
use crate::clock::Clock;
use crate::domain::secret::Secret;
use crate::domain::time::Millis;
use crate::domain::trouble::Trouble;
use crate::error::{Error, Result};
use crate::outbound::{Answer, Bytes, Client, HeaderName, HeaderValue, Method, Request};

/// A role's credentials are renewed so long before they end.
const RENEW_BEFORE: Duration = Duration::from_secs(5 * 60);

/// Who we are at Amazon: settings that all its kinds share.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Access {
    /// `eu-central-1`.
    pub region: String,
    /// The id of an access key. Not needed with `webIdentityToken`.
    pub access_key_id: Option<String>,
    /// Its secret.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub secret_access_key: Option<Secret>,
    /// Of temporary keys only. They end: a role is better.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub session_token: Option<Secret>,
    /// A role to take on with these keys, or with the token: `arn:aws:iam::123456789012:role/tidemill`.
    pub role_arn: Option<String>,
    /// What the role's trust policy asks for as `sts:ExternalId`.
    pub external_id: Option<String>,
    /// A token of an identity provider that the role trusts, in place of keys.
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub web_identity_token: Option<Secret>,
    /// Another address of the Security Token Service.
    pub sts_endpoint: Option<String>,
}

/// One request to a service.
pub struct Call {
    /// Its name in signatures: `s3`, `events`.
    pub service: &'static str,
    pub method: Method,
    pub url: Url,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
    pub timeout: Duration,
    pub read_limit: usize,
    /// Sending it twice does no harm.
    pub repeatable: bool,
}

impl Call {
    /// A POST of JSON to an action, as EventBridge and Redshift take it (the AWS JSON 1.1 protocol).
    pub fn json(service: &'static str, target: &'static str, url: &Url, body: String) -> Self {
        let headers = vec![
            (HeaderName::from_static("content-type"), HeaderValue::from_static("application/x-amz-json-1.1")),
            (HeaderName::from_static("x-amz-target"), HeaderValue::from_static(target)),
        ];
        Self {
            service,
            method: Method::POST,
            url: url.clone(),
            headers,
            body: body.into(),
            timeout: Duration::from_secs(30),
            read_limit: 1 << 20,
            repeatable: false,
        }
    }
}

/// Where credentials come from.
enum Source {
    Keys(Credentials),
    /// A role, by keys of ours or by a token.
    Role(Box<sts::Role>),
}

/// An account as it is used by one destination.
pub struct Account {
    client: Client,
    clock: Clock,
    pub region: String,
    source: Source,
    held: tokio::sync::Mutex<Option<Held>>,
}

/// A role's credentials while they last.
struct Held {
    credentials: Credentials,
    until: Millis,
}

impl Account {
    /// Checks the settings.
    ///
    /// # Errors
    /// `invalid`, with the setting's name.
    pub fn open(access: Access, client: Client) -> Result<Self> {
        let is_region = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !(1..=32).contains(&access.region.len()) || !access.region.bytes().all(is_region) {
            return Err(Error::invalid("settings.region: use a region's name, such as `eu-central-1`"));
        }
        let region = access.region.clone();
        let source = source(access)?;
        let held = tokio::sync::Mutex::new(None);
        Ok(Self { client, clock: Clock::start(Millis(0)), region, source, held })
    }

    /// The address of a service in the region, or the one that the settings name.
    ///
    /// # Errors
    /// `invalid`, with the setting's name.
    pub fn endpoint(&self, host: &str, setting: &str, given: Option<&str>) -> Result<Url> {
        endpoint(host, &self.region, setting, given)
    }

    /// The credentials of the moment: a role's are taken on when there are none, or when they are about to end.
    ///
    /// # Errors
    /// What the Security Token Service has against it.
    pub async fn credentials(&self) -> std::result::Result<Credentials, Verdict> {
        let role = match &self.source {
            Source::Keys(keys) => return Ok(keys.clone()),
            Source::Role(role) => role,
        };
        let mut held = self.held.lock().await;
        if let Some(known) = held.as_ref()
            && self.clock.wall().after(RENEW_BEFORE) < known.until
        {
            return Ok(known.credentials.clone());
        }
        let (credentials, until) = role.assume(&self.client, self.clock.wall(), &self.region).await?;
        *held = Some(Held { credentials: credentials.clone(), until });
        Ok(credentials)
    }

    /// The time on the machine's clock.
    pub fn wall(&self) -> Millis {
        self.clock.wall()
    }

    /// Signs and sends. Any status is an answer.
    ///
    /// # Errors
    /// The way failed, or there are no credentials.
    pub async fn send(&self, call: Call) -> std::result::Result<Answer, Verdict> {
        let credentials = self.credentials().await?;
        let request = signed(call, credentials, &self.region, self.clock.wall())?;
        self.client.send(request).await.map_err(|failure| Verdict::Retry(Fault::way(failure)))
    }

    /// What an answer that is no success means. Credentials of a role that have ended early are taken on anew.
    pub async fn judge(&self, answer: &Answer) -> Verdict {
        let said = faults::Said::of(answer);
        if said.is_expired() && matches!(self.source, Source::Role(_)) {
            *self.held.lock().await = None;
            return Verdict::Retry(Fault::new(Trouble::CredentialsRefused, said.code));
        }
        faults::judge(answer, &said)
    }

    /// Whether a role is taken on.
    pub fn has_role(&self) -> bool {
        matches!(self.source, Source::Role(_))
    }
}

fn source(access: Access) -> Result<Source> {
    let sts = endpoint("sts", &access.region, "stsEndpoint", access.sts_endpoint.as_deref())?;
    let keys = match (access.access_key_id, access.secret_access_key) {
        (Some(id), Some(secret)) => {
            let token = access.session_token.map(|token| token.expose().to_owned());
            Some(Credentials::new(id, secret.expose(), token, None, "settings"))
        }
        (None, None) if access.session_token.is_some() => {
            return Err(Error::invalid("settings.sessionToken: it goes with `accessKeyId` and `secretAccessKey`"));
        }
        (None, None) => None,
        (Some(_), None) => return Err(Error::invalid("settings.secretAccessKey: it goes with `accessKeyId`")),
        (None, Some(_)) => return Err(Error::invalid("settings.accessKeyId: it goes with `secretAccessKey`")),
    };
    if let Some(arn) = &access.role_arn
        && !(arn.starts_with("arn:aws") && arn.contains(":role/") && (20..=2048).contains(&arn.len()))
    {
        let message = "settings.roleArn: use a role's ARN, such as `arn:aws:iam::123456789012:role/tidemill`";
        return Err(Error::invalid(message));
    }
    let proof = match (keys, access.web_identity_token, access.role_arn.is_some()) {
        (Some(keys), None, false) if access.external_id.is_none() => return Ok(Source::Keys(keys)),
        (Some(keys), None, true) => sts::Proof::Keys(keys),
        (None, Some(token), true) => sts::Proof::Token(token),
        (Some(_), Some(_), _) => {
            return Err(Error::invalid("settings.webIdentityToken: give it or `accessKeyId`, not both"));
        }
        (None, None, _) => {
            let message = "settings.accessKeyId: give `accessKeyId` and `secretAccessKey`, or `roleArn` and \
                           `webIdentityToken`; nothing is taken from the machine";
            return Err(Error::invalid(message));
        }
        (_, _, false) => return Err(Error::invalid("settings.roleArn: name the role to take on")),
    };
    let arn = access.role_arn.unwrap_or_default();
    Ok(Source::Role(Box::new(sts::Role { url: sts, arn, external_id: access.external_id, proof })))
}

fn endpoint(host: &str, region: &str, setting: &str, given: Option<&str>) -> Result<Url> {
    // China is a partition with a domain of its own (AWS General Reference, Service endpoints).
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let text = given.map_or_else(|| format!("https://{host}.{region}.{domain}/"), str::to_owned);
    let refuse = || Error::invalid(format!("settings.{setting}: use an address such as `https://host:9000`"));
    let url = Url::parse(&text).map_err(|_| refuse())?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.host_str().is_some()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if plain { Ok(url) } else { Err(refuse()) }
}

/// The request with its signature.
fn signed(call: Call, credentials: Credentials, region: &str, now: Millis) -> std::result::Result<Request, Verdict> {
    let ours =
        |what: &str| Verdict::Config(Fault::new(Trouble::SettingsRefused, format!("it cannot be signed: {what}")));
    let mut settings = SigningSettings::default();
    let sum = sum_hex(&call.body);
    if call.service == "s3" {
        // S3 encodes paths once, normalizes none, and wants the body's sum in a header.
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    let identity = credentials.into();
    let time: SystemTime = UNIX_EPOCH + Duration::from_millis(now.0);
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(call.service)
        .time(time)
        .settings(settings)
        .build()
        .map_err(|_| ours("a parameter is missing"))?
        .into();
    let headers = call.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let signable =
        SignableRequest::new(call.method.as_str(), call.url.as_str(), headers, SignableBody::Precomputed(sum))
            .map_err(|_| ours("its address"))?;
    let (instructions, _) = sign(signable, &params).map_err(|_| ours("its headers"))?.into_parts();
    let mut headers = call.headers;
    for (name, value) in instructions.headers() {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| ours("a header's name"))?;
        let mut value = HeaderValue::from_str(value).map_err(|_| ours("a credential has odd characters"))?;
        value.set_sensitive(true);
        headers.push((name, value));
    }
    let mut request = Request::new(call.method, call.url);
    request.headers = headers;
    request.body = call.body;
    request.timeout = call.timeout;
    request.read_limit = call.read_limit;
    request.repeatable = call.repeatable;
    Ok(request)
}

/// Notes a step of a test. None: it failed, so there are no others.
pub fn note(
    steps: &mut Vec<Step>,
    name: &'static str,
    began: Instant,
    outcome: std::result::Result<String, Verdict>,
) -> Option<()> {
    let (fault, found) = match outcome {
        Ok(found) => (None, found),
        Err(Verdict::Done) => (None, String::new()),
        Err(Verdict::Retry(fault) | Verdict::Row(fault) | Verdict::Config(fault)) => (Some(fault), String::new()),
    };
    let failed = fault.is_some();
    steps.push(Step { name, took: began.elapsed(), fault, found });
    (!failed).then_some(())
}

/// SHA-256 as lower-case hex.
fn sum_hex(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests;
