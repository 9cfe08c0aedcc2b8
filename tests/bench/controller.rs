//! The controller beside Velero's server: from `kubectl apply` of a Backup to its end, on one cluster and one MinIO.

use std::thread;
use std::time::{Duration, Instant};

use harness::load::Load;
use harness::served::{NAMESPACE, Served};
use harness::store::Minio;
use harness::velero::Velero;
use serde_json::Value;

use super::memory::{peak_of, peak_of_family};
use super::objects::{DEFAULTS, usual};
use super::table::{Shown, Table};
use super::{BUCKET, RUNS, mebibytes, seconds, times};

/// 2,600 and 26,000 objects.
pub(super) fn beside_velero(minio: &'static Minio, table: &mut Table) {
    let served = Served::start("bench-controller");
    let ours = served.controller.as_ref().unwrap().pid();
    let velero = Velero::start(
        &served.cluster,
        minio,
        BUCKET,
        "velero-server",
        &DEFAULTS,
        None,
    );
    let mut loads: Vec<Load> = Vec::new();
    for (objects, load, runs_of_velero) in [
        ("2,600", usual("few", 2), RUNS),
        ("26,000", usual("many", 18), 1),
    ] {
        load.fill(&served.cluster.endpoint());
        loads.push(load);
        let namespaces: Vec<String> = loads
            .iter()
            .flat_map(|load| (0..load.namespaces).map(|number| load.namespace(number)))
            .collect();
        let backup = |namespace: &str, run: usize| {
            applied(
                &served,
                namespace,
                &format!("{}-{run}", objects.replace(',', "")),
                &namespaces,
            )
        };
        let our_time = times(RUNS, |run| backup(NAMESPACE, run));
        let their_time = times(runs_of_velero, |run| backup("velero", run));
        let once = if runs_of_velero == 1 { ", once" } else { "" };
        table.row(
            &format!(
                "kubectl apply of a Backup of {objects} objects to Completed, by the controller"
            ),
            our_time,
            &format!(
                "Velero's server, its defaults{once}: {}",
                seconds(their_time)
            ),
            their_time.as_secs_f64() / our_time.as_secs_f64(),
            Shown,
        );
        table.memory_shown(
            "peak memory of that controller",
            peak_of(ours),
            &format!(
                "Velero's server: {}",
                mebibytes(velero.pid().map_or(0, peak_of_family))
            ),
        );
    }
}

/// Applies a Backup of these namespaces in this one, and waits for its end.
fn applied(served: &Served, namespace: &str, name: &str, included: &[String]) -> Duration {
    let backup = serde_json::json!({
        "apiVersion": "velero.io/v1", "kind": "Backup", "metadata": {"name": name, "namespace": namespace},
        "spec": {"includedNamespaces": included, "snapshotVolumes": false},
    });
    let mut client = served.cluster.client();
    let path = format!("/apis/velero.io/v1/namespaces/{namespace}/backups/{name}");
    let start = Instant::now();
    served.apply(&backup.to_string());
    loop {
        let phase = client.get(&path).unwrap().json()["status"]["phase"].take();
        match phase.as_str() {
            Some("Completed") => return start.elapsed(),
            Some("Failed" | "PartiallyFailed" | "FailedValidation") => {
                let is: Value = client.get(&path).unwrap().json();
                panic!("{is:#}\n{}", served.log());
            }
            _ => thread::sleep(Duration::from_millis(20)),
        }
    }
}
