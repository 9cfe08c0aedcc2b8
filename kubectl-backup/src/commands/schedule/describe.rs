//! `schedule describe`: everything about a schedule, and the backups it made.

use backup_core::catalog::SCHEDULE_NAME;
use clap::Args;
use serde_json::{Value, json};

use super::objects::{self, Known};
use crate::commands::describe::sections;
use crate::context::Context;
use backup_cli::error::{Exit, Result};
use backup_cli::output::{self, Description, Format};

const EXAMPLES: &str = "\
Examples:
  kubectl backup schedule describe nightly
  kubectl backup schedule describe nightly -o json";

/// So many of its backups are shown.
const NEWEST: usize = 10;

/// Annotations that tell something of a schedule.
const HELD: &str = "kubectl-backup/held";

/// Show everything about one schedule, and its newest backups
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DescribeArgs {
    /// Name of the schedule
    name: String,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// Runs the command.
pub(super) async fn run(context: &Context, namespace: &str, args: DescribeArgs) -> Result<Exit> {
    let known = objects::one(context, namespace, &args.name).await?;
    let label = Some((SCHEDULE_NAME, known.name()));
    let mut backups = objects::list(context, namespace, "backups", label).await?;
    backups.sort_by_key(|backup| std::cmp::Reverse(started(backup).to_owned()));
    match args.output {
        Format::Table | Format::Wide => {
            let text = text(context, namespace, &known, &backups);
            context.ui.line(&text.render())?;
        }
        Format::Name => context.ui.line(&known.title())?,
        format => {
            let next = known.next(context.now).map(|next| next.to_string());
            let all = json!({"schedule": known.raw, "next": next, "backups": backups});
            output::print(&context.ui, format, &all)?;
        }
    }
    Ok(Exit::Done)
}

fn started(backup: &Value) -> &str {
    let of = |at: &str| backup.pointer(at).and_then(Value::as_str);
    let started = of("/status/startTimestamp").or(of("/metadata/creationTimestamp"));
    started.unwrap_or_default()
}

fn text(context: &Context, namespace: &str, known: &Known, backups: &[Value]) -> Description {
    let (meta, spec, status) = (&known.it.metadata, &known.it.spec, &known.it.status);
    let template = &spec.template;
    let mut text = Description::default();
    text.field(0, "Name", known.name());
    text.field(0, "Namespace", namespace);
    text.map("Labels", &meta.labels);
    text.map("Annotations", &meta.annotations);
    text.gap();
    let phase = Some(status.phase.as_str()).filter(|phase| !phase.is_empty());
    text.field(0, "Phase", phase.unwrap_or("New"));
    for error in &status.validation_errors {
        text.field(0, "Validation error", error);
    }
    if let Some(held) = meta.annotations.get(HELD) {
        text.field(0, "Waits", held);
    }
    text.field(0, "Paused", known.is_paused().to_string());
    text.gap();
    text.field(0, "Schedule", known.when());
    text.field(0, "Keep", known.keep());
    text.field(0, "Last Backup", output::time(status.last_backup));
    if status.last_skipped.is_some() {
        text.field(0, "Last Skipped", output::time(status.last_skipped));
    }
    text.field(0, "Next", output::time(known.next(context.now)));
    text.gap();
    sections::scope(
        &mut text,
        "Namespaces",
        &template.included_namespaces,
        &template.excluded_namespaces,
        "*",
    );
    sections::scope(
        &mut text,
        "Resources",
        &template.included_resources,
        &template.excluded_resources,
        "*",
    );
    sections::labels(
        &mut text,
        template.label_selector.as_ref(),
        &template.or_label_selectors,
    );
    let location = template.storage_location.as_deref().unwrap_or_default();
    let location = Some(location).filter(|name| !name.is_empty());
    text.field(0, "Storage Location", location.unwrap_or("the default one"));
    let ttl = template.ttl.map(|ttl| ttl.to_string());
    text.field(0, "TTL", ttl.as_deref().unwrap_or("720h0m0s"));
    text.gap();
    text.heading("Backups");
    for backup in backups.iter().take(NEWEST) {
        let of = |at: &str| {
            backup
                .pointer(at)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let phase = Some(of("/status/phase")).filter(|phase| !phase.is_empty());
        let line = format!("{} ({})", phase.unwrap_or("New"), started(backup));
        text.field(1, of("/metadata/name"), line);
    }
    match backups.len() {
        0 => text.item(1, "<none>"),
        all if all > NEWEST => text.item(1, &format!("and {} older ones", all - NEWEST)),
        _ => {}
    }
    text
}
