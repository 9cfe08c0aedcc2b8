//! What a member's next act hangs on, gathered from its disk, its etcd, and the rows of the others.

use backup_core::Result;

use super::{Keeper, LAST_STOPS, TURN};
use crate::member;
use crate::restore::plan::{AttemptId, Carried};
use crate::restore::slots::{Content, Slots};
use crate::restore::step as member_step;
use crate::run::act::Situation;
use crate::run::hosting::World;
use crate::run::records::{Attempt, Before, Data, Listening, State, Step};

impl Keeper {
    pub(super) fn situation(&self, attempt: &Attempt, world: Option<&World>) -> Result<Situation> {
        let mine = attempt.member(&self.config.name);
        let planned = attempt.step() > Step::Preflight && !attempt.members.is_empty();
        let carried = self.dir.carried()?;
        let before = mine.map(|mine| mine.before).unwrap_or_default();
        let id: Option<AttemptId> = attempt.id.parse().ok();
        let known = id.as_ref().and_then(|id| self.dir.attempt(id).ok());
        let slots = match known {
            Some(known) => self.dir.slots(known)?,
            None => self.slots_without_plan(attempt, before.data, planned, &carried),
        };
        let proven = known.is_some_and(|known| {
            known.step >= member_step::Step::Proven && known.step < member_step::Step::Committed
        });
        let rows = world
            .and_then(|world| world.restore.as_ref())
            .map(|restore| &restore.reports);
        let is_at = |name: &str, state: State| {
            rows.and_then(|rows| rows.get(name)).is_some_and(|row| {
                row.attempt == attempt.id && row.sequence == attempt.sequence && row.state == state
            })
        };
        let place = attempt
            .order
            .iter()
            .position(|name| *name == self.config.name);
        let others = attempt
            .order
            .iter()
            .filter(|name| **name != self.config.name);
        let last = place.is_some_and(|place| place + 1 == attempt.order.len());
        let since = self.seen.2.elapsed();
        Ok(Situation {
            step: attempt.step(),
            outcome: attempt.outcome,
            takes_part: !planned || mine.is_some(),
            before: if planned {
                before
            } else {
                Before {
                    data: match carried {
                        Carried::Cluster { .. } => Data::Old,
                        Carried::Unreadable { .. } => Data::Unreadable,
                        Carried::Absent => Data::None,
                    },
                    serving: false,
                }
            },
            slots,
            proven,
            held: self.fence.is_some(),
            etcd: match self.member.listening() {
                Some(member::Listening::Usual) => Listening::Usual,
                Some(member::Listening::Fenced) => Listening::Fenced,
                None => Listening::None,
            },
            turn_to_stop: !last
                || since >= self.config.pace.of(LAST_STOPS)
                || others.clone().all(|name| is_at(name, State::Stopped)),
            turn_to_open: place.is_none_or(|place| {
                since >= self.config.pace.of(TURN) * u32::try_from(place).unwrap_or(u32::MAX)
                    || attempt.order[..place]
                        .iter()
                        .all(|name| is_at(name, State::Serving))
            }),
        })
    }

    /// Where this member has no plan of its own: before one is made, and where it was left out or its volume was lost.
    fn slots_without_plan(
        &self,
        attempt: &Attempt,
        data: Data,
        planned: bool,
        carried: &Carried,
    ) -> Slots {
        let member = match (carried, planned) {
            (Carried::Absent, _) => Content::Absent,
            (_, false) => Content::Old,
            (Carried::Cluster { cluster_id, .. }, true) => {
                let id = cluster_id.to_string();
                if id == attempt.new_cluster_id {
                    Content::New
                } else if id == attempt.old_cluster_id && data == Data::Old {
                    Content::Old
                } else {
                    Content::Foreign
                }
            }
            (Carried::Unreadable { .. }, true) if data == Data::Unreadable => Content::Old,
            (Carried::Unreadable { .. }, true) => Content::Foreign,
        };
        Slots {
            member,
            side: Content::Absent,
            aside: Content::Absent,
            had_old: if planned {
                data != Data::None
            } else {
                *carried != Carried::Absent
            },
        }
    }
}
