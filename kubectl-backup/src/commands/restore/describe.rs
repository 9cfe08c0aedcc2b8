//! `restore describe`: everything a location knows of one restore.

use std::collections::BTreeMap;

use backup_core::Error;
use backup_core::api::Restore;
use backup_core::layout::RestoreKeys;
use backup_core::records::{self, Results};
use backup_core::restore::journal::ANNOTATION_POLICY;
use backup_core::restore::rewriting::{self, Recorded};
use clap::Args;
use serde::Serialize;

use crate::commands::describe::sections;
use crate::context::Context;
use crate::flags;
use crate::many::{self, Described, ManyArgs};
use backup_cli::error::{Exit, Result};
use backup_cli::locations;
use backup_cli::output::{self, Description, Document, Format, joined};

const EXAMPLES: &str = "\
Examples:
  kubectl backup restore describe nightly-20261121020000
  kubectl backup restore describe nightly-20261121020000 --details
  kubectl backup restore describe nightly-20261121020000 -o yaml
  kubectl backup restore describe nightly-20261121020000 --workspace production";

/// Show everything about one restore
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DescribeArgs {
    /// Name of the restore
    name: String,
    /// List every object and what became of it
    #[arg(long)]
    details: bool,
    /// How the result is printed; wide is as --details
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    many: ManyArgs,
}

impl DescribeArgs {
    fn details(&self) -> bool {
        self.details || self.output == Format::Wide
    }
}

/// All that is known of a restore.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Known {
    name: String,
    /// Where it is recorded.
    url: String,
    /// Its name among several clusters that are meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    restore: Restore,
    results: Results,
    /// `<apiVersion>/<Kind>` to `ns/name(outcome)`s, where it is asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    resource_list: BTreeMap<String, Vec<String>>,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: DescribeArgs) -> Result<Exit> {
    flags::known_name(&args.name)?;
    if let Some(many) = args.many.resolve(context)? {
        let done = many.each(|member| async {
            let known = look(&member.context, &args).await?;
            Ok(Described {
                value: serde_json::to_value(document(&known)).map_err(|e| {
                    Error::other("the description can not be written as JSON").because(e)
                })?,
                text: text(&known, args.details()).render(),
                title: format!("restore/{}", known.name),
            })
        });
        return many::describe(context, args.output, done.await);
    }
    let known = look(context, &args).await?;
    match args.output {
        Format::Table | Format::Wide => {
            context.ui.line(&text(&known, args.details()).render())?;
        }
        Format::Name => context.ui.line(&format!("restore/{}", known.name))?,
        format => output::print(&context.ui, format, &document(&known))?,
    }
    Ok(Exit::Done)
}

fn document(known: &Known) -> Document<'_, &Known> {
    Document::new("RestoreDescription", known)
}

async fn look(context: &Context, args: &DescribeArgs) -> Result<Known> {
    let name = flags::known_name(&args.name)?;
    let (place, restore) = context.find_restore(&name).await?;
    let store = &place.location.store;
    let keys = RestoreKeys::new(&name);
    Ok(Known {
        name: name.to_string(),
        url: locations::place(&place.location.spec),
        cluster: place.member.clone(),
        restore,
        results: records::results(store, &keys.results()).await?,
        resource_list: if args.details() {
            records::resource_list(store, &keys.resource_list()).await?
        } else {
            BTreeMap::new()
        },
    })
}

fn text(known: &Known, details: bool) -> Description {
    let restore = &known.restore;
    let (spec, status) = (&restore.spec, &restore.status);
    let mut text = Description::default();
    text.field(0, "Name", &restore.metadata.name);
    text.map("Labels", &restore.metadata.labels);
    text.map("Annotations", &restore.metadata.annotations);
    if let Some(cluster) = &known.cluster {
        text.field(0, "Cluster", cluster);
    }
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
    sections::results(&mut text, &known.results);
    text.field(0, "Backup", &spec.backup_name);
    text.field(0, "Storage Location", &known.url);
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
        restore
            .metadata
            .annotations
            .get(ANNOTATION_POLICY)
            .or(spec.existing_resource_policy.as_ref())
            .map_or("none", String::as_str),
    );
    let ports = match spec.preserve_node_ports {
        Some(true) => "true",
        Some(false) => "false",
        None => "auto",
    };
    text.field(0, "Preserve Service NodePorts", ports);
    sections::hooks(&mut text, &status.rest);
    rewrites(&mut text, &rewriting::recorded(spec));
    if details {
        sections::objects(&mut text, "Resource List", &known.resource_list);
    }
    text
}

/// What was changed on the way, where anything was asked for.
fn rewrites(text: &mut Description, recorded: &Recorded) {
    let pair = |(old, new): (&String, &String)| format!("{old}={new}");
    let classes: Vec<_> = recorded.storage_classes.iter().map(pair).collect();
    let images = recorded.images.iter().map(|(old, new)| (old, new));
    let images: Vec<_> = images.map(pair).collect();
    for (title, mappings) in [
        ("Storage class mappings", classes),
        ("Image mappings", images),
    ] {
        if !mappings.is_empty() {
            text.field(0, title, mappings.join(", "));
        }
    }
    if let Some(map) = &recorded.modifiers {
        let of = match map.as_str() {
            "" => "of a file".to_owned(),
            map => format!("ConfigMap {map}"),
        };
        text.field(0, "Resource modifiers", of);
    }
    if let Some([included, excluded]) = &recorded.status {
        sections::scope(text, "Status restored", included, excluded, "*");
    }
}
