//! Who of a backup uses which claims: by that claims are filled together, where, and what is not made where one of them could not be. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::mover::Placement;

/// A pod, or what makes pods.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct User {
    /// `StatefulSet copy/db`
    pub(in super::super) name: String,
    /// Its namespace in the target.
    pub(in super::super) namespace: String,
    /// Claims that its pods name.
    claims: BTreeSet<String>,
    /// The names of claims that are made for each pod, without its number: `data-db-`.
    numbered: Vec<String>,
    pub(in super::super) placement: Placement,
    /// It is a job that is not to take longer than that, in seconds.
    pub(in super::super) deadline: Option<u64>,
}

impl User {
    /// Reads one of an object as it would be created; nothing where that makes no pods that use claims.
    pub(in super::super) fn read(object: &Value) -> Option<Self> {
        let spec = &object["spec"];
        let kind = object["kind"].as_str().unwrap_or_default();
        let (pod, job) = match kind {
            "Pod" => (spec, spec),
            "CronJob" => {
                let job = &spec["jobTemplate"]["spec"];
                (&job["template"]["spec"], job)
            }
            // So have it also kinds that are not Kubernetes' own.
            _ => (&spec["template"]["spec"], spec),
        };
        let name = object["metadata"]["name"].as_str()?;
        let namespace = object["metadata"]["namespace"].as_str()?;
        let mut claims = BTreeSet::new();
        for volume in array(&pod["volumes"]) {
            if let Some(claim) = volume["persistentVolumeClaim"]["claimName"].as_str() {
                claims.insert(claim.to_owned());
            }
            // Made for this pod, under its name.
            if let (true, Some(volume)) = (
                kind == "Pod" && volume["ephemeral"].is_object(),
                volume["name"].as_str(),
            ) {
                claims.insert(format!("{name}-{volume}"));
            }
        }
        let templates = array(&spec["volumeClaimTemplates"]);
        let numbered: Vec<String> = templates
            .filter_map(|template| template["metadata"]["name"].as_str())
            .map(|template| format!("{template}-{name}-"))
            .collect();
        if claims.is_empty() && numbered.is_empty() {
            return None;
        }
        Some(Self {
            name: format!("{kind} {namespace}/{name}"),
            namespace: namespace.to_owned(),
            claims,
            numbered,
            placement: Placement::of(pod),
            deadline: job["activeDeadlineSeconds"].as_u64(),
        })
    }

    /// Whether its pods use this claim of its namespace.
    pub(in super::super) fn uses(&self, claim: &str) -> bool {
        self.claims.contains(claim) || self.number(claim).is_some()
    }

    /// Which of its numbered pods uses this claim.
    fn number<'c>(&self, claim: &'c str) -> Option<&'c str> {
        let mut numbers = self.numbered.iter().filter_map(|prefix| {
            let number = claim.strip_prefix(prefix.as_str())?;
            let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            is_number.then_some(number)
        });
        numbers.next()
    }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A claim that is to be filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Filled {
    pub(in super::super) namespace: String,
    pub(in super::super) name: String,
    /// Several nodes may have it at a time.
    pub(in super::super) is_shared: bool,
}

/// Claims that are filled together, as places in the list that was given, and where.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Group {
    pub(in super::super) claims: Vec<usize>,
    pub(in super::super) placement: Placement,
}

