//! `describe`: everything a location knows of one backup.

mod keys;
pub(crate) mod sections;

use std::collections::BTreeMap;

use backup_core::archive::index::Index;
use backup_core::archive::row::ResourceRow;
use backup_core::catalog::{self, Entry};
use backup_core::layout::BackupKeys;
use backup_core::location::Store;
use backup_core::location::claim::STALE;
use backup_core::name::Name;
use backup_core::records::{self, ClaimSeen, Results, Volume};
use backup_core::{Error, Kind};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::commands::get::marker;
use crate::context::{Context, Place};
use crate::encryption::for_whom;
use crate::flags;
use crate::many::{self, Described, ManyArgs};
use backup_cli::error::{Exit, Result};
use backup_cli::locations;
use backup_cli::output::{self, Description, Document, Format};

const EXAMPLES: &str = "\
Examples:
  kubectl backup describe nightly
  kubectl backup describe nightly --details
  kubectl backup describe nightly -o json
  kubectl backup describe nightly --location s3://backups/prod
  kubectl backup describe nightly --workspace production";

/// Show everything about one backup
///
/// Gaps come first: what is failed or missing stands above what was saved.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DescribeArgs {
    /// Name of the backup
    name: String,
    /// List every object, what was left out by which rule, and where copies of volumes are
    #[arg(long)]
    details: bool,
    /// How the result is printed; wide is as --details
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    many: ManyArgs,
}

/// All that is known of a backup.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Known {
    name: String,
    /// The location's name.
    storage_location: String,
    /// Where that is.
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    /// Whether it is encrypted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    encrypted: bool,
    /// Its Secrets, where they alone are encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    secrets: Option<Secrets>,
    /// The marker, with every field another tool wrote; of an encrypted one that is not opened what stands in the clear.
    backup: Value,
    results: Results,
    /// What became of each resource type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resources: Vec<ResourceRow>,
    volumes: Vec<Volume>,
    /// How the key of each repository is kept that copies are in, where details are asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    volume_keys: BTreeMap<String, keys::Key>,
    /// What would tell more of volumes and can not be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    volumes_unread: Vec<String>,
    /// Runs that work, or worked, on it.
    claims: Vec<ClaimSeen>,
    /// `<apiVersion>/<Kind>` to `ns/name`s, where it is asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    resource_list: BTreeMap<String, Vec<String>>,
}

/// Secrets that stand apart, encrypted.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Secrets {
    count: u64,
    /// Their recipients, in short.
    encrypted_for: String,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: DescribeArgs) -> Result<Exit> {
    let name = flags::known_name(&args.name)?;
    if let Some(many) = args.many.resolve(context)? {
        let done = many.each(|member| async {
            let shown = look(&member.context, &args).await?;
            Ok(Described {
                value: serde_json::to_value(document(&shown)).map_err(|e| {
                    Error::other("the description can not be written as JSON").because(e)
                })?,
                text: shown.text.render(),
                title: format!("backup/{}", shown.known.name),
            })
        });
        return many::describe(context, args.output, done.await);
    }
    match look(context, &args).await {
        Ok(shown) if matches!(args.output, Format::Table | Format::Wide) => {
            context.ui.line(&shown.text.render())?;
        }
        Ok(_) if args.output == Format::Name => context.ui.line(&format!("backup/{name}"))?,
        Ok(shown) => output::print(&context.ui, args.output, &document(&shown))?,
        Err(missing) if missing.is_not_found() => {
            return unfinished(context, &name).await?.ok_or(missing);
        }
        Err(e) => return Err(e),
    }
    Ok(Exit::Done)
}

/// A backup, for programs and for people.
struct Shown {
    known: Known,
    text: Description,
}

fn document(shown: &Shown) -> Document<'_, &Known> {
    Document::new("BackupDescription", &shown.known)
}

