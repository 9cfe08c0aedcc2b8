//! How long the fixed waits are. Tests that hurry divide all of them; what real work needs (etcd's start, a stop, a download) is not among them.

use std::time::Duration;

use super::records::Step;

/// Between two looks at a decision.
pub(crate) const OFTEN: Duration = Duration::from_millis(700);
/// The same while nobody is served: each step is waited for twice, by its members and by who decides the next.
const OUT: Duration = Duration::from_millis(200);

/// How long it is between two looks at this step.
pub(crate) fn between_looks(step: Step) -> Duration {
    match step {
        Step::Preflight
        | Step::Planned
        | Step::Pausing
        | Step::Watching
        | Step::Completed
        | Step::Failed
        | Step::RolledBack => OFTEN,
        Step::Stopping
        | Step::Swapping
        | Step::Starting
        | Step::Committed
        | Step::Restarting
        | Step::Unpausing
        | Step::RollingBack => OUT,
    }
}

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
