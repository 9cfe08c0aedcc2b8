//! `uninstall`: takes the controller out of a cluster. Knows no bucket: backups stay. An object without our label is never removed, and neither is a
//! namespace that holds one, nor a kind of which objects remain.

use std::time::{Duration, Instant};

use backup_core::api::crds;
use backup_core::api::hosted::Ownership;
use backup_core::cluster::{Call, Cluster};
use backup_core::definitions;
use backup_core::discovery::{self, ApiResource};
use backup_core::{Error, Kind};
use clap::Args;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use super::install::look;
use crate::context::Context;
use crate::flags::{ControllerNamespace, RemovalArgs};
use crate::install::{self, PART, Wanted, is_ours, title};
use backup_cli::error::{Exit, Result};
use backup_cli::output::counted;

const EXAMPLES: &str = "\
Examples:
  kubectl backup uninstall
  kubectl backup uninstall --controller-namespace backups --yes
  kubectl backup uninstall --dry-run";

const OFTEN: Duration = Duration::from_millis(500);

/// A pod that is stopped gets 40 s, and its node may be slow.
const PATIENT: Duration = Duration::from_secs(180);

/// A list is not larger.
const LARGEST: usize = 64 << 20;

/// More are not named.
const MOST_NAMED: usize = 10;

/// Take the controller out of the cluster; all backups stay where they are
///
/// Removes what `install` brought, and with its namespace Velero's objects in it, such as Schedules: they only tell of backups, which stay in their
/// bucket and can be read with this plugin, or by the next controller. A namespace that was there before stays, with those objects in it; one that holds
/// anything else stays, too. Kinds stay where objects of them remain, or where Velero brought them. What stays is told.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UninstallArgs {
    #[command(flatten)]
    namespace: ControllerNamespace,
    #[command(flatten)]
    removal: RemovalArgs,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: UninstallArgs) -> Result<Exit> {
    let cluster = context.cluster().await?;
    let namespace = args.namespace.as_str().to_owned();
    let kept = |title: &str, why: &str| {
        context.ui.say(&format!("{title} stays: {why}"));
    };
    let wanted = Wanted {
        namespace: namespace.clone(),
        image: String::new(),
        restores: true,
        flags: Vec::new(),
    };
    let mut pieces = install::controller(&wanted);
    let [home, ..] = &pieces[..] else {
        return Err(Error::other("an installation has no namespace").into());
    };
    let home = home.clone();
    pieces.retain(|piece| !piece.is_namespace());
    // The controller goes first: it would bring back what is removed before it.
    pieces.reverse();
    pieces.extend(install::rights(&wanted));
    let mut ours = Vec::new();
    for piece in &pieces {
        match look(cluster, piece).await? {
            Some(there) if is_ours(&there) => ours.push((piece.path(), there)),
            Some(_) => kept(&piece.title(), "it is not of an installation"),
            None => {}
        }
    }
    let there = look(cluster, &home).await?;
    // Without a trace of an installation the namespace may be a Velero's.
    if ours.is_empty() && !there.as_ref().is_some_and(is_ours) {
        return Err(Error::not_found(format!(
            "no controller is installed in namespace {namespace}"
        ))
        .hint("--controller-namespace names another one")
        .into());
    }
    let mut objects = velero_objects(cluster, Some(&namespace)).await?;
    let all = objects.len();
    if !there.as_ref().is_some_and(is_ours) {
        objects.retain(|(_, object)| is_ours(object));
    }
    if objects.len() < all {
        let stay = counted((all - objects.len()) as u64, "object");
        context.ui.say(&format!(
            "{stay} of Velero's kinds stay: namespace {namespace} was there before"
        ));
    }
    let others = others(cluster, &namespace).await?;
    if others.is_empty() {
        for piece in install::users() {
            if let Some(there) = look(cluster, &piece).await?.filter(is_ours) {
                ours.push((piece.path(), there));
            }
        }
    } else {
        let whose = format!("{} has a controller, too", others.join(", "));
        context.ui.say(&format!("the roles of users stay: {whose}"));
    }
    let question = format!(
        "take the controller out of namespace {namespace}, with {} of Velero's kinds there? The backups stay in their buckets",
        counted(objects.len() as u64, "object")
    );
    let agreed = args.removal.agreed(&context.ui, &question)?;
    let gone = async |path: &str, there: &Value| {
        if agreed {
            remove(cluster, path, there).await?;
        }
        args.removal.tell(&context.ui, &title(there), "deleted")
    };
    let is_deployment = |(_, there): &&(String, Value)| there["kind"] == "Deployment";
    for (path, there) in ours.iter().filter(is_deployment) {
        gone(path, there).await?;
    }
    if agreed {
        wait_for_pods(cluster, &namespace).await?;
    }
    for (path, there) in &objects {
        gone(path, there).await?;
    }
    for (path, there) in small_things(cluster, &namespace).await? {
        gone(&path, &there).await?;
    }
    definitions_go(context, cluster, &args, &namespace, agreed).await?;
    // Last, for by them a second call knows that something is left to do.
    for (path, there) in ours.iter().filter(|one| !is_deployment(one)) {
        gone(path, there).await?;
    }
    match there {
        Some(there) if is_ours(&there) => {
            let rest = if agreed {
                foreign(cluster, &namespace).await?
            } else {
                Vec::new()
            };
            if rest.is_empty() {
                if agreed {
                    remove(cluster, &home.path(), &there).await?;
                }
                args.removal.tell(&context.ui, &title(&there), "deleted")?;
            } else {
                let more = rest.len().saturating_sub(MOST_NAMED);
                let mut named = rest[..rest.len() - more].join(", ");
                if more > 0 {
                    named += &format!(" and {more} more");
                }
                kept(&home.title(), &format!("it holds {named}"));
            }
        }
        Some(_) => kept(&home.title(), "it was there before"),
        None => {}
    }
    Ok(Exit::Done)
}

