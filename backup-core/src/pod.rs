//! How a pod stands, in words, the newest thing that was told of it, and how a command in it ended: for whoever starts one and waits for it. Looks; makes and removes nothing.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde_json::Value;

use crate::cluster::Cluster;

/// No page of events that is looked at is larger.
const LARGEST: usize = 4 << 20;

/// How a pod stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stand {
    /// It may still come, and what it waits for.
    Waits(String),
    /// It does not come.
    Stuck(String),
    /// It can be asked.
    Runs,
    /// It ended, and how.
    Ended(String),
}

/// What a pod's status says of this container, an ephemeral one or not.
pub fn status_of<'p>(pod: &'p Value, container: &str) -> &'p Value {
    let lists = ["containerStatuses", "ephemeralContainerStatuses"];
    let all = lists
        .iter()
        .filter_map(|list| pod["status"][*list].as_array());
    let status = all.flatten().find(|one| one["name"] == container);
    status.unwrap_or(&Value::Null)
}

/// What a pod's status says of it and of this container.
pub fn stand(pod: &Value, container: &str) -> Stand {
    let status = &pod["status"];
    let state = &status_of(pod, container)["state"];
    if !state["running"].is_null() {
        return Stand::Runs;
    }
    let ended = &state["terminated"];
    if !ended.is_null() {
        let code = ended["exitCode"].as_i64().unwrap_or(-1);
        let reason = ended["reason"].as_str().unwrap_or_default();
        let message = ended["message"].as_str().unwrap_or_default();
        return Stand::Ended(said(&[
            &format!("it ended with exit code {code}"),
            reason,
            message,
        ]));
    }
    let reason = state["waiting"]["reason"].as_str().unwrap_or_default();
    let message = state["waiting"]["message"].as_str().unwrap_or_default();
    match reason {
        "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" => {
            return Stand::Stuck(said(&["its image can not be pulled", reason, message]));
        }
        "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "CrashLoopBackOff" => {
            return Stand::Stuck(said(&["its container can not be started", reason, message]));
        }
        _ => {}
    }
    if status["phase"] == "Failed" {
        let reason = status["reason"].as_str().unwrap_or_default();
        let message = status["message"].as_str().unwrap_or_default();
        return Stand::Ended(said(&["it failed", reason, message]));
    }
    let conditions = status["conditions"].as_array();
    let scheduled = conditions
        .into_iter()
        .flatten()
        .find(|one| one["type"] == "PodScheduled" && one["status"] == "False");
    if let Some(condition) = scheduled {
        let message = condition["message"].as_str().unwrap_or_default();
        return Stand::Waits(said(&["no node takes it", message]));
    }
    if pod["spec"]["nodeName"].as_str().is_none() {
        return Stand::Waits("no node was found for it yet".to_owned());
    }
    Stand::Waits(said(&["its container does not run yet", reason, message]))
}

/// What is there, joined; bounded, for others wrote it.
fn said(parts: &[&str]) -> String {
    let parts: Vec<_> = parts.iter().filter(|part| !part.is_empty()).collect();
    let text = parts
        .iter()
        .map(|part| part.trim())
        .collect::<Vec<_>>()
        .join(": ");
    short(&text)
}

/// No more than fits on a few lines.
pub fn short(text: &str) -> String {
    const MOST: usize = 600;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text.to_owned(),
    }
}

/// The exit status of a command that was run in a pod, as the server tells it; nothing where that says something else.
pub fn exit_status(status: &Status) -> Option<i64> {
    if status.status.as_deref() == Some("Success") {
        return Some(0);
    }
    let details = status.details.iter();
    let causes = details.flat_map(|details| details.causes.iter().flatten());
    causes
        .filter(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .find_map(|cause| cause.message.as_deref()?.trim().parse().ok())
}

/// The newest event of an object, a warning before others; nothing where they can not be read.
pub async fn event_of(cluster: &Cluster, namespace: &str, name: &str) -> Option<Event> {
    let path = format!(
        "/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.name%3D{name}&limit=100"
    );
    let body = cluster.get_bounded(&path, LARGEST).await.ok()?;
    let list: Value = serde_json::from_slice(&body).ok()?;
    newest(list["items"].as_array()?)
}

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its reason and its message, bounded.
    pub text: String,
    /// Whether it will say nothing else.
    pub is_final: bool,
}

/// The newest of some events, a warning before others.
fn newest(events: &[Value]) -> Option<Event> {
    let when = |event: &Value| {
        let times = ["lastTimestamp", "eventTime", "firstTimestamp"];
        let mut times = times.iter().filter_map(|key| event[*key].as_str());
        times.next().unwrap_or_default().to_owned()
    };
    let warns = |event: &Value| event["type"] == "Warning";
    let event = events
        .iter()
        .max_by_key(|event| (warns(event), when(event)))?;
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    let (reason, message) = (text("reason"), text("message"));
    let lacks = message.contains("not found") || message.contains("non-existent");
    Some(Event {
        text: short(&format!("{reason}: {message}")),
        is_final: match reason {
            // Quotas and admission refuse what they refused.
            "FailedCreate" => true,
            "FailedMount" => lacks,
            _ => false,
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(pod: &Value) -> Stand {
        stand(pod, "c")
    }

    #[test]
    fn a_pod_that_does_not_come_says_why() {
        let waiting = |reason: &str| json!({"spec": {"nodeName": "n"}, "status": {"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": reason, "message": "m"}}}]}});
        let stuck = "its image can not be pulled: ErrImagePull: m".to_owned();
        assert_eq!(of(&waiting("ErrImagePull")), Stand::Stuck(stuck));
        assert!(matches!(
            of(&waiting("CreateContainerConfigError")),
            Stand::Stuck(_)
        ));
        assert!(matches!(of(&waiting("ContainerCreating")), Stand::Waits(_)));
        let unscheduled = json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]}});
        let waits = "no node takes it: 0/1 nodes".to_owned();
        assert_eq!(of(&unscheduled), Stand::Waits(waits));
        let state = |state: Value| json!({"status": {"containerStatuses": [{"name": "c", "state": state}]}});
        assert_eq!(of(&state(json!({"running": {}}))), Stand::Runs);
        let ended = of(&state(
            json!({"terminated": {"exitCode": 2, "reason": "Error"}}),
        ));
        assert_eq!(
            ended,
            Stand::Ended("it ended with exit code 2: Error".to_owned())
        );
        let evicted = json!({"status": {"phase": "Failed", "reason": "DeadlineExceeded"}});
        assert!(matches!(of(&evicted), Stand::Ended(why) if why.contains("DeadlineExceeded")));
        assert!(matches!(of(&json!({})), Stand::Waits(_)));
        assert!(short(&"é".repeat(5000)).chars().count() < 700);
    }

    #[test]
    fn a_warning_is_told_before_what_was_normal_after_it() {
        let event = |kind: &str, reason: &str, message: &str, at: &str| json!({"type": kind, "reason": reason, "message": message, "lastTimestamp": at});
        let events = [
            event("Normal", "Scheduled", "to n", "2026-11-29T10:00:03Z"),
            event(
                "Warning",
                "FailedMount",
                "secret \"x\" not found",
                "2026-11-29T10:00:02Z",
            ),
            event("Warning", "FailedScheduling", "0/1", "2026-11-29T10:00:01Z"),
        ];
        let told = newest(&events).unwrap();
        assert_eq!(told.text, "FailedMount: secret \"x\" not found");
        assert!(told.is_final);
        assert!(!newest(&events[2..]).unwrap().is_final);
        assert!(newest(&[]).is_none());
    }
}
