//! In which version the objects of a backup are sent to a target. A server converts between all versions of a kind that it serves, so each of them
//! will do: the one in the archive, whether the target prefers it or not; else, where the archive holds the objects in several versions
//! (Velero's feature EnableAPIGroupVersions), another one of these; else, for a few built-in kinds, the version that came after the
//! archive's and has the same fields with the same meaning, see [`MOVES`]. Nothing else is guessed: what no version fits is said before
//! the restore begins, and is not restored; that another version than the preferred one is taken, which may hold less, is a warning. A single
//! object whose fields would mean something else fails when its turn comes. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::discovery::{ApiResource, Gap, Served};
use crate::error::{Error, Result};
use crate::raw::RawObject;

/// Built-in kinds with a version that servers have dropped, and the one that came after: compared field by field in k8s.io/api. An Ingress, a webhook
/// configuration or a definition of those days has other fields, or other defaults, and is not here.
const MOVES: [(&str, &str, &str); 13] = [
    ("cronjobs.batch", "v1beta1", "v1"),
    ("horizontalpodautoscalers.autoscaling", "v2beta2", "v2"),
    (BUDGETS, "v1beta1", "v1"),
    (
        "clusterrolebindings.rbac.authorization.k8s.io",
        "v1beta1",
        "v1",
    ),
    ("clusterroles.rbac.authorization.k8s.io", "v1beta1", "v1"),
    ("rolebindings.rbac.authorization.k8s.io", "v1beta1", "v1"),
    ("roles.rbac.authorization.k8s.io", "v1beta1", "v1"),
    ("leases.coordination.k8s.io", "v1beta1", "v1"),
    ("priorityclasses.scheduling.k8s.io", "v1beta1", "v1"),
    ("runtimeclasses.node.k8s.io", "v1beta1", "v1"),
    ("csidrivers.storage.k8s.io", "v1beta1", "v1"),
    ("csistoragecapacities.storage.k8s.io", "v1beta1", "v1"),
    ("storageclasses.storage.k8s.io", "v1beta1", "v1"),
];
const BUDGETS: &str = "poddisruptionbudgets.policy";

/// The versions in which a resource is served, the preferred one first.
pub(super) fn served<'s>(
    resource: &ApiResource,
    served: &'s Served,
) -> impl Iterator<Item = &'s Arc<ApiResource>> {
    let (group, plural) = (resource.group.clone(), resource.plural.clone());
    let all = served.all.iter();
    all.filter(move |other| other.group == group && other.plural == plural)
}

/// The target's resource to which objects of this one of a backup are sent; nothing where no version fits.
pub(super) fn target<'s>(resource: &ApiResource, all: &'s Served) -> Option<&'s Arc<ApiResource>> {
    let of = |version: &str| served(resource, all).find(|other| other.version == version);
    let after = || of(after(&resource.group_resource(), &resource.version)?);
    of(&resource.version).or_else(after)
}

/// The version that came after this one with the same shape.
fn after(resource: &str, version: &str) -> Option<&'static str> {
    let mut moves = MOVES.iter();
    let (.., new) = moves.find(|(moved, old, _)| *moved == resource && *old == version)?;
    Some(new)
}

/// Of these resources of a backup, those whose objects may be of the version before the one they are sent in, with that `apiVersion`.
pub(super) fn moved<'r>(
    resources: impl Iterator<Item = &'r ApiResource>,
    served: &Served,
) -> HashMap<String, String> {
    let targets = resources.filter_map(|resource| {
        let (name, target) = (resource.group_resource(), target(resource, served)?);
        let is = |(moved, _, new): &&(&str, &str, &str)| *moved == name && *new == target.version;
        let api_version = target.api_version();
        MOVES.iter().find(is).map(|_| (name, api_version))
    });
    targets.collect()
}

/// The versions that a definition serves; none where it does not tell.
pub(super) fn defined(definition: &[u8]) -> Vec<String> {
    let body: Value = serde_json::from_slice(definition).unwrap_or_default();
    let versions = body["spec"]["versions"].as_array().into_iter().flatten();
    let served = versions.filter(|version| version["served"] == true);
    // As apiextensions.k8s.io/v1beta1 may have it.
    let named = served
        .map(|version| &version["name"])
        .chain([&body["spec"]["version"]]);
    named
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect()
}

/// Makes an object one of this `apiVersion`, where it is of the version before; tells what was changed.
///
/// # Errors
/// `Invalid`, where the same field would mean something else.
pub(super) fn send_as(
    resource: &str,
    object: &mut RawObject<'_>,
    api_version: &str,
) -> Result<Option<String>> {
    let had: String = object.read("apiVersion")?.unwrap_or_default();
    let version = |of: &str| of.rsplit('/').next().unwrap_or_default().to_owned();
    if after(resource, &version(&had)) != Some(&version(api_version)) {
        return Ok(None);
    }
    if resource == BUDGETS {
        let spec: Value = object.read("spec")?.unwrap_or_default();
        let empty = |key: &str| match &spec["selector"][key] {
            Value::Object(map) => map.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => true,
        };
        if spec["selector"].is_object() && empty("matchLabels") && empty("matchExpressions") {
            return Err(Error::invalid(format!(
                "its empty selector means no pod in {had}, and every pod in {api_version}, which the target serves"
            )));
        }
    }
    object.set("apiVersion", &api_version)?;
    Ok(Some(format!("version {had} to {api_version}")))
}

