//! How far a claim is brought, and whether it is as far. Pure.

use super::step::{Action, Awaited, HeldFor, Live, Step};

/// How far a claim is brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// It stands and names its volume.
    Held,
    /// Its volume is full, and that is written down.
    Full,
    /// It is bound.
    Bound,
}

impl Until {
    /// Whether a claim of which this stands is as far.
    pub(super) fn is_reached(self, live: &Live, next: &Step) -> bool {
        let is_written = |live: &Live| {
            let volume = live.volume.as_ref();
            volume.is_some_and(|volume| matches!(volume.held_for, Some(HeldFor::Ours(_))))
        };
        match (self, next) {
            (_, Step::Done) => true,
            (Self::Bound, _) => false,
            (
                _,
                Step::Do(Action::Bind { .. } | Action::PutBack { .. }) | Step::Wait(Awaited::Bound),
            ) => true,
            (
                _,
                Step::Do(Action::Leave | Action::Unstage { .. }) | Step::Wait(Awaited::Unstaged),
            ) => live.real.is_some() && is_written(live),
            (Self::Held, Step::Do(Action::Fill | Action::Retain { .. })) => true,
            _ => false,
        }
    }
}
