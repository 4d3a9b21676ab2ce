//! Asking for the pages of one list: the one at hand, and the one after it while that is committed.
//!
//! Always true: at most one page is ahead; one that was asked for before the account's fields were read anew is asked for
//! again, since what it lacks would look like a change. Not here: what is done with a page (`ready`), which one is next
//! (`domain::pull`).

use std::sync::Arc;

use super::account::Account;
use super::fields;
use super::ready::Answered;
use crate::actors::Deps;
use crate::connectors::{Collection, PageMark, Part, PullQuery};
use crate::domain::pull::Query;
use crate::error::Result;

/// Who asks.
pub struct Asking<'a> {
    pub deps: &'a Deps,
    pub account: &'a Arc<Account>,
    pub c: &'a Collection,
    pub part: Option<&'a Part>,
    /// Most records will have to be mapped.
    pub maps: bool,
    pub list: List,
}

/// Which of a collection's lists is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// What changed.
    Changes,
    /// Records whose parts changed.
    Touched,
    /// All records.
    Everything,
}

impl Asking<'_> {
    /// The page that was asked for ahead, or else this one.
    pub async fn this(&self, ahead: Option<Answered>, query: &Query, mark: Option<&PageMark>) -> Result<Answered> {
        let mapping = self.account.mapping_of(self.c);
        match ahead.filter(|answered| answered.mapping == mapping) {
            Some(answered) => Ok(answered),
            None => self.page(query, mark).await,
        }
    }

    /// The same, if there is one to ask for.
    pub async fn next(&self, goes_on: bool, query: &Query, mark: Option<&PageMark>) -> Result<Option<Answered>> {
        Ok(if goes_on { Some(self.page(query, mark).await?) } else { None })
    }

    /// A page of the list, or of one tick's records by id; its records made ready.
    async fn page(&self, query: &Query, mark: Option<&PageMark>) -> Result<Answered> {
        let Self { deps, account, c, part, maps, list } = *self;
        let (sent_at, mapping, session) = (deps.clock.now(), account.mapping_of(c), &account.session);
        let asked = PullQuery { since: query.since.clone(), until: query.until };
        let answer = match (list, query.ties) {
            (List::Everything, _) => {
                fields::call(deps, account, c, || session.scan_page_of(c, part, &asked, mark)).await?
            }
            (List::Touched, _) => fields::call(deps, account, c, || session.touched_page(c, &asked, mark)).await?,
            (List::Changes, true) => fields::call(deps, account, c, || session.ties_page_of(c, part, &asked)).await?,
            (List::Changes, false) => {
                fields::call(deps, account, c, || session.pull_page_of(c, part, &asked, mark)).await?
            }
        };
        Answered::new(deps, account, c, (sent_at, mapping), answer, maps).await
    }
}
