//! What a failure means: the server's error numbers, and failures on the way.
//!
//! Always true: no message tells an address of ours or a password. Numbers are those of the MySQL manual ("Server Error
//! Message Reference") and of MariaDB's ("MariaDB Error Code Reference"). Not here: noticing failures (`link`, `write`).

use mysql_async::{DriverError, Error, IoError, ServerError, TlsError};

use crate::destinations::driver::{Fault, Verdict};
use crate::domain::failure::Failure;
use crate::domain::trouble::Trouble;
use crate::outbound::raw::classify_tls;

/// Why a batch or a step stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// The library's error, before it is judged.
    Error(Error),
    Verdict(Verdict),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Verdict> for Stop {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

impl Stop {
    /// A column or a table is not there, though it was: somebody changed it behind us.
    pub(super) fn is_stale(&self) -> bool {
        matches!(self, Self::Error(Error::Server(error)) if matches!(error.code, 1054 | 1146))
    }

    /// The connection can be used further: the server has answered, and all of the answer was read.
    pub(super) fn leaves_usable(&self) -> bool {
        match self {
            // Those after which the server hangs up.
            Self::Error(Error::Server(error)) => !matches!(error.code, 1053 | 1152..=1161 | 1184 | 1927 | 4031),
            Self::Error(_) => false,
            Self::Verdict(_) => true,
        }
    }

    pub(super) fn verdict(self) -> Verdict {
        match self {
            Self::Error(error) => judge(&error),
            Self::Verdict(verdict) => verdict,
        }
    }

    pub(super) fn fault(self) -> Fault {
        match self.verdict() {
            Verdict::Retry(fault) | Verdict::Row(fault) | Verdict::Config(fault) => fault,
            Verdict::Done => Fault::new(Trouble::Failed, ""),
        }
    }
}

fn judge(error: &Error) -> Verdict {
    match error {
        Error::Server(error) => server(error),
        Error::Io(IoError::Io(error)) if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            Verdict::way(classify_tls(error))
        }
        Error::Io(IoError::Tls(TlsError::Tls(error))) => {
            Verdict::way(classify_tls(&std::io::Error::other(error.clone())))
        }
        Error::Io(IoError::Tls(_)) => Verdict::way(Failure::TlsUntrusted),
        Error::Io(IoError::Io(_)) | Error::Driver(DriverError::ConnectionClosed) => {
            Verdict::way(Failure::ConnectionClosed)
        }
        Error::Driver(DriverError::NoClientSslFlagFromServer) => {
            let detail = "the server offers no TLS: switch it on there, or set sslMode to disable";
            Verdict::Config(Fault::new(Trouble::SettingsRefused, detail))
        }
        Error::Driver(DriverError::PacketTooLarge) => {
            Verdict::Row(Fault::new(Trouble::TooLarge, "a row is larger than max_allowed_packet"))
        }
        Error::Driver(
            DriverError::UnknownAuthPlugin { .. }
            | DriverError::MysqlOldPasswordDisabled
            | DriverError::CleartextPluginDisabled,
        ) => {
            let detail = "the user signs in by a plugin that is not spoken here: use caching_sha2_password, \
                          mysql_native_password or ed25519";
            Verdict::Config(Fault::new(Trouble::CredentialsRefused, detail))
        }
        _ => Verdict::Retry(Fault::new(Trouble::Failed, "the server's answer was not understood")),
    }
}

/// What follows from an error number.
#[derive(Clone, Copy)]
enum Sort {
    Retry,
    Row,
    Config,
}

fn server(error: &ServerError) -> Verdict {
    let (sort, trouble) = sorted(error);
    let fault = Fault::new(trouble, clean(error));
    match sort {
        Sort::Retry => Verdict::Retry(fault),
        Sort::Row => Verdict::Row(fault),
        Sort::Config => Verdict::Config(fault),
    }
}

