//! Which claims and pods belong together, where each mover runs, and when a copy gives way. Pure.

use std::collections::BTreeMap;

use super::super::choice;
use super::super::page::Hooked;
use super::super::volumes::Claim;
use super::users::User;
use crate::layout::VolumeKeys;
use crate::mover::Beside;
use crate::records::copies::Pod;

/// A claim that is copied.
#[derive(Clone, Debug)]
pub(in crate::backup) struct Job {
    pub(super) namespace: String,
    pub(super) claim: String,
    pub(super) uid: String,
    /// The volume it is bound to.
    pub(super) volume: String,
    pub(super) modes: Vec<String>,
    pub(super) keys: VolumeKeys,
    pub(super) pod: Option<Pod>,
}

impl Job {
    pub(super) fn new(namespace: &str, claim: &str, facts: &Claim, copy: &choice::Copy) -> Self {
        Self {
            namespace: namespace.to_owned(),
            claim: claim.to_owned(),
            uid: facts.uid.clone(),
            volume: facts.volume.clone(),
            modes: facts.facts.access_modes.clone(),
            keys: copy.keys.clone(),
            pod: copy.pod.clone(),
        }
    }

    /// `shop/data`
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.namespace, self.claim)
    }

    /// Whether pods of several nodes may have it.
    fn is_shared(&self) -> bool {
        let shared = ["ReadWriteMany", "ReadOnlyMany"];
        self.modes
            .iter()
            .any(|mode| shared.contains(&mode.as_str()))
    }

    /// Whether one pod alone may have it.
    fn is_of_one_pod(&self) -> bool {
        self.modes.iter().any(|mode| mode == "ReadWriteOncePod")
    }
}

/// Who uses claims, by namespace; or why nobody knows.
pub(super) type UsersOf = BTreeMap<String, Result<Vec<User>, String>>;

/// Pods that share claims, and these.
#[derive(Debug, Default)]
pub(in crate::backup) struct Group {
    pub(in crate::backup) pods: Vec<Hooked>,
    pub(in crate::backup) claims: Vec<Job>,
}

impl Group {
    /// A pod by itself.
    pub(in crate::backup) fn of(pod: Hooked) -> Self {
        Self {
            pods: vec![pod],
            claims: Vec::new(),
        }
    }
}

/// Brings together pods with hooks that share claims; claims that none of them uses come back beside. Pods without claims come first: none of them waits
/// for a copy.
pub(super) fn groups(
    hooked: Vec<Hooked>,
    jobs: Vec<Job>,
    users: &UsersOf,
) -> (Vec<Group>, Vec<Job>) {
    let mut groups: Vec<Group> = hooked.into_iter().map(Group::of).collect();
    let mut single = Vec::new();
    for job in jobs {
        let all = users.get(&job.namespace).and_then(|all| all.as_ref().ok());
        let uses = |pod: &Hooked| {
            pod.asked.namespace == job.namespace
                && all
                    .into_iter()
                    .flatten()
                    .any(|user| user.claim == job.claim && user.uid == pod.asked.uid)
        };
        let (its, others): (Vec<_>, Vec<_>) = groups
            .into_iter()
            .partition(|group| group.pods.iter().any(&uses));
        groups = others;
        if its.is_empty() {
            single.push(job);
            continue;
        }
        let mut union = Group::default();
        for group in its {
            union.pods.extend(group.pods);
            union.claims.extend(group.claims);
        }
        union.claims.push(job);
        groups.push(union);
    }
    groups.sort_by_key(|group| !group.claims.is_empty());
    (groups, single)
}

/// Where the mover of a claim runs: beside a pod, or wherever the scheduler likes.
///
/// # Errors
/// Why it may run nowhere, a sentence.
pub(super) fn place(
    job: &Job,
    users: &Result<Vec<User>, String>,
) -> Result<Option<Beside>, String> {
    let users = users.as_ref().map_err(Clone::clone)?;
    let its: Vec<&User> = users
        .iter()
        .filter(|user| user.claim == job.claim)
        .collect();
    if job.is_of_one_pod()
        && let Some(user) = its.first()
    {
        return Err(format!(
            "it is ReadWriteOncePod and pod {} uses it, so that no other pod may",
            user.pod
        ));
    }
    let mut on_nodes = its
        .iter()
        .filter_map(|user| user.beside.as_ref().map(|beside| (user, beside)));
    let Some((first, beside)) = on_nodes.next() else {
        return Ok(None);
    };
    if !job.is_shared()
        && let Some((other, _)) = on_nodes.find(|(_, other)| other.node != beside.node)
    {
        return Err(format!(
            "it is on its way from one node to another: pods {} and {} use it",
            first.pod, other.pod
        ));
    }
    Ok(Some(beside.clone()))
}

