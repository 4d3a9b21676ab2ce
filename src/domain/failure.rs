//! The one table of what can go wrong between us and another party's server: slug and sentence.
//!
//! Always true: neither slug nor sentence tells anything about the network we stand in; details go to the operator's
//! log only. The order of the variants is their stored form: new ones are added at the end. Not here: what follows from
//! a failure (`domain::delivery`, `domain::pull`), and how it is noticed (`outbound`).

use serde::{Deserialize, Serialize};

macro_rules! failures {
    ($($(#[$doc:meta])* $name:ident = $slug:literal, $sentence:literal;)*) => {
        /// Why an exchange with another party's server did not give an answer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Failure { $($(#[$doc])* $name,)* }

        impl Failure {
            /// All of them, for the docs and the checks.
            pub const ALL: &'static [Failure] = &[$(Failure::$name,)*];
            /// The stable text, fit for an API answer and a metric label.
            pub fn slug(self) -> &'static str { match self { $(Failure::$name => $slug,)* } }
            /// One sentence for a person.
            pub fn sentence(self) -> &'static str { match self { $(Failure::$name => $sentence,)* } }
        }
    };
}

failures! {
    /// The name has no address, or its servers did not answer in time.
    DnsFailed = "dns-failed", "the host name could not be resolved";
    /// The address, or one of the name's addresses, is not one that may be called.
    AddressForbidden = "address-forbidden", "the address is private, local or reserved, and the node does not allow it";
    /// Plain http to an address that is not in an allowed network.
    HttpsRequired = "https-required", "the address must use https";
    /// Nobody listens there, or the way is closed.
    ConnectFailed = "connect-failed", "the connection was refused or could not be made";
    /// No connection (TCP or TLS) in time.
    ConnectTimeout = "timeout-connect", "the connection was not made in time";
    /// Connected, but the whole answer did not come in time.
    ResponseTimeout = "timeout-response", "the answer did not come in time";
    /// The certificate is out of date, or not valid yet.
    TlsExpired = "tls-expired", "the server's certificate has expired or is not valid yet";
    /// The certificate is for another name.
    TlsNameMismatch = "tls-name-mismatch", "the server's certificate is for another name";
    /// The certificate's issuer is unknown.
    TlsUntrusted = "tls-untrusted", "the server's certificate is not signed by a trusted issuer, or its chain is incomplete";
    /// Any other failure of the handshake.
    TlsFailed = "tls-failed", "the TLS handshake failed";
    /// Closed before the answer was complete.
    ConnectionClosed = "connection-closed", "the server closed the connection before its answer was complete";
    /// What came is not HTTP.
    BadAnswer = "bad-answer", "the server's answer is not valid HTTP";
    /// The request itself cannot be sent: a URL without a host, or a header that is none.
    BadRequest = "bad-request", "the request cannot be sent: its address or a header is not valid";
    /// The operator's proxy does not answer, or not as one.
    ProxyUnreachable = "proxy-unreachable", "the proxy of the node cannot be reached, or does not answer as a proxy";
    /// The operator's proxy does not take our credentials, or does not let us through.
    ProxyRefused = "proxy-refused", "the proxy of the node refuses to pass the request on";
    /// The operator's proxy could not connect to the address.
    ProxyFailed = "proxy-failed", "the proxy of the node could not connect to the address";
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.sentence())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_unique_and_stored_forms_stay() {
        let slugs: std::collections::HashSet<_> = Failure::ALL.iter().map(|f| f.slug()).collect();
        assert_eq!(slugs.len(), Failure::ALL.len());
        for (index, failure) in Failure::ALL.iter().enumerate() {
            assert_eq!(
                postcard::to_allocvec(failure).map_err(|e| e.to_string()),
                Ok(vec![u8::try_from(index).unwrap()])
            );
        }
        assert_eq!(Failure::BadRequest as u8, 12, "append new failures, never reorder");
    }
}
