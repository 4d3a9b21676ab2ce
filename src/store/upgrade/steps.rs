//! The numbered steps, oldest first: `STEPS[0]` leads from version 1 to 2.
//!
//! Always true: a released step is never changed, except that when its row's struct changes again, the struct that it
//! writes becomes a frozen copy here. A struct that is only read by a step is a frozen copy too, beside the step:
//!
//! ```text
//! Step { from: 1, name: "give subscriptions a filter", run: |pass| {
//!     pass.objects(Subscription::KIND, |old: SubscriptionV1| Subscription { filter: None, … })
//! } },
//! ```
//!
//! Not here: how steps are run (`upgrade`).

use super::Step;

/// All of them.
pub(super) const STEPS: &[Step] = &[];
