//! Points between the records of a data dir's journal at which a command of a node can be killed, in their order. This file stands
//! alone: the tests of the whole program include it, so that a point without a test of a crash does not compile.

/// What was done last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// The fence is there, and no manifest was moved.
    Fencing,
    /// API server, controller manager and scheduler are gone; etcd's manifest is in place.
    Quiet,
    /// All four are out and gone.
    Fenced,
    /// etcd's manifest is back; whether it serves is not known.
    Back,
    /// All manifests are back, and the fence stands.
    Returned,
}

impl Point {
    /// All of them.
    #[allow(dead_code, reason = "for the tests of the whole program")]
    pub(crate) const ALL: &[Self] = &[
        Self::Fencing,
        Self::Quiet,
        Self::Fenced,
        Self::Back,
        Self::Returned,
    ];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fencing => "node:Fencing",
            Self::Quiet => "node:Quiet",
            Self::Fenced => "node:Fenced",
            Self::Back => "node:Back",
            Self::Returned => "node:Returned",
        }
    }
}
