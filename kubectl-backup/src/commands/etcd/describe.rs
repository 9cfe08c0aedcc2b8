//! `etcd describe`: everything that is known of one snapshot.

use backup_core::Kind;
use backup_core::etcd::catalog::Entry;
use backup_core::etcd::{Manifest, sealed};
use backup_core::location::Location;
use clap::Args;

use super::find::{self, Snapshot, Source};
use super::get;
use super::scope::ScopeArgs;
use crate::context::Context;
use backup_cli::error::{Exit, Result};
use backup_cli::locations;
use backup_cli::output::{self, Description, Document, Format, joined};

const EXAMPLES: &str = "\
Examples:
  kubectl backup etcd describe daily-backup-2026-11-20t01-00-00
  kubectl backup etcd describe daily-backup-2026-11-20t01-00-00 --location s3://etcd-snapshots";

/// Show everything about one snapshot of etcd
///
/// What its manifest in the bucket says comes along where the bucket can be reached from here. Of an encrypted one that no identity opens it is what stands in
/// the clear.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DescribeArgs {
    /// Name of the snapshot
    name: String,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, scope: &ScopeArgs, args: DescribeArgs) -> Result<Exit> {
    let found = find::one(context, scope, &args.name).await?;
    let entry = if found.is_good() && args.output != Format::Name {
        match look(context, &found).await {
            Ok(entry) => Some(entry),
            Err(e) => {
                context
                    .ui
                    .warn(&format!("what the bucket says is not shown: {}", e.error()));
                None
            }
        }
    } else {
        None
    };
    match args.output {
        Format::Table | Format::Wide => {
            context.ui.line(&text(&found, entry.as_ref()).render())?;
        }
        Format::Name => context.ui.line(&format!("snapshot/{}", found.name))?,
        format => {
            let said = entry.as_ref().map(|looked| &looked.entry.manifest);
            let shown = get::value(&found, said)?;
            output::print(
                &context.ui,
                format,
                &Document::new("SnapshotDescription", shown),
            )?;
        }
    }
    Ok(Exit::Done)
}

/// What the bucket says: all of it where it is not encrypted or an identity fits, else what is in the clear.
async fn look(context: &Context, found: &Snapshot) -> Result<Looked> {
    let (location, entry) = found.entry(context).await?;
    if !entry.is_locked() {
        return Ok(Looked {
            location,
            entry,
            whom: None,
        });
    }
    let whom = sealed::recipients(&location.store, &entry).await?;
    let identities = context.identities()?;
    let entry = match entry.unlocked(&location.store, &identities).await {
        Ok(entry) => entry,
        Err(e) if e.kind() == Kind::Unauthorized => {
            context.ui.warn(&format!(
                "only what is in the clear is shown: {}",
                e.sentence()
            ));
            entry
        }
        Err(e) => return Err(e.into()),
    };
    Ok(Looked {
        location,
        entry,
        whom: Some(whom),
    })
}

/// What the bucket says of a snapshot.
struct Looked {
    location: Location,
    entry: Entry,
    /// For whom it is encrypted.
    whom: Option<String>,
}

fn text(found: &Snapshot, looked: Option<&Looked>) -> Description {
    let mut text = Description::default();
    text.field(0, "Name", &found.name);
    text.field(0, "Cluster", &found.cluster);
    if let Some(namespace) = found.namespace() {
        text.field(0, "Namespace", namespace);
    }
    text.field(0, "Config", found.config().unwrap_or_default());
    text.field(0, "Destination", found.destination());
    text.field(0, "Status", found.status());
    if !found.message().is_empty() {
        text.field(0, "Message", found.message());
    }
    row(&mut text, found);
    if let Some(looked) = looked {
        let (place, entry) = (locations::place(&looked.location.spec), &looked.entry);
        text.gap();
        text.field(0, "Data", format!("{place}/{}", entry.data()));
        if let Some(whom) = &looked.whom {
            if let Some(key) = &entry.manifest.data.key {
                text.field(0, "Key", format!("{place}/{}", entry.keys.file(key)));
            }
            text.field(0, "Encrypted for", whom);
        }
        manifest(&mut text, &entry.manifest);
    }
    text
}

