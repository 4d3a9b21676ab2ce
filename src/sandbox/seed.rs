//! Realistic records by chance: the same seed gives the same ones.
//!
//! Always true: seeded records are older than [`EPOCH`] plus a year, and some share their time with others, since bulk
//! imports do that to real apps.

use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::table::{Collection, money};
use super::world::{Account, World};
use crate::domain::time::Millis;

/// 2025-01-01T00:00:00Z, when the accounts began.
pub const EPOCH: Millis = Millis(1_735_689_600_000);
const HOUR_MS: u64 = 3_600_000;

const FIRST: [&str; 20] = [
    "Ada", "Bela", "Chidi", "Dagny", "Emre", "Fatima", "Goran", "Hana", "Ines", "Jonas", "Keiko", "Lars", "Mara",
    "Nuno", "Olga", "Paolo", "Rosa", "Søren", "Tova", "Zoë",
];
const LAST: [&str; 20] = [
    "Abara",
    "Brandt",
    "Costa",
    "Duarte",
    "Ekberg",
    "Farkas",
    "Gruber",
    "Haddad",
    "Ivanova",
    "Jensen",
    "Kato",
    "Lindqvist",
    "Moreau",
    "Novak",
    "Okafor",
    "Petrov",
    "Rossi",
    "Sato",
    "Toth",
    "Weiß",
];
const COMPANY: [&str; 12] = [
    "Alder & Ash",
    "Bluewater Freight",
    "Cobalt Optics",
    "Dune Robotics",
    "Eastgate Dental",
    "Fjord Textiles",
    "Granite Bank",
    "Harbour Foods",
    "Ibis Travel",
    "Juniper Labs",
    "Kestrel Energy",
    "Lumen Schools",
];
const CITY: [(&str, &str, &str); 8] = [
    ("Lisbon", "PT", "1100-148"),
    ("Graz", "AT", "8010"),
    ("Aarhus", "DK", "8000"),
    ("Lyon", "FR", "69002"),
    ("Austin", "US", "78701"),
    ("Osaka", "JP", "530-0001"),
    ("Leeds", "GB", "LS1 4AP"),
    ("Turin", "IT", "10121"),
];
const STREET: [&str; 6] = ["Mill Lane", "Harbour Street", "Station Road", "Market Square", "Hill Path", "Canal Row"];
const PRODUCT: [(&str, &str, i64); 10] = [
    ("MUG-BLUE", "Stoneware mug, blue", 1_490),
    ("MUG-SAND", "Stoneware mug, sand", 1_490),
    ("KETTLE-1L", "Kettle, 1 l", 5_900),
    ("TEA-ASSAM", "Assam, 100 g", 890),
    ("TEA-SENCHA", "Sencha, 80 g", 1_250),
    ("TRAY-OAK", "Oak tray", 3_400),
    ("TOWEL-2", "Linen towels, pair", 2_195),
    ("JAR-05", "Storage jar, 0.5 l", 1_075),
    ("GRINDER", "Hand grinder", 8_950),
    ("FILTER-100", "Paper filters, 100", 455),
];
/// The stages of an opportunity, in order; the last two end it.
pub const STAGES: [&str; 6] = ["new", "qualified", "proposal", "negotiation", "won", "lost"];

