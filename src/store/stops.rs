//! Planned failures: the points of a commit at which a test lets the process die.
//!
//! Always true: a node has no plan, and is never asked; once a plan says so, writer and syncer do nothing more, neither
//! write nor sync nor answer, as if the process had ended there. Not here: what is lost by it (whoever planned it cuts the
//! files), how a commit is written (`writer`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::tables::Table;

/// Where a batch of commits stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// It is made, and not written.
    Made,
    /// It is in the log and can be read. Nobody was answered, and it may not be on disk.
    Written,
    /// A sync begins: what was written so far will be on disk after it. Asked of the syncer, without tables.
    Syncing,
    /// The sync is done. Those who waited for it were not answered. Asked of the syncer, without tables.
    Synced,
}

/// Asked at each point of each batch, with the tables that the batch changes. True: go on. False: the process dies here.
pub type Plan = Arc<dyn Fn(Point, &[Table]) -> bool + Send + Sync>;

/// A plan, or none.
#[derive(Clone, Default)]
pub struct Stops(Option<Arc<Planned>>);

struct Planned {
    plan: Plan,
    /// It has said so once.
    is_dead: AtomicBool,
}

impl Stops {
    /// Asks `plan`.
    pub fn planned(plan: Plan) -> Self {
        Self(Some(Arc::new(Planned { plan, is_dead: AtomicBool::new(false) })))
    }

    /// Whether to go on.
    pub(super) fn pass(&self, point: Point, touched: Touched) -> bool {
        let Some(planned) = &self.0 else { return true };
        if !planned.is_dead.load(Ordering::Acquire) && !(planned.plan)(point, &touched.tables()) {
            planned.is_dead.store(true, Ordering::Release);
        }
        !planned.is_dead.load(Ordering::Acquire)
    }
}

/// The tables that a batch changes.
#[derive(Clone, Copy, Default)]
pub(super) struct Touched(u64);

impl Touched {
    pub(super) fn note(&mut self, table: Table) {
        self.0 |= 1 << (table as u8);
    }

    fn tables(self) -> Vec<Table> {
        Table::ALL.iter().copied().filter(|table| self.0 & (1 << (*table as u8)) != 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_hears_the_tables_and_no_plan_lets_all_pass() {
        let mut touched = Touched::default();
        touched.note(Table::Events);
        touched.note(Table::Meta);
        assert!(Stops::default().pass(Point::Made, touched));
        let plan = |point, tables: &[Table]| point == Point::Made && tables == [Table::Meta, Table::Events];
        let stops = Stops::planned(Arc::new(plan));
        assert!(stops.pass(Point::Made, touched) && !stops.pass(Point::Written, touched));
        assert!(!stops.pass(Point::Made, touched), "the dead stay dead");
        assert!(Table::ALL.len() <= 64, "one bit per table");
    }
}
