//! How many bytes may be in flight between the API server and the upload: one semaphore over all of them.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Everything in flight together.
pub(super) const TOTAL: usize = 32 << 20;

/// A share of memory that may be used.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    bytes: Arc<Semaphore>,
}

/// Bytes that are taken until this is dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    permit: OwnedSemaphorePermit,
}

impl Budget {
    /// A budget of [`TOTAL`] bytes.
    pub(super) fn new() -> Self {
        Self {
            bytes: Arc::new(Semaphore::new(TOTAL)),
        }
    }

    /// Waits for so many bytes, in the order of asking. More than all there are is all there are: then nothing else is in flight.
    pub(super) async fn reserve(&self, bytes: usize) -> Reserved {
        let bytes = u32::try_from(bytes.clamp(1, TOTAL)).expect("the budget fits 32 bits");
        Reserved {
            permit: Arc::clone(&self.bytes)
                .acquire_many_owned(bytes)
                .await
                .expect("the semaphore is never closed"),
        }
    }
}

impl Reserved {
    /// Gives back all but so many bytes.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let spare = self.permit.num_permits().saturating_sub(bytes.max(1));
        drop(self.permit.split(spare));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_given_back_can_be_taken_and_too_much_is_all() {
        let budget = Budget::new();
        let mut all = budget.reserve(usize::MAX).await;
        assert_eq!(budget.bytes.available_permits(), 0);
        all.shrink(100);
        assert_eq!(budget.bytes.available_permits(), TOTAL - 100);
        all.shrink(200);
        assert_eq!(budget.bytes.available_permits(), TOTAL - 100);
        drop(all);
        assert_eq!(budget.bytes.available_permits(), TOTAL);
    }
}