/// What the object says.
fn row(text: &mut Description, found: &Snapshot) {
    let Source::Row { row, .. } = &found.source else {
        return;
    };
    let time = |text: &mut Description, key: &str, time: &Option<_>| {
        let time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time> = time;
        if let Some(time) = time {
            text.field(0, key, output::time(Some(time.0)));
        }
    };
    time(text, "Scheduled", &row.scheduled_time);
    time(text, "Started", &row.backup_start_time);
    time(text, "Finished", &row.backup_finished_time);
    time(text, "Removal started", &row.delete_start_time);
    if !row.job_name.is_empty() {
        text.field(0, "Taken by", &row.job_name);
    }
    if let Some(bytes) = found.bytes() {
        text.field(0, "Size", output::size(bytes));
    }
    if let Some(revision) = row.revision {
        text.field(0, "Revision", revision.to_string());
    }
    if let Some(hash) = &row.hash {
        text.field(0, "SHA-256", hash);
    }
}

/// What the bucket says.
fn manifest(text: &mut Description, manifest: &Manifest) {
    let facts = &manifest.facts;
    text.field(0, "Created", output::time(Some(manifest.created_at)));
    if let Some(expires) = manifest.expires_at {
        text.field(0, "Expires", output::time(Some(expires)));
    }
    text.field(0, "Stored", output::size(manifest.data.bytes));
    text.field(0, "Database", output::size(manifest.snapshot.bytes));
    if manifest.sealed.is_some() {
        text.field(0, "Revision", facts.revision.to_string());
        text.field(0, "etcd", &manifest.etcd.version);
        text.field(0, "Tool", &manifest.tool);
        return;
    }
    text.field(0, "SHA-256", &manifest.snapshot.sha256);
    text.field(0, "Tool", &manifest.tool);
    text.gap();
    text.heading("Database");
    text.field(1, "Revision", facts.revision.to_string());
    text.field(1, "Compacted", facts.compact_revision.to_string());
    text.field(
        1,
        "Storage version",
        facts.storage_version.as_deref().unwrap_or("3.5 or older"),
    );
    text.field(1, "In use", output::size(facts.bytes_in_use));
    let live = facts
        .keys
        .live
        .map_or_else(|| "unknown".to_owned(), output::count);
    let about = if facts.keys.exact { "" } else { ", about" };
    text.field(1, "Live keys", format!("{live}{about}"));
    text.field(1, "Revisions kept", output::count(facts.keys.revisions));
    text.field(
        1,
        "Encrypted with",
        joined(&facts.encryption_keys, "<none>"),
    );
    text.field(
        1,
        "Authentication",
        if facts.auth_enabled { "on" } else { "off" },
    );
    let alarms: Vec<_> = facts
        .alarms
        .iter()
        .map(|alarm| alarm.kind.clone())
        .collect();
    text.field(1, "Alarms", joined(&alarms, "<none>"));
    if let Some(target) = manifest.target_revision {
        text.field(1, "A restore goes beyond", target.to_string());
    }
    text.gap();
    text.heading("Taken from");
    let etcd = &manifest.etcd;
    text.field(1, "Member", &etcd.member_name);
    text.field(1, "Endpoint", &etcd.endpoint);
    text.field(1, "Role", if etcd.leader { "leader" } else { "follower" });
    text.field(1, "etcd", &etcd.version);
    text.field(1, "Cluster id", &etcd.cluster_id);
    let members: Vec<_> = facts
        .members
        .iter()
        .map(|member| member.name.clone())
        .collect();
    text.field(1, "Members", joined(&members, "<unknown>"));
    if let Some(version) = &manifest.kubernetes_version {
        text.field(1, "Kubernetes", version);
    }
    let resources = facts.keys.resources.iter().flatten();
    let mut resources: Vec<_> = resources.collect();
    if !resources.is_empty() {
        resources.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        text.gap();
        text.heading("Objects");
        for (resource, number) in resources {
            text.field(1, resource, output::count(*number));
        }
    }
}
