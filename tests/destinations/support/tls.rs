//! Certificates for servers that tests start.

use std::path::Path;
use std::process::Command;

/// An authority and a certificate for `localhost`, beside each other in `ca.pem`, `cert.pem` and `key.pem`; the
/// authority's is returned.
pub fn certificates(folder: &Path) -> String {
    let script = "set -e; cd \"$1\"
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 -subj '/CN=Tidemill test CA'
        openssl req -newkey rsa:2048 -nodes -keyout key.pem -out request.pem -subj /CN=localhost
        printf 'subjectAltName=DNS:localhost' >extensions
        openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile extensions -out cert.pem";
    let done = Command::new("sh").args(["-c", script, "sh"]).arg(folder).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    std::fs::read_to_string(folder.join("ca.pem")).unwrap()
}
