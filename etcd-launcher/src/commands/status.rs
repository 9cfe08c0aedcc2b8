//! `status`: what a data dir holds and what was done to it. Reads only, also while etcd runs.

use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::output::{self, Format};
use backup_cli::ui::Ui;
use backup_core::Error;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::data_dir::DataDirArgs;
use crate::restore::dir::DataDir;
use crate::restore::entry::{Attempt, Former, Snapshot};
use crate::restore::ids::Id;
use crate::restore::offline;
use crate::restore::plan::{AttemptId, Carried, Purpose};
use crate::restore::slots::Truth;
use crate::restore::step::Step;

/// Say what a data dir holds, what was restored there, and what can be done now
#[derive(Clone, Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    data_dir: DataDirArgs,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    data_dir: String,
    member: Carried,
    attempts: Vec<Row>,
    next: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    attempt: AttemptId,
    #[serde(flatten)]
    purpose: Purpose,
    snapshot: String,
    step: Step,
    /// Where its states are: before, between, after, elsewhere.
    place: Truth,
    begun: Timestamp,
    at: Timestamp,
    old: Carried,
    cluster_id: Id,
    target_revision: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    restored: Option<Snapshot>,
    #[serde(skip_serializing_if = "Option::is_none")]
    former: Option<Former>,
    /// Whether etcd ran on its new state.
    #[serde(skip_serializing_if = "Option::is_none")]
    is_started: Option<bool>,
    /// Where the old state is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// Runs the command.
pub(crate) fn run(ui: &Ui, args: &StatusArgs) -> Result<Exit> {
    let dir = DataDir::look(&args.data_dir.data_dir)?;
    let status = status(&dir)?;
    match args.output {
        Format::Table | Format::Wide => tell(ui, &status)?,
        Format::Json | Format::Yaml => output::print(ui, args.output, &status)?,
        Format::Name => {
            return Err(CommandError::usage(Error::invalid(
                "-o name is not offered here",
            )));
        }
    }
    Ok(Exit::Done)
}

/// Reads it; etcd may run.
///
/// # Errors
/// When folders can not be read.
pub(super) fn status(dir: &DataDir) -> Result<Status> {
    let attempts = dir.attempts().iter().map(|attempt| row(dir, attempt));
    let attempts = attempts.collect::<Result<Vec<_>>>()?;
    Ok(Status {
        data_dir: dir.root().display().to_string(),
        member: dir.carried()?,
        next: next(&attempts).to_owned(),
        attempts,
    })
}

fn row(dir: &DataDir, attempt: &Attempt) -> Result<Row> {
    let found = offline::found(dir, attempt)?;
    let plan = &attempt.plan;
    let side = dir.side(attempt.id());
    let is_kept = attempt.may_be_exchanged
        && plan.old != Carried::Absent
        && dir.carried_by(&side)?.is_same(&plan.old);
    Ok(Row {
        attempt: attempt.id().clone(),
        purpose: plan.purpose.clone(),
        snapshot: plan.asked.snapshot.clone(),
        step: attempt.step,
        place: found.truth,
        begun: attempt.begun,
        at: attempt.at,
        old: plan.old.clone(),
        cluster_id: plan.cluster_id,
        target_revision: plan.target_revision,
        restored: attempt.snapshot.clone(),
        former: attempt.former.clone(),
        is_started: (found.truth == Truth::After).then_some(found.is_started),
        kept: is_kept.then(|| side.display().to_string()),
        note: attempt.note.clone(),
    })
}

fn next(attempts: &[Row]) -> &'static str {
    let Some(last) = attempts.last() else {
        return "nothing was ever restored here";
    };
    match (last.step, last.place) {
        (Step::RolledBack | Step::Abandoned, _) => "nothing is under way",
        (Step::Committed, _) => "done; `rollback` restores the kept state as a snapshot is",
        (_, Truth::Between) => {
            "in the middle of an exchange of two renames: do not start etcd; the same command again finishes it, `rollback` undoes it"
        }
        (Step::RollingBack, _) => "an unfinished rollback: `rollback` finishes it",
        (_, Truth::Before) => {
            "an unfinished restore, the old state is in place: the same command again goes on, `rollback` gives it up, and etcd may be started"
        }
        (_, Truth::After) if matches!(last.purpose, Purpose::Rollback { .. }) => {
            "rolled back, and in place: etcd may be started"
        }
        (_, Truth::After) if last.is_started == Some(true) => {
            "restored, and etcd ran on it; `rollback` restores the kept state as a snapshot is"
        }
        (_, Truth::After) => {
            "restored, and etcd has not run on it: start it, or `rollback` to exchange it back"
        }
        (_, Truth::Elsewhere) => {
            "somebody else put a third state here; kept states are named above"
        }
    }
}

fn tell(ui: &Ui, status: &Status) -> Result<()> {
    let mut text = output::Description::default();
    describe(&mut text, status);
    text.gap();
    text.field(0, "Now", &status.next);
    ui.line(&text.render())
}

/// What it holds and what was done to it, for people.
pub(super) fn describe(text: &mut output::Description, status: &Status) {
    text.field(0, "Data dir", &status.data_dir);
    text.field(0, "Holds", status.member.to_string());
    for row in &status.attempts {
        text.gap();
        text.field(0, "Attempt", row.attempt.to_string());
        let what = match &row.purpose {
            Purpose::Restore => format!("restore from {}", row.snapshot),
            Purpose::Rollback { of } => format!("rollback of {of}"),
        };
        text.field(1, "What", what);
        text.field(1, "Begun", output::time(Some(row.begun)));
        text.field(
            1,
            "Came to",
            format!("{} ({})", row.step.name(), output::time(Some(row.at))),
        );
        text.field(1, "Replaces", row.old.to_string());
        text.field(1, "By", format!("cluster {}", row.cluster_id));
        text.field(1, "Starting at", row.target_revision.to_string());
        if let Some(kept) = &row.kept {
            text.field(1, "Old state in", kept);
        }
        if let Some(note) = &row.note {
            text.field(1, "Note", note);
        }
    }
}
