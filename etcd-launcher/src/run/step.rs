//! The steps of a hosted restore, in the order in which they come, and how it ends. This file stands alone: the tests of the whole program include
//! it, so that a step without a test of a crash fails there.

use serde::{Deserialize, Serialize};

macro_rules! steps {
    ($($(#[$about:meta])* $name:ident,)+) => {
        /// How far an attempt is decided.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub(crate) enum Step {
            $($(#[$about])* $name,)+
        }

        impl Step {
            /// All of them.
            #[allow(dead_code, reason = "for tests")]
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its name.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }
    };
}

steps! {
    /// Every member looks whether it could; nothing is stopped.
    Preflight,
    /// Members, ids, token and target revision are fixed; every member builds its side.
    Planned,
    /// The control plane is scaled to 0.
    Pausing,
    /// etcd is watched for somebody who still writes.
    Watching,
    /// Every member stops its etcd.
    Stopping,
    /// Every member exchanges its directories.
    Swapping,
    /// Every member starts the new state where no client reaches it.
    Starting,
    /// Never back. The id that stands is being replaced.
    Committed,
    /// One member after the other opens its usual listeners.
    Restarting,
    /// Every member goes back to its old state.
    RollingBack,
    /// The control plane is put back.
    Unpausing,
    /// The end: the new state stands.
    Completed,
    /// The end: the old state stands again.
    RolledBack,
    /// The end: nothing was ever stopped.
    Failed,
}

impl Step {
    /// Whether nothing follows.
    pub(crate) fn is_end(self) -> bool {
        matches!(self, Self::Completed | Self::RolledBack | Self::Failed)
    }

    /// KKP's phase for it, and ours where KKP has none.
    pub(crate) fn phase(self, outcome: Option<Outcome>) -> &'static str {
        match (self, outcome) {
            (Self::Completed, _) => "Completed",
            (Self::RolledBack, _) => "RolledBack",
            (Self::Failed, _) => "Failed",
            (Self::Stopping | Self::Swapping | Self::Starting | Self::Committed, _)
            | (Self::Restarting | Self::RollingBack, _)
            | (Self::Unpausing, Some(Outcome::Committed | Outcome::RolledBack)) => "StsRebuilding",
            _ => "Started",
        }
    }
}

/// How an attempt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Outcome {
    /// Given up before any etcd was stopped.
    Failed,
    /// Gone back.
    RolledBack,
    /// The new state stands.
    Committed,
}
