//! `etcd get`: a row per snapshot.

use std::borrow::Cow;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::find::{self, Snapshot, Source};
use super::scope::ScopeArgs;
use crate::context::Context;
use backup_cli::error::{Exit, Result};
use backup_cli::output::{self, Format, ListArgs, Listing, OutputArgs, Table};
use backup_core::Error;
use backup_core::etcd::Manifest;

const EXAMPLES: &str = "\
Examples:
  kubectl backup etcd get
  kubectl backup etcd get --cluster zvc78xnnz7 -o wide
  kubectl backup etcd get --sort-by .createdAt --location s3://etcd-snapshots";

/// List snapshots of etcd, or show some
///
/// Shows what the EtcdBackupConfigs say. With --location (or its variable) it reads the bucket alone and needs no cluster.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GetArgs {
    /// Names of snapshots [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    list: ListArgs,
}

/// A snapshot as `-o json` shows it, from wherever it is known.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    name: &'a str,
    cluster: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<&'a str>,
    destination: &'a str,
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<Cow<'a, Manifest>>,
}

impl<'a> Shown<'a> {
    fn of(one: &'a Snapshot) -> Self {
        Self {
            name: &one.name,
            cluster: &one.cluster,
            namespace: one.namespace(),
            config: one.config(),
            destination: one.destination(),
            status: one.status(),
            created_at: one.created(),
            bytes: one.bytes(),
            revision: one.revision(),
            hash: one.hash(),
            message: one.message(),
            manifest: match &one.source {
                Source::Bucket(_, entry) => Some(told(&entry.manifest)),
                Source::Row { .. } => None,
            },
        }
    }
}

/// A manifest without its sealed part, which tells nobody anything.
fn told(manifest: &Manifest) -> Cow<'_, Manifest> {
    match manifest.sealed {
        None => Cow::Borrowed(manifest),
        Some(_) => Cow::Owned(Manifest {
            sealed: None,
            ..manifest.clone()
        }),
    }
}

/// Runs the command.
pub(crate) async fn run(context: &Context, scope: &ScopeArgs, args: GetArgs) -> Result<Exit> {
    let all = find::all(context, scope).await?;
    let mut found = Vec::new();
    for name in &args.names {
        found.push(find::choose(name, &all, scope.cluster.as_deref())?);
    }
    if args.names.is_empty() {
        found = all.iter().collect();
    }
    let listing = Listing {
        items: found,
        single: args.names.len() == 1,
        title: |one| format!("snapshot/{}", one.name),
        value: |one| value(one, None),
        empty: format!(
            "No snapshots found. Take one: {} etcd snapshot",
            context.program
        ),
    };
    listing.print(&context.ui, &args.list, |found| {
        table(context, &args.list.output, found)
    })?;
    Ok(Exit::Done)
}

/// A snapshot for programs; the manifest that was read for it, where its source does not hold one.
pub(super) fn value(one: &Snapshot, manifest: Option<&Manifest>) -> Result<Value> {
    let mut shown = Shown::of(one);
    shown.manifest = manifest.map(told).or(shown.manifest);
    // An opened manifest tells what the clear one does not.
    shown.hash = shown
        .hash
        .or(manifest.map(|opened| opened.snapshot.sha256.as_str()));
    shown.hash = shown.hash.filter(|hash| !hash.is_empty());
    Ok(serde_json::to_value(shown)
        .map_err(|e| Error::other("the snapshot can not be written as JSON").because(e))?)
}

fn table(context: &Context, output: &OutputArgs, found: &[&Snapshot]) -> Table {
    let wide = output.output == Format::Wide;
    let mut titles = vec![
        "NAME",
        "CLUSTER",
        "STATUS",
        "SIZE",
        "REVISION",
        "CONFIG",
        "DESTINATION",
        "AGE",
    ];
    titles.extend(
        wide.then_some(["NAMESPACE", "HASH", "ENCRYPTED", "MESSAGE"])
            .into_iter()
            .flatten(),
    );
    let mut table = Table::new(&titles, output.no_headers);
    for one in found {
        let age = |created| output::age(created, context.now);
        let mut row = vec![
            one.name.clone(),
            one.cluster.clone(),
            one.status(),
            one.bytes().map_or_else(String::new, output::size),
            one.revision()
                .map_or_else(String::new, |revision| revision.to_string()),
            one.config().unwrap_or_default().to_owned(),
            one.destination().to_owned(),
            one.created().map_or_else(String::new, age),
        ];
        if wide {
            row.push(one.namespace().unwrap_or_default().to_owned());
            row.push(one.hash().unwrap_or_default().to_owned());
            row.push(one.encrypted().to_owned());
            row.push(one.message().to_owned());
        }
        table.push(row);
    }
    table
}
