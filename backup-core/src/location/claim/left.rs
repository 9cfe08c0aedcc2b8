//! Claims that could not be taken along, for the store did not answer: they are noted at the store by which they were taken, and whoever goes on with other work takes them away when it answers
//! again. Decides nothing about whether it does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::{Instant, sleep_until};

use super::super::store::Store;
use super::folder::UNDER_WAY;

/// Those of one run, each with the time from which on nothing more is sent under it.
#[derive(Clone, Default)]
pub(crate) struct Left(Arc<Mutex<Vec<(Instant, String)>>>);

impl Left {
    fn all(&self) -> MutexGuard<'_, Vec<(Instant, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// The same, at which claims are noted that can not be taken along.
    pub(crate) fn noting_left(mut self) -> Self {
        self.left = Some(Left::default());
        self
    }

    /// Notes one.
    pub(super) fn leave(&self, key: &str) {
        if let Some(left) = &self.left {
            left.all().push((Instant::now(), key.to_owned()));
        }
    }

    /// Whether any was left.
    pub(crate) fn has_left(&self) -> bool {
        self.left
            .as_ref()
            .is_some_and(|left| !left.all().is_empty())
    }

    /// Takes them away, each when what was sent under it is under way no more. What can not be removed now is stale in an hour.
    pub(crate) async fn clear_left(&self) {
        let Some(left) = &self.left else { return };
        let all = std::mem::take(&mut *left.all());
        for (since, key) in all {
            sleep_until(since + UNDER_WAY).await;
            let _ = self.delete(&key).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::trial::{Fate, Trial};
    use super::super::{Purpose, SharedClaim};
    use super::*;

    const FOLDER: &str = "u.claims/";

    async fn take(store: &Store) -> crate::Result<SharedClaim> {
        SharedClaim::take(store, FOLDER, "u", Purpose::Create, "h").await
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_of_what_may_still_arrive_goes_a_minute_later_and_not_before() {
        let store = Store::in_memory();
        let trial = Trial::of(&store).judged(|_, key| match key.ends_with("/pack") {
            true => Fate::Vanishes,
            false => Fate::Happens,
        });
        let noting = trial.store().noting_left();
        let claim = take(&noting).await.unwrap();
        claim.write("u/pack", "x".into()).await.unwrap_err();
        let began = Instant::now();
        claim.release().await;
        assert_eq!(store.entries(FOLDER, 9).await.unwrap().len(), 1);
        assert!(noting.has_left());
        noting.clear_left().await;
        assert_eq!(began.elapsed(), Duration::from_secs(60));
        assert_eq!(store.entries(FOLDER, 9).await.unwrap(), []);
        // One that could be taken along leaves nothing to do.
        take(&noting).await.unwrap().release().await;
        assert!(!noting.has_left());
    }

    #[tokio::test(start_paused = true)]
    async fn so_does_one_that_did_not_hold_and_that_the_store_does_not_take_back() {
        let store = Store::in_memory();
        let trial = Trial::of(&store).judged(|verb, _| match verb {
            "list" | "delete" => Fate::Vanishes,
            _ => Fate::Happens,
        });
        let noting = trial.store().noting_left();
        assert!(take(&noting).await.is_err());
        assert!(noting.has_left());
    }
}
