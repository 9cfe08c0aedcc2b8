//! Which snapshots of a schedule are removed. Pure: rows in, a plan out; nothing is deleted here, and nothing here can make the newest
//! good snapshot part of a plan.

use jiff::Timestamp;

/// Kept where the object does not say.
pub const DEFAULT_KEEP: usize = 20;

/// More are not kept, whatever the object says.
pub const MOST_KEPT: usize = 50;

/// What `spec.keep` comes to, by KKP's rule: 20 where it is absent, at least 1, at most 50.
pub fn keep(asked: Option<i64>) -> usize {
    match asked {
        None => DEFAULT_KEEP,
        Some(asked) => usize::try_from(asked.max(1)).map_or(MOST_KEPT, |keep| keep.min(MOST_KEPT)),
    }
}

/// What became of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is to be taken, or is being taken.
    Open,
    /// It stands.
    Good,
    /// It was not taken; nothing of it is in the store but what a sweep removes.
    Failed,
    /// Its removal began: it can not be counted on, and must be removed to the end.
    Leaving,
    /// It is removed.
    Gone,
}

/// A snapshot of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The slot for which it was taken.
    pub slot: Timestamp,
    /// What became of it.
    pub state: State,
}

/// What is to be done, by the rows' positions, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be removed from the store.
    pub delete: Vec<usize>,
    /// Rows with nothing in the store that say nothing any more.
    pub forget: Vec<usize>,
}

/// Plans what is removed so that the newest `keep` good ones stay (0 counts as 1). Of failures those stay that are newer than the oldest
/// good one kept, `keep` of them at most.
pub fn plan(rows: &[Row], keep: usize) -> Plan {
    let keep = keep.max(1);
    let mut newest_first: Vec<usize> = (0..rows.len()).collect();
    newest_first.sort_by_key(|index| std::cmp::Reverse((rows[*index].slot, *index)));
    let mut plan = Plan::default();
    let (mut good, mut failed) = (0, 0);
    for index in newest_first {
        match rows[index].state {
            State::Open => {}
            State::Leaving => plan.delete.push(index),
            State::Gone => plan.forget.push(index),
            State::Good if good < keep => good += 1,
            State::Good => plan.delete.push(index),
            State::Failed if failed < keep && good < keep => failed += 1,
            State::Failed => plan.forget.push(index),
        }
    }
    plan.delete.reverse();
    plan.forget.reverse();
    plan
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(second: i64, state: State) -> Row {
        Row {
            slot: Timestamp::from_second(second).unwrap(),
            state,
        }
    }

    #[test]
    fn keep_is_kkps() {
        for (asked, want) in [
            (None, 20),
            (Some(5), 5),
            (Some(0), 1),
            (Some(-3), 1),
            (Some(i64::MIN), 1),
            (Some(50), 50),
            (Some(51), 50),
            (Some(i64::MAX), 50),
        ] {
            assert_eq!(keep(asked), want, "{asked:?}");
        }
    }

    #[test]
    fn the_oldest_beyond_keep_go_and_failures_between_kept_ones_stay() {
        use State::{Failed, Good, Open};
        let rows = [
            row(1, Failed),
            row(2, Good),
            row(3, Good),
            row(4, Failed),
            row(5, Good),
            row(6, Failed),
            row(7, Open),
        ];
        let plan = plan(&rows, 2);
        assert_eq!(plan.delete, [1]);
        assert_eq!(plan.forget, [0]);
    }

    #[test]
    fn failures_never_push_out_a_good_one() {
        let mut rows: Vec<_> = (10..100).map(|at| row(at, State::Failed)).collect();
        rows.push(row(1, State::Good));
        let plan = plan(&rows, 1);
        assert_eq!(plan.delete, [0_usize; 0]);
        assert_eq!(plan.forget.len(), 89);
    }

    #[test]
    fn a_removal_that_began_goes_on_even_when_nothing_else_is_left() {
        assert_eq!(plan(&[row(1, State::Leaving)], 20).delete, [0]);
    }

    fn state() -> impl Strategy<Value = State> {
        prop_oneof![
            Just(State::Open),
            Just(State::Good),
            Just(State::Good),
            Just(State::Failed),
            Just(State::Leaving),
            Just(State::Gone)
        ]
    }

    proptest! {
        #[test]
        fn the_newest_good_one_stays_and_so_many_stay_as_were_asked_for(
            rows in proptest::collection::vec((0_i64..50, state()), 0..80), keep in 0_usize..60,
        ) {
            let rows: Vec<_> = rows.into_iter().map(|(at, state)| row(at, state)).collect();
            let planned = plan(&rows, keep);
            let good: Vec<_> = (0..rows.len()).filter(|i| rows[*i].state == State::Good).collect();
            let left: Vec<_> = good.iter().filter(|i| !planned.delete.contains(i)).copied().collect();
            prop_assert_eq!(left.len(), good.len().min(keep.max(1)));
            if let Some(newest) = good.iter().max_by_key(|i| (rows[**i].slot, **i)) {
                prop_assert!(left.contains(newest));
            }
            for gone in &planned.delete {
                prop_assert!(left.iter().all(|kept| rows[*kept].slot >= rows[*gone].slot || rows[*gone].state == State::Leaving));
            }
            for index in planned.delete.iter().chain(&planned.forget) {
                prop_assert!(rows[*index].state != State::Open);
            }
            prop_assert!(planned.forget.iter().all(|i| matches!(rows[*i].state, State::Failed | State::Gone)));
            // Done once, there is nothing left to do.
            let after: Vec<_> = (0..rows.len())
                .filter(|i| !planned.delete.contains(i) && !planned.forget.contains(i))
                .map(|i| rows[i])
                .collect();
            prop_assert_eq!(plan(&after, keep), Plan::default());
        }
    }
}
