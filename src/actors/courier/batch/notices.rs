//! A destination that only its owner can mend: it is paused, told of once, and goes on by itself when it is mended.
//!
//! Always true: `destination/paused` and `destination/resumed` take turns. Not here: when it is tried again (`settle`).

use std::sync::Arc;

use crate::actors::courier::outlet::Outlet;
use crate::destinations::driver::Fault;
use crate::domain::destination::{Destination, Pause};
use crate::domain::id::DestinationId;
use crate::domain::models::system::{self, Subject, SystemEvent};
use crate::domain::trouble::Trouble;
use crate::error::{Error, Result};
use crate::store::Tx;

impl Outlet {
    /// Notes what a destination has against us. It is told once, until it accepts again.
    pub(super) async fn pause_destination(&self, id: DestinationId, fault: &Fault) -> Result<()> {
        let pause = Pause { since: self.clock.now(), error: fault.error, detail: fault.detail.clone() };
        let changed = self
            .store
            .change(move |tx| {
                let Some(mut destination) = tx.object_anywhere::<Destination>(&id.0)? else { return Ok(false) };
                let known = destination.pause.clone();
                if known.as_ref().is_some_and(|known| known.error == pause.error) {
                    return Ok(false);
                }
                let since = known.as_ref().map_or(pause.since, |known| known.since);
                destination.pause = Some(Pause { since, ..pause.clone() });
                tx.put_object(&destination)?;
                if known.is_none() {
                    let error = system::Fault {
                        code: pause.error.slug().to_owned(),
                        message: pause.error.sentence().to_owned(),
                    };
                    let what =
                        SystemEvent::DestinationPaused { destination: (&destination).into(), error, paused_at: since };
                    tell(tx, &destination, &what)?;
                }
                Ok(true)
            })
            .await?;
        if changed {
            self.rings.subscriptions_changed();
            self.rings.router();
        }
        Ok(())
    }

    /// It accepts again.
    pub(super) async fn resume_destination(&self, id: DestinationId) -> Result<()> {
        self.store
            .change(move |tx| {
                let Some(mut destination) = tx.object_anywhere::<Destination>(&id.0)? else { return Ok(()) };
                let Some(pause) = destination.pause.take() else { return Ok(()) };
                tx.put_object(&destination)?;
                let what = SystemEvent::DestinationResumed {
                    destination: (&destination).into(),
                    paused_since: pause.since,
                    resumed_at: tx.now(),
                };
                tell(tx, &destination, &what)
            })
            .await?;
        self.rings.subscriptions_changed();
        self.rings.router();
        Ok(())
    }

    /// The settings cannot be used at all: this build does not know their kind, or judges them otherwise now.
    pub(super) fn refuse_settings(self: &Arc<Self>, destination: &Destination, error: Error) {
        let fault = Fault::new(Trouble::SettingsRefused, error.to_string());
        if destination.pause.as_ref().is_some_and(|pause| pause.error == fault.error) {
            return;
        }
        let (outlet, id, Some((runtime, _))) = (self.clone(), destination.id, self.driver()) else { return };
        runtime.spawn(async move {
            if let Err(error) = outlet.pause_destination(id, &fault).await {
                tracing::error!(error = error.chain(), "a destination could not be paused");
            }
        });
    }
}

fn tell(tx: &mut Tx<'_>, destination: &Destination, what: &SystemEvent) -> Result<()> {
    let user = match destination.user {
        Some(id) => tx.user_by_id(destination.workspace, id)?,
        None => None,
    };
    let event = what.event(Subject::Destination(destination, user.as_ref()), tx.now());
    tx.append_event(&event).map(drop)
}
