//! One member, kept at what is decided: looks, asks [`act`] for the next act, does it, says so; again and again. All it does to its data dir and
//! its etcd is in here and in [`crate::restore`]; it decides nothing for others.

mod beside;
mod idle;
mod noting;
mod situation;
mod waits;
mod work;

use std::time::{Duration, Instant};

use backup_core::progress::Progress;
use backup_core::{Error, Result};

use super::act::{self, Act, Situation};
use super::door;
use super::event::Tone;
use super::fitness::{Looked, Tools};
use super::hosting::{Hosting, SetView, World};
use super::kept::{self, Keeping};
use super::memory::{Memory, Remembered, RestoreRef};
use super::pace::{self, OFTEN, Pace};
use super::peers::Peers;
use super::records::{Attempt, Listening, Outcome, State, Step};
use super::row::Rows;
use super::startup::{self, Orders};
use crate::health::Health;
use crate::member::{self, Member};
use crate::restore::dir::DataDir;
use crate::restore::exchange;
use crate::restore::fence::Fence;
use crate::restore::plan::{AttemptId, Carried};
use crate::restore::step as member_step;
use beside::Again;
use noting::Noting;
use waits::Waits;

/// Between two looks while there is no attempt.
const SELDOM: Duration = Duration::from_secs(2);
/// The member that stops last stops after this, whatever the others say.
const LAST_STOPS: Duration = Duration::from_secs(30);
/// A turn to open passes to the next member after this.
const TURN: Duration = Duration::from_secs(60);
/// An etcd that ends by itself is started again after this, at first.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_AT_MOST: Duration = Duration::from_secs(30);

/// What a member is kept with.
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) pod_uid: String,
    pub(crate) new_cluster: bool,
    pub(crate) tools: Tools,
    pub(crate) keeping: Keeping,
    pub(crate) pace: Pace,
}

/// The keeper.
pub(crate) struct Keeper {
    config: Config,
    dir: DataDir,
    memory: Memory,
    member: Member,
    hosting: Hosting,
    peers: Peers,
    rows: Rows,
    health: Health,
    progress: &'static dyn Progress,
    /// The lock on the stopped etcd's database.
    fence: Option<Fence>,
    /// Reads the state that was replaced.
    noting: Noting,
    /// The snapshot at hand: of this attempt.
    looked: Option<(String, Looked)>,
    /// The decision that is obeyed, and since when.
    seen: (String, i64, Instant),
    /// When an etcd that ended by itself is started again.
    again: Again,
    /// How long a store keeps this member waiting.
    waits: Waits,
    /// Whether there may be kept states that are too many.
    to_prune: bool,
    /// What was said last, so that it is said once.
    told: String,
    said: Box<dyn Fn(&str) + Send + Sync>,
}