/// All objects of Velero's kinds in a namespace, with their paths.
async fn velero_objects(
    cluster: &Cluster,
    namespace: Option<&str>,
) -> Result<Vec<(String, Value)>> {
    let mut all = Vec::new();
    for crd in crds::velero()? {
        all.extend(of_kind(cluster, namespace, &crd).await?);
    }
    Ok(all)
}

/// The objects of one kind, in a namespace or everywhere.
async fn of_kind(
    cluster: &Cluster,
    namespace: Option<&str>,
    crd: &CustomResourceDefinition,
) -> Result<Vec<(String, Value)>> {
    let names = &crd.spec.names;
    let version = crd
        .spec
        .versions
        .first()
        .map(|version| version.name.clone());
    let kind = ApiResource {
        group: crd.spec.group.clone(),
        version: version.unwrap_or_default(),
        plural: names.plural.clone(),
        namespaced: true,
        ..ApiResource::default()
    };
    let mut found = list(cluster, &kind.path(namespace)).await?;
    for (_, object) in &mut found {
        object["kind"] = names.kind.as_str().into();
    }
    Ok(found)
}

/// The objects of a list with their paths; none where the kind is not served.
async fn list(cluster: &Cluster, path: &str) -> Result<Vec<(String, Value)>> {
    let (bare, _) = path.split_once('?').unwrap_or((path, ""));
    let body = match cluster.get_bounded(path, LARGEST).await {
        Ok(body) => body,
        Err(e) if e.is_not_found() => return Ok(Vec::new()),
        Err(e) => {
            return Err(Error::from(e)
                .context(format!("can not list {bare}"))
                .into());
        }
    };
    let mut list: Value = serde_json::from_slice(&body)
        .map_err(|e| Error::other(format!("the list of {bare} can not be read")).because(e))?;
    let items = list["items"].as_array_mut().map(std::mem::take);
    // A list over all namespaces is only looked at: the paths are those of one namespace.
    let named = |item: Value| {
        let name = item["metadata"]["name"].as_str()?.to_owned();
        Some((format!("{bare}/{name}"), item))
    };
    Ok(items
        .unwrap_or_default()
        .into_iter()
        .filter_map(named)
        .collect())
}