fn sorted(error: &ServerError) -> (Sort, Trouble) {
    use Sort::{Config, Retry, Row};
    match error.code {
        1045 | 1698 | 1820 | 1862 | 3118 | 4151 => (Config, Trouble::CredentialsRefused),
        1044 | 1129 | 1130 | 1142 | 1143 | 1227 | 1370 | 1410 => (Config, Trouble::PermissionDenied),
        1046 | 1049 => (Config, Trouble::TargetMissing),
        1054 | 1060 | 1071 | 1117 | 1136 | 1146 | 1347 | 1364 | 1471 | 1709 => (Config, Trouble::TableMismatch),
        1251 | 3159 => (Config, Trouble::SettingsRefused),
        1290 | 1792 | 1836 | 3100 => (Config, Trouble::ReadOnly),
        1021 | 1114 => (Retry, Trouble::Full),
        // "Got error 28 from storage engine": the file system is full (errno ENOSPC); 122 is EDQUOT.
        1026 | 1030
            if ["error 28 ", "error 122 ", "Errcode: 28", "Errcode: 122"].iter().any(|t| error.message.contains(t)) =>
        {
            (Retry, Trouble::Full)
        }
        1040 | 1203 | 1205 | 1226 => (Retry, Trouble::Busy),
        1213 | 1479 | 1614 => (Retry, Trouble::Deadlock),
        1047 | 1053 | 1927 | 4031 => (Retry, Trouble::Restarting),
        1118 | 1153 | 3150 => (Row, Trouble::TooLarge),
        1048 | 1062 | 1264 | 1265 | 1292 | 1366 | 1367 | 1406 | 3140 | 3141 | 3157 | 3819 | 4025 => {
            (Row, Trouble::ValueRefused)
        }
        // The class of the SQLSTATE tells of the others.
        _ => match error.state.get(..2) {
            Some("22" | "23") => (Row, Trouble::ValueRefused),
            Some("28") => (Config, Trouble::CredentialsRefused),
            Some("40") => (Retry, Trouble::Deadlock),
            Some("42") => (Config, Trouble::TableMismatch),
            _ => (Retry, Trouble::Failed),
        },
    }
}

/// The server's words, without the host that we are called by there: `'tide'@'10.1.2.3'` becomes `'tide'`.
fn clean(error: &ServerError) -> String {
    // "Host '10.1.2.3' is blocked", "… is not allowed to connect".
    if matches!(error.code, 1129 | 1130) {
        return format!("error {}: the server takes no connections from this node", error.code);
    }
    let mut out = format!("error {}: ", error.code);
    let mut rest = error.message.as_str();
    while let Some((before, after)) = rest.split_once("'@'") {
        out.push_str(before);
        out.push('\'');
        rest = after.split_once('\'').map_or("", |(_, after)| after);
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: u16, state: &str, message: &str) -> Verdict {
        judge(&Error::Server(ServerError { code, message: message.to_owned(), state: state.to_owned() }))
    }

    #[test]
    fn nothing_is_told_of_where_we_stand() {
        let text = "Access denied for user 'tide'@'10.1.2.3' to database 'd' of 'a'@'b'";
        let Verdict::Config(fault) = said(1044, "42000", text) else { panic!("config") };
        assert_eq!(fault.detail, "error 1044: Access denied for user 'tide' to database 'd' of 'a'");
        let Verdict::Config(fault) = said(1130, "HY000", "Host '10.1.2.3' is not allowed") else { panic!("config") };
        assert!(!fault.detail.contains("10.1"), "{}", fault.detail);
    }

    #[test]
    fn errors_are_sorted_by_who_can_mend_them() {
        let full = "Got error 28 \"No space left on device\" from storage engine InnoDB";
        for (code, state, message, expected) in [
            (1213, "40001", "", Verdict::Retry(Fault::new(Trouble::Deadlock, "error 1213: "))),
            (1205, "HY000", "", Verdict::Retry(Fault::new(Trouble::Busy, "error 1205: "))),
            (1114, "HY000", "", Verdict::Retry(Fault::new(Trouble::Full, "error 1114: "))),
            (1030, "HY000", full, Verdict::Retry(Fault::new(Trouble::Full, format!("error 1030: {full}")))),
            (1030, "HY000", "", Verdict::Retry(Fault::new(Trouble::Failed, "error 1030: "))),
            (1406, "22001", "", Verdict::Row(Fault::new(Trouble::ValueRefused, "error 1406: "))),
            (1153, "08S01", "", Verdict::Row(Fault::new(Trouble::TooLarge, "error 1153: "))),
            (9999, "22999", "", Verdict::Row(Fault::new(Trouble::ValueRefused, "error 9999: "))),
            (9999, "HY000", "", Verdict::Retry(Fault::new(Trouble::Failed, "error 9999: "))),
            (1142, "42000", "", Verdict::Config(Fault::new(Trouble::PermissionDenied, "error 1142: "))),
            (1049, "42000", "", Verdict::Config(Fault::new(Trouble::TargetMissing, "error 1049: "))),
            (1290, "HY000", "", Verdict::Config(Fault::new(Trouble::ReadOnly, "error 1290: "))),
        ] {
            assert_eq!(said(code, state, message), expected, "{code}");
        }
    }
}
