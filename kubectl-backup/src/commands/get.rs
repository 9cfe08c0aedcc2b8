//! `get`: a row per backup.

use backup_core::api::LabelSelector;
use backup_core::catalog::{self, Entry, Maker};
use backup_core::{Error, Kind};
use clap::Args;

use super::owed;
use crate::context::{Context, Place};
use crate::flags;
use crate::many::{self, ManyArgs};
use backup_cli::error::{Exit, Result};
use backup_cli::output::{self, Format, ListArgs, Listing, OutputArgs, Table};

const EXAMPLES: &str = "\
Examples:
  kubectl backup get
  kubectl backup get nightly -o yaml
  kubectl backup get --sort-by .status.startTimestamp
  kubectl backup get -l team=web -L team
  kubectl backup get --all-clusters -o wide
  kubectl backup get --location s3://backups/prod
  kubectl backup get --contexts prod-eu,prod-us";

/// List backups, or show one
///
/// Needs no cluster: with a location it reads the bucket alone. With nothing configured it shows the backups of this
/// cluster, or of all clusters where this one is not reached.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GetArgs {
    /// Names of backups [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Show the backups of every cluster
    #[arg(long)]
    all_clusters: bool,
    #[command(flatten)]
    many: ManyArgs,
    #[command(flatten)]
    list: ListArgs,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: GetArgs) -> Result<Exit> {
    let mut exit = Exit::Done;
    let (found, of_all) = match args.many.resolve(context)? {
        None => look(context, &args, false).await?,
        Some(many) => {
            let mixed = !many.has_folders();
            let looked = many.each(|member| look(&member.context, &args, mixed));
            let done = looked.await;
            exit = many::worst(done.iter().map(|(_, done)| many::exit_of(done)));
            let found = done.into_iter().filter_map(|(_, done)| done.ok());
            (found.flat_map(|(found, _)| found).collect(), true)
        }
    };
    let listing = Listing {
        single: args.names.len() == 1 && found.iter().all(|(place, _)| place.member.is_none()),
        items: found,
        title: |(place, entry)| {
            let title = format!("backup/{}", entry.name);
            match &place.member {
                Some(member) => many::titled(member, &title),
                None => title,
            }
        },
        value: |(place, entry)| {
            let marker = marker(entry)?;
            Ok(match &place.member {
                Some(member) => many::labelled(member, marker),
                None => marker,
            })
        },
        empty: format!("No backups found. Make one: {} create", context.program),
    };
    listing.print(&context.ui, &args.list, |found| {
        table(context, &args.list.output, of_all, found)
    })?;
    Ok(exit)
}

/// What is asked for of one cluster, and whether that is of all clusters. Where backups of several may be `mixed`, others' are not shown as this one's.
async fn look(
    context: &Context,
    args: &GetArgs,
    mixed: bool,
) -> Result<(Vec<(Place, Entry)>, bool)> {
    let mut found = Vec::new();
    let mut of_all = args.all_clusters;
    if args.names.is_empty() {
        let (places, all) = context.places(args.all_clusters).await?;
        of_all = all;
        for place in places {
            let (mut entries, warnings) = catalog::list(&place.location.store).await?;
            for warning in warnings {
                context.ui.warn(&warning);
            }
            owed::tell(context, &place.location).await;
            if mixed {
                leave_out_others(context, &place, &mut entries).await?;
            }
            found.extend(entries.into_iter().map(|entry| (place.clone(), entry)));
        }
    }
    for name in &args.names {
        let name = flags::known_name(name)?;
        found.push(context.look_up_backup(&name).await?);
    }
    Ok((found, of_all))
}

async fn leave_out_others(
    context: &Context,
    place: &Place,
    entries: &mut Vec<Entry>,
) -> Result<()> {
    let here = context.here(place).await?;
    let all = entries.len();
    entries.retain(|entry| !matches!(here.maker(entry), Maker::Another(_)));
    let others = all - entries.len();
    if others > 0 {
        context.ui.note(&format!(
            "{} of other clusters there not shown: {} get{} shows all",
            output::counted(others as u64, "backup"),
            context.program,
            context.flags_again()
        ));
    }
    Ok(())
}