/// How well a version of a resource suits a target, 0 not at all: of several in an archive (its preferred one among them) the best is taken.
pub(super) fn rank(served: &Served) -> impl Fn(&str, &str, bool) -> u8 + Send + 'static {
    let mut versions: HashMap<String, Vec<String>> = HashMap::new();
    for api in &served.all {
        let list = versions.entry(api.group_resource()).or_default();
        list.push(api.version.clone());
    }
    let gaps = served.gaps.clone();
    move |resource, version, preferred| {
        let Some(list) = versions.get(resource) else {
            return 0;
        };
        let (_, group) = resource.split_once('.').unwrap_or_default();
        let asked =
            |gap: &&Gap| gap.group == group && [version, ""].contains(&gap.version.as_str());
        // Whether it is served is not known: then nothing else is taken for it.
        if preferred && gaps.iter().any(|gap| asked(&gap)) {
            return u8::MAX;
        }
        let is = |version: &str| list.iter().position(|other| other == version);
        match (is(version), after(resource, version).and_then(is)) {
            (Some(_), _) if preferred => u8::MAX,
            (Some(place), _) => u8::MAX - 1 - u8::try_from(place.min(200)).unwrap_or(200),
            (None, Some(_)) => 1 + u8::from(preferred),
            (None, None) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(list: &[(&str, &str)]) -> Served {
        let api = |(resource, version): &(&str, &str)| {
            let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
            Arc::new(ApiResource {
                group: group.into(),
                version: (*version).into(),
                plural: plural.into(),
                ..ApiResource::default()
            })
        };
        Served {
            all: list.iter().map(api).collect(),
            gaps: Vec::new(),
        }
    }

    fn found(resource: &str, version: &str, served: &Served) -> Option<String> {
        let of = all(&[(resource, version)]);
        target(&of.all[0], served).map(|api| api.version.clone())
    }

    #[test]
    fn the_archives_version_is_kept_where_it_is_served_and_only_equal_shapes_move() {
        let served = all(&[
            ("gadgets.a", "v2"),
            ("gadgets.a", "v1"),
            ("cronjobs.batch", "v1"),
            ("ingresses.networking.k8s.io", "v1"),
        ]);
        let of = |resource, version| found(resource, version, &served);
        assert_eq!(of("gadgets.a", "v1").as_deref(), Some("v1"));
        assert_eq!(of("gadgets.a", "v1beta1"), None);
        assert_eq!(of("cronjobs.batch", "v1beta1").as_deref(), Some("v1"));
        assert_eq!(of("cronjobs.batch", "v2alpha1"), None);
        assert_eq!(of("ingresses.networking.k8s.io", "v1beta1"), None);
    }

    #[test]
    fn what_a_definition_serves_is_read_in_both_its_forms() {
        let of = |text: &str| defined(text.as_bytes());
        let many =
            r#"{"spec":{"versions":[{"name":"v1","served":true},{"name":"v2","served":false}]}}"#;
        assert_eq!(of(many), ["v1"]);
        assert_eq!(of(r#"{"spec":{"version":"v1beta1"}}"#), ["v1beta1"]);
        assert!(of("{}").is_empty() && of("x").is_empty());
    }

    #[test]
    fn a_version_that_could_not_be_asked_for_gives_way_to_no_other() {
        let mut served = all(&[("g.a", "v1")]);
        served.gaps.push(Gap {
            group: "a".into(),
            version: "v3".into(),
            reason: "503".into(),
        });
        let rank = rank(&served);
        assert!(rank("g.a", "v3", true) > rank("g.a", "v1", false));
        assert_eq!(rank("g.a", "v2", true), 0);
    }

    #[test]
    fn of_several_versions_the_preferred_one_is_taken_if_it_is_served_else_the_targets_first() {
        let served = all(&[("g.a", "v3"), ("g.a", "v2"), (BUDGETS, "v1")]);
        let rank = rank(&served);
        let order = [
            rank("g.a", "v2", true),
            rank("g.a", "v3", false),
            rank("g.a", "v2", false),
            rank(BUDGETS, "v1beta1", true),
            rank(BUDGETS, "v1beta1", false),
            rank("g.a", "v1", true),
        ];
        assert!(order.is_sorted_by(|a, b| a > b), "{order:?}");
        assert_eq!(order[5], 0);
        assert_eq!(rank("h.a", "v1", true), 0);
    }

    #[test]
    fn a_budget_whose_selector_would_mean_something_else_is_not_moved() {
        let moved = |selector: &str| {
            let text = format!(r#"{{"apiVersion":"policy/v1beta1","spec":{{{selector}}}}}"#);
            let mut object = RawObject::parse(&text).unwrap();
            send_as(BUDGETS, &mut object, "policy/v1").map(|told| {
                let now: String = object.read("apiVersion").unwrap().unwrap();
                (told.is_some(), now)
            })
        };
        let good = (true, "policy/v1".to_owned());
        assert_eq!(moved("").unwrap(), good);
        assert_eq!(
            moved(r#""selector":{"matchLabels":{"a":"b"}}"#).unwrap(),
            good
        );
        for empty in ["{}", r#"{"matchLabels":{},"matchExpressions":[]}"#] {
            let error = moved(&format!(r#""selector":{empty}"#)).unwrap_err();
            assert!(error.to_string().contains("every pod"), "{error}");
        }
        let mut now = RawObject::parse(r#"{"apiVersion":"policy/v1"}"#).unwrap();
        assert_eq!(send_as(BUDGETS, &mut now, "policy/v1").unwrap(), None);
    }
}
