//! Queries in GraphQL: what they may cost, and what is wrong inside a good answer; and what an app warns of in headers.
//!
//! Always true: a query waits until there are points for it, up to a limit, and is sent a bounded number of times. Not
//! here: what an answer holds (`connectors::graphql`), what was learnt of costs (`connectors::habits`).

use std::time::Duration;

use super::caller::{BUDGET_WAIT_MAX, CallFailure, Caller, Incoming, Outgoing};
use super::exchange::Asked;
use super::habits::query_key;
use super::mapping::Env;
use super::{CallError, graphql};
use crate::outbound::Method;

/// Times a query is sent that the app has no points left for.
const TRIES_MAX: u32 = 3;
/// How much of a warning is kept.
const WARNING_CHARS_MAX: usize = 300;

impl Caller {
    pub(super) fn is_query(&self, outgoing: &Outgoing) -> bool {
        let variables = self.variables();
        let env = Env::of(&variables);
        let path = self.connector.graphql.as_ref().and_then(|graphql| graphql.path.render_path(&env));
        outgoing.method == Method::POST && path.is_some_and(|path| path == outgoing.path)
    }
    /// A query: waits until there is enough for it, and judges what is inside a good answer.
    pub(super) async fn ask(
        &self,
        graphql: &graphql::GraphqlFile,
        outgoing: Outgoing,
        asked: Option<Asked>,
    ) -> Result<Incoming, CallFailure> {
        let query = outgoing.body.as_ref().and_then(|body| body.get("query")?.as_str()).map(query_key);
        let mut tries = 1;
        loop {
            self.afford(query).await.map_err(CallFailure::silent)?;
            let (attempt, url) = self.prepare(outgoing.clone()).await?;
            let incoming = self.send(attempt, url, asked.clone()).await?;
            let (judged, cost) = graphql::judge(graphql, self.connector.cost.as_ref(), incoming);
            let now = self.clock.now();
            if let Some(cost) = cost {
                self.budget().habits.heed(query, cost, now);
            }
            match judged {
                Err(CallFailure { error: CallError::RateLimited { retry_after: Some(wait) }, .. })
                    if tries < TRIES_MAX && wait <= BUDGET_WAIT_MAX =>
                {
                    // It did not run: the walk that it belongs to need not break off.
                    self.budget().block(wait, now);
                    tries += 1;
                }
                Err(failure) => {
                    if let CallError::RateLimited { retry_after: Some(wait) } = failure.error {
                        self.budget().block(wait, now);
                    }
                    return Err(failure);
                }
                good => return good,
            }
        }
    }
    async fn afford(&self, query: Option<u64>) -> Result<(), CallError> {
        let Some(query) = query else { return Ok(()) };
        let mut waited = Duration::ZERO;
        while let Err(wait) = self.budget().habits.spend(query, self.clock.now()) {
            if waited + wait > BUDGET_WAIT_MAX {
                return Err(CallError::RateLimited { retry_after: Some(wait) });
            }
            waited += wait;
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }
    /// What the app is about to change stands in the log once per account and text.
    pub(super) fn note_warnings<'h>(&self, header: impl Fn(&str) -> Option<&'h str>) {
        for name in &self.connector.warnings {
            let Some(text) = header(name) else { continue };
            let text: String = text.chars().filter(|c| !c.is_control()).take(WARNING_CHARS_MAX).collect();
            if self.budget().habits.is_news(&format!("{name}: {text}")) {
                tracing::warn!(connector = self.connector.key, header = name, "the app warns: {text}");
            }
        }
    }
}
