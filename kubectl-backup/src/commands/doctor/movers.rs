//! The pods through which the files of volumes go: which image they would have, and whether this user may make them where something asks for copies. Looks only.

use backup_core::backup::{COPY_ALL_OF_LOCATION, EPHEMERAL_MOVERS};
use backup_core::cluster::Cluster;
use backup_core::error::quoted;
use serde_json::Value;

use super::{Check, Verdict, failed, found, may};
use crate::context::Context;
use crate::copies;
use backup_cli::error::Result;

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asks {
    /// Who asks for copies, in words.
    copies: Option<String>,
    /// Who asks for containers in pods that alone may have their volumes.
    ephemeral: Option<String>,
}

/// The rights that a copy takes: verb, resource of the core group, subresource.
const COPIES: [(&str, &str, &str); 6] = [
    ("create", "pods", ""),
    ("get", "pods", ""),
    ("list", "pods", ""),
    ("delete", "pods", ""),
    ("create", "pods", "exec"),
    ("get", "pods", "exec"),
];
const EPHEMERAL: (&str, &str, &str) = ("patch", "pods", "ephemeralcontainers");

/// Looks.
pub(super) async fn look(context: &Context, cluster: &Cluster) -> Vec<Check> {
    let (image, why) = copies::usual_image(cluster).await;
    let detail = format!("{image}: {why}; --mover-image names another");
    let mut checks = vec![found("mover image", Verdict::Ok, detail)];
    let location = context.location_to_check().await.ok();
    let said = location.as_ref().and_then(|location| {
        let annotations = &location.spec.metadata.annotations;
        annotations.get(COPY_ALL_OF_LOCATION)
    });
    let schedules = schedules(cluster).await;
    let asks = Asks::of(said.is_some_and(|said| said == "true"), &schedules);
    match lacking(cluster, &asks).await {
        Ok(check) => checks.extend(check),
        Err(e) => checks.push(failed("mover rights", e.error())),
    }
    checks
}

/// The Schedules of the cluster; who may not see them, or has none, knows of none.
async fn schedules(cluster: &Cluster) -> Vec<Value> {
    let path = "/apis/velero.io/v1/schedules?limit=500";
    let Ok(body) = cluster.get(path).await else {
        return Vec::new();
    };
    let mut list: Value = serde_json::from_slice(&body).unwrap_or_default();
    match list["items"].take() {
        Value::Array(all) => all,
        _ => Vec::new(),
    }
}

impl Asks {
    fn of(location_does: bool, schedules: &[Value]) -> Self {
        let first = |wanted: fn(&Value) -> bool| {
            let schedule = schedules.iter().find(|schedule| wanted(schedule))?;
            let name = schedule["metadata"]["name"].as_str().unwrap_or_default();
            Some(format!("schedule {}", quoted(name)))
        };
        let copies = || {
            first(|schedule| {
                let template = &schedule["spec"]["template"];
                template["defaultVolumesToFsBackup"] == true
                    || template["defaultVolumesToRestic"] == true
            })
        };
        Self {
            copies: match location_does {
                true => Some("the location".to_owned()),
                false => copies(),
            },
            ephemeral: first(|schedule| {
                schedule["metadata"]["annotations"][EPHEMERAL_MOVERS] == "true"
            }),
        }
    }
}

/// Whether this user may do what is asked for; nothing where nothing is.
async fn lacking(cluster: &Cluster, asks: &Asks) -> Result<Option<Check>> {
    let Some(who) = asks.copies.as_ref().or(asks.ephemeral.as_ref()) else {
        return Ok(None);
    };
    let mut wanted = COPIES.to_vec();
    if asks.ephemeral.is_some() {
        wanted.push(EPHEMERAL);
    }
    let mut missing = Vec::new();
    for (verb, resource, below) in wanted {
        if !may(cluster, verb, ("", resource), below).await? {
            missing.push(match below {
                "" => format!("{verb} {resource}"),
                below => format!("{verb} {resource}/{below}"),
            });
        }
    }
    let name = "mover rights";
    if missing.is_empty() {
        let detail = format!("this user may make the pods through which {who} wants files copied");
        return Ok(Some(found(name, Verdict::Ok, detail)));
    }
    let detail = format!(
        "{who} asks for files of volumes to be copied, and this user may not {} in all namespaces",
        missing.join(", ")
    );
    let advice = "what runs with these rights alone does not copy such volumes, names each and ends with exit code 3; the role that `install` writes has them";
    Ok(Some(Check {
        advice: Some(advice.to_owned()),
        ..found(name, Verdict::Warning, detail)
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_asks_for_copies_and_for_containers_in_pods_is_named() {
        let schedule = |name: &str, says: Value, template: Value| json!({"metadata": {"name": name, "annotations": {EPHEMERAL_MOVERS: says}}, "spec": {"template": template}});
        let none = schedule("none", "false".into(), json!({}));
        assert_eq!(
            Asks::of(false, std::slice::from_ref(&none)),
            Asks::default()
        );
        let all = [
            none,
            schedule(
                "files",
                Value::Null,
                json!({"defaultVolumesToFsBackup": true}),
            ),
            schedule("inside", "true".into(), json!({})),
        ];
        let asks = Asks::of(false, &all);
        assert_eq!(asks.copies.as_deref(), Some("schedule files"));
        assert_eq!(asks.ephemeral.as_deref(), Some("schedule inside"));
        assert_eq!(Asks::of(true, &all).copies.as_deref(), Some("the location"));
    }
}
