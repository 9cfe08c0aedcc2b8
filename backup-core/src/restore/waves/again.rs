//! What failed gets another chance when everything else stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::super::apply::Done;
use super::super::gather::{self, Resource};
use super::super::{Action, order};
use super::{Failure, Waves};
use crate::archive::read::Source;
use crate::error::Result;

/// Rounds of trying again; each must get further than the one before.
const ROUNDS: u32 = 3;

/// Objects of one frame that are tried again.
struct Frame {
    resource: Arc<Resource>,
    positions: BTreeSet<usize>,
}

impl<S: Source> Waves<'_, S> {
    /// Tries again what failed, as long as that gets any further.
    pub(super) async fn again(&mut self) -> Result<()> {
        for round in 0..ROUNDS {
            let before = self.state.failures.len();
            if before == 0 {
                return Ok(());
            }
            self.progress
                .step(&format!("trying {before} objects again that failed"));
            // Quotas and service accounts are counted and made by controllers, a little later.
            tokio::time::sleep(Duration::from_millis(500) * (round + 1) * (round + 1)).await;
            let failures = std::mem::take(&mut self.state.failures);
            // In the order of restoring, frame by frame.
            let mut frames: BTreeMap<_, Frame> = BTreeMap::new();
            for Failure { ticket, .. } in failures {
                let key = (
                    ticket.resource.place,
                    ticket.resource.name.clone(),
                    ticket.frame,
                );
                frames
                    .entry(key)
                    .or_insert_with(|| Frame {
                        resource: ticket.resource.clone(),
                        positions: BTreeSet::new(),
                    })
                    .positions
                    .extend(ticket.position);
            }
            let mut wave = None;
            for (
                (place, _, frame),
                Frame {
                    resource,
                    positions,
                },
            ) in frames
            {
                if let Some(before) = wave.replace(place.wave)
                    && before != place.wave
                {
                    self.drain().await?;
                    self.hold().await?;
                    if before == order::WAVE_CRDS {
                        self.defined().await?;
                    }
                }
                let rows = gather::rows(self.archive, self.filter, &resource, frame).await?;
                let rows = rows
                    .into_iter()
                    .enumerate()
                    .filter(|(position, _)| positions.contains(position))
                    .collect();
                self.feed(&resource, frame, rows, None).await?;
            }
            self.drain().await?;
            self.hold().await?;
            if wave == Some(order::WAVE_CRDS) {
                self.defined().await?;
            }
            if self.state.failures.len() >= before {
                break;
            }
        }
        for Failure { ticket, reason } in std::mem::take(&mut self.state.failures) {
            self.note(&ticket, Done::new(Action::Failed, reason))
                .await?;
        }
        Ok(())
    }
}
