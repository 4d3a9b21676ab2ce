//! Who stands at the connect page, and who was sent to an app from it.
//!
//! Always true: both are in memory, bounded, and end by themselves; only digests of cookies and states are kept; a state
//! is taken out by its first use, whoever brings it. A restart forgets all of them, and the page then asks to begin
//! again: nothing is lost but a walk that a person can repeat, and no verifier is ever on disk. Not here: what is
//! connected.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::api::auth::key_digest as mark;
use crate::api::integrations::token;
use crate::connectors::Parameters;
use crate::domain::id::{IntegrationId, UserId, WorkspaceNo};
use crate::domain::secret::Secret;
use crate::domain::time::Millis;
use crate::error::Result;

const VISITS_MAX: usize = 10_000;
/// One user's; another one ends the one that would end first.
const VISITS_PER_USER_MAX: usize = 16;
const FLOWS_MAX: usize = 20_000;
const FLOWS_PER_VISIT_MAX: usize = 8;
/// A person may take so long at the app.
const FLOW_LIFE: Duration = Duration::from_secs(600);
/// The longest text that is looked at as a cookie or state.
const TEXT_BYTES_MAX: usize = 256;

/// What a cookie or a state is kept as.
pub type Mark = [u8; 32];

/// What the link asked for.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    pub connector: Option<String>,
    pub integration: Option<IntegrationId>,
    /// A type: not an app is connected, but a destination of it.
    pub destination: Option<String>,
    /// Where to go at the end.
    pub return_url: Option<String>,
    /// Whom the opening page is, to be told at the end.
    pub origin: Option<String>,
}

/// A browser that came with a good token.
#[derive(Clone, Debug)]
pub struct Visit {
    pub workspace: WorkspaceNo,
    pub user: UserId,
    pub wish: Wish,
    /// In each form: another site cannot know it.
    pub csrf: String,
    pub until: Millis,
}

/// A person who was sent to an app.
#[derive(Clone, Debug)]
pub struct Flow {
    pub visit: Mark,
    pub integration: Option<IntegrationId>,
    /// The connector's key.
    pub connector: String,
    /// What the person gave.
    pub parameters: Parameters,
    pub redirect_uri: String,
    pub verifier: Option<Secret>,
    pub until: Millis,
}

/// See the module.
#[derive(Default)]
pub struct Visits(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    visits: HashMap<Mark, Visit>,
    flows: HashMap<Mark, Flow>,
}

impl Visits {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a visit; answers the text of its cookie.
    pub fn open(&self, visit: Visit, now: Millis) -> Result<String> {
        let cookie = token()?;
        let kept = &mut *self.kept();
        if kept.visits.len() >= VISITS_MAX {
            kept.visits.retain(|_, visit| visit.until > now);
        }
        let (workspace, user) = (visit.workspace, visit.user);
        let same = |v: &Visit| v.workspace == workspace && v.user == user;
        if kept.visits.values().filter(|v| same(v)).count() >= VISITS_PER_USER_MAX {
            kept.end_first(same);
        }
        if kept.visits.len() >= VISITS_MAX {
            kept.end_first(|_| true);
        }
        kept.visits.insert(mark(&cookie), visit);
        Ok(cookie)
    }

    /// The visit of a cookie.
    pub fn find(&self, cookie: &str, now: Millis) -> Option<(Mark, Visit)> {
        if cookie.len() > TEXT_BYTES_MAX {
            return None;
        }
        let mark = mark(cookie);
        let visit = self.kept().visits.get(&mark).filter(|visit| visit.until > now).cloned()?;
        Some((mark, visit))
    }

    /// Keeps a flow under a state.
    pub fn begin(&self, state: &str, mut flow: Flow, now: Millis) {
        flow.until = now.after(FLOW_LIFE);
        let kept = &mut *self.kept();
        let of_visit = |f: &Flow| f.visit == flow.visit;
        if kept.flows.values().filter(|f| of_visit(f)).count() >= FLOWS_PER_VISIT_MAX {
            kept.drop_first(of_visit);
        }
        if kept.flows.len() >= FLOWS_MAX {
            kept.flows.retain(|_, flow| flow.until > now);
        }
        if kept.flows.len() >= FLOWS_MAX {
            kept.drop_first(|_| true);
        }
        kept.flows.insert(mark(state), flow);
    }

    /// Takes the flow of a state out, also one that is past its time.
    pub fn take(&self, state: &str) -> Option<Flow> {
        if state.is_empty() || state.len() > TEXT_BYTES_MAX {
            return None;
        }
        self.kept().flows.remove(&mark(state))
    }
}

impl Kept {
    fn end_first(&mut self, which: impl Fn(&Visit) -> bool) {
        let first = self.visits.iter().filter(|(_, v)| which(v)).min_by_key(|(_, v)| v.until).map(|(mark, _)| *mark);
        if let Some(mark) = first {
            self.visits.remove(&mark);
            self.flows.retain(|_, flow| flow.visit != mark);
        }
    }
    fn drop_first(&mut self, which: impl Fn(&Flow) -> bool) {
        let first = self.flows.iter().filter(|(_, f)| which(f)).min_by_key(|(_, f)| f.until).map(|(mark, _)| *mark);
        if let Some(mark) = first {
            self.flows.remove(&mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(user: u8, until: u64) -> Visit {
        let (workspace, user) = (WorkspaceNo(0), UserId([user; 12]));
        Visit { workspace, user, wish: Wish::default(), csrf: String::new(), until: Millis(until) }
    }

    fn flow(visit: Mark) -> Flow {
        Flow {
            visit,
            integration: None,
            connector: "sandbox".into(),
            parameters: Parameters::new(),
            redirect_uri: String::new(),
            verifier: None,
            until: Millis(0),
        }
    }

    #[test]
    fn a_state_is_taken_once_and_a_visit_ends() {
        let visits = Visits::default();
        let cookie = visits.open(visit(1, 100), Millis(0)).expect("random");
        let (mark, _) = visits.find(&cookie, Millis(99)).expect("it is open");
        visits.begin("state", flow(mark), Millis(5));
        assert_eq!(visits.take("state").expect("kept").until, Millis(5).after(FLOW_LIFE));
        assert!(visits.take("state").is_none() && visits.take("").is_none());
        assert!(visits.find(&cookie, Millis(100)).is_none() && visits.find("other", Millis(0)).is_none());
    }

    #[test]
    fn one_user_takes_a_bounded_number_of_visits_and_flows() {
        let visits = Visits::default();
        let other = visits.open(visit(2, 50), Millis(0)).expect("random");
        let cookies: Vec<String> =
            (0..20).map(|n| visits.open(visit(1, 1_000 + n), Millis(0)).expect("random")).collect();
        let open = cookies.iter().filter(|cookie| visits.find(cookie, Millis(1)).is_some()).count();
        assert_eq!(open, VISITS_PER_USER_MAX);
        assert!(visits.find(&other, Millis(1)).is_some(), "another user's stays");
        let (mark, _) = visits.find(&cookies[19], Millis(1)).expect("the newest");
        for n in 0..20 {
            visits.begin(&n.to_string(), flow(mark), Millis(n));
        }
        assert_eq!((0..20).filter(|n| visits.take(&n.to_string()).is_some()).count(), FLOWS_PER_VISIT_MAX);
    }
}