/// Namespaces with controllers of ours, but for this one.
async fn others(cluster: &Cluster, namespace: &str) -> Result<Vec<String>> {
    let path = format!(
        "/apis/apps/v1/deployments?labelSelector={}",
        PART.replace('/', "%2F")
    );
    let all = list(cluster, &path).await?;
    let of = |(_, deployment): (String, Value)| {
        let found = deployment["metadata"]["namespace"].as_str()?.to_owned();
        (found != namespace).then(|| format!("namespace {found}"))
    };
    Ok(all.into_iter().filter_map(of).collect())
}

/// Secrets of locations, and the Lease.
async fn small_things(cluster: &Cluster, namespace: &str) -> Result<Vec<(String, Value)>> {
    let label = PART.replace('/', "%2F");
    let path = format!("/api/v1/namespaces/{namespace}/secrets?labelSelector={label}");
    let mut found = list(cluster, &path).await?;
    for (_, secret) in &mut found {
        secret["kind"] = "Secret".into();
    }
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
    let leases = list(cluster, &path).await?;
    found.extend(leases.into_iter().filter_map(|(path, mut lease)| {
        lease["kind"] = "Lease".into();
        path.ends_with("/kubectl-backup-controller")
            .then_some((path, lease))
    }));
    Ok(found)
}

/// Removes what was seen, if it still is that.
async fn remove(cluster: &Cluster, path: &str, seen: &Value) -> Result<()> {
    let options = json!({
        "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background",
        "preconditions": {"uid": seen["metadata"]["uid"]},
    });
    match cluster
        .send(&Call::delete(path, options.to_string().into()))
        .await
    {
        Ok(_) => Ok(()),
        Err(e) if e.is_not_found() => Ok(()),
        Err(e) => Err(Error::from(e)
            .context(format!("can not delete {}", title(seen)))
            .hint("give the same command again: what is gone already is passed over")
            .into()),
    }
}

/// Until no pod of the controller is left: it would bring objects back, and a backup that it makes is to be taken away again.
async fn wait_for_pods(cluster: &Cluster, namespace: &str) -> Result<()> {
    let label = PART.replace('/', "%2F");
    let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={label}");
    let started = Instant::now();
    loop {
        let pods = list(cluster, &path).await?;
        let Some((_, pod)) = pods.first() else {
            return Ok(());
        };
        if started.elapsed() > PATIENT {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            return Err(Error::new(
                Kind::Other,
                format!("the controller's pod {name} does not end"),
            )
            .hint("see it with `kubectl describe pod`, then give the same command again")
            .into());
        }
        tokio::time::sleep(OFTEN).await;
    }
}