impl Keeper {
    #[expect(
        clippy::too_many_arguments,
        reason = "all it keeps a member with, made once"
    )]
    pub(crate) fn new(
        config: Config,
        dir: DataDir,
        member: Member,
        hosting: Hosting,
        peers: Peers,
        rows: Rows,
        health: Health,
        progress: &'static dyn Progress,
        said: Box<dyn Fn(&str) + Send + Sync>,
    ) -> Result<Self> {
        let mut memory = Memory::open(dir.root())?;
        let known = &memory.now().member;
        if !known.is_empty() && *known != config.name {
            return Err(Error::invalid(format!(
                "the data dir is member {known}'s, and this is member {}",
                config.name
            ))
            .hint("two volumes were exchanged: give each member its own; nothing was started"));
        }
        if known.is_empty() {
            let named = Remembered {
                member: config.name.clone(),
                ..memory.now().clone()
            };
            memory.set(named)?;
        }
        Ok(Self {
            config,
            dir,
            memory,
            member,
            hosting,
            peers,
            rows,
            health,
            progress,
            fence: None,
            noting: Noting::default(),
            looked: None,
            seen: (String::new(), 0, Instant::now()),
            again: Again::new(),
            waits: Waits::new(),
            to_prune: true,
            told: String::new(),
            said,
        })
    }

    /// Keeps the member until it is told to end; then stops etcd.
    pub(crate) async fn keep(mut self, mut end: tokio::sync::watch::Receiver<bool>) -> Result<()> {
        loop {
            // What is cut off in the middle is done again by the next start, as after any crash.
            let turned = tokio::select! {
                _ = end.wait_for(|end| *end) => break,
                turned = self.turn() => turned,
            };
            let pause = match turned {
                Ok(pause) => pause,
                Err(e) => {
                    let text = sentence(&e);
                    self.say(&text);
                    self.rows.tell(|report| {
                        // Why it is unfit stays.
                        if report.state != State::Unfit {
                            report.message = text;
                        }
                    });
                    OFTEN
                }
            };
            tokio::select! {
                _ = end.wait_for(|end| *end) => break,
                status = self.member.ended() => {
                    let status = status?;
                    self.say(&format!("etcd ended by itself: {status}"));
                    self.again.ended();
                }
                () = tokio::time::sleep(self.config.pace.of(pause)) => {}
            }
        }
        self.member.stop().await
    }

    fn say(&mut self, text: &str) {
        if self.told != text {
            text.clone_into(&mut self.told);
            (self.said)(text);
        }
    }

    /// One look, and one act.
    async fn turn(&mut self) -> Result<Duration> {
        let wanted = self
            .memory
            .now()
            .open()
            .map(|_| self.memory.now().restore.clone());
        let world = match self.hosting.look(wanted.as_ref()).await {
            Ok(world) => Some(world),
            Err(e) => {
                self.say(&format!("the hosting API is away: {}", sentence(&e)));
                None
            }
        };
        match startup::orders(self.memory.now(), world.as_ref()) {
            Orders::Obey {
                restore,
                attempt,
                note,
            } => {
                if !note.is_empty() {
                    self.say(&note);
                }
                let set = world.as_ref().and_then(|world| world.set.as_ref());
                let stands = set.map(SetView::cluster_id);
                if !startup::joins(self.memory.now(), &attempt, &self.dir.carried()?, stands) {
                    self.idle(world.as_ref()).await?;
                    if self.dir.carried()? != Carried::Absent {
                        self.rows.at(&restore, &attempt, &self.config.pod_uid);
                        let why = self.health.report().message;
                        self.rows.tell(|report| {
                            report.state = State::SetAside;
                            report.message = why;
                        });
                    }
                    return Ok(OFTEN);
                }
                self.obey(&restore, &attempt, world.as_ref()).await?;
                Ok(pace::between_looks(attempt.step()))
            }
            Orders::Superseded(mine) => {
                let stands = world
                    .as_ref()
                    .and_then(|world| Some(world.set.as_ref()?.cluster_id()));
                let carried = self.dir.carried()?.cluster().map(|id| id.to_string());
                self.say("another restore has ended since the one that this member took part in");
                if mine.is_forward() || carried.as_deref() == stands {
                    self.note_committed(&mine)?;
                    // A committed state is never exchanged back. Where it stands no more, it is put aside once nothing is open.
                    self.close(&startup::ended(&mine, Outcome::Committed))?;
                } else {
                    let restore = self.memory.now().restore.clone();
                    let back = startup::ended(&mine, Outcome::RolledBack);
                    self.obey(&restore, &back, world.as_ref()).await?;
                }
                Ok(OFTEN)
            }
            Orders::Settle => {
                self.settle(world.as_ref()).await?;
                Ok(OFTEN)
            }
            Orders::Idle => {
                self.rows.clear();
                self.prune().await;
                self.idle(world.as_ref()).await?;
                Ok(SELDOM)
            }
        }
    }

    async fn obey(
        &mut self,
        restore: &RestoreRef,
        attempt: &Attempt,
        world: Option<&World>,
    ) -> Result<()> {
        if (&self.seen.0, self.seen.1) != (&attempt.id, attempt.sequence) {
            self.seen = (attempt.id.clone(), attempt.sequence, Instant::now());
            self.to_prune = true;
            self.say(&format!(
                "restore {}: {}: {}",
                restore.name,
                attempt.step().name(),
                attempt.message
            ));
        }
        let end_before = match self.memory.now().open() {
            Some(mine) if mine.id == attempt.id => self.memory.now().end_before.clone(),
            _ => world
                .and_then(|world| world.set.as_ref()?.end())
                .map(|end| end.attempt)
                .unwrap_or_default(),
        };
        let remembered = self.memory.set(Remembered {
            member: self.config.name.clone(),
            restore: restore.clone(),
            attempt: Some(attempt.clone()),
            closed: false,
            end_before,
        });
        self.health.tell(|health| {
            health.attempt = Some(attempt.id.clone());
            health.step = Some(startup::told_step(attempt));
        });
        crash_at(&format!("{}:remembered", attempt.step().name()));
        let now = self.situation(attempt, world)?;
        let act = act::act(&now);
        // Back is possible without a note of it: the directories say what is needed.
        if remembered.is_err()
            && !matches!(act, Act::Back | Act::Stop | Act::Rest(..) | Act::Serve(_))
        {
            remembered?;
        }
        self.rows.at(restore, attempt, &self.config.pod_uid);
        let carried = self.dir.carried()?.cluster().map(|id| id.to_string());
        self.health.tell(|health| {
            health.cluster_id.clone_from(&carried);
            health.serving = now.etcd == Listening::Usual;
        });
        let leaderless = if attempt.step() == Step::Watching {
            self.is_leaderless().await
        } else {
            false
        };
        self.rows.tell(|report| {
            report.cluster_id = carried.unwrap_or_default();
            report.listening = now.etcd;
            report.leaderless = leaderless;
        });
        let done = self.perform(act, &now, attempt, world).await;
        crash_at(&format!("{}:done", attempt.step().name()));
        done
    }

    async fn is_leaderless(&self) -> bool {
        if self.member.listening() != Some(member::Listening::Usual) {
            return true;
        }
        match door::usual_status(self.member.args()).await {
            Ok(said) => !said.has_leader(),
            Err(_) => true,
        }
    }

    async fn perform(
        &mut self,
        act: Act,
        now: &Situation,
        attempt: &Attempt,
        world: Option<&World>,
    ) -> Result<()> {
        match act {
            Act::Check => self.check(attempt, world).await,
            Act::Build => self.build(attempt).await,
            Act::Stop => self.member.stop().await,
            Act::Hold => self.hold(attempt),
            Act::Exchange => self.exchange(attempt),
            Act::Back => self.back(attempt),
            Act::StartFenced => self.start_fenced(attempt),
            Act::StartUsual => self.start_usual(world, Some(attempt)),
            Act::Verify => self.verify(attempt).await,
            Act::Tidy => self.tidy(attempt),
            Act::Rest(state, text) => self.rest(state, text, now, attempt, world),
            Act::Serve(state) => match door::usual_read(self.member.args()).await {
                Ok(_) => {
                    self.again.serves();
                    self.rest(state, "etcd serves", now, attempt, world)
                }
                Err(e) => {
                    let text = format!("etcd does not serve yet: {}", sentence(&e));
                    self.rows.tell(|report| report.message = text);
                    Ok(())
                }
            },
        }
    }

    /// Nothing is left to do about this decision.
    fn rest(
        &mut self,
        state: State,
        text: &str,
        now: &Situation,
        attempt: &Attempt,
        world: Option<&World>,
    ) -> Result<()> {
        match state {
            State::Started if attempt.step() == Step::Committed => {
                self.record_committed(attempt)?;
            }
            // Exchanged by a launcher that ended before it could note so.
            State::Swapped => self.exchange(attempt)?,
            // Built by a launcher that ended before it could say so.
            State::Built if attempt.step() == Step::Planned && !self.rows.has_built() => {
                return self.tell_built(attempt, false);
            }
            State::RolledBack if now.etcd == Listening::None => self.fence = None,
            _ => {}
        }
        self.rows.tell(|report| {
            report.state = state;
            text.clone_into(&mut report.message);
        });
        self.health
            .tell(|health| health.serving = now.etcd == Listening::Usual);
        let is_gone = world.is_some_and(|world| world.restore.is_none());
        let over = match attempt.step() {
            Step::Completed => matches!(state, State::Serving | State::SetAside),
            Step::RolledBack | Step::Failed => matches!(state, State::RolledBack | State::Working),
            _ => {
                attempt.is_forward() && is_gone && matches!(state, State::Serving | State::SetAside)
            }
        };
        // Without the hosting API nobody knows whether more was decided.
        if over && world.is_some() {
            self.close(attempt)?;
        }
        Ok(())
    }

    /// The attempt is over for this member: what was built for it and is not in use goes.
    fn close(&mut self, attempt: &Attempt) -> Result<()> {
        self.looked = None;
        let id: AttemptId = attempt.id.parse()?;
        if !attempt.is_forward() {
            self.tidy(attempt)?;
        }
        let spool = self.dir.spool(&id);
        let part = spool.with_extension("db.part");
        for left in [spool, part] {
            match std::fs::remove_file(&left) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(
                        Error::other(format!("can not remove {}", left.display())).because(e)
                    );
                }
                _ => {}
            }
        }
        let closed = Remembered {
            closed: true,
            ..self.memory.now().clone()
        };
        self.memory.set(closed)?;
        self.to_prune = true;
        self.health.tell(|health| {
            health.attempt = None;
            health.step = None;
            health.message = "etcd runs as usual".to_owned();
        });
        Ok(())
    }

    /// Removes kept states that are too many; nothing where nobody can tell which are asked for.
    async fn prune(&mut self) {
        if !self.to_prune {
            return;
        }
        let Ok(restores) = self.hosting.all_restores().await else {
            return;
        };
        self.to_prune = false;
        let open = restores.iter().filter(|restore| !restore.has_ended());
        let asked: Vec<AttemptId> = open
            .filter_map(|restore| kept::named(restore.text("backupName")))
            .collect();
        if let Some(told) = kept::prune(&self.dir, self.config.keeping, &asked) {
            self.say(&told);
            let restore = &self.memory.now().restore;
            self.hosting
                .tell_event(restore, Tone::Normal, "StatesRemoved", &told)
                .await;
        }
    }

    fn tidy(&mut self, attempt: &Attempt) -> Result<()> {
        use member_step::Step as At;
        let id: AttemptId = attempt.id.parse()?;
        let Some(step) = self.dir.attempt(&id).ok().map(|known| known.step) else {
            return Ok(());
        };
        match step {
            At::RolledBack | At::Abandoned | At::Committed => Ok(()),
            At::RollingBack | At::Exchanged | At::Starting | At::Verified => self.back(attempt),
            _ => exchange::abandon(&mut self.dir, &id, &attempt.message),
        }
    }
}

/// Waits until the decision is another one, or the restore is gone.
async fn moved_on(hosting: &Hosting, restore: &RestoreRef, attempt: &Attempt) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        match hosting.restore(restore).await {
            Ok(Some(now)) => {
                let same = now
                    .attempt
                    .as_ref()
                    .is_some_and(|now| (&now.id, now.sequence) == (&attempt.id, attempt.sequence));
                if !same {
                    return;
                }
            }
            Ok(None) => return,
            // Away: what was decided is finished.
            Err(_) => {}
        }
    }
}

/// An error with its causes and its hint, as one sentence of a status.
pub(crate) fn sentence(error: &Error) -> String {
    error.sentence()
}

/// For tests: ends the process here where the environment says so. `ETCD_LAUNCHER_CRASH_AT=run:Swapping:done` is right after the act of that step.
pub(crate) fn crash_at(point: &str) {
    let wanted = std::env::var("ETCD_LAUNCHER_CRASH_AT").unwrap_or_default();
    if let Some(wanted) = wanted.strip_prefix("run:")
        && wanted == point
    {
        std::process::abort();
    }
}