/// Puts together the claims that one pod uses: their volumes have to be where that pod can be. Claims that several nodes may have at a time tie nothing together: each
/// goes with the first pod that uses it. `users` come with those first that know most of where they run: pods.
pub(in super::super) fn groups(claims: &[Filled], users: &[User]) -> Vec<Group> {
    let mut by_namespace: BTreeMap<&str, Vec<&User>> = BTreeMap::new();
    for user in users {
        by_namespace.entry(&user.namespace).or_default().push(user);
    }
    // A claim's group is that of the first claim in it.
    let mut first: Vec<usize> = (0..claims.len()).collect();
    let mut placements: Vec<Option<&Placement>> = vec![None; claims.len()];
    let mut shared = BTreeSet::new();
    fn root(first: &[usize], mut of: usize) -> usize {
        while first[of] != of {
            of = first[of];
        }
        of
    }
    let mut of_namespace: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, claim) in claims.iter().enumerate() {
        of_namespace
            .entry(&claim.namespace)
            .or_default()
            .push(place);
    }
    for (namespace, users) in &by_namespace {
        let Some(places) = of_namespace.get(namespace) else {
            continue;
        };
        for user in users {
            // A pod of each number has its own.
            let mut pods: BTreeMap<Option<&str>, Vec<usize>> = BTreeMap::new();
            for place in places.iter().copied() {
                let name = &claims[place].name;
                if user.uses(name) {
                    pods.entry(user.number(name)).or_default().push(place);
                }
            }
            let common = pods.remove(&None).unwrap_or_default();
            if pods.is_empty() {
                pods.insert(None, Vec::new());
            }
            for mut places in pods.into_values() {
                places.extend(&common);
                let mut whole: Option<usize> = None;
                // Those of one node first: what is shared goes along.
                places.sort_by_key(|place| (claims[*place].is_shared, *place));
                for place in places {
                    if claims[place].is_shared && !shared.insert(place) {
                        continue;
                    }
                    let of = root(&first, place);
                    placements[of] = placements[of].or(Some(&user.placement));
                    match whole {
                        None => whole = Some(of),
                        Some(with) => {
                            let (low, high) = (with.min(of), with.max(of));
                            placements[low] = placements[low].or(placements[high]);
                            first[high] = low;
                            whole = Some(low);
                        }
                    }
                }
            }
        }
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for place in 0..claims.len() {
        groups.entry(root(&first, place)).or_default().push(place);
    }
    groups
        .into_iter()
        .map(|(of, claims)| Group {
            claims,
            placement: placements[of].cloned().unwrap_or_default(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim(path: &str) -> Filled {
        let (namespace, name) = path.split_once('/').unwrap();
        let shared = name.strip_prefix("shared-");
        Filled {
            namespace: namespace.into(),
            name: shared.unwrap_or(name).into(),
            is_shared: shared.is_some(),
        }
    }

    fn pod(path: &str, claims: &[&str], node: &str) -> User {
        let (namespace, name) = path.split_once('/').unwrap();
        let volumes: Vec<_> = claims
            .iter()
            .map(|claim| json!({"name": "v", "persistentVolumeClaim": {"claimName": claim}}))
            .collect();
        let object = json!({"kind": "Pod", "metadata": {"namespace": namespace, "name": name},
            "spec": {"nodeSelector": {"node": node}, "volumes": volumes}});
        User::read(&object).unwrap()
    }

    fn set(name: &str, templates: &[&str], volumes: Value) -> User {
        let templates: Vec<_> = templates
            .iter()
            .map(|name| json!({"metadata": {"name": name}}))
            .collect();
        let object = json!({"kind": "StatefulSet", "metadata": {"namespace": "n", "name": name},
            "spec": {"volumeClaimTemplates": templates, "template": {"spec": {"volumes": volumes}}}});
        User::read(&object).unwrap()
    }

    fn put_together(claims: &[&str], users: &[User]) -> Vec<Vec<String>> {
        let claims: Vec<_> = claims.iter().map(|path| claim(path)).collect();
        let groups = groups(&claims, users);
        let names = |group: &Group| {
            let all = group.claims.iter();
            all.map(|place| format!("{}/{}", claims[*place].namespace, claims[*place].name))
                .collect()
        };
        groups.iter().map(names).collect()
    }

    #[test]
    fn claims_of_one_pod_are_filled_together_and_others_apart() {
        let users = [
            pod("n/db", &["data", "log"], "a"),
            pod("n/job", &["log", "work"], "b"),
            pod("m/db", &["data"], "c"),
        ];
        let all = ["n/data", "n/free", "n/log", "n/work", "m/data"];
        let put = put_together(&all, &users);
        assert_eq!(
            put,
            [
                vec!["n/data", "n/log", "n/work"],
                vec!["n/free"],
                vec!["m/data"]
            ]
        );
    }

    #[test]
    fn what_several_nodes_have_ties_no_pods_together() {
        let users = [
            pod("n/a", &["one", "files"], "a"),
            pod("n/b", &["two", "files"], "b"),
        ];
        let put = put_together(&["n/one", "n/two", "n/shared-files"], &users);
        assert_eq!(put, [vec!["n/one", "n/files"], vec!["n/two"]]);
    }

    #[test]
    fn claims_of_a_stateful_set_go_by_the_number_of_their_pod() {
        let users = [set(
            "db",
            &["data", "log"],
            json!([{"name": "c", "persistentVolumeClaim": {"claimName": "files"}}]),
        )];
        let all = [
            "n/data-db-0",
            "n/data-db-1",
            "n/log-db-0",
            "n/log-db-1",
            "n/data-db-x",
            "n/shared-files",
        ];
        let put = put_together(&all, &users);
        assert_eq!(
            put,
            [
                vec!["n/data-db-0", "n/log-db-0", "n/files"],
                vec!["n/data-db-1", "n/log-db-1"],
                vec!["n/data-db-x"]
            ]
        );
        for (claim, uses) in [
            ("data-db-0", true),
            ("files", true),
            ("data-db-12", true),
            ("data-db-", false),
            ("data-db-1-0", false),
            ("other-db-0", false),
        ] {
            assert_eq!(users[0].uses(claim), uses, "{claim}");
        }
    }

    #[test]
    fn a_group_is_placed_as_the_first_pod_that_uses_it() {
        let claims = [claim("n/data"), claim("n/free")];
        let of = |node: &str| Placement::of(&json!({"nodeSelector": {"node": node}}));
        let users = [pod("n/db", &["data"], "a"), pod("n/other", &["data"], "b")];
        let groups = groups(&claims, &users);
        assert_eq!(groups[0].placement, of("a"));
        assert_eq!(groups[1].placement, Placement::default());
    }

    #[test]
    fn what_makes_pods_is_known_by_its_shape() {
        let pod = json!({
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}],
        });
        let of = |kind: &str, spec: Value| {
            User::read(
                &json!({"kind": kind, "metadata": {"name": "x", "namespace": "n"}, "spec": spec}),
            )
        };
        let made = of("Rollout", json!({"template": {"spec": pod}})).unwrap();
        assert!(made.uses("data"));
        let job = json!({"jobTemplate": {"spec": {"activeDeadlineSeconds": 60, "template": {"spec": pod}}}});
        let job = of("CronJob", job).unwrap();
        assert_eq!((job.uses("data"), job.deadline), (true, Some(60)));
        let ephemeral =
            json!({"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {}}}]});
        assert!(of("Pod", ephemeral).unwrap().uses("x-v"));
        assert_eq!(of("ConfigMap", Value::Null), None);
        assert_eq!(
            of("Pod", json!({"volumes": [{"name": "v", "emptyDir": {}}]})),
            None
        );
    }
}
