//! Deliveries as signed POSTs, as CONTRACT section 3 describes them.
//!
//! Always true: only a 2xx whose body ended, or whose first `read_limit` bytes came, within the timeout is success. Not
//! here: the connection (`outbound`), the meaning of a status (`domain::delivery`).

pub mod headers;
pub mod keys;
pub mod sign;
pub mod signer;
pub mod verify;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use url::Url;

use self::headers::Names;
use self::signer::Signer;
use super::{Parcel, Post, Report, Trial};
use crate::domain::address::Forbidden;
use crate::domain::delivery::{Attempt, AttemptError, Outcome, kept_answer};
use crate::domain::failure::Failure;
use crate::error::{Code, Error, Result};
use crate::outbound::diagnose::Diagnosis;
use crate::outbound::{Answer, Client, HeaderName, HeaderValue, Method, Request};

/// The longest address.
pub const ADDRESS_MAX_BYTES: usize = 2048;

/// Of the handshake that REST hooks begin with.
pub const HOOK_SECRET: &str = "x-hook-secret";

/// Whether a subscription may not set this header, where ours are named `{prefix}-…`. Any case.
pub fn is_own_header(name: &str, prefix: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let ours = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-'));
    headers::is_fixed(&name) || matches!(ours, Some("topic" | "signature"))
}

/// Settings of the driver.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// `x-alloy`: lower-case letters, digits and hyphens.
    pub header_prefix: String,
    /// Of an answer at most this is read.
    pub read_limit: usize,
    /// Of a failed attempt's answer at most this is kept.
    pub kept_max: usize,
}

/// Sends parcels as POST requests.
pub struct Http {
    client: Client,
    signer: Signer,
    names: Names,
    read_limit: usize,
    kept_max: usize,
}

impl Http {
    /// A driver on the runtime of `client`. Fails if the prefix makes no header name.
    pub fn new(client: Client, signer: Signer, options: &HttpOptions) -> Result<Self> {
        let names = Names::new(&options.header_prefix)?;
        Ok(Self { client, signer, names, read_limit: options.read_limit, kept_max: options.kept_max })
    }

    async fn request(&self, parcel: &Parcel, url: Url) -> Result<Request> {
        let rsa = if parcel.signing.rsa {
            let digest = sign::rsa_digest(&parcel.address, &parcel.body);
            Some(self.signer.rsa(parcel.keys.rsa(parcel.at), digest).await?)
        } else {
            None
        };
        let mut headers = Vec::with_capacity(10 + parcel.headers.len());
        for (name, value) in parcel.headers.iter().filter(|(name, _)| !self.names.owns(name)) {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(Error::internal)?;
            let mut value = HeaderValue::from_bytes(value.expose().as_bytes()).map_err(Error::internal)?;
            value.set_sensitive(true);
            headers.push((name, value));
        }
        headers.append(&mut headers::ours(&self.names, parcel, rsa.as_deref())?);
        Ok(Request {
            method: Method::POST,
            url,
            headers,
            body: parcel.body.clone(),
            timeout: parcel.timeout,
            read_limit: self.read_limit,
            // The receiver knows a repetition by its webhook-id.
            repeatable: true,
        })
    }

    /// Sends the parcel; the report, and the answer if there was one. `look` sees the headers that are sent.
    async fn attempt(
        &self,
        parcel: &Parcel,
        look: impl FnOnce(&[(HeaderName, HeaderValue)]) + Send,
    ) -> Result<(Report, Option<Answer>)> {
        let Ok(url) = Url::parse(&parcel.address) else {
            let error = AttemptError::Exchange(Failure::BadRequest);
            return Ok((report(parcel, Outcome::Rejected(error), 0, None), None));
        };
        let request = self.request(parcel, url).await?;
        look(&request.headers);
        let started = tokio::time::Instant::now();
        let answered = self.client.send(request).await;
        let duration_ms = u32::try_from(started.elapsed().as_millis()).unwrap_or(u32::MAX);
        let (outcome, answer) = match answered {
            Ok(answer) => {
                let now = parcel.at.after(answer.elapsed);
                (Outcome::of_answer(answer.status, answer.header("retry-after"), now), Some(answer))
            }
            Err(failure) => (Outcome::Refused(AttemptError::Exchange(failure)), None),
        };
        let mut report = report(parcel, outcome, duration_ms, answer.as_ref());
        if let (Some(answer), Some(_)) = (&answer, outcome.error()) {
            report.attempt.answer = kept_answer(&answer.body, self.kept_max);
        }
        Ok((report, answer))
    }
}

