//! What became of snapshots of volumes that go, in words: for commands and for the controller.

use backup_cli::error::Exit;
use backup_cli::output::{counted, size};
use backup_core::volume::expiry::Outcome;
use jiff::Timestamp;

/// How an outcome is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Something went, or would.
    Done,
    /// What may be of use.
    Note,
    /// What could not be done.
    Trouble,
}

/// The sentence, and how it is told.
pub(crate) fn sentence(outcome: &Outcome, dry_run: bool) -> (Told, String) {
    let would = if dry_run { "would be " } else { "" };
    let counted = |snapshots: usize| counted(snapshots as u64, "snapshot");
    match outcome {
        Outcome::Forgotten {
            repository,
            snapshots,
        } => (
            Told::Done,
            format!("{repository}: {} {would}forgotten", counted(*snapshots)),
        ),
        Outcome::Removed {
            repository,
            snapshots: 0,
        } => (
            Told::Done,
            format!("{repository} {would}removed: it has no snapshot"),
        ),
        Outcome::Removed {
            repository,
            snapshots,
        } => (
            Told::Done,
            format!(
                "{repository} {would}removed with its last {}",
                counted(*snapshots)
            ),
        ),
        Outcome::Noted {
            repository,
            snapshots: 0,
            after,
        } => (
            Told::Note,
            format!(
                "{repository} has no snapshot: a prune after {} removes it",
                at(*after)
            ),
        ),
        Outcome::Noted {
            repository,
            snapshots,
            after,
        } => (
            Told::Note,
            format!(
                "{repository}: {} that no backup names: a prune after {} forgets what is unnamed still",
                counted(*snapshots),
                at(*after)
            ),
        ),
        Outcome::Reclaimed {
            repository,
            freed,
            waiting,
        } => (
            Told::Note,
            match (freed, waiting) {
                (0, None) => format!("{repository}: nothing is to be freed"),
                (freed, None) => format!("{repository}: {} freed", size(*freed)),
                (freed, Some((bytes, after))) => format!(
                    "{repository}: {} freed, {} more by a prune after {}",
                    size(*freed),
                    size(*bytes),
                    at(*after)
                ),
            },
        ),
        Outcome::Reclaimable { repository } => (
            Told::Note,
            format!("{repository}: what no snapshot needs would be marked, and freed a day later"),
        ),
        Outcome::Closed { repository, why } => (
            Told::Note,
            format!(
                "{repository}: its space is freed by whoever can open it, with `kubectl backup prune --identity FILE`: {why}"
            ),
        ),
        Outcome::Kept { repository, why } => {
            (Told::Note, format!("{repository} stays as it is: {why}"))
        }
        Outcome::Failed { repository, why } => (Told::Trouble, format!("{repository}: {why}")),
        Outcome::Skipped(why) => (
            Told::Note,
            format!("snapshots that no backup names are not looked for: {why}"),
        ),
        Outcome::Blind(why) => (
            Told::Trouble,
            format!(
                "no snapshot of a volume is forgotten: {why} (read it with a newer version of this program, or remove it with `kubectl backup delete NAME --force`)"
            ),
        ),
    }
}

/// `2026-12-01T10:00:00Z`
fn at(time: Timestamp) -> String {
    format!("{time:.0}")
}

/// What was not done is incomplete; what stays for a reason is not.
pub(crate) fn exit<'a>(all: impl IntoIterator<Item = &'a Outcome>) -> Exit {
    let failed = |outcome: &Outcome| matches!(outcome, Outcome::Failed { .. } | Outcome::Blind(_));
    match all.into_iter().any(failed) {
        true => Exit::Incomplete,
        false => Exit::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgetting_that_somebody_has_to_mend_is_incomplete_and_what_is_not_to_be_looked_for_is_not()
    {
        let blind = Outcome::Blind("backup odd".to_owned());
        assert_eq!(exit([&blind]), Exit::Incomplete);
        let (told, text) = sentence(&blind, false);
        assert!(
            matches!(told, Told::Trouble) && text.contains("backup odd"),
            "{text}"
        );
        let skipped = Outcome::Skipped("no backup is listed".to_owned());
        assert_eq!(exit([&skipped]), Exit::Done);
        assert!(matches!(sentence(&skipped, false).0, Told::Note));
    }
}
