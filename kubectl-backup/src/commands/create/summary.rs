//! What `create` says when it is done. The counts come from the report; nothing is read again.

use std::time::Duration;

use backup_core::archive::row::Outcome;
use backup_core::backup::BackupReport;
use backup_core::records::copies::Row;
use jiff::Timestamp;

use crate::context::Context;
use backup_cli::error::Result;
use backup_cli::output::{self, Format, OutputArgs, counted};

/// Prints the result.
pub(super) fn print(context: &Context, output: &OutputArgs, report: &BackupReport) -> Result<()> {
    let ui = &context.ui;
    let name = &report.backup.metadata.name;
    match output.output {
        Format::Table | Format::Wide => ui.line(&format!("backup/{name} created")),
        Format::Name => ui.line(&format!("backup/{name}")),
        format => output::print(ui, format, &report.backup),
    }
}

/// Tells what is missing and what to do next.
pub(super) fn tell(context: &Context, report: &BackupReport, took: Duration) {
    let ui = &context.ui;
    let name = &report.backup.metadata.name;
    let of = |outcome| {
        report
            .resources
            .iter()
            .filter(move |row| row.outcome == outcome)
    };
    let objects: u64 = of(Outcome::Saved).map(|row| row.count).sum();
    let kinds = of(Outcome::Saved).filter(|row| row.count > 0).count() as u64;
    ui.note(&format!(
        "saved {} of {} in {} ({}), {}",
        counted(objects, "object"),
        counted(kinds, "kind"),
        output::took(took),
        output::size(report.archive_bytes),
        report.backup.status.phase
    ));
    // The failed rows are among them.
    for error in &report.errors {
        ui.say(&format!("not saved: {error}"));
    }
    for warning in &report.warnings {
        ui.warn(warning);
    }
    copied(context, report);
    if !report.volumes_not_saved.is_empty() {
        ui.say(&format!(
            "data not saved: {}: {}",
            counted(
                report.volumes_not_saved.len() as u64,
                "PersistentVolumeClaim"
            ),
            report.volumes_not_saved.join(", ")
        ));
    }
    if !report.volumes_left_out.is_empty() {
        ui.say(&format!(
            "data left out as asked: {}: {}",
            counted(
                report.volumes_left_out.len() as u64,
                "PersistentVolumeClaim"
            ),
            report.volumes_left_out.join(", ")
        ));
    }
    let (program, flag) = (&context.program, context.flags_again());
    ui.note(&format!(
        "look at it:    {program} describe {name} --details{flag}"
    ));
    ui.note(&format!(
        "bring it back: {program} restore create --from-backup {name}{flag}"
    ));
}

/// So many volumes are told of one by one; `describe` has them all.
const TOLD: usize = 20;

/// What became of a volume that was saved: how, how much, and how long it took.
fn saved(row: &Row) -> Option<String> {
    let took = |began: Timestamp, ended: Timestamp| {
        output::took(ended.duration_since(began).try_into().unwrap_or_default())
    };
    let what = if let Some(saved) = row.saved() {
        let copy = &saved.copy;
        format!(
            "copied {}, {} ({} new) in {}",
            counted(copy.files, "file"),
            output::size(copy.bytes),
            output::size(copy.added),
            took(copy.began, copy.ended)
        )
    } else {
        let cut = row.snapshot()?;
        format!("a snapshot, ready in {}", took(cut.began, cut.ended))
    };
    Some(format!("  {}: {what}", row.name()))
}

/// How each volume was saved; how much was copied of all, and of how many there are snapshots.
fn copied(context: &Context, report: &BackupReport) {
    let told: Vec<_> = report.volumes.iter().filter_map(saved).collect();
    for line in told.iter().take(TOLD) {
        context.ui.note(line);
    }
    if told.len() > TOLD {
        let more = told.len() - TOLD;
        context.ui.note(&format!("  and {more} more"));
    }
    let snapshots = report.volumes.iter().filter_map(Row::snapshot).count();
    if snapshots > 0 {
        context.ui.note(&format!(
            "snapshots of {} are in their storage, for restores in this cluster alone; a restore by Velero makes these claims anew, EMPTY",
            counted(snapshots as u64, "PersistentVolumeClaim")
        ));
    }
    let all = report.volumes.iter().filter_map(Row::saved);
    let (mut claims, mut files, mut bytes, mut added) = (0, 0, 0, 0);
    for saved in all {
        claims += 1;
        files += saved.copy.files;
        bytes += saved.copy.bytes;
        added += saved.copy.added;
    }
    if claims == 0 {
        return;
    }
    let ui = &context.ui;
    ui.note(&format!(
        "copied the files of {}: {}, {} ({} new in the location)",
        counted(claims, "PersistentVolumeClaim"),
        counted(files, "file"),
        output::size(bytes),
        output::size(added)
    ));
    ui.note("a restore by Velero makes these claims anew, EMPTY, and calls that Completed");
}
