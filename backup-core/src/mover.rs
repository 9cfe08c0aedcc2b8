//! Movers: pods beside a volume, with it mounted, through which its files come over the streams of an exec. Makes them, runs programs in them and takes them away;
//! knows Kubernetes and what a volume is read by, and decides nothing about which volumes. A mover holds no key and no credentials but those that are
//! lent to it over a stream, where the location has it so. Where one pod alone may have the volume, a mover is an ephemeral container of that pod.

mod filling;
mod inside;
mod pull;
mod run;
mod spec;
mod streams;

use std::time::Duration;

pub(crate) use filling::Placement;
pub(crate) use inside::Host;
pub use inside::NAME;
pub(crate) use run::{Mover, Movers, is_left, remove_left};
pub(crate) use spec::{Beside, run_of};

/// Movers at a time, where nobody says otherwise.
pub const PARALLEL: usize = 4;

/// So long a pod may take until it runs, where nobody says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(300);

/// How movers are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoverOptions {
    /// The image of their pods: this program, as nodes pull it.
    pub image: String,
    /// Secrets (`NAMESPACE/NAME`) with which somebody else's pods of that image pull it: movers in other namespaces have none of them.
    pub pulled_with: Vec<String>,
    /// How long a pod may take until it runs.
    pub timeout: Duration,
    /// How many there are at a time.
    pub parallel: usize,
}
