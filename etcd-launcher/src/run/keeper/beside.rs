//! Work that takes long, with etcd beside it: a member that downloads for an hour looks after its etcd meanwhile. Starts again what ran as usual on
//! this very state when the work began, and nothing else.

use std::time::Instant;

use backup_core::Result;

use super::{AGAIN, AGAIN_AT_MOST};
use crate::health::Health;
use crate::member::{Listening, Member};

/// When an etcd that ended by itself is started again.
pub(super) struct Again {
    /// Not before.
    pub(super) at: Instant,
    after: std::time::Duration,
}

impl Again {
    /// At once.
    pub(super) fn new() -> Self {
        Self {
            at: Instant::now(),
            after: AGAIN,
        }
    }

    /// It ended by itself: later each time.
    pub(super) fn ended(&mut self) {
        self.at = Instant::now() + self.after;
        self.after = (self.after * 2).min(AGAIN_AT_MOST);
    }

    /// It serves: the next time it is started again soon.
    pub(super) fn serves(&mut self) {
        self.after = AGAIN;
    }
}

/// What is looked after.
pub(super) struct Beside<'a> {
    member: &'a mut Member,
    again: &'a mut Again,
    health: &'a Health,
    said: &'a (dyn Fn(&str) + Send + Sync),
}

impl<'a> Beside<'a> {
    /// A keeper's own; the rest of it is free for the work.
    pub(super) fn new(
        member: &'a mut Member,
        again: &'a mut Again,
        health: &'a Health,
        said: &'a (dyn Fn(&str) + Send + Sync),
    ) -> Self {
        Self {
            member,
            again,
            health,
            said,
        }
    }

    /// What the work came to; nothing where it was over before.
    ///
    /// # Errors
    /// When etcd's end can not be learnt, or it can not be started.
    pub(super) async fn work<T>(
        self,
        work: impl Future<Output = T>,
        over: impl Future<Output = ()>,
    ) -> Result<Option<T>> {
        tokio::pin!(work, over);
        let ran = self.member.listening() == Some(Listening::Usual);
        loop {
            let is_down = ran && self.member.listening().is_none();
            tokio::select! {
                done = &mut work => return Ok(Some(done)),
                () = &mut over => return Ok(None),
                status = self.member.ended() => {
                    (self.said)(&format!("etcd ended by itself: {}", status?));
                    self.again.ended();
                }
                () = tokio::time::sleep_until(self.again.at.into()), if is_down => {
                    self.member.start_usual()?;
                }
            }
            let serving = self.member.listening() == Some(Listening::Usual);
            self.health.tell(|health| health.serving = serving);
        }
    }
}
