//! The exchange and its undoing: the only moves of a state that a member has served, and the removal of such a state long after. Each is
//! made where the folders ask for it and nowhere else; see the rules in `restore.rs`.

use std::io;

use backup_core::{Error, Result};
use jiff::Timestamp;

use super::dir::DataDir;
use super::entry::{Attempt, Entry, Former};
use super::fence::Stopped;
use super::files::Kind;
use super::plan::{AttemptId, By, Carried};
use super::slots::{self, Goal, Move, Truth};
use super::step::Step;

/// Puts the proven side of an attempt in the place of `member`, or finishes that. `former` is what the old state was, where it
/// could be read.
///
/// # Errors
/// When the folders hold something else, or an etcd started meanwhile: then the old state is back.
pub(crate) fn exchange(
    dir: &mut DataDir,
    id: &AttemptId,
    stopped: &dyn Stopped,
    former: Option<Former>,
) -> Result<()> {
    let attempt = dir.attempt(id)?;
    let step = attempt.step;
    let is_done = attempt.may_be_exchanged && dir.truth(attempt)? == Truth::After;
    remove_spool(dir, id).map_err(|e| unremoved(id, e))?;
    if !(is_done && step == Step::Exchanging) {
        let mut entry = Entry::new(id, Step::Exchanging);
        entry.former = former;
        dir.journal.append(&entry)?;
    }
    move_to(dir, id, Goal::New)?;
    if let Err(e) = stopped.check() {
        undo(dir, id)?;
        return Err(e.context("the exchange was undone: the old state is in place"));
    }
    dir.record(id, Step::Exchanged)
}

/// Back to the old state, which nobody has started since.
fn undo(dir: &mut DataDir, id: &AttemptId) -> Result<()> {
    dir.record(id, Step::RollingBack)?;
    move_to(dir, id, Goal::Old)?;
    dir.record(id, Step::RolledBack)?;
    tidy(dir, id)
}

/// Puts the old state back, and removes the new one. A journal that can not be written (a full disk) stops this only at its end: the
/// folders are enough to go back by, and a later start sees from them that it was done.
///
/// # Errors
/// When the attempt was committed, the folders hold something else, or an etcd started on the new state meanwhile: then that is in place again.
pub(crate) fn back(dir: &mut DataDir, id: &AttemptId, stopped: &dyn Stopped) -> Result<()> {
    if dir.attempt(id)?.step == Step::Committed {
        return Err(Error::other(format!(
            "restore {id} was committed, and clients may have seen it: it is not exchanged back"
        )));
    }
    let announced = if dir.attempt(id)?.step == Step::RollingBack {
        Ok(())
    } else {
        dir.record(id, Step::RollingBack)
    };
    move_to(dir, id, Goal::Old)?;
    if let Err(e) = stopped.check() {
        move_to(dir, id, Goal::New)?;
        return Err(e.context("the rollback was undone: the restored state is in place"));
    }
    let told = |e: Error| e.context("the old state is in place, but that could not be recorded");
    announced.map_err(told)?;
    dir.record(id, Step::RolledBack).map_err(told)?;
    tidy(dir, id)
}

/// Gives up an attempt that was not exchanged, and removes what it wrote.
///
/// # Errors
/// When the folders say that it was exchanged.
pub(crate) fn abandon(dir: &mut DataDir, id: &AttemptId, why: &str) -> Result<()> {
    let attempt = dir.attempt(id)?;
    if attempt.may_be_exchanged {
        // In the middle of two renames the old state comes back first; and what is in place has to be so durably.
        if dir.truth(attempt)? == Truth::After {
            return Err(Error::other(format!(
                "attempt {id} is in place and can not be abandoned"
            )));
        }
        move_to(dir, id, Goal::Old)?;
    }
    let mut entry = Entry::new(id, Step::Abandoned);
    entry.note = Some(why.to_owned());
    dir.journal.append(&entry)?;
    tidy(dir, id)
}

/// Gives up the last attempt where it was not exchanged, so that nothing of it stays. What can not be removed now is removed by the next
/// start.
pub(crate) fn give_up(dir: &mut DataDir, why: &str) {
    let last = dir.attempts().last();
    if let Some(last) = last.filter(|last| !last.step.is_final() && !last.may_be_exchanged) {
        let id = last.id().clone();
        let _ = abandon(dir, &id, why);
    }
}

