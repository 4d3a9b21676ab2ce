//! What happens in the accounts by itself: orders are placed, paid and shipped, people move, deals go on.
//!
//! Always true: the same seed makes the same changes to the same records; a full collection loses its oldest record
//! before it gets a new one, so the stream never ends and never grows. Not here: the timer (`mod.rs`).

use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::refusal::Refusal;
use super::seed;
use super::table::{Collection, Record, cents, money};
use super::world::{Change, World};
use crate::domain::time::Millis;

/// One kind of thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Place,
    Advance,
    EditContact,
    EditCustomer,
    EditUser,
    MoveOpportunity,
    Begin(Collection),
    Remove(Collection),
}

/// How often each step happens, of all of them together.
const STEPS: [(Step, u32); 11] = [
    (Step::Place, 18),
    (Step::Advance, 28),
    (Step::EditContact, 16),
    (Step::EditCustomer, 13),
    (Step::EditUser, 2),
    (Step::MoveOpportunity, 10),
    (Step::Begin(Collection::Contacts), 5),
    (Step::Begin(Collection::Opportunities), 3),
    (Step::Remove(Collection::Contacts), 2),
    (Step::Remove(Collection::Opportunities), 1),
    (Step::Remove(Collection::Orders), 2),
];

/// Makes the next thing happen in an account, by chance. One or two changes.
pub fn happen(world: &mut World, rng: &mut Rng, place: usize, now: Millis) -> Result<Vec<Change>, Refusal> {
    let total: u32 = STEPS.iter().map(|(_, weight)| weight).sum();
    let mut left = rng.u32(..total);
    for (step, weight) in STEPS {
        if left < weight {
            return take(world, rng, place, now, step);
        }
        left -= weight;
    }
    Ok(Vec::new())
}

/// Makes something happen in one collection, by chance.
pub fn happen_in(
    world: &mut World,
    rng: &mut Rng,
    place: usize,
    now: Millis,
    collection: Collection,
) -> Result<Vec<Change>, Refusal> {
    let step = match collection {
        Collection::Users => Step::EditUser,
        Collection::Contacts => Step::EditContact,
        Collection::Opportunities => Step::MoveOpportunity,
        Collection::Customers => Step::EditCustomer,
        Collection::Orders => Step::Advance,
    };
    take(world, rng, place, now, step)
}

fn take(world: &mut World, rng: &mut Rng, place: usize, now: Millis, step: Step) -> Result<Vec<Change>, Refusal> {
    match step {
        Step::Place => order(world, rng, place, now),
        Step::Advance => advance(world, rng, place, now),
        Step::EditContact => edit(world, rng, place, now, Collection::Contacts, contact_patch),
        Step::EditCustomer => edit(world, rng, place, now, Collection::Customers, |rng, _| {
            Map::from_iter([("phone".into(), seed::phone(rng).into())])
        }),
        Step::EditUser => edit(world, rng, place, now, Collection::Users, |rng, user| {
            let roles = ["sales", "support", "manager"];
            let role = roles.into_iter().filter(|role| *role != user.text("role")).nth(rng.usize(..2));
            Map::from_iter([("role".into(), role.into())])
        }),
        Step::MoveOpportunity => edit(world, rng, place, now, Collection::Opportunities, opportunity_patch),
        Step::Begin(collection) => begin(world, rng, place, now, collection),
        Step::Remove(collection) => remove(world, rng, place, now, collection),
    }
}

/// A record by chance, rather a young one.
fn some<'a>(
    world: &'a World,
    rng: &mut Rng,
    place: usize,
    collection: Collection,
) -> Result<Option<&'a Record>, Refusal> {
    let table = world.account(place)?.table(collection)?;
    let count = table.rows().len();
    if count == 0 {
        return Ok(None);
    }
    let from = if rng.bool() { count.saturating_sub(20) } else { 0 };
    Ok(table.nth(rng.usize(from..count)))
}

fn edit(
    world: &mut World,
    rng: &mut Rng,
    place: usize,
    now: Millis,
    collection: Collection,
    patch: impl FnOnce(&mut Rng, &Record) -> Map<String, Value>,
) -> Result<Vec<Change>, Refusal> {
    let Some(record) = some(world, rng, place, collection)? else {
        return begin(world, rng, place, now, collection);
    };
    let (id, patch) = (record.id.clone(), patch(rng, record));
    Ok(vec![world.patch(place, collection, &id, patch, now)?])
}

fn contact_patch(rng: &mut Rng, contact: &Record) -> Map<String, Value> {
    let patch = match rng.u32(..4) {
        0 => json!({"phones": [{"type": "mobile", "value": seed::phone(rng)}]}),
        1 => json!({"lead_score": rng.u32(..100)}),
        2 => json!({"last_activity_at": contact.updated.rfc3339_millis(), "newsletter": rng.bool()}),
        _ => {
            let mut address = contact.fields.get("address").cloned().unwrap_or_else(|| json!({}));
            address["street"] = format!("{} {}", ["New Road", "Lake View"][rng.usize(..2)], rng.u32(1..200)).into();
            json!({"address": address})
        }
    };
    patch.as_object().cloned().unwrap_or_default()
}

