//! The right to run something large beside the tests of other threads.
//!
//! A test that holds a permit may take more without waiting: tests that wait for each other's second one would wait
//! for ever.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread::{self, ThreadId};

/// How many tests may hold one at a time, and which ones do.
pub(crate) struct Permits {
    at_once: usize,
    holders: Mutex<Vec<ThreadId>>,
    returned: Condvar,
}

/// Given back when dropped.
pub(crate) struct Permit {
    from: &'static Permits,
    holder: ThreadId,
}

impl Permits {
    pub(crate) const fn new(at_once: usize) -> Self {
        Self {
            at_once,
            holders: Mutex::new(Vec::new()),
            returned: Condvar::new(),
        }
    }

    pub(crate) fn take(&'static self) -> Permit {
        let me = thread::current().id();
        let mut holders = self
            .returned
            .wait_while(self.holders(), |holders| {
                let mut others = holders.clone();
                others.sort_unstable_by_key(|id| format!("{id:?}"));
                others.dedup();
                others.len() >= self.at_once && !others.contains(&me)
            })
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        holders.push(me);
        Permit {
            from: self,
            holder: me,
        }
    }

    fn holders(&self) -> MutexGuard<'_, Vec<ThreadId>> {
        self.holders
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut holders = self.from.holders();
        if let Some(index) = holders.iter().position(|id| *id == self.holder) {
            holders.remove(index);
        }
        self.from.returned.notify_all();
    }
}