impl Post for Http {
    fn check(&self, address: &str) -> Result<()> {
        if address.len() > ADDRESS_MAX_BYTES {
            return Err(Error::invalid(format!("address: at most {ADDRESS_MAX_BYTES} bytes")));
        }
        let url = Url::parse(address)
            .map_err(|e| Error::invalid("address: use an absolute URL such as https://example.com/hook").because(e))?;
        self.client.policy().judge_url(&url).map_err(|why| match why {
            Forbidden::Scheme => Error::invalid(format!("address: {why}")),
            Forbidden::UserInfo => {
                let message = "address: it must not carry a user name or password; use `auth` instead";
                Error::new(Code::AddressForbidden, message)
            }
            _ => Error::new(Code::AddressForbidden, format!("address: {why}")),
        })
    }

    fn deliver<'a>(&'a self, parcel: &'a Parcel) -> BoxFuture<'a, Result<Report>> {
        async move { Ok(self.attempt(parcel, |_| ()).await?.0) }.boxed()
    }

    fn client(&self) -> Option<Client> {
        Some(self.client.clone())
    }

    fn try_out<'a>(&'a self, parcel: &'a Parcel) -> BoxFuture<'a, Result<Trial>> {
        async move {
            let way = match Url::parse(&parcel.address) {
                Ok(url) => self.client.diagnose(&url, parcel.timeout).await?,
                Err(_) => Diagnosis { failure: Some(Failure::BadRequest), ..Diagnosis::default() },
            };
            let mut trial = Trial {
                way,
                first_byte_ms: None,
                total_ms: None,
                status: None,
                answer: None,
                headers: Vec::new(),
                hook_secret: None,
                accepted: false,
            };
            if trial.way.failure.is_some() {
                return Ok(trial);
            }
            let mut headers = Vec::new();
            let look = |sent: &[(HeaderName, HeaderValue)]| {
                let ours = sent.iter().filter(|(name, _)| self.names.owns(name.as_str()));
                headers.extend(ours.map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned())));
            };
            let (report, answer) = self.attempt(parcel, look).await?;
            if let Some(AttemptError::Exchange(failure)) = report.attempt.error {
                trial.way.failure = Some(failure);
                if failure == Failure::AddressForbidden {
                    trial.way = Diagnosis { failure: Some(failure), ..Diagnosis::default() };
                    return Ok(trial);
                }
            }
            trial.headers = headers;
            trial.accepted = report.outcome == Outcome::Accepted;
            trial.total_ms = Some(report.attempt.duration_ms.into());
            if let Some(answer) = answer {
                trial.first_byte_ms = u64::try_from(answer.first_byte.as_millis()).ok();
                trial.status = Some(answer.status);
                trial.hook_secret = answer.header(HOOK_SECRET).map(str::to_owned);
                trial.answer = Some(kept_answer(&answer.body, self.kept_max));
            }
            Ok(trial)
        }
        .boxed()
    }
}

fn report(parcel: &Parcel, outcome: Outcome, duration_ms: u32, answer: Option<&Answer>) -> Report {
    let attempt = Attempt {
        at: parcel.at,
        duration_ms,
        status: answer.map(|a| a.status),
        error: outcome.error(),
        answer: String::new(),
        body_cut: answer.is_some_and(|a| a.cut),
    };
    Report { outcome, attempt }
}
