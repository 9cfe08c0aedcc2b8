//! The controller: serves Velero's API from one namespace. How it works, who writes what, and what happens after a crash: docs/controller.md.
//!
//! A kind is a file with one function `turn`, which looks at the copies of its objects and begins what is to be done. Nothing here waits for work: each
//! piece is a task of its own, and an object has one at most.

mod backups;
mod copies;
mod deletions;
mod desk;
mod downloads;
mod expiry;
mod history;
mod http;
mod keys;
mod known;
mod launchers;
mod leader;
mod locations;
mod metrics;
mod objects;
mod repositories;
mod requests;
mod restores;
mod schedules;
pub(crate) mod sealed;
mod status_requests;
mod sync;
mod telling;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use backup_core::api::crds;
use backup_core::cluster::Cluster;
use backup_core::definitions;
use backup_core::error::{Error, Result};

pub(crate) use desk::{Desk, Settings};
pub(crate) use http::{address, listen, serve as answer};
use leader::{Leader, Standing};
use objects::{MANAGER, uid};

use backup_cli::interrupt::interrupted;
use backup_cli::ui::Ui;

/// Everything is looked at so often, even where nothing changed: time passes.
const TICK: Duration = Duration::from_secs(1);

/// Between two looks: many changes come together.
const BREATH: Duration = Duration::from_millis(100);

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
        Ok(_) => {}
        Err(e) if e.is_forbidden() => {}
        Err(e) if e.is_not_found() => {
            let hint = format!("kubectl create namespace {namespace}");
            return Err(Error::not_found(format!("namespace {namespace} is not there")).hint(hint));
        }
        Err(e) => {
            return Err(Error::from(e).context(format!("can not look at namespace {namespace}")));
        }
    }
    refuse_beside_velero(cluster, namespace).await
}

/// Two servers of one namespace would both make every backup.
async fn refuse_beside_velero(cluster: &Cluster, namespace: &str) -> Result<()> {
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/velero");
    let Ok(body) = cluster.get_bounded(&path, 4 << 20).await else {
        // Absent, or none of our business.
        return Ok(());
    };
    let deployment: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    if deployment["spec"]["replicas"].as_u64() == Some(0) {
        return Ok(());
    }
    Err(Error::new(
        backup_core::Kind::AlreadyExists,
        format!("a Velero serves namespace {namespace} already: its Deployment velero is there"),
    )
    .hint("serve another namespace, or scale that Deployment to 0 first"))
}

/// Serves until it is asked to stop; then work that is under way is stopped, and takes its files away.
pub(crate) async fn serve(desk: Arc<Desk>) {
    let ended = interrupted();
    tokio::pin!(ended);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Restores of a schedule's backups want to know it; who may not read it restores them by name.
    let _ = desk.identity().await;
    let mut told = None;
    let mut standing = None;
    let me = format!("{}_{}", desk.host, desk.run);
    let mut leader = Leader::new(&desk.settings.namespace, &me);
    loop {
        tokio::select! {
            _ = &mut ended => break,
            () = desk.changed() => {}
            _ = tick.tick() => {}
        }
        desk.health.turned();
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
        let now = leader.look(&desk.cluster).await;
        if standing != Some(now) {
            let namespace = &desk.settings.namespace;
            desk.ui.note(&match now {
                Standing::Mine => format!("serving velero.io/v1 in namespace {namespace}"),
                Standing::Unknown => {
                    format!(
                        "who holds the Lease is not known: nothing is begun{}",
                        leader.why()
                    )
                }
                Standing::Others => {
                    format!("another controller serves namespace {namespace}: waiting")
                }
            });
            standing = Some(now);
            desk.health.works(now == Standing::Mine);
        }
        match now {
            Standing::Mine => turn(&desk),
            Standing::Unknown => {}
            Standing::Others => desk.stop_all(),
        }
        tokio::time::sleep(BREATH).await;
    }
    desk.ui.note("stopping");
    desk.stop_all();
    let mut is_mine = standing == Some(Standing::Mine);
    let quiet = async {
        while !desk.is_idle() {
            tokio::select! {
                () = desk.changed() => {}
                // Nobody else begins before the last of it is over.
                _ = tick.tick(), if is_mine => {
                    is_mine = leader.look(&desk.cluster).await != Standing::Others;
                }
            }
        }
    };
    if tokio::time::timeout(LAST_ORDERS, quiet).await.is_err() {
        desk.ui.warn(
            "work that did not stop is left as it is; the next controller finds out how it ended",
        );
    }
    leader.leave(&desk.cluster).await;
}

/// One look at everything.
fn turn(desk: &Arc<Desk>) {
    let all = desk.objects();
    let there: BTreeSet<&str> = all.iter().map(|object| uid(object)).collect();
    desk.forget(|uid| there.contains(uid));
    history::turn(desk, &all);
    locations::turn(desk);
    sync::turn(desk);
    expiry::turn(desk);
    schedules::turn(desk);
    backups::turn(desk);
    // Backups that are due come first.
    repositories::turn(desk);
    copies::turn(desk);
    deletions::turn(desk);
    restores::turn(desk);
    downloads::turn(desk);
    status_requests::turn(desk);
    launchers::turn(desk);
}
