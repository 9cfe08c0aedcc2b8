//! `etcd delete`: removes snapshots from their bucket, and from what the objects say.

use backup_core::api::{EtcdBackupConfig, EtcdRestore, RowPhase};
use backup_core::etcd::catalog;
use backup_core::etcd::names::Asked;
use backup_core::name::Name;
use backup_core::{Error, Kind};
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::destination;
use super::find::{self, Snapshot, Source};
use super::objects::{self, Written};
use super::scope::ScopeArgs;
use crate::context::Context;
use crate::flags::RemovalArgs;
use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::locations;
use backup_core::location::Location;

const EXAMPLES: &str = "\
Examples:
  kubectl backup etcd delete daily-backup-2026-11-20t01-00-00
  kubectl backup etcd delete daily-backup-2026-11-20t01-00-00 weekly-2026-11-15t00-00-00 --yes";

/// How often a status is written anew when somebody else wrote in between.
const ATTEMPTS: usize = 5;

/// Delete snapshots of etcd
///
/// Removes them from their bucket. Schedules remove what is beyond --keep themselves.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DeleteArgs {
    /// Names of snapshots
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    removal: RemovalArgs,
    /// Delete even what a restore that is under way reads
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, scope: &ScopeArgs, args: DeleteArgs) -> Result<Exit> {
    let all = find::all(context, scope).await?;
    let mut found: Vec<(&Snapshot, Location)> = Vec::new();
    // Nothing is deleted before every name was found.
    for name in &args.names {
        let one = find::choose(name, &all, scope.cluster.as_deref())?;
        if found.iter().any(|(other, _)| std::ptr::eq(*other, one)) {
            continue;
        }
        if !args.force {
            refuse_in_use(context, one).await?;
        }
        let location = match &one.source {
            Source::Bucket(location, _) => (**location).clone(),
            Source::Row { config, .. } => {
                destination::open(context, config.namespace(), one.destination()).await?
            }
        };
        if location.is_read_only() {
            return Err(Error::new(
                Kind::Forbidden,
                format!("location {:?} is read-only", location.name),
            )
            .hint("its accessMode says so")
            .into());
        }
        found.push((one, location));
    }
    let list: Vec<_> = found
        .iter()
        .map(|(one, location)| format!("{} from {}", one.name, locations::place(&location.spec)))
        .collect();
    let question = format!("delete {}?", list.join(", "));
    let agreed = args.removal.agreed(&context.ui, &question)?;
    for (one, location) in &found {
        let title = format!("snapshot/{}", one.name);
        if !agreed {
            args.removal.tell(&context.ui, &title, "deleted")?;
            continue;
        }
        let (cluster, name) = (Name::foreign(&one.cluster)?, Name::foreign(&one.name)?);
        match catalog::delete(&location.store, &cluster, &name).await {
            Ok(()) => {}
            // What only the object still speaks of is forgotten there.
            Err(e) if e.kind() == Kind::NotFound && matches!(one.source, Source::Row { .. }) => {
                context
                    .ui
                    .note(&format!("snapshot/{name} was not in its bucket any more"));
            }
            Err(e) => return Err(e.into()),
        }
        if let Err(e) = forget(context, one).await {
            context.ui.warn(&format!(
                "snapshot/{name} is deleted, but its EtcdBackupConfig still lists it: {}",
                e.error()
            ));
        }
        args.removal.tell(&context.ui, &title, "deleted")?;
    }
    Ok(Exit::Done)
}

/// A restore that is not at its end may still read it.
async fn refuse_in_use(context: &Context, one: &Snapshot) -> Result<()> {
    let Some(namespace) = one.namespace() else {
        return Ok(());
    };
    let restores = objects::list::<EtcdRestore>(context.cluster().await?, Some(namespace)).await?;
    let at_work = restores.iter().find(|restore| {
        let phase = restore
            .it
            .status
            .as_ref()
            .and_then(|status| status.phase.as_ref());
        let asked = Asked::parse(&restore.it.spec.backup_name, &one.cluster);
        !phase.is_some_and(|phase| phase.is_final())
            && asked.is_ok_and(|asked| asked.means(&one.name))
    });
    match at_work {
        None => Ok(()),
        Some(restore) => Err(CommandError::from(
            Error::other(format!(
                "snapshot {:?} is what {} restores",
                one.name,
                restore.title()
            ))
            .hint("wait until it is finished, or add --force"),
        )),
    }
}

/// Marks the row as deleted.
async fn forget(context: &Context, one: &Snapshot) -> Result<()> {
    let Source::Row { config, .. } = &one.source else {
        return Ok(());
    };
    let cluster = context.cluster().await?;
    for _ in 0..ATTEMPTS {
        let now =
            objects::get::<EtcdBackupConfig>(cluster, Some(config.namespace()), config.name())
                .await?;
        let mut status = now.it.status.clone().unwrap_or_default();
        let rows = status
            .last_backups
            .iter_mut()
            .chain(&mut status.current_backups);
        for row in rows.filter(|row| row.backup_name == one.name) {
            row.delete_phase = RowPhase::Completed;
            row.delete_finished_time = Some(Time(Timestamp::now()));
        }
        if matches!(
            objects::replace_status(cluster, &now, &status).await?,
            Written::Yes
        ) {
            return Ok(());
        }
    }
    Err(Error::other(format!(
        "{} is written by others all the time",
        config.title()
    ))
    .into())
}
