//! The guard rails of a repository, by name. Each is on, always; a build for tests alone can be told to leave one out, so that it is seen which
//! test notices (`make mutants`). Nothing of a program that is used can turn one off.

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rail {
    /// No snapshot while anything could not be read.
    SourceErrors,
    /// No snapshot when the run's own claim is gone or old.
    OwnClaim,
    /// No snapshot stays whose run lost its claim while it was written.
    SecondLook,
    /// No snapshot while a prune has a claim.
    PruneClaim,
    /// Unchanged is what the named snapshot has, not what another one has.
    ExactParent,
    /// A file is as long as it was listed, or it is an error.
    SizedReaders,
    /// No snapshot before the sender said that it sent everything.
    SenderExit,
    /// Every pack that a snapshot needs is in the store.
    PacksListed,
    /// The saved tree is what was listed.
    TreeWalked,
    /// What is marked is removed by a later run, not by the one that marks.
    TwoPhases,
    /// A prune is alone.
    PruneAlone,
}

impl Rail {
    #[cfg(test)]
    fn name(self) -> &'static str {
        match self {
            Self::SourceErrors => "source-errors",
            Self::OwnClaim => "own-claim",
            Self::SecondLook => "second-look",
            Self::PruneClaim => "prune-claim",
            Self::ExactParent => "exact-parent",
            Self::SizedReaders => "sized-readers",
            Self::SenderExit => "sender-exit",
            Self::PacksListed => "packs-listed",
            Self::TreeWalked => "tree-walked",
            Self::TwoPhases => "two-phases",
            Self::PruneAlone => "prune-alone",
        }
    }

    /// Whether it is left out; never, but in a test build that was told so.
    pub(super) fn is_off(self) -> bool {
        #[cfg(test)]
        return std::env::var_os("VOLUME_RAIL_OFF").is_some_and(|off| off == self.name());
        #[cfg(not(test))]
        false
    }
}
