//! The steps of one attempt, in the order in which they come. This file stands alone: the tests of the whole program include it, so
//! that a step without a test of a crash does not compile.

use serde::{Deserialize, Serialize};

macro_rules! steps {
    ($($(#[$about:meta])* $name:ident,)+) => {
        /// What was recorded last of an attempt; the table in `restore.rs` says what follows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub(crate) enum Step {
            $($(#[$about])* $name,)+
        }

        impl Step {
            /// All of them.
            #[allow(dead_code, reason = "for the tests of crashes")]
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its name in the journal.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }
    };
}

steps! {
    /// The plan is decided; nothing was done.
    Planned,
    /// The snapshot lies in the spool, checked.
    Fetched,
    /// The side directory was written.
    Built,
    /// The side directory is what the plan says, and durable.
    Proven,
    /// The exchange is about to happen.
    Exchanging,
    /// The folders say that it happened, durably.
    Exchanged,
    /// etcd is about to be started on the new state, fenced.
    Starting,
    /// The started cluster is the restored one.
    Verified,
    /// Never back by exchange.
    Committed,
    /// The exchange is about to be undone.
    RollingBack,
    /// The folders say that it was undone, durably.
    RolledBack,
    /// Given up before the exchange.
    Abandoned,
}

impl Step {
    /// Whether no other step may follow.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Committed | Self::RolledBack | Self::Abandoned)
    }

    /// Whether this record may follow that one. A plan may be made again (a new target revision) until the exchange.
    pub(crate) fn may_follow(self, last: Option<Self>) -> bool {
        let Some(last) = last else {
            return self == Self::Planned;
        };
        match self {
            Self::Planned => last < Self::Exchanging,
            Self::Fetched => last == Self::Planned,
            Self::Built => last == Self::Fetched,
            Self::Proven => last == Self::Built,
            // Again, where the folders say that it did not happen.
            Self::Exchanging => {
                matches!(last, Self::Proven | Self::Exchanging | Self::Exchanged)
            }
            Self::Exchanged => last == Self::Exchanging,
            Self::Starting => matches!(last, Self::Exchanged | Self::Starting | Self::Verified),
            Self::Verified => last == Self::Starting,
            // A member that was away learns of the commit late. Again, with what the old state was.
            Self::Committed => matches!(
                last,
                Self::Exchanged | Self::Starting | Self::Verified | Self::Committed
            ),
            Self::RollingBack => {
                (Self::Exchanging..Self::Committed).contains(&last) || last == Self::RollingBack
            }
            Self::RolledBack => last == Self::RollingBack,
            Self::Abandoned => last <= Self::Exchanging,
        }
    }
}
