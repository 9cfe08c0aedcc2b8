//! The end of a restore that no launcher is alive to bring about: written by compare-and-swap, before commit only, in the order in which a
//! launcher would write it. First the decision, which launchers that come back obey; then what outlives it; then the control plane.

use backup_core::api::EtcdRestore;
use backup_core::api::hosted::{
    ACTIVE, FINALIZER, FORMER_REPLICAS, OUTCOME, PAUSED_BY, pause_reason,
};
use backup_core::cluster::{ApiError, Call, Cluster};
use backup_core::{Error, Kind};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::refuse;
use crate::commands::etcd::launcher::{SILENCE, Sign, Watch};
use crate::commands::etcd::objects::{self, Object, Written};
use crate::commands::etcd::scope::ControlPlane;
use crate::context::Context;
use backup_cli::error::{Exit, Result};

/// How often somebody may write in between.
const TRIES: usize = 5;

/// Gives it up.
pub(super) async fn run(
    context: &Context,
    cluster: &Cluster,
    restore: Object<EtcdRestore>,
    set: &str,
) -> Result<Exit> {
    let plane = ControlPlane {
        cluster: restore.it.spec.cluster.name.clone(),
        namespace: restore.namespace().to_owned(),
    };
    nobody_is_alive(context, cluster, &plane).await?;
    let attempt = decide(context, cluster, &restore).await?;
    let id = attempt["id"].as_str().unwrap_or_default();
    record(cluster, &plane, set, &restore, &attempt).await?;
    let names = attempt["former"]["replicas"].as_object();
    for name in names.into_iter().flatten().map(|(name, _)| name) {
        put_back(context, cluster, &plane, name, id).await?;
    }
    free(cluster, &plane, id).await?;
    let done = objects::get::<EtcdRestore>(cluster, Some(&plane.namespace), restore.name()).await?;
    let mut finalizers = done.it.metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|name| name != FINALIZER);
    let path = format!(
        "/apis/kubermatic.k8c.io/v1/namespaces/{}/etcdrestores/{}",
        plane.namespace,
        restore.name()
    );
    patch(
        cluster,
        &path,
        &done.raw,
        json!({"metadata": {"finalizers": finalizers}}),
    )
    .await
    .map_err(Error::from)?;
    context.ui.line(&format!(
        "{} given up: {}",
        restore.title(),
        attempt["message"].as_str().unwrap_or_default()
    ))?;
    context.ui.note(
        "etcd itself is as its launchers left it: start them, and they bring the old state back before they open it",
    );
    Ok(Exit::Done)
}

