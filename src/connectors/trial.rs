//! One method of a connector, walked from page to page: for whoever writes a connector, and for tests that play answers
//! back.
//!
//! Always true: a walk has a bounded number of pages; a token is renewed once at most, and kept before it is used. Not
//! here: windows, ties and the diff (the engine's), what is printed (`app::trial`).

use std::cell::Cell;
use std::future::Future;

use super::recording::Notebook;
use super::{AppRecord, CallError, Collection, Credentials, Page, PullQuery, Session};
use crate::domain::json::Members;
use crate::domain::record::Unified;
use crate::domain::time::Millis;

/// What is asked of a connector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    Pull {
        since: Option<Millis>,
    },
    Touched {
        since: Option<Millis>,
    },
    Scan,
    Deleted {
        since: Option<Millis>,
    },
    Fetch {
        id: String,
    },
    /// What identifies the account.
    Account,
}

impl Ask {
    /// The method's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pull { .. } => "pull",
            Self::Touched { .. } => "touched",
            Self::Scan => "scan",
            Self::Deleted { .. } => "deleted",
            Self::Fetch { .. } => "fetch",
            Self::Account => "account",
        }
    }
    /// The lower bound.
    pub fn since(&self) -> Option<Millis> {
        match self {
            Self::Pull { since } | Self::Touched { since } | Self::Deleted { since } => *since,
            _ => None,
        }
    }
}

/// One record that was found.
#[derive(Clone, Debug)]
pub struct Found {
    pub record: AppRecord,
    /// Without fields where the record holds its id only.
    pub unified: Unified<'static>,
}

/// What a method came to.
#[derive(Clone, Debug, Default)]
pub struct Walked {
    pub found: Vec<Found>,
    pub account: Option<String>,
    pub pages: u32,
    /// There are more pages.
    pub is_cut: bool,
}

/// Keeps fresh credentials before they are used.
pub type Keep<'a> = &'a dyn Fn(&Credentials) -> Result<(), String>;

/// A session, to be tried.
pub struct Trial<'a> {
    session: &'a Session,
    /// None: credentials are not renewed.
    keep: Option<Keep<'a>>,
    notebook: Option<&'a Notebook>,
    is_renewed: Cell<bool>,
}

impl<'a> Trial<'a> {
    /// Tries a session as it is.
    pub fn new(session: &'a Session) -> Self {
        Self { session, keep: None, notebook: None, is_renewed: Cell::new(false) }
    }
    /// The same, renewing credentials that the app does not accept.
    #[must_use]
    pub fn renewing(self, keep: Keep<'a>) -> Self {
        Self { keep: Some(keep), ..self }
    }
    /// The same, settling what `notebook` noted of each page.
    #[must_use]
    pub fn noted_in(self, notebook: &'a Notebook) -> Self {
        Self { notebook: Some(notebook), ..self }
    }
    /// Runs a method; `goes_on` says after so many pages whether another may follow. The error is one sentence.
    ///
    /// # Errors
    /// The app's or the script's failure, or a record that does not map.
    pub async fn run(
        &self,
        c: Option<&Collection>,
        ask: &Ask,
        goes_on: &dyn Fn(u32) -> bool,
    ) -> Result<Walked, String> {
        if *ask == Ask::Account {
            let account = self.called(|| self.session.account()).await?;
            return Ok(Walked { account, ..Walked::default() });
        }
        let c = c.ok_or_else(|| format!("{} needs a collection", ask.name()))?;
        let mut walked = Walked::default();
        if let Ask::Fetch { id } = ask {
            let record = self.called(|| self.session.fetch(c, id)).await?;
            walked.found = record.map(|record| self.found(c, record, true)).transpose()?.into_iter().collect();
            return Ok(walked);
        }
        let mut mark = None;
        loop {
            let page = self.called(|| self.page(c, ask, mark.as_ref())).await?;
            walked.pages += 1;
            let maps = !page.ids_only && !matches!(ask, Ask::Deleted { .. });
            for record in page.records {
                walked.found.push(self.found(c, record, maps)?);
            }
            mark = page.next;
            if mark.is_none() {
                return Ok(walked);
            }
            if !goes_on(walked.pages) {
                return Ok(Walked { is_cut: true, ..walked });
            }
        }
    }
    async fn page(&self, c: &Collection, ask: &Ask, mark: Option<&super::PageMark>) -> Result<Page, CallError> {
        let query = PullQuery { since: ask.since().map(|since| (since, None)), until: None };
        match ask {
            Ask::Deleted { .. } => self.session.deleted_page(c, &query, mark).await,
            Ask::Touched { .. } => self.session.touched_page(c, &query, mark).await,
            Ask::Scan => self.session.scan_page(c, mark).await,
            _ => self.session.pull_page(c, &query, mark).await,
        }
    }
    fn found(&self, c: &Collection, record: AppRecord, maps: bool) -> Result<Found, String> {
        let unified = match maps {
            true => self
                .session
                .map(c, &record, |unified| unified.keep())
                .map_err(|why| format!("record {}: {why}", record.remote_id))?,
            false => Unified {
                remote_id: record.remote_id.clone(),
                remote_created_at: record.created_at,
                remote_updated_at: record.updated_at,
                fields: Members::default(),
            },
        };
        Ok(Found { record, unified })
    }
    /// A call, again with fresh credentials where the app does not accept the ones at hand.
    async fn called<T, F: Future<Output = Result<T, CallError>>>(&self, call: impl Fn() -> F) -> Result<T, String> {
        let outcome = match (call().await, self.keep) {
            (Err(refused @ CallError::Unauthorized(_)), Some(keep)) if !self.is_renewed.replace(true) => {
                self.renew(keep, refused).await?;
                call().await
            }
            (outcome, _) => outcome,
        };
        if let Some(notebook) = self.notebook {
            notebook.settle();
        }
        outcome.map_err(|error| error.to_string())
    }
    async fn renew(&self, keep: Keep<'_>, refused: CallError) -> Result<(), String> {
        let fresh = match self.session.refresh_credentials().await {
            Ok(fresh) => fresh,
            // There is nothing to renew with: what the app said tells more.
            Err(CallError::Unauthorized(why)) => return Err(format!("{refused}; {why}")),
            Err(error) => return Err(format!("a fresh token cannot be had: {error}")),
        };
        keep(&fresh)?;
        self.session.adopt(fresh);
        if let Some(notebook) = self.notebook {
            notebook.forget();
        }
        Ok(())
    }
}