/// The marker with every field another tool wrote.
pub(super) fn marker(entry: &Entry) -> Result<serde_json::Value> {
    Ok(serde_json::from_slice(&entry.raw).map_err(|e| {
        Error::new(
            Kind::Corrupt,
            format!("the marker of backup {} is no JSON", entry.name),
        )
        .because(e)
    })?)
}

fn table(context: &Context, output: &OutputArgs, of_all: bool, found: &[(Place, Entry)]) -> Table {
    let wide = output.output == Format::Wide;
    let clusters: Vec<_> = found
        .iter()
        .map(|(place, entry)| match &place.member {
            Some(member) => member.clone(),
            None => context.made_by(entry, place.cluster.as_deref()),
        })
        .collect();
    let several = clusters.windows(2).any(|pair| pair[0] != pair[1]);
    let with_cluster = wide || of_all || several;
    let mut titles = vec![
        "NAME",
        "STATUS",
        "ERRORS",
        "WARNINGS",
        "CREATED",
        "EXPIRES",
        "STORAGE-LOCATION",
        "SELECTOR",
    ];
    let with_encrypted = found.iter().any(|(_, entry)| encrypted(entry) != "no");
    titles.extend(with_encrypted.then_some("ENCRYPTED"));
    titles.extend(wide.then_some("OBJECTS"));
    titles.extend(with_cluster.then_some("CLUSTER"));
    let mut table = Table::new(&titles, output.no_headers);
    for ((place, entry), cluster) in found.iter().zip(&clusters) {
        let (spec, status) = (&entry.backup.spec, &entry.backup.status);
        let started = status
            .start_timestamp
            .or(entry.backup.metadata.creation_timestamp);
        let mut row = vec![
            entry.name.to_string(),
            status.phase.to_string(),
            status.errors.to_string(),
            status.warnings.to_string(),
            output::time(started),
            entry
                .backup
                .expiration()
                .map_or_else(|| "never".to_owned(), |at| output::until(at, context.now)),
            place.location.name.clone(),
            selectors(spec.label_selector.as_ref(), &spec.or_label_selectors),
        ];
        if with_encrypted {
            row.push(encrypted(entry).to_owned());
        }
        if wide {
            row.push(
                status
                    .progress
                    .and_then(|p| p.items_backed_up)
                    .map_or_else(String::new, |n| n.to_string()),
            );
        }
        if with_cluster {
            row.push(cluster.clone());
        }
        table.push(row);
    }
    table
}

/// What of it is encrypted.
fn encrypted(entry: &Entry) -> &'static str {
    match entry.apart() {
        _ if entry.encrypted => "yes",
        Ok(None) => "no",
        // What is wrong with such a marker, who reads the backup is told.
        Ok(Some(_)) | Err(_) => "secrets",
    }
}

/// Selectors in kubectl's writing.
pub(crate) fn selectors(one: Option<&LabelSelector>, any: &[LabelSelector]) -> String {
    one.into_iter()
        .chain(any)
        .map(selector)
        .collect::<Vec<_>>()
        .join(" or ")
}

fn selector(selector: &LabelSelector) -> String {
    let equal = selector
        .match_labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    let more = selector
        .match_expressions
        .iter()
        .map(|r| match r.operator.as_str() {
            "Exists" => r.key.clone(),
            "DoesNotExist" => format!("!{}", r.key),
            "In" => format!("{} in ({})", r.key, r.values.join(",")),
            "NotIn" => format!("{} notin ({})", r.key, r.values.join(",")),
            other => format!("{} {other} ({})", r.key, r.values.join(",")),
        });
    equal.chain(more).collect::<Vec<_>>().join(",")
}
