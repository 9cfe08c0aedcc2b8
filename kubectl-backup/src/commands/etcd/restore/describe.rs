//! `etcd restore describe`: how far a restore is, and what each member says.

use backup_core::api::hosted::ABORT;
use backup_core::api::{Attempt, EtcdRestore};
use clap::Args;

use crate::commands::etcd::objects::Object;
use crate::commands::etcd::scope::ScopeArgs;
use crate::context::Context;
use backup_cli::error::{Exit, Result};
use backup_cli::output::{self, Description, Format};

const EXAMPLES: &str = "\
Examples:
  kubectl backup etcd restore describe cluster-restore
  kubectl backup etcd restore describe cluster-restore --cluster zvc78xnnz7";

/// Show everything about one restore of etcd
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DescribeArgs {
    /// Name of the EtcdRestore
    name: String,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, scope: &ScopeArgs, args: DescribeArgs) -> Result<Exit> {
    let restore = scope.one::<EtcdRestore>(context, &args.name).await?;
    match args.output {
        Format::Table | Format::Wide => context.ui.line(&text(context, &restore).render())?,
        Format::Name => context.ui.line(&restore.title())?,
        format => output::print(&context.ui, format, &restore.raw)?,
    }
    Ok(Exit::Done)
}

fn text(context: &Context, restore: &Object<EtcdRestore>) -> Description {
    let (spec, status) = (
        &restore.it.spec,
        restore.it.status.clone().unwrap_or_default(),
    );
    let mut text = Description::default();
    text.field(0, "Name", restore.name());
    text.field(0, "Namespace", restore.namespace());
    text.field(0, "Cluster", &spec.cluster.name);
    text.field(0, "Snapshot", &spec.backup_name);
    text.field(
        0,
        "Destination",
        spec.destination.as_deref().unwrap_or_default(),
    );
    let created = restore.it.metadata.creation_timestamp.as_ref();
    text.field(0, "Created", output::time(created.map(|time| time.0)));
    let annotations = restore.it.metadata.annotations.clone().unwrap_or_default();
    if annotations.contains_key(ABORT) {
        text.field(0, "Asked for", "abort");
    }
    text.gap();
    text.field(
        0,
        "Phase",
        status
            .phase
            .as_ref()
            .map_or("not begun", |phase| phase.as_str()),
    );
    if let Some(message) = &status.message {
        text.field(0, "Message", message);
    }
    if let Some(time) = &status.restore_time {
        text.field(0, "Restored", output::time(Some(time.0)));
    }
    for condition in &status.conditions {
        text.field(
            0,
            &format!("Condition {}", condition.type_),
            format!(
                "{} ({}) {}",
                condition.status, condition.reason, condition.message
            ),
        );
    }
    if let Some(attempt) = &status.attempt {
        decisions(&mut text, attempt, context);
    }
    if !status.reports.is_empty() {
        text.gap();
        text.heading("Members");
        for (member, report) in &status.reports {
            let message = report.message.as_deref().unwrap_or_default();
            text.field(1, member, format!("{} {message}", report.state).trim());
        }
    }
    text
}

fn decisions(text: &mut Description, attempt: &Attempt, context: &Context) {
    text.gap();
    text.heading("Attempt");
    text.field(1, "Id", &attempt.id);
    text.field(
        1,
        "Step",
        attempt.step.as_ref().map_or("", |step| step.as_str()),
    );
    if let Some(at) = &attempt.decided_at {
        text.field(1, "Since", output::age(at.0, context.now));
    }
    if let Some(message) = &attempt.message {
        text.field(1, "Message", message);
    }
    if let Some(snapshot) = &attempt.snapshot {
        text.field(
            1,
            "Revision",
            snapshot
                .revision
                .map_or_else(String::new, |revision| revision.to_string()),
        );
        text.field(1, "SHA-256", snapshot.sha256.as_deref().unwrap_or_default());
    }
    if let Some(target) = attempt.target_revision {
        text.field(1, "Goes on from revision", target.to_string());
    }
    let members: Vec<_> = attempt
        .members
        .iter()
        .map(|member| member.name.clone())
        .collect();
    text.field(1, "Members", output::joined(&members, "<none>"));
}