/// What the table says about the last attempt without asking what anybody wants: a rollback is finished, an exchange that happened
/// is recorded, what was given up is removed.
///
/// # Errors
/// When the folders can not be read or moved.
pub(crate) fn recover(dir: &mut DataDir, stopped: &dyn Stopped) -> Result<()> {
    let Some(last) = dir.attempts().last() else {
        return Ok(());
    };
    let (id, step) = (last.id().clone(), last.step);
    let truth = dir.truth(last)?;
    match step {
        Step::RollingBack => back(dir, &id, stopped),
        Step::RolledBack | Step::Abandoned => tidy(dir, &id),
        Step::Exchanging if truth == Truth::After => {
            // What the folders say may still be lost with the machine, or be the last but one of two renames.
            remove_spool(dir, &id).map_err(|e| unremoved(&id, e))?;
            move_to(dir, &id, Goal::New)?;
            dir.record(&id, Step::Exchanged)
        }
        // Undone while the journal could not be written.
        Step::Exchanged | Step::Starting | Step::Verified if truth == Truth::Before => {
            back(dir, &id, stopped)
        }
        _ => Ok(()),
    }
}

/// Removes the new state and the spool of an attempt that was given up or rolled back.
fn tidy(dir: &DataDir, id: &AttemptId) -> Result<()> {
    remove_spool(dir, id).map_err(|e| unremoved(id, e))?;
    remove_new(dir, id)?;
    // Only the last attempt is looked at by the next start: what is removed has to stay so before another one begins.
    dir.files.sync(dir.root()).map_err(|e| unremoved(id, e))
}

fn unremoved(id: &AttemptId, e: io::Error) -> Error {
    Error::other(format!("can not remove what attempt {id} left")).because(e)
}

/// Removes what an attempt built: the part, and the side where it carries the new id while `member` carries another one.
///
/// # Errors
/// When it can not be removed.
pub(super) fn remove_new(dir: &DataDir, id: &AttemptId) -> Result<()> {
    let attempt = dir.attempt(id)?;
    let is_there = |path: &std::path::Path| {
        let kind = dir.files.kind(path).map_err(|e| unremoved(id, e))?;
        Ok::<_, Error>(kind != Kind::Absent)
    };
    remove_part(dir, id)?;
    let copy = dir.copy(id);
    if is_there(&copy)? {
        dir.files.remove_tree(&copy).map_err(|e| unremoved(id, e))?;
    }
    let new = Some(attempt.plan.cluster_id);
    let is_new = dir.carried_by(&dir.side(id))?.cluster() == new
        && dir.carried()?.cluster() != new
        && !is_there(&dir.aside(id))?;
    if is_new {
        remove_side(dir, id)?;
    }
    Ok(())
}

/// Removes the old states that committed restores of these hands replaced before then, but for the newest `keep` of all (one at least) and for
/// those of `named`. Says of which attempts.
///
/// # Errors
/// When they can not be removed.
pub(crate) fn forget(
    dir: &DataDir,
    by: By,
    keep: usize,
    before: Timestamp,
    named: &[AttemptId],
) -> Result<Vec<AttemptId>> {
    let member = dir.carried()?;
    // Nothing says that the state in place is whole.
    if member.cluster().is_none() {
        return Ok(Vec::new());
    }
    let mut kept = Vec::new();
    let attempts = dir.attempts().iter();
    for attempt in attempts.filter(|a| a.step == Step::Committed && a.plan.by == by) {
        let id = attempt.id();
        // A removal that was cut off.
        remove_part(dir, id)?;
        let aside = dir.files.kind(&dir.aside(id));
        let side = dir.carried_by(&dir.side(id))?;
        let is_old = side != Carried::Absent
            && side.is_same(&attempt.plan.old)
            && !member.is_same(&side)
            && aside.map_err(|e| unremoved(id, e))? == Kind::Absent;
        if is_old {
            kept.push((id.clone(), attempt.at));
        }
    }
    kept.truncate(kept.len().saturating_sub(keep.max(1)));
    kept.retain(|(id, at)| *at <= before && !named.contains(id));
    let ids: Vec<AttemptId> = kept.into_iter().map(|(id, _)| id).collect();
    for id in &ids {
        remove_side(dir, id)?;
    }
    Ok(ids)
}