async fn look(context: &Context, args: &DescribeArgs) -> Result<Shown> {
    let name = flags::known_name(&args.name)?;
    let (place, entry) = context.look_up_backup(&name).await?;
    let details = args.details || args.output == Format::Wide;
    let opened = context.unlocked(place.clone(), entry.clone()).await;
    let (place, entry, known) = match opened {
        Ok((place, entry)) => {
            let known = gather(context, &place, &entry, details).await?;
            (place, entry, known)
        }
        // What stands in the clear can be shown to anybody.
        Err(e) if e.error().kind() == Kind::Unauthorized => {
            context.ui.note(&e.error().sentence());
            let place = Place {
                location: place.location.opened(None),
                ..place
            };
            let known = in_the_clear(context, &place, &entry).await?;
            (place, entry, known)
        }
        Err(e) => return Err(e),
    };
    let text = text(context, &place, &entry, &known, details);
    Ok(Shown { known, text })
}

async fn gather(context: &Context, place: &Place, entry: &Entry, details: bool) -> Result<Known> {
    let store = &place.location.store;
    let keys = BackupKeys::new(&entry.name);
    let resources = outcomes(store, entry).await?;
    let resource_list = if details || resources.is_empty() {
        records::resource_list(store, &keys.resource_list()).await?
    } else {
        BTreeMap::new()
    };
    let volumes = records::volumes(store, &entry.name).await?;
    let volume_keys = match details {
        true => keys::of(store, &volumes.list).await,
        false => BTreeMap::new(),
    };
    Ok(Known {
        volume_keys,
        results: records::results(store, &keys.results()).await?,
        resources,
        volumes: volumes.list,
        volumes_unread: volumes.unread,
        resource_list,
        ..in_the_clear(context, place, entry).await?
    })
}

/// What needs no key.
async fn in_the_clear(context: &Context, place: &Place, entry: &Entry) -> Result<Known> {
    let secrets = match (entry.apart()?, entry.key_place(&place.location.store)?) {
        (Some(apart), Some(key)) => Some(Secrets {
            count: apart.count,
            encrypted_for: for_whom(&key).await?,
        }),
        _ => None,
    };
    Ok(Known {
        encrypted: entry.encrypted,
        secrets,
        name: entry.name.to_string(),
        storage_location: place.location.name.clone(),
        url: locations::place(&place.location.spec),
        cluster: match &place.member {
            Some(member) => Some(member.clone()),
            None => place.cluster.as_ref().map(|uid| context.label(uid)),
        },
        backup: marker(entry)?,
        results: Results::default(),
        resources: Vec::new(),
        volumes: Vec::new(),
        volume_keys: BTreeMap::new(),
        volumes_unread: Vec::new(),
        claims: records::claims(&place.location.store, &entry.name).await?,
        resource_list: BTreeMap::new(),
    })
}

fn text(
    context: &Context,
    place: &Place,
    entry: &Entry,
    known: &Known,
    details: bool,
) -> Description {
    let mut text = Description::default();
    let meta = &entry.backup.metadata;
    text.field(0, "Name", &meta.name);
    text.map("Labels", &meta.labels);
    text.map("Annotations", &meta.annotations);
    if let Some(cluster) = &known.cluster {
        text.field(0, "Cluster", cluster);
    }
    if known.encrypted {
        text.field(0, "Encrypted", "yes");
    }
    if let Some(secrets) = &known.secrets {
        let who = secrets.encrypted_for.as_str();
        let count = secrets.count;
        text.field(0, "Secrets", format!("{count}, encrypted for {who}"));
    }
    text.gap();
    sections::phase(&mut text, &entry.backup, &known.results);
    sections::asked(&mut text, &entry.backup, &place.location);
    sections::times(&mut text, &entry.backup, context.now);
    sections::resources(&mut text, &known.resources, details);
    if known.resources.is_empty() {
        sections::kinds(&mut text, &known.resource_list);
    }
    let keys = details.then_some(&known.volume_keys);
    sections::volumes(&mut text, &known.volumes, &known.volumes_unread, keys);
    sections::hooks(&mut text, &entry.backup.status.rest);
    for claim in &known.claims {
        text.gap();
        text.item(0, &claim_line(claim, context));
    }
    if details {
        sections::objects(&mut text, "Resource List", &known.resource_list);
    }
    text
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
    for place in context.every_place().await? {
        let store = &place.location.store;
        let mut claims = records::claims(store, name).await?;
        claims.extend(records::claims(&store.vault(None), name).await?);
        for claim in claims {
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
