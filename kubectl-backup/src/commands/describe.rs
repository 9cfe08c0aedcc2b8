//! `describe`: everything a location knows of one backup.

pub(crate) mod sections;

use std::collections::BTreeMap;

use backup_core::archive::index::Index;
use backup_core::archive::row::ResourceRow;
use backup_core::catalog::{self, Entry};
use backup_core::layout::BackupKeys;
use backup_core::location::Store;
use backup_core::location::claim::STALE;
use backup_core::name::Name;
use backup_core::records;
use clap::Args;

use crate::context::Context;
use crate::flags;
use backup_cli::error::{Exit, Result};
use backup_cli::output::{self, Description};

const EXAMPLES: &str = "\
Examples:
  kubectl backup describe nightly
  kubectl backup describe nightly --details
  kubectl backup describe nightly --location s3://backups/prod";

/// Show everything about one backup
///
/// Gaps come first: what is failed or missing stands above what was saved.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DescribeArgs {
    /// Name of the backup
    name: String,
    /// List every object, and what was left out by which rule
    #[arg(long)]
    details: bool,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: DescribeArgs) -> Result<Exit> {
    let name = flags::known_name(&args.name)?;
    let (place, entry) = match context.find_backup(&name).await {
        Err(missing) if missing.is_not_found() => {
            return unfinished(context, &name).await?.ok_or(missing);
        }
        found => found?,
    };
    let store = &place.location.store;
    let keys = BackupKeys::new(&name);
    let mut text = Description::default();
    let meta = &entry.backup.metadata;
    text.field(0, "Name", &meta.name);
    text.map("Labels", &meta.labels);
    text.map("Annotations", &meta.annotations);
    if let Some(cluster) = &place.cluster {
        text.field(0, "Cluster", context.label(cluster));
    }
    text.gap();
    sections::phase(
        &mut text,
        &entry.backup,
        &records::results(store, &keys.results()).await?,
    );
    sections::asked(&mut text, &entry.backup, &place.location);
    sections::times(&mut text, &entry.backup, context.now);
    let rows = outcomes(store, &entry).await?;
    let list = if args.details || rows.is_empty() {
        records::resource_list(store, &keys.resource_list()).await?
    } else {
        BTreeMap::new()
    };
    sections::resources(&mut text, &rows, args.details);
    if rows.is_empty() {
        sections::kinds(&mut text, &list);
    }
    sections::volumes(
        &mut text,
        &records::volumes(store, &keys.volume_info()).await?,
    );
    for claim in records::claims(store, &name).await? {
        text.gap();
        text.item(0, &claim_line(&claim, context));
    }
    if args.details {
        sections::objects(&mut text, "Resource List", &list);
    }
    context.ui.line(&text.render())?;
    Ok(Exit::Done)
}

/// What became of each resource type; nothing is known of another tool's backups.
async fn outcomes(store: &Store, entry: &Entry) -> Result<Vec<ResourceRow>> {
    if !catalog::is_ours(store, entry).await? {
        return Ok(Vec::new());
    }
    let index = Index::open(store.source(BackupKeys::new(&entry.name).index())).await?;
    Ok(index.resources().to_vec())
}

/// A name without a marker that a run holds.
async fn unfinished(context: &Context, name: &Name) -> Result<Option<Exit>> {
    let mut found = None;
    for place in context.every_place()? {
        for claim in records::claims(&place.location.store, name).await? {
            context.ui.line(&format!(
                "backup/{name} is not there; {}",
                claim_line(&claim, context)
            ))?;
            found = Some(Exit::Failed);
        }
    }
    Ok(found)
}

fn claim_line(claim: &records::ClaimSeen, context: &Context) -> String {
    let age = output::age(claim.refreshed, context.now);
    let host = if claim.host.is_empty() {
        "unknown host"
    } else {
        &claim.host
    };
    let purpose = if claim.purpose.is_empty() {
        "run"
    } else {
        &claim.purpose
    };
    if context.now.duration_since(claim.refreshed) > STALE {
        format!(
            "a {purpose} on {host} died in it, last seen {age} ago: `{} prune` clears it",
            context.program
        )
    } else {
        format!("a {purpose} on {host} is at work on it, last seen {age} ago")
    }
}
