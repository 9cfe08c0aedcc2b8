//! Snapshots of volumes in their storage, where backups go: a command that removes backups has them removed first, and tells it.

use std::collections::BTreeMap;

use backup_core::cluster::Cluster;
use backup_core::location::Location;
use backup_core::name::Name;
use backup_core::snapshot::heirs::{self, Heirs, Orphans, Outcome};
use backup_core::snapshot::known::About;
use backup_core::{Error, Kind};
use jiff::Timestamp;

use crate::context::Context;
use crate::flags::RemovalArgs;
use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::output::counted;

/// Has the snapshots of a backup removed that is about to go, and tells it. Whether it may go.
///
/// # Errors
/// The location's.
pub(super) async fn expire(
    context: &Context,
    location: &Location,
    name: &Name,
    about: &About,
    force: bool,
) -> Result<bool, Error> {
    if let Some(lacks) = about.lacks() {
        let title = format!("backup/{name}");
        if !force {
            let text = format!("{title} is kept: {lacks}; --force deletes it without them");
            context.ui.warn(&text);
            return Ok(false);
        }
        context.ui.warn(&format!("{title}: {lacks}"));
    }
    if about.count() == 0 {
        return Ok(true);
    }
    let stop =
        context.cancel("snapshots that have not gone by then stay, and so does their backup");
    let reached = reached(context).await;
    let heirs = Heirs {
        cluster: reached.as_ref().ok().copied(),
        stop: Some(&stop),
    };
    let title = format!("backup/{name}");
    Ok(match about.expire(&location.store, heirs).await? {
        Outcome::None => true,
        Outcome::Gone(many) => {
            context.ui.note(&format!(
                "{title}: {} deleted",
                counted(many as u64, "snapshot")
            ));
            true
        }
        Outcome::Elsewhere {
            cluster, snapshots, ..
        } => {
            let what = format!(
                "{title}: left in cluster {cluster}{}: {}",
                not_reached(&reached),
                snapshots.join(", ")
            );
            match force {
                true => context.ui.warn(&format!("{what}; a prune with that cluster removes them a day later")),
                false => context.ui.warn(&format!(
                    "{what}; the backup is kept: delete it with a context of that cluster, or with --force"
                )),
            }
            force
        }
        Outcome::Kept { why, torn } => {
            why.iter()
                .chain(&torn)
                .for_each(|why| context.ui.warn(&format!("{title}: {why}")));
            if force {
                let dropped = heirs::disown(&location.store, name).await?;
                let text = format!(
                    "{title}: nothing is known of these snapshots from now on, which stay: {}",
                    dropped.join(", ")
                );
                context.ui.warn(&text);
            } else {
                context.ui.warn(&format!("{title} is kept: the same command tries again, and --force deletes it without them"));
            }
            force
        }
    })
}

/// Whether snapshots are known of a backup that is not there.
///
/// # Errors
/// The location's.
pub(super) async fn is_lost(location: &Location, name: &Name) -> Result<bool, Error> {
    Ok(heirs::count(&location.store, name).await? > 0)
}

/// Drops what is known of the snapshots of a backup that is gone, where that is agreed to, and tells which stay.
///
/// # Errors
/// The location's.
pub(super) async fn disown(
    context: &Context,
    location: &Location,
    name: &Name,
    removal: &RemovalArgs,
) -> Result<()> {
    let many = heirs::count(&location.store, name).await?;
    let many = counted(many as u64, "snapshot");
    let question =
        format!("backup {name} is gone: forget its {many}, which stay in their storage?");
    if removal.agreed(&context.ui, &question)? {
        let dropped = heirs::disown(&location.store, name).await?;
        context.ui.warn(&format!(
            "backup/{name}: nothing is known of these snapshots from now on, which stay: {}",
            dropped.join(", ")
        ));
    } else {
        context.ui.note(&format!(
            "backup/{name} is gone: what is known of its {many} would be dropped"
        ));
    }
    Ok(())
}

/// Sees to snapshots whose backups are gone, and tells what became of them.
///
/// # Errors
/// `Interrupted`. What else fails is told.
pub(super) async fn orphans(
    context: &Context,
    location: &Location,
    dry_run: bool,
    drops_damaged: bool,
) -> Result<Exit> {
    if drops_damaged {
        let verb = if dry_run {
            "would be dropped"
        } else {
            "is dropped"
        };
        for key in heirs::drop_damaged(&location.store, dry_run).await? {
            context.ui.warn(&format!(
                "{key} {verb}: nobody can read it, and where there are snapshots that it was about, they stay in their storage"
            ));
        }
    }
    let stop = context.cancel("snapshots that have not gone by then stay");
    let reached = reached(context).await;
    let heirs = Heirs {
        cluster: reached.as_ref().ok().copied(),
        stop: Some(&stop),
    };
    let Orphans { told, unread } = match heirs::orphans(&location.store, heirs, None, dry_run).await
    {
        Err(e) if e.kind() == Kind::Interrupted => return Err(e.into()),
        Err(e) => {
            let e = e.context("can not look for snapshots of volumes that no backup names");
            context.ui.warn(&e.sentence());
            return Ok(Exit::Incomplete);
        }
        Ok(orphans) => orphans,
    };
    let mut exit = Exit::Done;
    for why in unread {
        exit = Exit::Incomplete;
        context.ui.warn(&format!(
            "{why}: whether snapshots of volumes that no backup names are in it is not known ({})",
            heirs::WAY_OUT
        ));
    }
    let mut far: BTreeMap<String, (usize, Option<Timestamp>)> = BTreeMap::new();
    for (backup, outcome) in told {
        match outcome {
            Outcome::None => {}
            Outcome::Gone(many) => {
                let verb = if dry_run {
                    "would be deleted"
                } else {
                    "deleted"
                };
                let many = counted(many as u64, "snapshot");
                context
                    .ui
                    .note(&format!("{many} of backup {backup}, which is gone, {verb}"));
            }
            // Whoever reaches that cluster does it.
            Outcome::Elsewhere {
                cluster,
                snapshots,
                missing,
            } => {
                let (many, since) = far.entry(cluster).or_default();
                *many += snapshots.len();
                *since = (*since).into_iter().chain(missing).min();
            }
            Outcome::Kept { why, .. } => {
                exit = Exit::Incomplete;
                for why in why {
                    context.ui.warn(&format!(
                        "backup {backup} is gone, and its snapshot is not: {why}"
                    ));
                }
            }
        }
    }
    for (cluster, (many, since)) in far {
        let since = since.map_or_else(String::new, |since| format!(" since {since:.0}"));
        context.ui.warn(&format!(
            "{} of backups that are gone are left in cluster {cluster}{}, which nobody reached{since}: a prune with a context of that cluster removes them",
            counted(many as u64, "snapshot"),
            not_reached(&reached)
        ));
    }
    Ok(exit)
}

/// The cluster that is reached, where it is and says who it is.
pub(super) async fn reached(context: &Context) -> Result<(&Cluster, &str), String> {
    let sentence = |e: CommandError| e.into_error().sentence();
    let cluster = context.cluster().await.map_err(sentence)?;
    let identity = context.identity_soon().await.map_err(sentence)?;
    let identity = identity.ok_or("the namespace kube-system may not be read")?;
    Ok((cluster, identity))
}

/// Why none is.
fn not_reached(reached: &Result<(&Cluster, &str), String>) -> String {
    let why = reached.as_ref().err();
    why.map_or_else(String::new, |why| {
        format!(" (no cluster is reached: {why})")
    })
}
