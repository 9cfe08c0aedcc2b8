//! Who of a backup uses which claims: by that claims are filled together, where, and what is not made where one of them could not be. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

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
    numbered: BTreeSet<String>,
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
        let numbered: BTreeSet<String> = templates
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

    /// Of these claims of its namespace one that its pods use.
    pub(in super::super) fn first_of<'m, V>(
        &self,
        claims: &'m BTreeMap<String, V>,
    ) -> Option<(&'m String, &'m V)> {
        let named = self.claims.iter();
        let mut named = named.filter_map(|name| claims.get_key_value(name));
        named.next().or_else(|| {
            let prefixes = self.numbered.iter();
            let mut alike = prefixes.flat_map(|prefix| {
                let from =
                    claims.range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded));
                from.take_while(move |(name, _)| name.starts_with(prefix.as_str()))
            });
            alike.find(|(name, _)| self.uses(name))
        })
    }

    /// Whether it makes this claim for a pod where there is none.
    pub(in super::super) fn makes(&self, claim: &str) -> bool {
        self.number(claim).is_some()
    }

    /// Which of its numbered pods uses this claim.
    fn number<'c>(&self, claim: &'c str) -> Option<&'c str> {
        let (before, number) = numbered(claim)?;
        self.numbered.contains(before).then_some(number)
    }
}

/// A name of the shape that claims of numbered pods have: what is before the number, and the number.
fn numbered(claim: &str) -> Option<(&str, &str)> {
    let (before, number) = claim.split_at(claim.rfind('-')? + 1);
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    is_number.then_some((before, number))
}

/// Claims of a namespace, to be found by who uses them. An archive may hold very many of both.
#[derive(Debug, Default)]
struct Names<'c> {
    by_name: HashMap<&'c str, usize>,
    /// Those that may be a numbered pod's.
    by_prefix: HashMap<&'c str, Vec<(&'c str, usize)>>,
}

/// Claims, to be found by who uses them.
#[derive(Debug, Default)]
pub(in super::super) struct Claims<'c>(HashMap<&'c str, Names<'c>>);

impl<'c> Claims<'c> {
    /// Of these, by namespace and name; they are known by their places.
    pub(in super::super) fn new(all: impl IntoIterator<Item = (&'c str, &'c str)>) -> Self {
        let mut claims = Self::default();
        for (place, (namespace, name)) in all.into_iter().enumerate() {
            let names = claims.0.entry(namespace).or_default();
            names.by_name.insert(name, place);
            if let Some((before, number)) = numbered(name) {
                let alike = names.by_prefix.entry(before).or_default();
                alike.push((number, place));
            }
        }
        claims
    }

    /// Those that the pods of a user use, each with the number of its pod.
    pub(in super::super) fn of(&self, user: &User) -> Vec<(usize, Option<&'c str>)> {
        let Some(names) = self.0.get(user.namespace.as_str()) else {
            return Vec::new();
        };
        let named = user.claims.iter();
        let named = named.filter_map(|name| {
            let (name, place) = names.by_name.get_key_value(name.as_str())?;
            user.number(name).is_none().then_some((*place, None))
        });
        let prefixes = user.numbered.iter();
        let alike = prefixes.filter_map(|prefix| names.by_prefix.get(prefix.as_str()));
        let alike = alike
            .flatten()
            .map(|(number, place)| (*place, Some(*number)));
        named.chain(alike).collect()
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
    let named = claims.iter();
    let named = named.map(|claim| (claim.namespace.as_str(), claim.name.as_str()));
    let by_name = Claims::new(named);
    // A claim's group is that of the first claim in it.
    let mut first: Vec<usize> = (0..claims.len()).collect();
    let mut placements: Vec<Option<&Placement>> = vec![None; claims.len()];
    let mut shared = BTreeSet::new();
    fn root(first: &mut [usize], mut of: usize) -> usize {
        while first[of] != of {
            // The way is half as long for who comes next.
            first[of] = first[first[of]];
            of = first[of];
        }
        of
    }
    for user in users {
        // A pod of each number has its own.
        let mut pods: BTreeMap<Option<&str>, Vec<usize>> = BTreeMap::new();
        for (place, number) in by_name.of(user) {
            pods.entry(number).or_default().push(place);
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
                let of = root(&mut first, place);
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
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for place in 0..claims.len() {
        groups
            .entry(root(&mut first, place))
            .or_default()
            .push(place);
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

    /// Each with each would take minutes.
    #[test]
    fn very_many_claims_and_users_are_put_together_at_once() {
        const MANY: usize = 20_000;
        let claims: Vec<_> = (0..MANY)
            .map(|n| claim(&format!("n/data-db{n}-0")))
            .collect();
        let users: Vec<_> = (0..MANY)
            .map(|n| match n % 2 {
                0 => pod("n/p", &[&format!("data-db{n}-0")], "a"),
                _ => set(&format!("db{n}"), &["data"], Value::Null),
            })
            .collect();
        let began = std::time::Instant::now();
        assert_eq!(groups(&claims, &users).len(), MANY);
        let chain: Vec<_> = (1..MANY)
            .rev()
            .map(|n| {
                let two = [n - 1, n].map(|n| format!("data-db{n}-0"));
                pod("n/p", &[&two[0], &two[1]], "a")
            })
            .collect();
        assert_eq!(groups(&claims, &chain).len(), 1);
        assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
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