fn remove_part(dir: &DataDir, id: &AttemptId) -> Result<()> {
    let part = dir.part(id);
    let there = dir.files.kind(&part).map_err(|e| unremoved(id, e))? != Kind::Absent;
    if there {
        dir.files.remove_tree(&part).map_err(|e| unremoved(id, e))?;
    }
    Ok(())
}

/// Removes a side, under the other name first: half removed it would not be recognised any more.
fn remove_side(dir: &DataDir, id: &AttemptId) -> Result<()> {
    let removed = dir
        .files
        .rename(&dir.side_folder(id), &dir.part(id))
        .and_then(|()| dir.files.sync(dir.root()));
    removed.map_err(|e| unremoved(id, e))?;
    remove_part(dir, id)
}

/// Removes the spool in the data dir.
pub(super) fn remove_spool(dir: &DataDir, id: &AttemptId) -> io::Result<()> {
    let spool = dir.spool(id);
    let mut part = spool.clone().into_os_string();
    part.push(".part");
    for name in [spool, part.into()] {
        if dir.files.kind(&name)? == Kind::File {
            dir.files.remove_file(&name)?;
        }
    }
    Ok(())
}

/// Moves until `member` is what it is to be, and durably so.
fn move_to(dir: &mut DataDir, id: &AttemptId, goal: Goal) -> Result<()> {
    // At most three renames lead to either goal; a longer way means that somebody else moves too.
    for _ in 0..4 {
        let attempt = dir.attempt(id)?.clone();
        let slots = dir.slots(&attempt)?;
        let Ok(next) = slots::next(&slots, goal) else {
            return Err(lost(dir, &attempt));
        };
        let told = |e: io::Error| {
            Error::other(format!(
                "can not exchange {} with the state of attempt {id}",
                dir.member().display()
            ))
            .because(e)
            .hint(format!(
                "nothing is lost: `etcd-launcher status --data-dir {}` says what lies where",
                backup_core::error::quoted(&dir.root().to_string_lossy())
            ))
        };
        let went_aside = match next {
            Some(by) => make(dir, id, by).map_err(told)?,
            None => false,
        };
        sync_parents(dir, id).map_err(told)?;
        if next.is_none() {
            return Ok(());
        }
        if went_aside {
            let mut entry = Entry::new(
                id,
                match goal {
                    Goal::New => Step::Exchanging,
                    Goal::Old => Step::RollingBack,
                },
            );
            entry.note = Some("by two renames: the first is made".into());
            // For people: what was announced still holds, and a full disk may not stop this here of all places.
            let _ = dir.journal.append(&entry);
        }
    }
    Err(lost(dir, &dir.attempt(id)?.clone()))
}

/// Makes one move; true where it was the first of two renames.
fn make(dir: &DataDir, id: &AttemptId, by: Move) -> io::Result<bool> {
    let (member, side, aside) = (dir.member(), dir.side(id), dir.aside(id));
    let files = &dir.files;
    match by {
        Move::Exchange => match files.exchange(&member, &side) {
            Err(e) if e.kind() == io::ErrorKind::Unsupported => {
                files.rename(&member, &aside)?;
                return Ok(true);
            }
            exchanged => exchanged?,
        },
        Move::SideIn => files.rename(&side, &member)?,
        Move::AsideIn => files.rename(&aside, &member)?,
        Move::MemberOut => files.rename(&member, &side)?,
        Move::AsideToSide => files.rename(&aside, &side)?,
    }
    Ok(false)
}

fn sync_parents(dir: &DataDir, id: &AttemptId) -> io::Result<()> {
    dir.files.sync(dir.root())?;
    let folder = dir.side_folder(id);
    if dir.files.kind(&folder)? == Kind::Folder {
        dir.files.sync(&folder)?;
    }
    Ok(())
}

fn lost(dir: &DataDir, attempt: &Attempt) -> Error {
    let at = |path: std::path::PathBuf| {
        let carried = dir
            .carried_by(&path)
            .map_or_else(|_| "what can not be read".to_owned(), |c| c.to_string());
        format!("{} holds {carried}", path.display())
    };
    let id = attempt.id();
    Error::corrupt(format!(
        "the folders of attempt {id} hold neither its old state ({}) nor its new one (cluster {}) where they were left; nothing was moved",
        attempt.plan.old, attempt.plan.cluster_id
    ))
    .because(format!(
        "{}; {}; {}",
        at(dir.member()),
        at(dir.side(id)),
        at(dir.aside(id))
    ))
    .hint("somebody else moved or started something here: put the folders back by hand, then try again")
}
