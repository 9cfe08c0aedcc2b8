//! What the stories of scheduled snapshots look at: rows of a status, and what is in the bucket.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::hosted::{BUCKET, Hosted};
use serde_json::Value;

/// KKP's example, as it stands in its documentation.
pub(super) const CONFIG: &str = include_str!("../../../manifests/examples/etcdbackupconfig.yaml");

/// Nothing that is waited for takes longer.
pub(super) const LONG: Duration = Duration::from_secs(120);

/// The rows of a config, under the name that KKP documents.
pub(super) fn rows(config: &Value) -> Vec<Value> {
    let rows = config["status"]["lastBackups"].as_array();
    rows.cloned().unwrap_or_default()
}

/// The rows of snapshots that stand.
pub(super) fn good(config: &Value) -> Vec<Value> {
    let mut rows = rows(config);
    rows.retain(|row| row["backupPhase"] == "Completed" && row.get("deletePhase").is_none());
    rows
}

pub(super) fn names(rows: &[Value]) -> Vec<String> {
    let names = rows.iter().filter_map(|row| row["backupName"].as_str());
    names.map(str::to_owned).collect()
}

pub(super) fn condition(config: &Value, name: &str) -> Value {
    config["status"]["conditions"][name].clone()
}

/// Waits for a config to be so.
#[track_caller]
pub(super) fn wait(hosted: &Hosted, name: &str, what: &str, so: impl Fn(&Value) -> bool) -> Value {
    hosted.relaunch_until(&format!("{name}: {what}"), LONG, || {
        hosted.backup_config(name).filter(|config| so(config))
    })
}

/// Waits until so many snapshots stand and nothing is under way.
#[track_caller]
pub(super) fn settled(hosted: &Hosted, name: &str, count: usize) -> Value {
    wait(hosted, name, "what is kept", |config| {
        good(config).len() == count && rows(config).len() == count
    })
}

/// The manifests in the bucket, by the snapshot's name.
pub(super) fn manifests(hosted: &Hosted) -> BTreeMap<String, Value> {
    let folder = format!("plugins/etcd-launcher/{}/", hosted.name);
    let keys = hosted.minio.list(BUCKET, &folder);
    let found = keys.iter().filter_map(|key| {
        let name = key.strip_prefix(&folder)?.strip_suffix("/manifest.json")?;
        let manifest = hosted.minio.try_get(BUCKET, key)?;
        Some((name.to_owned(), serde_json::from_slice(&manifest).unwrap()))
    });
    found.collect()
}

/// The names of the snapshots in the bucket.
pub(super) fn snapshots(hosted: &Hosted) -> Vec<String> {
    manifests(hosted).into_keys().collect()
}
