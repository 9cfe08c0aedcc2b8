//! Conditions of a restore, as Kubernetes has them: one of each type, with the time at which its status changed last.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// True once the restored state is the cluster's; its reason is the step that was decided last.
pub(crate) const RESTORED: &str = "Restored";
/// Members that hold another cluster than the one that stands, and are not started.
pub(crate) const SET_ASIDE: &str = "MembersSetAside";
/// Another restore has the cluster.
pub(crate) const WAITING: &str = "Waiting";
/// KKP acts on the kinds here, and the launcher does not.
pub(crate) const MANAGED_BY_KKP: &str = "ManagedByKKP";

/// Sets a condition in a status; says whether that changed anything.
pub(crate) fn set(
    status: &mut Map<String, Value>,
    kind: &str,
    is_true: bool,
    reason: &str,
    message: &str,
) -> bool {
    let all = status
        .entry("conditions")
        .or_insert_with(|| Value::Array(Vec::new()));
    let Some(all) = all.as_array_mut() else {
        return false;
    };
    let word = if is_true { "True" } else { "False" };
    let known = all.iter_mut().find(|condition| condition["type"] == kind);
    let since = known
        .as_ref()
        .filter(|known| known["status"] == word)
        .and_then(|known| known["lastTransitionTime"].as_str())
        .map_or_else(
            || Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            str::to_owned,
        );
    let now = json!({
        "type": kind, "status": word, "reason": reason, "message": message, "lastTransitionTime": since,
    });
    match known {
        Some(known) if *known == now => false,
        Some(known) => {
            *known = now;
            true
        }
        None => {
            all.push(now);
            true
        }
    }
}

/// The message of a condition that is true.
pub(crate) fn message<'a>(status: Option<&'a Value>, kind: &str) -> Option<&'a str> {
    let all = status?.get("conditions")?.as_array()?;
    let found = all
        .iter()
        .find(|condition| condition["type"] == kind && condition["status"] == "True");
    found?["message"].as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_there_once_and_keeps_its_time_as_long_as_its_status() {
        let mut status = Map::new();
        assert!(set(&mut status, "A", false, "One", "1"));
        status["conditions"][0]["lastTransitionTime"] = "2026-01-01T00:00:00Z".into();
        assert!(set(&mut status, "A", false, "Two", "2"));
        assert!(!set(&mut status, "A", false, "Two", "2"), "nothing is new");
        assert_eq!(
            status["conditions"][0]["lastTransitionTime"],
            "2026-01-01T00:00:00Z"
        );
        let as_value = Value::Object(status.clone());
        assert_eq!(message(Some(&as_value), "A"), None, "it is not true");
        assert!(set(&mut status, "A", true, "Three", "3"));
        assert!(set(&mut status, "B", true, "X", "x"));
        assert_ne!(
            status["conditions"][0]["lastTransitionTime"],
            "2026-01-01T00:00:00Z"
        );
        let as_value = Value::Object(status);
        assert_eq!(as_value["conditions"].as_array().map(Vec::len), Some(2));
        assert_eq!(message(Some(&as_value), "A"), Some("3"));
    }
}
