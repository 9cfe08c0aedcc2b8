//! `restore describe`: everything a location knows of one restore.

use backup_core::layout::RestoreKeys;
use backup_core::records;
use clap::Args;

use crate::commands::describe::sections;
use crate::context::Context;
use crate::flags;
use backup_cli::error::{Exit, Result};
use backup_cli::locations;
use backup_cli::output::{self, Description, joined};

const EXAMPLES: &str = "\
Examples:
  kubectl backup restore describe nightly-20261121020000
  kubectl backup restore describe nightly-20261121020000 --details";

/// Show everything about one restore
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DescribeArgs {
    /// Name of the restore
    name: String,
    /// List every object and what became of it
    #[arg(long)]
    details: bool,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: DescribeArgs) -> Result<Exit> {
    let name = flags::known_name(&args.name)?;
    let (place, restore) = context.find_restore(&name).await?;
    let store = &place.location.store;
    let keys = RestoreKeys::new(&name);
    let (spec, status) = (&restore.spec, &restore.status);
    let mut text = Description::default();
    text.field(0, "Name", &restore.metadata.name);
    text.map("Labels", &restore.metadata.labels);
    text.map("Annotations", &restore.metadata.annotations);
    text.gap();
    text.field(0, "Phase", status.phase.to_string());
    if let Some(reason) = &status.failure_reason {
        text.field(0, "Failure reason", reason);
    }
    if let Some(progress) = status.progress {
        text.field(
            0,
            "Total items to be restored",
            progress.total_items.to_string(),
        );
        text.field(
            0,
            "Items restored",
            progress.items_restored.unwrap_or(0).to_string(),
        );
    }
    text.gap();
    text.field(0, "Started", output::time(status.start_timestamp));
    text.field(0, "Completed", output::time(status.completion_timestamp));
    text.gap();
    sections::results(&mut text, &records::results(store, &keys.results()).await?);
    text.field(0, "Backup", &spec.backup_name);
    text.field(
        0,
        "Storage Location",
        locations::place(&place.location.spec),
    );
    text.gap();
    sections::scope(
        &mut text,
        "Namespaces",
        &spec.included_namespaces,
        &spec.excluded_namespaces,
        "all namespaces found in the backup",
    );
    sections::scope(
        &mut text,
        "Resources",
        &spec.included_resources,
        &spec.excluded_resources,
        "*",
    );
    let mappings: Vec<_> = spec
        .namespace_mapping
        .iter()
        .map(|(old, new)| format!("{old}={new}"))
        .collect();
    text.field(
        0,
        "Cluster-scoped",
        sections::included_or_not(spec.include_cluster_resources),
    );
    text.field(0, "Namespace mappings", joined(&mappings, "<none>"));
    sections::labels(
        &mut text,
        spec.label_selector.as_ref(),
        &spec.or_label_selectors,
    );
    text.field(
        0,
        "Existing Resource Policy",
        spec.existing_resource_policy.as_deref().unwrap_or("none"),
    );
    let ports = match spec.preserve_node_ports {
        Some(true) => "true",
        Some(false) => "false",
        None => "auto",
    };
    text.field(0, "Preserve Service NodePorts", ports);
    if args.details {
        let list = records::resource_list(store, &keys.resource_list()).await?;
        sections::objects(&mut text, "Resource List", &list);
    }
    context.ui.line(&text.render())?;
    Ok(Exit::Done)
}
