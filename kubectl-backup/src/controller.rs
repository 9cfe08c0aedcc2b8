//! The controller: serves Velero's API from one namespace. How it works, who writes what, and what happens after a crash: docs/controller.md.
//!
//! A kind is a file with one function `turn`, which looks at the copies of its objects and begins what is to be done. Nothing here waits for work: each
//! piece is a task of its own, and an object has one at most.

mod backups;
mod desk;
mod downloads;
mod locations;
mod objects;

use std::sync::Arc;
use std::time::Duration;

use backup_core::api::crds;
use backup_core::cluster::Cluster;
use backup_core::definitions;
use backup_core::error::{Error, Result};

pub(crate) use desk::{Desk, Settings};
use objects::MANAGER;

use backup_cli::interrupt::interrupted;
use backup_cli::ui::Ui;

/// Everything is looked at so often, even where nothing changed: time passes.
const TICK: Duration = Duration::from_secs(1);

/// Work that is asked to stop gets so long to take its files away.
const LAST_ORDERS: Duration = Duration::from_secs(25);

/// Brings the kinds where they are absent, and sees that the namespace is there.
///
/// # Errors
/// The API server's; an absent namespace.
pub(crate) async fn prepare(ui: &Ui, cluster: &Cluster, namespace: &str) -> Result<()> {
    let mut brought = Vec::new();
    for crd in crds::velero()? {
        let seen = definitions::look(cluster, &crd).await?;
        if seen.whose.is_none() && definitions::create(cluster, &crd, MANAGER).await? {
            ui.note(&format!("the kind {} was brought", seen.name));
            brought.push(seen.name);
        }
    }
    for name in &brought {
        definitions::wait(cluster, name).await?;
    }
    match cluster
        .get(&format!("/api/v1/namespaces/{namespace}"))
        .await
    {
        // Who may not look at it may still work in it.
        Ok(_) => Ok(()),
        Err(e) if e.is_forbidden() => Ok(()),
        Err(e) if e.is_not_found() => Err(Error::not_found(format!(
            "namespace {namespace} is not there"
        ))
        .hint(format!("kubectl create namespace {namespace}"))),
        Err(e) => Err(Error::from(e).context(format!("can not look at namespace {namespace}"))),
    }
}

/// Serves until it is asked to stop; then work that is under way is stopped, and takes its files away.
pub(crate) async fn serve(desk: Arc<Desk>) {
    let ended = interrupted();
    tokio::pin!(ended);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = None;
    let mut is_serving = false;
    loop {
        tokio::select! {
            _ = &mut ended => break,
            () = desk.changed() => {}
            _ = tick.tick() => {}
        }
        let failed = desk.failed();
        if failed != told {
            match &failed {
                Some(why) => desk.ui.warn(&format!("objects can not be read: {why}")),
                None => desk.ui.note("objects can be read again"),
            }
            told = failed;
        }
        if !desk.is_whole() {
            continue;
        }
        if !is_serving {
            let namespace = &desk.settings.namespace;
            desk.ui
                .note(&format!("serving velero.io/v1 in namespace {namespace}"));
            is_serving = true;
        }
        turn(&desk);
    }
    desk.ui.note("stopping");
    desk.stop_all();
    let quiet = async {
        while !desk.is_idle() {
            desk.changed().await;
        }
    };
    if tokio::time::timeout(LAST_ORDERS, quiet).await.is_err() {
        desk.ui.warn(
            "work that did not stop is left as it is; the next controller finds out how it ended",
        );
    }
}

/// One look at everything.
fn turn(desk: &Arc<Desk>) {
    let there = desk.uids();
    desk.forget(|uid| there.contains(uid));
    locations::turn(desk);
    backups::turn(desk);
    downloads::turn(desk);
}
