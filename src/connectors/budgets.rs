//! The names of budgets in a connector's calls.
//!
//! Always true: a call that names a budget which is not there is refused when the connector is loaded, since it would spend
//! nothing. Not here: counting (`connectors::budget`).

use super::folder::SpecError;
use super::rest::Spends;
use super::spec::{Account, Connector, Method};

/// Whether every call's budget is one of `spec.yml`.
pub fn known(connector: &Connector) -> Result<(), SpecError> {
    let is_known = |name: &str| connector.budgets.iter().any(|(known, _)| known == name);
    let check = |path: String, name: Option<&str>| match name.filter(|name| !is_known(name)) {
        None => Ok(()),
        Some(name) => Err(SpecError::in_file(path, format!("spec.yml has no budget {name:?}")).field("budget")),
    };
    for c in &connector.collections {
        let lists = [("pull", &c.pull), ("ties", &c.ties), ("touched", &c.touched), ("scan", &c.scan)];
        for (method, list) in lists.into_iter().chain([("deleted", &c.deleted)]) {
            check(format!("data/{}/{method}.rest.yml", c.key), spent(list))?;
        }
        check(format!("data/{}/fetch.rest.yml", c.key), spent(&c.fetch))?;
    }
    if let Account::Call(call) = &connector.account {
        check("account.rest.yml".to_owned(), spent(call))?;
    }
    for (hook, journal) in connector.global_webhooks.iter().filter_map(|hook| Some((hook, hook.journal.as_ref()?))) {
        let dir = format!("global-webhooks/{}", hook.key);
        journal.calls().try_for_each(|call| check(format!("{dir}/spec.yml"), call.budget()))?;
        if let Some(account) = &journal.account {
            account.life.calls().try_for_each(|(name, call)| check(format!("{dir}/{name}.rest.yml"), spent(call)))?;
        }
    }
    let Some(hook) = &connector.webhook else { return Ok(()) };
    hook.life.calls().try_for_each(|(name, call)| check(format!("webhook/{name}.rest.yml"), spent(call)))
}

fn spent<R: Spends>(method: &Method<R>) -> Option<&str> {
    match method {
        Method::Rest(call) => call.budget(),
        _ => None,
    }
}