/// Makes sure that no launcher renews the Lease.
async fn nobody_is_alive(context: &Context, cluster: &Cluster, plane: &ControlPlane) -> Result<()> {
    context.ui.note(&format!(
        "looking for {} s whether an etcd-launcher is alive",
        SILENCE.as_secs()
    ));
    let mut watch = Watch::start(cluster, plane).await;
    let until = tokio::time::Instant::now() + SILENCE + SILENCE / 4;
    loop {
        match watch.look(cluster).await? {
            Sign::Silent => return Ok(()),
            Sign::Alive => {
                return Err(Error::other(format!(
                    "an etcd-launcher is at work on cluster {}: it would be in the middle of what is given up",
                    plane.cluster
                ))
                .hint("leave --force away: it does what it is asked")
                .into());
            }
            Sign::Unknown | Sign::Absent if tokio::time::Instant::now() >= until => {
                return Err(Error::other(format!(
                    "it can not be told whether an etcd-launcher is at work on cluster {}",
                    plane.cluster
                ))
                .hint("who may not read its Lease and the definitions of the kinds can not force anything")
                .into());
            }
            Sign::Unknown | Sign::Absent => {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

/// Writes the end into the restore, and returns the attempt as it stands then.
async fn decide(
    context: &Context,
    cluster: &Cluster,
    restore: &Object<EtcdRestore>,
) -> Result<Value> {
    for _ in 0..TRIES {
        let now =
            objects::get::<EtcdRestore>(cluster, Some(restore.namespace()), restore.name()).await?;
        refuse(&now.it, &context.program)?;
        let mut status = now.raw["status"].clone();
        let attempt = &mut status["attempt"];
        let Some(step) = attempt["step"].as_str() else {
            return Err(Error::other(format!("{} has not begun", now.title()))
                .hint("delete it: nothing was done for it")
                .into());
        };
        let untouched = ["Preflight", "Planned", "Pausing", "Watching"].contains(&step);
        let (end, outcome) = if untouched {
            ("Failed", "failed")
        } else {
            ("RolledBack", "rolledBack")
        };
        let message = format!("given up by hand at {step}, with no launcher alive");
        let sequence = attempt["sequence"].as_i64().unwrap_or(0) + 1;
        for (field, value) in [
            ("step", Value::from(end)),
            ("outcome", outcome.into()),
            ("sequence", sequence.into()),
            ("message", message.clone().into()),
            ("decidedBy", "kubectl backup etcd abort --force".into()),
            ("decidedAt", Timestamp::now().to_string().into()),
        ] {
            attempt[field] = value;
        }
        let attempt = attempt.clone();
        status["phase"] = end.into();
        status["message"] = message.into();
        if let Written::Yes = objects::replace_status(cluster, &now, &status).await? {
            return Ok(attempt);
        }
    }
    Err(Error::new(
        Kind::AlreadyExists,
        format!("somebody else writes to {}", restore.title()),
    )
    .hint("a launcher may have come back: look at it, and try again")
    .into())
}

/// Writes the outcome where it outlives the restore.
async fn record(
    cluster: &Cluster,
    plane: &ControlPlane,
    set: &str,
    restore: &Object<EtcdRestore>,
    attempt: &Value,
) -> Result<()> {
    let path = format!(
        "/apis/apps/v1/namespaces/{}/statefulsets/{set}",
        plane.namespace
    );
    let record = json!({
        "attempt": attempt["id"], "restore": restore.name(), "uid": restore.it.metadata.uid,
        "outcome": attempt["outcome"], "clusterId": attempt["oldClusterId"],
    });
    change(cluster, &path, |read| {
        let known = read["metadata"]["annotations"][OUTCOME].as_str();
        let known: Value = known
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        (known["attempt"] != attempt["id"])
            .then(|| json!({"metadata": {"annotations": {OUTCOME: record.to_string()}}}))
    })
    .await
}

/// Gives a Deployment its replicas back, where this attempt took them.
async fn put_back(
    context: &Context,
    cluster: &Cluster,
    plane: &ControlPlane,
    name: &str,
    attempt: &str,
) -> Result<()> {
    let path = format!(
        "/apis/apps/v1/namespaces/{}/deployments/{name}",
        plane.namespace
    );
    let mut scaled = None;
    change(cluster, &path, |read| {
        let annotations = &read["metadata"]["annotations"];
        if annotations[PAUSED_BY] != attempt {
            return None;
        }
        let former = annotations[FORMER_REPLICAS].as_str();
        let former: i64 = former.and_then(|text| text.parse().ok()).unwrap_or(1);
        let mut patch =
            json!({"metadata": {"annotations": {PAUSED_BY: null, FORMER_REPLICAS: null}}});
        if read["spec"]["replicas"] == 0 {
            patch["spec"] = json!({ "replicas": former });
            scaled = Some(former);
        }
        Some(patch)
    })
    .await?;
    if let Some(replicas) = scaled {
        context
            .ui
            .line(&format!("deployment/{name} scaled to {replicas}"))?;
    }
    Ok(())
}

/// Takes pause and claim of this attempt off the Cluster.
async fn free(cluster: &Cluster, plane: &ControlPlane, attempt: &str) -> Result<()> {
    let path = format!("/apis/kubermatic.k8c.io/v1/clusters/{}", plane.cluster);
    change(cluster, &path, |read| {
        let mut patch = json!({});
        if read["spec"]["pauseReason"] == pause_reason(attempt) {
            patch["spec"] = json!({"pause": false, "pauseReason": null});
        }
        let active = read["metadata"]["annotations"][ACTIVE].as_str();
        if active.is_some_and(|active| active.ends_with(&format!("/{attempt}"))) {
            patch["metadata"] = json!({"annotations": {ACTIVE: null}});
        }
        (patch != json!({})).then_some(patch)
    })
    .await
}

/// Reads an object and patches it, again where somebody wrote in between; one that is gone needs nothing.
async fn change(
    cluster: &Cluster,
    path: &str,
    mut patch_of: impl FnMut(&Value) -> Option<Value>,
) -> Result<()> {
    for _ in 0..TRIES {
        let read: Value = match cluster.get(path).await {
            Ok(body) => serde_json::from_slice(&body)
                .map_err(|e| Error::other(format!("{path} can not be read")).because(e))?,
            Err(e) if e.is_not_found() => return Ok(()),
            Err(e) => return Err(Error::from(e).into()),
        };
        let Some(change) = patch_of(&read) else {
            return Ok(());
        };
        match patch(cluster, path, &read, change).await {
            Err(e) if e.is_conflict() => {}
            done => return Ok(done.map_err(Error::from)?),
        }
    }
    Err(Error::new(
        Kind::AlreadyExists,
        format!("somebody else writes to {path} all the time"),
    )
    .hint("run it again")
    .into())
}

/// Patches an object that is still as it was read.
async fn patch(
    cluster: &Cluster,
    path: &str,
    read: &Value,
    mut patch: Value,
) -> Result<(), ApiError> {
    patch["metadata"]["resourceVersion"] = read["metadata"]["resourceVersion"].clone();
    let path = format!("{path}?fieldManager=kubectl-backup");
    let call = Call::merge_patch(&path, patch.to_string().into());
    cluster.send(&call).await.map(|_| ())
}
