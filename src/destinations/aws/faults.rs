//! What Amazon's errors mean: XML of S3 and STS, JSON of the others.
//!
//! Always true: of an error about credentials only the code is kept, since its message repeats what was signed, the
//! session token among it. Not here: errors of single entries and statements (their kinds).

use std::time::Duration;

use serde_json::Value;

use super::super::driver::{Fault, Verdict};
use crate::domain::trouble::Trouble;
use crate::outbound::Answer;

/// The longest pause that an answer can ask for.
const PAUSE_MAX: Duration = Duration::from_secs(15 * 60);

/// An error's code and message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    pub code: String,
    pub message: String,
}

impl Said {
    /// Reads an answer that is no success; an answer without a body (to HEAD) has neither.
    pub fn of(answer: &Answer) -> Self {
        let text = String::from_utf8_lossy(&answer.body);
        let text = text.trim_start();
        if text.starts_with('<') { Self::of_xml(text) } else { Self::of_json(text, answer.header("x-amzn-errortype")) }
    }

    fn of_xml(text: &str) -> Self {
        let Ok(document) = roxmltree::Document::parse(text) else { return Self::default() };
        let find = |name: &str| {
            let node = document.descendants().find(|node| node.tag_name().name() == name);
            node.and_then(|node| node.text()).unwrap_or_default().to_owned()
        };
        Self { code: find("Code"), message: find("Message") }
    }

    fn of_json(text: &str, header: Option<&str>) -> Self {
        let body: Value = serde_json::from_str(text).unwrap_or_default();
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        let code = text("__type").or_else(|| text("code")).or(header).unwrap_or_default();
        // `com.amazon.coral.service#Name`, or `Name:http://…` in the header.
        let code = code.rsplit('#').next().unwrap_or_default().split(':').next().unwrap_or_default();
        let message = text("message").or_else(|| text("Message")).unwrap_or_default();
        Self { code: code.to_owned(), message: message.to_owned() }
    }

    /// Temporary credentials have ended.
    pub fn is_expired(&self) -> bool {
        matches!(self.code.as_str(), "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired")
    }
}

/// The verdict of an answer that is no success.
pub fn judge(answer: &Answer, said: &Said) -> Verdict {
    let code: String = said.code.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    let detail = match (code.as_str(), said.message.as_str()) {
        ("", "") => format!("HTTP {}", answer.status),
        (code, "") => code.to_owned(),
        ("", message) => message.to_owned(),
        (code, message) => format!("{code}: {message}"),
    };
    if let Some(trouble) = by_code(&code) {
        return match trouble {
            // The message of a signature that does not match has the request in it.
            Trouble::CredentialsRefused => Verdict::Config(Fault::new(trouble, code)),
            Trouble::PermissionDenied | Trouble::TargetMissing | Trouble::SettingsRefused => {
                Verdict::Config(Fault::new(trouble, detail))
            }
            Trouble::TooLarge => Verdict::Row(Fault::new(trouble, detail)),
            _ => Verdict::Retry(Fault::new(trouble, detail).after(pause(answer))),
        };
    }
    let retry = |trouble| Verdict::Retry(Fault::new(trouble, detail.clone()).after(pause(answer)));
    match answer.status {
        429 => retry(Trouble::Throttled),
        // 307: a bucket that is young, or moving.
        307 | 408 | 425 => retry(Trouble::Busy),
        409 => retry(Trouble::Conflict),
        507 => retry(Trouble::Full),
        500.. => retry(Trouble::Failed),
        401 | 403 => Verdict::Config(Fault::new(Trouble::PermissionDenied, detail)),
        404 => Verdict::Config(Fault::new(Trouble::TargetMissing, detail)),
        413 => Verdict::Row(Fault::new(Trouble::TooLarge, detail)),
        _ => Verdict::Config(Fault::new(Trouble::SettingsRefused, detail)),
    }
}

/// Sources: Amazon S3 API Reference, Error responses; Common errors of the EventBridge and Redshift Data APIs.
fn by_code(code: &str) -> Option<Trouble> {
    Some(match code {
        "SlowDown"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "RequestThrottled" => Trouble::Throttled,
        "LimitExceededException" | "QuotaExceeded" | "QuotaExceededException" => Trouble::QuotaExceeded,
        "XMinioStorageFull" | "InsufficientCapacity" | "InsufficientStorage" => Trouble::Full,
        "InternalError"
        | "InternalFailure"
        | "InternalFailureException"
        | "InternalException"
        | "InternalServerException"
        | "BadDigest"
        | "IncompleteBody"
        | "RequestTimeTooSkewed"
        | "XAmzContentSHA256Mismatch"
        | "IDPCommunicationError" => Trouble::Failed,
        "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "RequestTimeout"
        | "OperationAborted"
        | "ActiveStatementsExceededException"
        | "ActiveSessionsExceededException" => Trouble::Busy,
        "ConditionalRequestConflict" | "ConcurrentModificationException" => Trouble::Conflict,
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "AuthFailure"
        | "InvalidToken"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "TokenRefreshRequired"
        | "InvalidIdentityToken"
        | "IDPRejectedClaim"
        | "OptInRequired"
        | "NotSignedUp" => Trouble::CredentialsRefused,
        "AccessDenied"
        | "AccessDeniedException"
        | "AllAccessDisabled"
        | "AccountProblem"
        | "UnauthorizedOperation"
        | "UnauthorizedException" => Trouble::PermissionDenied,
        "NoSuchBucket" | "ResourceNotFoundException" | "DatabaseConnectionException" => Trouble::TargetMissing,
        "PermanentRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException"
        | "InvalidBucketName" => Trouble::SettingsRefused,
        "EntityTooLarge" => Trouble::TooLarge,
        _ => return None,
    })
}

/// What `Retry-After` asks for, in seconds.
fn pause(answer: &Answer) -> Option<Duration> {
    let seconds: u64 = answer.header("retry-after")?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(PAUSE_MAX))
}