/// Why the copy of a claim on this node has to give way, where it has: a pod wants the volume on another one.
pub(super) fn gives_way(job: &Job, node: &str, users: &[User]) -> Option<String> {
    if job.is_shared() {
        return None;
    }
    let mut its = users
        .iter()
        .filter(|user| user.claim == job.claim && !user.is_mover);
    let other = its.find_map(|user| {
        let beside = user.beside.as_ref()?;
        (beside.node != node).then_some((user, beside))
    });
    other.map(|(user, beside)| {
        format!(
            "pod {} wants it on node {}, and a copy does not stand in the way of that",
            user.pod, beside.node
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hooks::ask::PodHooks;
    use crate::hooks::bracket::Asked;

    fn job(claim: &str, mode: &str) -> Job {
        Job {
            namespace: "shop".to_owned(),
            claim: claim.to_owned(),
            uid: format!("uid-{claim}"),
            volume: "pv".to_owned(),
            modes: vec![mode.to_owned()],
            keys: VolumeKeys::new("c", "shop", claim).unwrap(),
            pod: None,
        }
    }

    fn user(pod: &str, claim: &str, node: Option<&str>) -> User {
        let object = json!({"spec": {"nodeName": node}});
        User {
            pod: pod.to_owned(),
            uid: format!("uid-{pod}"),
            claim: claim.to_owned(),
            is_mover: false,
            beside: Beside::of(&object, "v"),
        }
    }

    fn hooked(pod: &str) -> Hooked {
        Hooked {
            asked: Asked {
                namespace: "shop".to_owned(),
                name: pod.to_owned(),
                uid: format!("uid-{pod}"),
                hooks: PodHooks::default(),
            },
            item: None,
        }
    }

    fn users(all: Vec<User>) -> UsersOf {
        [("shop".to_owned(), Ok(all))].into()
    }

    #[test]
    fn pods_that_share_claims_are_one_group_and_other_claims_are_single() {
        let pods = ["a", "b", "c", "d"].map(hooked).into();
        let jobs = ["one", "two", "three", "alone"].map(|claim| job(claim, "ReadWriteOnce"));
        let all = users(vec![
            user("a", "one", Some("n")),
            user("b", "one", Some("n")),
            user("b", "two", Some("n")),
            user("c", "three", Some("n")),
            // Not one with hooks.
            user("x", "alone", Some("n")),
        ]);
        let (groups, single) = groups(pods, jobs.into(), &all);
        let told: Vec<(Vec<&str>, Vec<&str>)> = groups
            .iter()
            .map(|group| {
                let mut pods: Vec<_> = group
                    .pods
                    .iter()
                    .map(|pod| pod.asked.name.as_str())
                    .collect();
                pods.sort_unstable();
                (
                    pods,
                    group.claims.iter().map(|job| job.claim.as_str()).collect(),
                )
            })
            .collect();
        assert_eq!(told.len(), 3);
        assert!(
            told.contains(&(vec!["a", "b"], vec!["one", "two"])),
            "{told:?}"
        );
        assert!(told.contains(&(vec!["c"], vec!["three"])), "{told:?}");
        assert_eq!(told[0], (vec!["d"], vec![]));
        let single: Vec<_> = single.iter().map(|job| job.claim.as_str()).collect();
        assert_eq!(single, ["alone"]);
    }

    #[test]
    fn a_pod_of_another_uid_is_another_one() {
        let mut other = user("a", "one", Some("n"));
        other.uid = "uid-of-before".to_owned();
        let jobs = vec![job("one", "ReadWriteOnce")];
        let (groups, single) = groups(vec![hooked("a")], jobs, &users(vec![other]));
        assert!(groups[0].claims.is_empty());
        assert_eq!(single.len(), 1);
    }

    #[test]
    fn a_mover_goes_where_the_claim_is_and_nowhere_where_it_may_not_be() {
        let where_ = |mode: &str, users: Vec<User>| {
            place(&job("one", mode), &Ok(users)).map(|beside| beside.map(|beside| beside.node))
        };
        let on = |node: &str| user("p", "one", Some(node));
        assert_eq!(
            where_("ReadWriteOnce", vec![on("n1")]),
            Ok(Some("n1".to_owned()))
        );
        assert_eq!(where_("ReadWriteOnce", vec![]), Ok(None));
        assert_eq!(
            where_("ReadWriteOnce", vec![user("p", "two", Some("n1"))]),
            Ok(None)
        );
        // Not on a node yet: the scheduler's work for both.
        assert_eq!(
            where_("ReadWriteOnce", vec![user("p", "one", None)]),
            Ok(None)
        );
        assert_eq!(where_("ReadWriteOncePod", vec![]), Ok(None));
        assert!(
            where_("ReadWriteOncePod", vec![on("n1")])
                .unwrap_err()
                .contains("ReadWriteOncePod")
        );
        assert!(
            where_("ReadWriteOnce", vec![on("n1"), on("n2")])
                .unwrap_err()
                .contains("from one node to another")
        );
        assert_eq!(
            where_("ReadWriteMany", vec![on("n1"), on("n2")]),
            Ok(Some("n1".to_owned()))
        );
        let unknown = place(
            &job("one", "ReadWriteOnce"),
            &Err("who uses it is not known".to_owned()),
        );
        assert!(unknown.is_err());
    }

    #[test]
    fn a_copy_gives_way_to_a_pod_on_another_node() {
        let of = |mode: &str, users: &[User]| gives_way(&job("one", mode), "n1", users);
        assert_eq!(of("ReadWriteOnce", &[user("p", "one", Some("n1"))]), None);
        let away = [user("p", "one", Some("n1")), user("q", "one", Some("n2"))];
        assert!(
            of("ReadWriteOnce", &away)
                .unwrap()
                .contains("pod q wants it on node n2")
        );
        assert_eq!(of("ReadWriteMany", &away), None);
        let mut mover = user("m", "one", Some("n2"));
        mover.is_mover = true;
        assert_eq!(of("ReadWriteOnce", &[mover]), None);
    }
}
