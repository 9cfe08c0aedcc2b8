//! The three places where the old and the new state can be, and the next move towards a goal: pure and total, so that it can be asked again
//! after any crash. What is in a place is read from folders by `dir.rs`.

use serde::Serialize;

/// What one place holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing.
    Absent,
    /// The state that was there before.
    Old,
    /// The restored state.
    New,
    /// Something else.
    Foreign,
}

/// The places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slots {
    /// `D/member`
    pub(crate) member: Content,
    /// `D/.restore-A/member`
    pub(crate) side: Content,
    /// `D/.restore-A/aside`
    pub(crate) aside: Content,
    /// Whether there is an old state at all.
    pub(crate) had_old: bool,
}

/// Which state `member` is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// As before.
    Old,
    /// The restored one.
    New,
}

/// The next rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    /// `member` and side change places; where that is refused, `member` goes aside first.
    Exchange,
    /// The side becomes `member`.
    SideIn,
    /// What is aside becomes `member` again.
    AsideIn,
    /// `member` becomes the side: there was no old state.
    MemberOut,
    /// What is aside takes the side's place.
    AsideToSide,
}

/// Where the two states are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Truth {
    /// `member` is as it was.
    Before,
    /// Two renames were begun and not finished: `member` is absent.
    Between,
    /// `member` is the restored state.
    After,
    /// `member` is a state that this attempt does not know.
    Elsewhere,
}

impl Slots {
    /// Where `member` stands.
    pub(crate) fn truth(&self) -> Truth {
        match self.member {
            Content::Old => Truth::Before,
            Content::New => Truth::After,
            Content::Absent if !self.had_old => Truth::Before,
            Content::Absent => Truth::Between,
            Content::Foreign => Truth::Elsewhere,
        }
    }
}

