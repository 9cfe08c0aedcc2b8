//! EtcdRestores that no launcher takes up: the phase EtcdLauncherNotEnabled, onto an empty one only, where the cluster's launchers did not renew their Lease
//! for a minute. What the plugin does while it waits for a restore is done here for all of them, with the same words; else nothing of these kinds is written.
//!
//! Where the kinds are absent or not ours, nothing is looked at; where they may not be read or written, that is told once. A restore whose namespace is not
//! its cluster's is left alone: no launcher there would know it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backup_core::api::hosted::default_namespace;
use backup_core::api::{EtcdRestore, HostedCluster};
use backup_core::name::Name;
use serde_json::Value;
use tokio::time::Instant;

use super::desk::Desk;
use crate::commands::etcd::launcher::{self, Sign, Watch};
use crate::commands::etcd::objects;
use crate::commands::etcd::scope::ControlPlane;
use backup_cli::error::{CommandError, Result};

/// Between two looks where a restore waits, and where none does.
const OFTEN: Duration = Duration::from_secs(10);
const SELDOM: Duration = Duration::from_secs(30);

/// Control planes that are watched at a time.
const MOST: usize = 1000;

/// What is known of the launchers of clusters with a restore that waits.
#[derive(Default)]
pub(crate) struct Launchers {
    again: Option<Instant>,
    looked: Option<Instant>,
    watches: BTreeMap<(String, String), Watch>,
    told: Option<String>,
}

impl Launchers {
    /// Says what failed, once.
    fn tell(&mut self, desk: &Desk, e: &CommandError) {
        let why = e.error().sentence();
        if self.told.as_ref() != Some(&why) {
            desk.ui
                .warn(&format!("EtcdRestores are not looked after: {why}"));
            self.told = Some(why);
        }
    }
}

/// One look, where it is time for one and the last one has ended.
pub(crate) fn turn(desk: &Arc<Desk>) {
    let Ok(mut known) = Arc::clone(&desk.launchers).try_lock_owned() else {
        return;
    };
    if known.again.is_some_and(|again| Instant::now() < again) {
        return;
    }
    // Time counts only between two looks: who was away has not seen anybody silent.
    if known.looked.is_none_or(|at| at.elapsed() > OFTEN * 3) {
        known.watches.clear();
    }
    let desk = Arc::clone(desk);
    tokio::spawn(async move {
        if let Err(e) = look(&desk, &mut known).await {
            // Launchers do not get through either: what was seen before does not count.
            known.watches.clear();
            known.tell(&desk, &e);
        }
        known.looked = Some(Instant::now());
        let pause = match known.watches.is_empty() {
            true => SELDOM,
            false => OFTEN,
        };
        known.again = Some(Instant::now() + pause);
    });
}

async fn look(desk: &Desk, known: &mut Launchers) -> Result<()> {
    let cluster = &desk.cluster;
    if !launcher::are_ours(cluster).await? {
        known.watches.clear();
        return Ok(());
    }
    let all = objects::list_raw::<EtcdRestore>(cluster, None).await?;
    let mut waiting = BTreeMap::new();
    for raw in all.into_iter().filter(waits) {
        if let Some((namespace, name)) = plane(&raw) {
            let of: &mut Vec<Value> = waiting.entry((namespace, name)).or_default();
            of.push(raw);
        }
    }
    known.watches.retain(|plane, _| waiting.contains_key(plane));
    for (at, restores) in waiting {
        let (namespace, name) = at.clone();
        let plane = ControlPlane {
            cluster: name,
            namespace,
        };
        if !known.watches.contains_key(&at)
            && (known.watches.len() >= MOST || !is_its_namespace(desk, &plane).await?)
        {
            continue;
        }
        let watch = known
            .watches
            .entry(at)
            .or_insert_with(|| Watch::of(&plane, true));
        if watch.look(cluster).await? != Sign::Silent {
            continue;
        }
        for raw in restores {
            let Ok(restore) = objects::Object::<EtcdRestore>::read(raw) else {
                continue;
            };
            match launcher::not_enabled(cluster, &restore).await {
                Ok(true) => desk.ui.note(&format!(
                    "etcdrestore {}/{}: no etcd-launcher is at work on cluster {}",
                    restore.namespace(),
                    restore.name(),
                    plane.cluster
                )),
                // Somebody wrote in between, or it is gone.
                Ok(false) => {}
                Err(e) if e.is_not_found() => {}
                Err(e) => known.tell(desk, &e),
            }
        }
    }
    Ok(())
}

/// Whether it has no phase yet, and is to stay.
fn waits(restore: &Value) -> bool {
    let phase = restore["status"]["phase"].as_str().unwrap_or_default();
    phase.is_empty() && restore["metadata"]["deletionTimestamp"].is_null()
}

/// Namespace and cluster of a restore; nothing where its cluster can have no such name.
fn plane(restore: &Value) -> Option<(String, String)> {
    let cluster = Name::foreign(restore["spec"]["cluster"]["name"].as_str()?).ok()?;
    let namespace = restore["metadata"]["namespace"].as_str()?;
    Some((namespace.to_owned(), cluster.to_string()))
}

async fn is_its_namespace(desk: &Desk, plane: &ControlPlane) -> Result<bool> {
    let found = objects::get::<HostedCluster>(&desk.cluster, None, &plane.cluster).await;
    let namespace = match found {
        Ok(found) => found.it.control_plane_namespace(),
        Err(e) if e.is_not_found() => default_namespace(&plane.cluster),
        Err(e) => return Err(e),
    };
    Ok(namespace == plane.namespace)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_restore_without_a_phase_waits_and_names_a_cluster_that_can_be_one() {
        let restore = |phase: Value, cluster: &str| json!({"metadata": {"name": "r", "namespace": "cluster-c"}, "spec": {"cluster": {"name": cluster}}, "status": {"phase": phase}});
        assert!(waits(&restore(Value::Null, "c")) && waits(&restore(json!(""), "c")));
        for phase in ["Started", "Completed", "EtcdLauncherNotEnabled", "Failed"] {
            assert!(!waits(&restore(json!(phase), "c")), "{phase}");
        }
        let mut leaving = restore(Value::Null, "c");
        leaving["metadata"]["deletionTimestamp"] = json!("2026-11-21T02:00:00Z");
        assert!(!waits(&leaving));
        let of = |cluster: &str| plane(&restore(Value::Null, cluster));
        assert_eq!(of("c"), Some(("cluster-c".to_owned(), "c".to_owned())));
        for odd in ["", "../x", "a/b"] {
            assert_eq!(of(odd), None, "{odd}");
        }
    }
}
