//! What the app's OAuth server remembers: codes, and the grants that came of them (RFC 6749, 7636, 9700).
//!
//! Always true: a code works once and for a minute; a refresh token works once, and one that was used before ends its
//! grant, as does a code used twice; everything has a limit. Not here: HTTP (`oauth`).

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::domain::time::Millis;

const CODE_LIFE: Duration = Duration::from_secs(60);
/// Codes and grants that are remembered; the oldest go first.
const CODES_MAX: usize = 1_000;
const GRANTS_MAX: usize = 10_000;
/// Spent refresh tokens of one grant that are still known as such.
const SPENT_MAX: usize = 100;

/// See the module.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Grants {
    number: u64,
    codes: BTreeMap<u64, Code>,
    grants: BTreeMap<u64, Grant>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Code {
    text: String,
    account: String,
    redirect_uri: String,
    challenge: String,
    expires: Millis,
    /// The grant that came of it.
    grant: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Grant {
    account: String,
    access: String,
    expires: Millis,
    refresh: String,
    spent: Vec<String>,
}

/// A fresh pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub access: String,
    pub refresh: String,
    pub account: String,
}

fn text(rng: &mut fastrand::Rng, kind: &str) -> String {
    format!("sandbox-{kind}-{:016x}{:016x}", rng.u64(..), rng.u64(..))
}

impl Grants {
    fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }
    /// How many accounts are open to somebody.
    pub fn len(&self) -> usize {
        self.grants.len()
    }
    /// A code for an account that somebody allowed.
    pub fn allow(
        &mut self,
        rng: &mut fastrand::Rng,
        account: &str,
        redirect_uri: &str,
        challenge: &str,
        now: Millis,
    ) -> String {
        let (number, code) = (self.next(), text(rng, "code"));
        let kept = Code {
            text: code.clone(),
            account: account.to_owned(),
            redirect_uri: redirect_uri.to_owned(),
            challenge: challenge.to_owned(),
            expires: now.after(CODE_LIFE),
            grant: None,
        };
        self.codes.insert(number, kept);
        while self.codes.len() > CODES_MAX {
            self.codes.pop_first();
        }
        code
    }
    /// The pair for a code. None: it is not good, or was used before.
    pub fn redeem(
        &mut self,
        rng: &mut fastrand::Rng,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
        life: Duration,
        now: Millis,
    ) -> Option<Pair> {
        let number = self.next();
        let found = self.codes.values_mut().find(|c| c.text == code)?;
        if let Some(used) = found.grant {
            self.grants.remove(&used);
            return None;
        }
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        if found.expires < now || found.redirect_uri != redirect_uri || found.challenge != challenge {
            return None;
        }
        found.grant = Some(number);
        let (access, refresh, account) = (text(rng, "access"), text(rng, "refresh"), found.account.clone());
        let grant = Grant {
            account: account.clone(),
            access: access.clone(),
            expires: now.after(life),
            refresh: refresh.clone(),
            spent: Vec::new(),
        };
        self.grants.insert(number, grant);
        while self.grants.len() > GRANTS_MAX {
            self.grants.pop_first();
        }
        Some(Pair { access, refresh, account })
    }
    /// The next pair; the old refresh token is spent. None: it is not good.
    pub fn renew(&mut self, rng: &mut fastrand::Rng, refresh: &str, life: Duration, now: Millis) -> Option<Pair> {
        let known = |g: &Grant| g.refresh == refresh || g.spent.iter().any(|spent| spent == refresh);
        let number = self.grants.iter().find(|(_, g)| known(g)).map(|(number, _)| *number)?;
        let grant = self.grants.get_mut(&number)?;
        if grant.refresh != refresh {
            self.grants.remove(&number);
            return None;
        }
        let spent = std::mem::replace(&mut grant.refresh, text(rng, "refresh"));
        grant.spent.push(spent);
        if grant.spent.len() > SPENT_MAX {
            grant.spent.remove(0);
        }
        (grant.access, grant.expires) = (text(rng, "access"), now.after(life));
        Some(Pair { access: grant.access.clone(), refresh: grant.refresh.clone(), account: grant.account.clone() })
    }
    /// Ends the grant of a token of either kind.
    pub fn revoke(&mut self, token: &str) {
        self.grants.retain(|_, g| g.refresh != token && g.access != token);
    }
    /// Makes every access token worthless at once, as an app that lost them; refresh tokens stay good.
    pub fn expire(&mut self) {
        for grant in self.grants.values_mut() {
            grant.expires = Millis(0);
        }
    }
    /// The account that an access token opens.
    pub fn account(&self, access: &str, now: Millis) -> Option<&str> {
        self.grants.values().find(|g| g.access == access && g.expires > now).map(|g| g.account.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(60);

    fn opened(rng: &mut fastrand::Rng) -> (Grants, String) {
        let mut grants = Grants::default();
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(b"verifier"));
        let code = grants.allow(rng, "acc_1", "http://127.0.0.1/back", &challenge, Millis(0));
        (grants, code)
    }

    #[test]
    fn a_code_used_twice_ends_what_came_of_it() {
        let rng = &mut fastrand::Rng::with_seed(1);
        let (mut grants, code) = opened(rng);
        let back = "http://127.0.0.1/back";
        assert!(grants.redeem(rng, &code, back, "another", LIFE, Millis(1)).is_none());
        assert!(grants.redeem(rng, &code, "http://127.0.0.1/", "verifier", LIFE, Millis(1)).is_none());
        let pair = grants.redeem(rng, &code, back, "verifier", LIFE, Millis(1)).expect("good");
        assert_eq!(grants.account(&pair.access, Millis(2)), Some("acc_1"));
        assert!(grants.redeem(rng, &code, back, "verifier", LIFE, Millis(2)).is_none());
        assert_eq!(grants.account(&pair.access, Millis(2)), None);
    }

    #[test]
    fn a_refresh_token_works_once() {
        let rng = &mut fastrand::Rng::with_seed(1);
        let (mut grants, code) = opened(rng);
        let first = grants.redeem(rng, &code, "http://127.0.0.1/back", "verifier", LIFE, Millis(1)).expect("good");
        let second = grants.renew(rng, &first.refresh, LIFE, Millis(2)).expect("good");
        assert_eq!(grants.account(&first.access, Millis(3)), None);
        assert_eq!(grants.account(&second.access, Millis(3)), Some("acc_1"));
        assert!(grants.renew(rng, &first.refresh, LIFE, Millis(4)).is_none());
        assert_eq!(grants.len(), 0, "a spent token ends the grant");
    }
}