/// The next move, `None` where the goal is reached; an error where no move leads there without harm: somebody else moved something.
pub(crate) fn next(slots: &Slots, goal: Goal) -> Result<Option<Move>, ()> {
    let (wanted, other) = match goal {
        Goal::Old => (Content::Old, Content::New),
        Goal::New => (Content::New, Content::Old),
    };
    let Slots {
        member,
        side,
        aside,
        had_old,
    } = *slots;
    if !had_old {
        return match (goal, member, side, aside) {
            (_, _, _, Content::Old | Content::New | Content::Foreign) => Err(()),
            (Goal::New, Content::New, ..) | (Goal::Old, Content::Absent, ..) => Ok(None),
            (Goal::New, Content::Absent, Content::New, _) => Ok(Some(Move::SideIn)),
            (Goal::Old, Content::New, Content::Absent, _) => Ok(Some(Move::MemberOut)),
            _ => Err(()),
        };
    }
    match (member, side, aside) {
        // Reached. Whether the other state is still kept is not asked: its owner may have removed it.
        (m, _, Content::Absent) if m == wanted => Ok(None),
        (m, Content::Absent, a) if m == wanted && a == other => Ok(Some(Move::AsideToSide)),
        (m, s, Content::Absent) if m == other && s == wanted => Ok(Some(Move::Exchange)),
        // The first of two renames was made, for this goal or against it.
        (Content::Absent, s, a) if s == wanted && a == other => Ok(Some(Move::SideIn)),
        (Content::Absent, s, a) if a == wanted && s == other => Ok(Some(Move::AsideIn)),
        // Two renames towards the other goal came to the last one.
        (m, Content::Absent, a) if m == other && a == wanted => Ok(Some(Move::AsideToSide)),
        _ => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Content; 4] = [
        Content::Absent,
        Content::Old,
        Content::New,
        Content::Foreign,
    ];

    fn every() -> impl Iterator<Item = Slots> {
        ALL.into_iter().flat_map(|member| {
            ALL.into_iter().flat_map(move |side| {
                ALL.into_iter().flat_map(move |aside| {
                    [true, false].into_iter().map(move |had_old| Slots {
                        member,
                        side,
                        aside,
                        had_old,
                    })
                })
            })
        })
    }

    /// What a move makes of the places; `exchanges` false is the file system that can not.
    fn moved(mut slots: Slots, by: Move, exchanges: bool) -> Slots {
        match by {
            Move::Exchange if exchanges => std::mem::swap(&mut slots.member, &mut slots.side),
            Move::Exchange => {
                assert_eq!(slots.aside, Content::Absent, "{slots:?}");
                slots.aside = std::mem::replace(&mut slots.member, Content::Absent);
            }
            Move::SideIn => {
                assert_eq!(slots.member, Content::Absent, "{slots:?}");
                slots.member = std::mem::replace(&mut slots.side, Content::Absent);
            }
            Move::AsideIn => {
                assert_eq!(slots.member, Content::Absent, "{slots:?}");
                slots.member = std::mem::replace(&mut slots.aside, Content::Absent);
            }
            Move::MemberOut => {
                assert_eq!(slots.side, Content::Absent, "{slots:?}");
                slots.side = std::mem::replace(&mut slots.member, Content::Absent);
            }
            Move::AsideToSide => {
                assert_eq!(slots.side, Content::Absent, "{slots:?}");
                slots.side = std::mem::replace(&mut slots.aside, Content::Absent);
            }
        }
        slots
    }

    #[test]
    fn from_wherever_a_crash_leaves_them_both_goals_are_reached_and_nothing_is_lost() {
        for exchanges in [true, false] {
            for had_old in [true, false] {
                let start = Slots {
                    member: if had_old {
                        Content::Old
                    } else {
                        Content::Absent
                    },
                    side: Content::New,
                    aside: Content::Absent,
                    had_old,
                };
                // Every place reachable by moves towards either goal, in any order of changes of mind.
                let mut seen = vec![start];
                let mut at = 0;
                while at < seen.len() {
                    for goal in [Goal::Old, Goal::New] {
                        if let Some(by) = next(&seen[at], goal).expect("a way on") {
                            let then = moved(seen[at], by, exchanges);
                            if !seen.contains(&then) {
                                seen.push(then);
                            }
                        }
                    }
                    at += 1;
                }
                for from in seen {
                    for goal in [Goal::Old, Goal::New] {
                        let (mut slots, mut moves) = (from, 0);
                        while let Some(by) = next(&slots, goal).unwrap() {
                            slots = moved(slots, by, exchanges);
                            moves += 1;
                            assert!(moves <= 4, "{from:?} to {goal:?}");
                        }
                        let places = [slots.member, slots.side, slots.aside];
                        let count = |c| places.iter().filter(|p| **p == c).count();
                        assert_eq!(count(Content::New), 1, "{from:?} to {goal:?}");
                        assert_eq!(count(Content::Old), usize::from(had_old));
                        assert_eq!(slots.aside, Content::Absent);
                        let truth = match goal {
                            Goal::Old => Truth::Before,
                            Goal::New => Truth::After,
                        };
                        assert_eq!(slots.truth(), truth);
                    }
                }
            }
        }
    }

    #[test]
    fn no_move_ever_touches_a_foreign_state_or_writes_onto_another() {
        for slots in every() {
            for goal in [Goal::Old, Goal::New] {
                let Ok(Some(by)) = next(&slots, goal) else {
                    continue;
                };
                let before = [slots.member, slots.side, slots.aside];
                for exchanges in [true, false] {
                    // `moved` fails where a target is not free.
                    let after = moved(slots, by, exchanges);
                    let after = [after.member, after.side, after.aside];
                    for (one, two) in before.iter().zip(after) {
                        assert!(
                            *one == two || (*one != Content::Foreign && two != Content::Foreign),
                            "{slots:?} {goal:?} {by:?}"
                        );
                    }
                }
            }
        }
    }
}
