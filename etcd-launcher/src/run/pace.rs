//! How long the fixed waits are. Tests that hurry divide all of them; what real work needs (etcd's start, a stop, a download) is not among them.

use std::time::Duration;

/// A divisor of waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace(u32);

impl Pace {
    /// As many times as fast; 0 is the usual pace, too.
    pub(crate) fn new(hurry: u32) -> Self {
        Self(hurry.max(1))
    }

    /// So long at this pace.
    pub(crate) fn of(self, usual: Duration) -> Duration {
        usual / self.0
    }
}
