//! How often a collection is looked at.
//!
//! Always true: nothing is looked at more often than `polling.interval_seconds_min`; where the app pushes, polling only
//! reconciles. Not here: jitter and back-off (`domain::pull`).

use std::num::NonZeroU32;
use std::time::Duration;

use super::account::Account;
use super::asking::List;
use super::standing::tells;
use crate::actors::Deps;
use crate::actors::options::Polling;
use crate::connectors::{Collection, Detection, journal};
use crate::domain::connection::{CollectionState, WebhookState};
use crate::domain::pull::{Order, Plan, Rules, Waits};

/// Pages of one walk.
pub const PAGES_MAX: u32 = 100_000;

/// The intervals of a collection as it stands.
pub fn of(deps: &Deps, account: &Account, c: &Collection, state: &CollectionState) -> Plan {
    let (connection, polling) = (&account.connection, &deps.polling);
    let least = seconds(polling.interval_seconds_min);
    let own = |given: Option<u32>| given.map(|s| Duration::from_secs(u64::from(s)));
    let scan = own(connection.full_scan_interval_seconds)
        .or(c.poll.full_scan_interval)
        .unwrap_or(seconds(polling.full_scan_interval_seconds));
    let usual = c.poll.interval.unwrap_or(seconds(polling.interval_seconds));
    let pull = own(connection.poll_interval_seconds).unwrap_or_else(|| match pushes(deps, account, c, state) {
        true => usual.max(seconds(polling.reconcile_interval_seconds)),
        false => usual,
    });
    Plan { pull: c.pulls().then(|| pull.max(least)), scan: is_scanned(c).then(|| scan.max(least)) }
}

/// Whether all records are walked from time to time: where changes are found that way, or to find what webhooks lost.
fn is_scanned(c: &Collection) -> bool {
    let d = &c.detects;
    let by_scan = [d.created, d.updated, d.deleted].contains(&Detection::FullScan);
    let by_push = matches!(d.deleted, Detection::Webhook | Detection::GlobalWebhook);
    c.scans() && (by_scan || by_push || c.names_scans() || !c.pulls())
}

/// Whether the app tells of changes by itself, as far as we have seen.
fn pushes(deps: &Deps, account: &Account, c: &Collection, state: &CollectionState) -> bool {
    let by = |way| c.detects.created == way || c.detects.updated == way;
    let heard = state.last_webhook_at.is_some();
    let hook = account.connector().webhook.as_ref();
    let tells = hook.is_some_and(|hook| tells(hook, &account.connection.webhook, heard));
    (by(Detection::Webhook) && tells) || (by(Detection::GlobalWebhook) && heard && !is_stalled(deps, account))
}

/// Whether changes come by a journal that has failed for a while.
fn is_stalled(deps: &Deps, account: &Account) -> bool {
    let WebhookState::Registered { uri, .. } = &account.connection.webhook else { return false };
    let (Some(key), Some(integration)) = (journal::key_of(uri), account.connection.integration) else { return false };
    deps.store.journal(integration, key).is_ok_and(|state| state.is_stalled())
}

/// The node's settings about waiting.
pub fn waits(polling: &Polling) -> Waits {
    Waits {
        jitter_percent: polling.jitter_percent,
        back_off_max: Duration::from_secs(polling.backoff_seconds_max.get()),
    }
}

/// What a walk over one of the collection's lists of changes must know.
pub fn rules(c: &Collection, list: List) -> Rules {
    use crate::connectors::spec;
    Rules {
        order: match c.cursor.order {
            spec::Order::Ascending => Order::Ascending,
            spec::Order::Descending => Order::Descending,
            spec::Order::None => Order::None,
        },
        precision: c.cursor.precision,
        lookback: c.cursor.lookback,
        ceiling: c.cursor.ceiling,
        breaks_ties: c.cursor.breaks_ties,
        lists_ties: c.lists_ties() && list == List::Changes,
        takes_until: c.cursor.takes_until && list == List::Changes,
        pages_max: PAGES_MAX,
    }
}

fn seconds(n: NonZeroU32) -> Duration {
    Duration::from_secs(u64::from(n.get()))
}