fn pick<T: Copy>(rng: &mut Rng, list: &[T]) -> T {
    list[rng.usize(..list.len())]
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn name(rng: &mut Rng) -> (&'static str, &'static str) {
    (pick(rng, &FIRST), pick(rng, &LAST))
}

fn mail(first: &str, last: &str, rng: &mut Rng) -> String {
    let plain = |text: &str| -> String { text.chars().filter(char::is_ascii_alphabetic).collect() };
    format!("{}.{}{}@example.com", plain(first), plain(last), rng.u32(1..1_000)).to_lowercase()
}

/// A phone number by chance.
pub fn phone(rng: &mut Rng) -> String {
    format!("+1 555 01{:02} {:04}", rng.u32(..100), rng.u32(..10_000))
}

fn address(rng: &mut Rng) -> Value {
    let (city, country, zip) = pick(rng, &CITY);
    let street = format!("{} {}", pick(rng, &STREET), rng.u32(1..200));
    json!({"street": street, "city": city, "state": null, "zip": zip, "country": country})
}

/// A colleague who owns contacts and opportunities.
fn user(rng: &mut Rng) -> Map<String, Value> {
    let (first, last) = name(rng);
    object(json!({
        "name": format!("{first} {last}"),
        "email": mail(first, last, rng),
        "role": pick(rng, &["sales", "support", "manager"]),
        "active": true,
    }))
}

/// A person in the CRM, owned by one of `owners`.
fn contact(rng: &mut Rng, owners: &[Value]) -> Map<String, Value> {
    let (first, last) = name(rng);
    object(json!({
        "first_name": first,
        "last_name": last,
        "company": pick(rng, &COMPANY),
        "emails": [{"type": "work", "value": mail(first, last, rng)}],
        "phones": [{"type": "mobile", "value": phone(rng)}],
        "address": address(rng),
        "owner_id": any(rng, owners),
        "lead_score": rng.u32(..100),
        "newsletter": rng.bool(),
        "last_activity_at": null,
    }))
}

/// A deal that may come, with one of `contacts`.
fn opportunity(rng: &mut Rng, contacts: &[Value], owners: &[Value]) -> Map<String, Value> {
    let close = EPOCH.0 + rng.u64(9_000..20_000) * HOUR_MS;
    object(json!({
        "title": format!("{} for {}", pick(rng, &["Renewal", "Pilot", "Expansion", "Rollout"]), pick(rng, &COMPANY)),
        "stage": STAGES[rng.usize(..4)],
        "amount": money(rng.i64(50..5_000) * 1_000 + 50),
        "currency": pick(rng, &["EUR", "USD", "GBP"]),
        "close_date": Millis(close).rfc3339_seconds().get(..10),
        "probability": rng.u32(1..10) * 10,
        "contact_id": any(rng, contacts),
        "owner_id": any(rng, owners),
    }))
}

/// Someone who buys.
fn customer(rng: &mut Rng) -> Map<String, Value> {
    let (first, last) = name(rng);
    object(json!({
        "email": mail(first, last, rng),
        "first_name": first,
        "last_name": last,
        "phone": phone(rng),
        "accepts_marketing": rng.bool(),
        "orders_count": 0,
        "total_spent": money(0),
    }))
}

/// A new, unpaid order of one of `customers` (as the API shows them).
fn order(rng: &mut Rng, customers: &[Value]) -> Map<String, Value> {
    let customer = any(rng, customers);
    let mut subtotal = 0;
    let items: Vec<_> = (0..rng.usize(1..4))
        .map(|_| {
            let place = rng.usize(..PRODUCT.len());
            let (sku, title, price) = PRODUCT[place];
            let quantity = rng.i64(1..4);
            subtotal += price * quantity;
            let id = 9_001 + place;
            json!({"product_id": id, "sku": sku, "title": title, "quantity": quantity, "unit_price": money(price)})
        })
        .collect();
    let (tax, shipping) = (subtotal / 5, if subtotal > 5_000 { 0 } else { 495 });
    let discount = if rng.u32(..5) == 0 { subtotal / 10 } else { 0 };
    let mut to = address(rng);
    if let Some(to) = to.as_object_mut() {
        to.insert("first_name".into(), customer["first_name"].clone());
        to.insert("last_name".into(), customer["last_name"].clone());
    }
    object(json!({
        "number": format!("S-{}", rng.u32(100_000..1_000_000)),
        "status": "open",
        "payment_status": "pending",
        "fulfillment_status": "unfulfilled",
        "currency": "EUR",
        "items": items,
        "subtotal": money(subtotal),
        "tax": money(tax),
        "shipping": money(shipping),
        "discount": money(discount),
        "total": money(subtotal + tax + shipping - discount),
        "customer": {
            "id": customer["id"], "email": customer["email"], "first_name": customer["first_name"],
            "last_name": customer["last_name"], "phone": customer["phone"],
        },
        "billing_address": to.clone(),
        "shipping_address": to,
        "note": null,
        "tracking_number": null,
    }))
}

fn any(rng: &mut Rng, list: &[Value]) -> Value {
    if list.is_empty() { Value::Null } else { list[rng.usize(..list.len())].clone() }
}

/// The records of a collection as the API shows them, at most the first 200: enough to refer to.
fn shown(account: &Account, collection: Collection) -> Vec<Value> {
    account
        .table(collection)
        .map_or_else(|_| Vec::new(), |table| table.rows().values().take(200).map(|r| r.to_json(collection)).collect())
}

/// The ids of those.
fn ids(account: &Account, collection: Collection) -> Vec<Value> {
    shown(account, collection).into_iter().map(|record| record["id"].clone()).collect()
}

/// A record of a collection by chance, referring to records that are there.
pub fn record(rng: &mut Rng, account: &Account, collection: Collection) -> Map<String, Value> {
    References::of(account).record(rng, collection)
}

/// How many records of a collection an account starts with, at scale 1.
fn count(collection: Collection) -> usize {
    match collection {
        Collection::Users => 8,
        Collection::Contacts => 60,
        Collection::Opportunities => 30,
        Collection::Customers => 40,
        Collection::Orders => 80,
    }
}

/// Fills every account. The same seed and scale give the same records.
pub fn fill(world: &mut World, seed: u64, scale: usize) {
    let records_max = world.records_max;
    for (place, account) in world.accounts.iter_mut().enumerate() {
        let mut rng = Rng::with_seed(seed.wrapping_mul(1_000).wrapping_add(place as u64));
        for collection in Collection::ALL {
            let mut at = EPOCH.0;
            let referred = References::of(account);
            for n in 0..count(collection) * scale {
                // Each fifth comes alone, the others share its time.
                if n % 5 == 0 {
                    at += rng.u64(1..24) * HOUR_MS / scale as u64 + rng.u64(..1_000);
                }
                let fields = referred.record(&mut rng, collection);
                if account.table_mut(collection).insert(collection, fields, Millis(at), records_max).is_err() {
                    break;
                }
            }
        }
    }
}

/// What new records refer to, read once.
struct References {
    users: Vec<Value>,
    contacts: Vec<Value>,
    customers: Vec<Value>,
}

impl References {
    fn of(account: &Account) -> Self {
        Self {
            users: ids(account, Collection::Users),
            contacts: ids(account, Collection::Contacts),
            customers: shown(account, Collection::Customers),
        }
    }
    fn record(&self, rng: &mut Rng, collection: Collection) -> Map<String, Value> {
        match collection {
            Collection::Users => user(rng),
            Collection::Contacts => contact(rng, &self.users),
            Collection::Opportunities => opportunity(rng, &self.contacts, &self.users),
            Collection::Customers => customer(rng),
            Collection::Orders => order(rng, &self.customers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(seed: u64) -> String {
        let mut world = World::new(2, 10_000);
        fill(&mut world, seed, 1);
        serde_json::to_string(&world).expect("plain data")
    }

    #[test]
    fn the_same_seed_gives_the_same_records() {
        assert_eq!(world(7), world(7));
        assert_ne!(world(7), world(8));
    }

    #[test]
    fn an_account_starts_with_records_of_every_kind_and_with_ties() {
        let mut world = World::new(1, 10_000);
        fill(&mut world, 1, 1);
        for collection in Collection::ALL {
            let table = world.accounts[0].table(collection).expect("there");
            assert_eq!(table.rows().len(), count(collection));
            let times: std::collections::HashSet<_> = table.rows().values().map(|r| r.updated).collect();
            assert!(times.len() < table.rows().len());
        }
    }
}
