//! The target revision: the one that a restored cluster starts at, above all that any client may have seen. Pure.
//!
//! etcdutl adds whatever bump it is told, even one that overflows, so the arithmetic is checked here. Kubernetes and JSON carry
//! revisions through doubles; 2^53 is never reached.

use backup_core::{Error, Result};

/// How far above the greatest known mark the target lies at least: what is written between the look and the stop, many times over.
pub(crate) const MARGIN: i64 = 1_000_000_000;

/// How far a database may lie behind its write-ahead log: etcd applies at least every 100 ms or 10,000 changes.
pub(crate) const SLACK: i64 = 1_000_000;

/// Nothing at or above it.
const LIMIT: i64 = 1 << 53;

/// The target for these marks at this time (milliseconds since 1970): the greatest of mark + [`MARGIN`] and the time. That of
/// the time alone lies above what any cluster reaches that counts up from 1, and grows from one restore to the next.
///
/// # Errors
/// Kind `Invalid` where a mark is negative, or so high that nothing is left below 2^53.
pub(crate) fn target(marks: &[i64], now_ms: i64) -> Result<i64> {
    let mark = greatest(marks)?;
    let target = mark.saturating_add(MARGIN).max(now_ms);
    if target >= LIMIT {
        return Err(too_high(mark));
    }
    Ok(target)
}

/// Checks a target that was decided elsewhere against what is known here.
///
/// # Errors
/// Kind `Invalid` where a mark has reached it, or it is 2^53 or more.
pub(crate) fn check(target: i64, marks: &[i64]) -> Result<()> {
    let mark = greatest(marks)?;
    if target >= LIMIT {
        return Err(too_high(target));
    }
    if is_reached(target, mark) {
        return Err(Error::invalid(format!(
            "target revision {target} is not above revision {mark}, which is known here"
        ))
        .hint(format!(
            "use {} or more, the same on all members",
            target_or_limit(mark)
        )));
    }
    Ok(())
}

/// Whether a database read with this revision may have come to the target.
pub(crate) fn is_reached(target: i64, mark: i64) -> bool {
    mark.saturating_add(SLACK) >= target
}

/// What etcdutl adds to a snapshot's revision.
///
/// # Errors
/// Kind `Invalid` where the target is not above the snapshot.
pub(crate) fn bump(target: i64, snapshot: i64) -> Result<u64> {
    check(target, &[snapshot])?;
    u64::try_from(target - snapshot).map_err(|_| too_high(target))
}

fn greatest(marks: &[i64]) -> Result<i64> {
    if let Some(wrong) = marks.iter().find(|mark| **mark < 0) {
        return Err(Error::corrupt(format!("revision {wrong} is negative")));
    }
    Ok(marks.iter().copied().max().unwrap_or(0))
}

fn target_or_limit(mark: i64) -> i64 {
    mark.saturating_add(MARGIN).min(LIMIT - 1)
}

fn too_high(revision: i64) -> Error {
    Error::invalid(format!(
        "revision {revision} leaves no room below 2^53, where clients lose count"
    ))
    .hint("such a revision is no etcd's own; check what the database was restored with before")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_790_000_000_000;

    #[test]
    fn the_target_is_above_every_mark_and_grows_with_time() {
        assert_eq!(target(&[], NOW).unwrap(), NOW);
        assert_eq!(target(&[5, 7], NOW).unwrap(), NOW);
        assert_eq!(target(&[NOW, 7], NOW).unwrap(), NOW + MARGIN);
        assert_eq!(
            target(&[NOW + 5 * MARGIN], NOW).unwrap(),
            NOW + 6 * MARGIN,
            "of a former restore"
        );
    }

    #[test]
    fn nothing_reaches_two_to_the_53_and_nothing_overflows() {
        for mark in [LIMIT - MARGIN, LIMIT, i64::MAX] {
            assert!(target(&[mark], NOW).is_err(), "{mark}");
            assert!(check(mark.max(LIMIT), &[1]).is_err(), "{mark}");
        }
        assert_eq!(target(&[LIMIT - MARGIN - 1], NOW).unwrap(), LIMIT - 1);
        assert!(target(&[-1], NOW).is_err());
        assert!(bump(LIMIT - 1, i64::MAX).is_err());
    }

    #[test]
    fn a_target_that_a_mark_has_reached_is_refused() {
        assert!(check(NOW, &[NOW - SLACK]).is_err());
        assert!(check(NOW, &[NOW - SLACK - 1]).is_ok());
        assert_eq!(bump(NOW, 6).unwrap(), (NOW - 6) as u64);
        assert!(bump(6, 6).is_err());
    }
}