/// Removes the kinds that are ours and of which nothing is left.
async fn definitions_go(
    context: &Context,
    cluster: &Cluster,
    args: &UninstallArgs,
    namespace: &str,
    agreed: bool,
) -> Result<()> {
    let kept = |name: &str, why: &str| {
        context
            .ui
            .say(&format!("customresourcedefinition/{name} stays: {why}"));
    };
    let mut ours = Vec::new();
    let mut elsewhere = None;
    for crd in crds::velero()? {
        let seen = definitions::look(cluster, &crd).await?;
        let Some(whose) = seen.whose else { continue };
        let mut left = of_kind(cluster, None, &crd).await?;
        left.retain(|(_, object)| agreed || object["metadata"]["namespace"] != namespace);
        if let Some((_, object)) = left.first() {
            let of = object["metadata"]["namespace"].as_str().unwrap_or_default();
            elsewhere.get_or_insert_with(|| of.to_owned());
        }
        match whose {
            Ownership::Ours(_) => ours.push(seen.name),
            Ownership::Kkp | Ownership::Foreign => kept(&seen.name, "another tool brought it"),
        }
    }
    for name in ours {
        // A server in that namespace works with all of them, those too of which it has no object yet.
        if let Some(of) = &elsewhere {
            kept(&name, &format!("Velero's objects are in namespace {of}"));
            continue;
        }
        if agreed {
            let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
            let body = match cluster.get(&path).await {
                Ok(body) => body,
                Err(e) if e.is_not_found() => continue,
                Err(e) => {
                    return Err(Error::from(e)
                        .context(format!("can not look at the definition {name}"))
                        .into());
                }
            };
            let there: Value = serde_json::from_slice(&body).map_err(|e| {
                Error::other(format!("the definition {name} can not be read")).because(e)
            })?;
            remove(cluster, &path, &there).await?;
        }
        args.removal.tell(
            &context.ui,
            &format!("customresourcedefinition/{name}"),
            "deleted",
        )?;
    }
    Ok(())
}

/// What a namespace holds besides what Kubernetes puts there itself: that is somebody's.
async fn foreign(cluster: &Cluster, namespace: &str) -> Result<Vec<String>> {
    let served = discovery::discover(cluster).await?;
    let mut found: Vec<String> = served
        .gaps
        .iter()
        .map(|gap| format!("what the group {} has, which does not answer", gap.group))
        .collect();
    let looked_at = |kind: &ApiResource| kind.namespaced && kind.can("list") && kind.can("delete");
    for kind in served.preferred().iter().filter(|kind| looked_at(kind)) {
        for (_, mut object) in list(cluster, &kind.path(Some(namespace))).await? {
            object["kind"] = kind.kind.as_str().into();
            if !goes_by_itself(&object) {
                found.push(title(&object));
            }
        }
    }
    Ok(found)
}

/// Whether an object is there because its namespace is, goes with another one, is ours, or is on its way out.
fn goes_by_itself(object: &Value) -> bool {
    let meta = &object["metadata"];
    let named = (object["kind"].as_str(), meta["name"].as_str());
    matches!(
        named,
        (Some("Event"), _)
            | (Some("ServiceAccount"), Some("default"))
            | (Some("ConfigMap"), Some("kube-root-ca.crt"))
    ) || meta["ownerReferences"]
        .as_array()
        .is_some_and(|owners| !owners.is_empty())
        || meta["deletionTimestamp"].is_string()
        || is_ours(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_somebodys_keeps_its_namespace() {
        let object = |kind: &str, name: &str, rest: Value| {
            let mut meta = json!({"name": name});
            for (key, value) in rest.as_object().unwrap() {
                meta[key] = value.clone();
            }
            json!({"kind": kind, "metadata": meta})
        };
        for (kind, name, rest) in [
            ("Event", "x", json!({})),
            ("ServiceAccount", "default", json!({})),
            ("ConfigMap", "kube-root-ca.crt", json!({})),
            ("Pod", "x", json!({"ownerReferences": [{"uid": "u"}]})),
            (
                "Pod",
                "x",
                json!({"deletionTimestamp": "2026-11-21T02:00:00Z"}),
            ),
            (
                "Secret",
                "x",
                json!({"labels": {"kubectl-backup/part": "controller"}}),
            ),
        ] {
            assert!(goes_by_itself(&object(kind, name, rest)), "{kind}");
        }
        for (kind, name, rest) in [
            ("ConfigMap", "mine", json!({})),
            ("ServiceAccount", "mine", json!({"ownerReferences": []})),
            (
                "Secret",
                "default",
                json!({"labels": {"app.kubernetes.io/name": "kubectl-backup"}}),
            ),
        ] {
            assert!(!goes_by_itself(&object(kind, name, rest)), "{kind}");
        }
    }
}
