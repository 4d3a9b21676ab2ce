//! What every driver promises, tried on each of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemill::destinations::driver::{Answer, Batch, Driver, Verdict};

use super::batches;
use super::gate::Gate;

/// Prepares and sends a batch, which must be taken.
pub async fn write(driver: &Arc<dyn Driver>, batch: &Batch) {
    let frozen = driver.prepare(batch).expect("it is prepared");
    assert_eq!(frozen.items, batch.items.len());
    let answer = driver.send(&frozen).await;
    let done = match &answer {
        Answer::All(verdict) => *verdict == Verdict::Done,
        Answer::Each(all) => all.len() == batch.items.len() && all.iter().all(|verdict| *verdict == Verdict::Done),
    };
    assert!(done, "{answer:?}");
}

/// A batch gives the same bytes whenever it is prepared, and every item stands in a part or among the refused.
pub fn prepares_the_same(driver: &Arc<dyn Driver>, batch: &Batch) {
    let (first, second) = (driver.prepare(batch), driver.prepare(batch));
    assert_eq!(first, second);
    let frozen = first.expect("it is prepared");
    let mut items: Vec<usize> = frozen.parts.iter().flat_map(|part| part.items.clone()).collect();
    items.extend(frozen.refused.iter().map(|(place, _)| *place));
    items.sort_unstable();
    items.dedup();
    assert_eq!(items, (0..batch.items.len()).collect::<Vec<_>>());
}

/// Batches are written once, however often they are sent; `count` says how many events the destination holds.
pub async fn writes_once<C, F>(driver: &Arc<dyn Driver>, count: C)
where
    C: Fn() -> F,
    F: Future<Output = usize>,
{
    let before = count().await;
    let (first, second) = (batches::contacts(900_001, 90_001, 7), batches::contacts(900_002, 90_101, 5));
    prepares_the_same(driver, &first);
    for batch in [&first, &first, &second, &second] {
        write(driver, batch).await;
    }
    assert_eq!(count().await - before, 12);
}

/// Its test goes well, step by step, and leaves nothing behind that `count` sees.
pub async fn tests_well<C, F>(driver: &Arc<dyn Driver>, count: C)
where
    C: Fn() -> F,
    F: Future<Output = usize>,
{
    let before = count().await;
    let steps = driver.test(&batches::probe(tidemill::domain::destination::Shape::Append)).await;
    assert!(!steps.is_empty());
    for step in &steps {
        assert_eq!(step.fault, None, "{}", step.name);
    }
    assert_eq!(count().await, before);
}

/// A process dies when its batch has taken effect and before it has heard so; the next one repeats the batch, and each event
/// is there once. The first driver of `open` goes by the gate, where a batch has `word` on its way, for the `skip + 1`st time;
/// `count` says how many events the destination holds.
pub async fn is_repeated_after_a_death<C, F>(
    open: impl Fn(Option<u16>) -> Arc<dyn Driver>,
    gate: &Gate,
    (word, skip): (&'static str, usize),
    batch: &Batch,
    count: C,
) where
    C: Fn() -> F,
    F: Future<Output = usize>,
{
    let whole = count().await + batch.items.len();
    let dying = open(Some(gate.port));
    let frozen = dying.prepare(batch).expect("it is prepared");
    let mut catch = gate.catch(word, skip, 0);
    let sending = tokio::spawn({
        let frozen = frozen.clone();
        async move { dying.send(&frozen).await }
    });
    assert!(catch.caught().await, "it never sent {word}");
    catch.through();
    let deadline = Instant::now() + Duration::from_secs(60);
    while count().await != whole {
        assert!(Instant::now() < deadline, "it takes no effect");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!sending.is_finished(), "it waits for its answer");
    sending.abort();
    assert!(sending.await.is_err_and(|error| error.is_cancelled()));
    drop(catch);
    let next = open(None);
    assert_eq!(next.prepare(batch), Ok(frozen), "what is repeated is the same");
    write(&next, batch).await;
    assert_eq!(count().await, whole);
}