fn opportunity_patch(rng: &mut Rng, opportunity: &Record) -> Map<String, Value> {
    let stage = seed::STAGES.iter().position(|stage| *stage == opportunity.text("stage")).unwrap_or(0);
    let next = match stage {
        0..=2 => stage + 1,
        3 => 4 + rng.usize(..2),
        _ => 0,
    };
    let mut patch = Map::from_iter([("stage".into(), Value::from(seed::STAGES[next]))]);
    if rng.u32(..3) == 0 {
        let amount = cents(opportunity.fields.get("amount"));
        patch.insert("amount".into(), money(amount + rng.i64(1..100) * 100));
    }
    patch
}

fn begin(
    world: &mut World,
    rng: &mut Rng,
    place: usize,
    now: Millis,
    collection: Collection,
) -> Result<Vec<Change>, Refusal> {
    let mut changes = Vec::new();
    let account = world.account(place)?;
    let fields = seed::record(rng, account, collection);
    let table = account.table(collection)?;
    if table.rows().len() >= world.records_max
        && let Some((id, _)) = table.rows().first_key_value()
    {
        let id = id.clone();
        changes.push(world.delete(place, collection, &id, now)?);
    }
    changes.push(world.create(place, collection, fields, now)?);
    Ok(changes)
}

fn remove(
    world: &mut World,
    rng: &mut Rng,
    place: usize,
    now: Millis,
    collection: Collection,
) -> Result<Vec<Change>, Refusal> {
    match some(world, rng, place, collection)?.map(|record| record.id.clone()) {
        Some(id) => Ok(vec![world.delete(place, collection, &id, now)?]),
        None => begin(world, rng, place, now, collection),
    }
}

/// A new order, and its customer's sums: a change that no unified field shows.
fn order(world: &mut World, rng: &mut Rng, place: usize, now: Millis) -> Result<Vec<Change>, Refusal> {
    let mut changes = begin(world, rng, place, now, Collection::Orders)?;
    let account = world.account(place)?;
    let order = changes.last().and_then(|change| account.table(Collection::Orders).ok()?.rows().get(&change.id));
    let buyer = order.and_then(|order| Some((order, order.fields.get("customer")?.get("id")?.to_string())));
    let Some((order, buyer)) = buyer else { return Ok(changes) };
    if let Some(customer) = account.table(Collection::Customers)?.rows().get(&buyer) {
        let orders = customer.fields.get("orders_count").and_then(Value::as_u64).unwrap_or(0) + 1;
        let spent = cents(customer.fields.get("total_spent")) + cents(order.fields.get("total"));
        let patch = Map::from_iter([("orders_count".into(), orders.into()), ("total_spent".into(), money(spent))]);
        changes.push(world.patch(place, Collection::Customers, &buyer, patch, now)?);
    }
    Ok(changes)
}

/// The next step of an open order; without one, a new order.
fn advance(world: &mut World, rng: &mut Rng, place: usize, now: Millis) -> Result<Vec<Change>, Refusal> {
    let table = world.account(place)?.table(Collection::Orders)?;
    let open: Vec<_> = table.rows().values().rev().filter(|order| order.text("status") == "open").take(20).collect();
    let Some(order) = open.get(rng.usize(..open.len().max(1))) else {
        return begin(world, rng, place, now, Collection::Orders);
    };
    let patch = match (order.text("payment_status"), order.text("fulfillment_status")) {
        ("pending", _) if rng.u32(..12) == 0 => json!({"status": "cancelled", "note": "Customer changed their mind"}),
        ("pending", _) => json!({"payment_status": "paid"}),
        (_, "unfulfilled") => {
            let tracking = format!("TRK{:010}", rng.u64(..10_000_000_000));
            json!({"fulfillment_status": "shipped", "tracking_number": tracking})
        }
        _ => json!({"status": "closed"}),
    };
    let (id, patch) = (order.id.clone(), patch.as_object().cloned().unwrap_or_default());
    Ok(vec![world.patch(place, Collection::Orders, &id, patch, now)?])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::world::Kind;
    use super::*;

    fn run(steps: u64, records_max: usize) -> (World, Vec<String>) {
        let mut world = World::new(1, records_max);
        seed::fill(&mut world, 1, 1);
        let (mut rng, mut seen) = (Rng::with_seed(1), Vec::new());
        for n in 0..steps {
            let now = Millis(1_800_000_000_000 + n * 1_000);
            for change in happen(&mut world, &mut rng, 0, now).expect("something always can happen") {
                seen.push(format!("{:?} {:?} {}", change.kind, change.collection, change.id));
            }
        }
        (world, seen)
    }

    #[test]
    fn the_same_seed_makes_the_same_changes() {
        assert_eq!(run(300, 1_000).1, run(300, 1_000).1);
    }

    #[test]
    fn everything_happens_sometimes() {
        let (world, _) = run(800, 1_000);
        let seen: HashSet<_> = world.log().iter().map(|c| (c.kind.name(), c.collection)).collect();
        for kind in [Kind::Created, Kind::Updated, Kind::Deleted] {
            for collection in [Collection::Contacts, Collection::Opportunities, Collection::Orders] {
                assert!(seen.contains(&(kind.name(), collection)), "{kind:?} {collection:?}");
            }
        }
        let orders = world.accounts[0].table(Collection::Orders).expect("there");
        assert!(orders.rows().values().any(|order| order.text("fulfillment_status") == "shipped"));
    }

    #[test]
    fn the_stream_goes_on_in_full_collections() {
        let (world, _) = run(2_000, 80);
        for collection in Collection::ALL {
            assert!(world.accounts[0].table(collection).expect("there").rows().len() <= 80);
        }
    }
}
