//! What `create` says when it is done. The counts come from the report; nothing is read again.

use std::time::Duration;

use backup_core::archive::row::Outcome;
use backup_core::backup::BackupReport;
use backup_core::records::copies::Row;

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

/// How much was copied of volumes.
fn copied(context: &Context, report: &BackupReport) {
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
