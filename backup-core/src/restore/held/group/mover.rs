//! The one mover of a group: made when a claim wants it, for all that do, and removed before their volumes are handed over.

use super::super::api::{Asking, Conflict};
use super::super::step::{Action, Awaited, Step, step};
use super::super::until::Until;
use super::Group;
use crate::error::Result;

impl Group {
    /// Nothing is begun for a claim whose mover the server would refuse: where a class makes volumes at once, the claim would stand before that was seen.
    pub(super) async fn rehearse(&mut self, at: usize) -> Result<()> {
        if let (false, Some(one)) = (self.is_rehearsed, self.all.get(at)) {
            let aim = &one.item.aim;
            let movers = &self.shared.movers;
            movers
                .rehearse_for(&aim.namespace, &aim.staging(), &self.placement)
                .await?;
            self.is_rehearsed = true;
        }
        Ok(())
    }

    /// A mover that has the staging claims mounted which are still to be filled.
    pub(super) async fn ensure_mover(&mut self) -> Result<()> {
        let mut wanted = Vec::new();
        let mut placement = self.placement.without_requests();
        for at in self.places() {
            let next = match self.look(at, Until::Full).await {
                Ok(live) => step(&live),
                Err(Conflict::Again) => continue,
                Err(Conflict::Other(e)) => return Err(e),
            };
            let is_wanted = matches!(
                next,
                Step::Wait(Awaited::Provisioned)
                    | Step::Do(Action::Hold { .. } | Action::Fill | Action::Retain { .. })
            );
            if is_wanted {
                wanted.push(at);
            }
            if next == Step::Wait(Awaited::Provisioned) && self.waits_for_pod(at).await? {
                placement = self.placement.clone();
            }
        }
        if let Some(mover) = &self.mover
            && mover.is_there()
            && wanted
                .iter()
                .all(|at| self.all.get(*at).is_some_and(|one| one.mounted.is_some()))
        {
            return Ok(());
        }
        self.leave().await?;
        let Some(namespace) = self.all.first().map(|one| one.item.aim.namespace.clone()) else {
            return Ok(());
        };
        let claims: Vec<String> = wanted
            .iter()
            .filter_map(|at| Some(self.all.get(*at)?.item.aim.staging()))
            .collect();
        let mover = self
            .shared
            .movers
            .start_for(&namespace, &claims, &placement)
            .await?;
        self.mover = Some(mover);
        for (number, at) in wanted.into_iter().enumerate() {
            if let Some(one) = self.all.get_mut(at) {
                one.mounted = Some(number);
            }
        }
        Ok(())
    }

    /// Whether the volume of a claim is made where there is room for its pod.
    async fn waits_for_pod(&self, at: usize) -> Result<bool> {
        let Some(one) = self.all.get(at) else {
            return Ok(false);
        };
        let asking = Asking {
            cluster: &self.shared.cluster,
            aim: &one.item.aim,
        };
        Ok(asking.waits_for_pod(&one.item.aim.staging()).await?)
    }

    /// Removes the mover, and waits until it is gone.
    pub(super) async fn leave(&mut self) -> Result<()> {
        for one in &mut self.all {
            one.mounted = None;
        }
        match self.mover.take() {
            Some(mover) => mover.remove().await,
            None => Ok(()),
        }
    }

    /// The same; what could not be removed is tried again when all of it settles, and seen by the next look.
    pub(super) async fn leave_to_settle(&mut self) {
        let _ = self.leave().await;
    }
}
