//! Which claims and pods belong together, where each mover runs, and when a copy gives way. Pure.

use std::collections::BTreeMap;

use super::super::page::Hooked;
use super::super::volumes::Claim;
use super::super::{EPHEMERAL_MOVERS, choice};
use super::users::User;
use crate::layout::VolumeKeys;
use crate::mover::{Beside, Host};
use crate::records::copies::Pod;
use crate::snapshot::cut::Wanted;

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

/// What is done with a claim's data.
#[derive(Clone, Debug)]
pub(in crate::backup) enum Task {
    /// Its files are copied.
    Copy(Job),
    /// A snapshot is made.
    Cut(Wanted),
}

impl Task {
    /// Of which claim: namespace and name.
    pub(super) fn claim(&self) -> (&str, &str) {
        match self {
            Self::Copy(job) => (&job.namespace, &job.claim),
            Self::Cut(wanted) => (&wanted.namespace, &wanted.claim),
        }
    }
}

/// Who uses claims, by namespace; or why nobody knows.
pub(super) type UsersOf = BTreeMap<String, Result<Vec<User>, String>>;

/// Pods that share claims, and these.
#[derive(Debug, Default)]
pub(in crate::backup) struct Group {
    pub(in crate::backup) pods: Vec<Hooked>,
    pub(in crate::backup) claims: Vec<Task>,
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
    tasks: Vec<Task>,
    users: &UsersOf,
) -> (Vec<Group>, Vec<Task>) {
    let mut groups: Vec<Group> = hooked.into_iter().map(Group::of).collect();
    let mut single = Vec::new();
    for task in tasks {
        let (namespace, claim) = task.claim();
        let all = users.get(namespace).and_then(|all| all.as_ref().ok());
        let uses = |pod: &Hooked| {
            pod.asked.namespace == namespace
                && all
                    .into_iter()
                    .flatten()
                    .any(|user| user.claim == claim && user.uid == pod.asked.uid)
        };
        let (its, others): (Vec<_>, Vec<_>) = groups
            .into_iter()
            .partition(|group| group.pods.iter().any(&uses));
        groups = others;
        if its.is_empty() {
            single.push(task);
            continue;
        }
        let mut union = Group::default();
        for group in its {
            union.pods.extend(group.pods);
            union.claims.extend(group.claims);
        }
        union.claims.push(task);
        groups.push(union);
    }
    groups.sort_by_key(|group| !group.claims.is_empty());
    (groups, single)
}

/// Where the mover of a claim runs.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Place {
    /// Wherever the scheduler likes.
    Anywhere,
    /// Beside a pod.
    Beside(Beside),
    /// In the pod that alone may have the volume.
    Inside(Host),
}

/// Chooses it. `ephemeral` says whether pods that do not say it themselves may get a container for it.
///
/// # Errors
/// Why it may run nowhere, a sentence.
pub(super) fn place(
    job: &Job,
    users: &Result<Vec<User>, String>,
    ephemeral: bool,
) -> Result<Place, String> {
    let users = users.as_ref().map_err(Clone::clone)?;
    let its: Vec<&User> = users
        .iter()
        .filter(|user| user.claim == job.claim)
        .collect();
    if job.is_of_one_pod()
        && let Some(first) = its.first()
    {
        let user = its.iter().find(|user| user.runs).unwrap_or(first);
        return inside(user, ephemeral).map(Place::Inside);
    }
    let mut on_nodes = its
        .iter()
        .filter_map(|user| user.beside.as_ref().map(|beside| (user, beside)));
    let Some((first, beside)) = on_nodes.next() else {
        return Ok(Place::Anywhere);
    };
    if !job.is_shared()
        && let Some((other, _)) = on_nodes.find(|(_, other)| other.node != beside.node)
    {
        return Err(format!(
            "it is on its way from one node to another: pods {} and {} use it",
            first.pod, other.pod
        ));
    }
    Ok(Place::Beside(beside.clone()))
}

/// The pod that alone may have a volume, where it may get a container that copies it.
fn inside(user: &User, ephemeral: bool) -> Result<Host, String> {
    let pod = &user.pod;
    let uses = format!("it is ReadWriteOncePod and pod {pod} uses it, so that no other pod may");
    if user.is_mover {
        return Err(uses);
    }
    match (user.ephemeral.as_deref(), ephemeral) {
        (Some("true"), _) | (None, true) => {}
        (Some("false"), _) => {
            return Err(format!(
                "{uses}; an ephemeral container of that pod could copy it, and the pod's annotation {EPHEMERAL_MOVERS} says that it gets none"
            ));
        }
        (None, false) => {
            return Err(format!(
                "{uses}; an ephemeral container of that pod can copy it where that is asked for (--ephemeral-movers, or the pod's annotation {EPHEMERAL_MOVERS}: \"true\"), and stays in the pod's object as long as there is the pod"
            ));
        }
        (Some(odd), _) => {
            return Err(format!(
                "{uses}; the pod's annotation {EPHEMERAL_MOVERS} says {odd:?}, which is neither \"true\" nor \"false\", so that it gets no ephemeral container"
            ));
        }
    }
    // It is spoken to over a name in the network that it is in.
    if user.is_in_nodes_network {
        return Err(format!(
            "{uses}; the pod is in its node's network (hostNetwork), in which every process of the node could end an ephemeral container's copy, so that it gets none"
        ));
    }
    match &user.beside {
        Some(beside) if user.runs => Ok(Host {
            pod: pod.clone(),
            uid: user.uid.clone(),
            volume: user.volume.clone(),
            beside: beside.clone(),
        }),
        _ => Err(format!(
            "{uses}, and the pod does not run: only in one that runs an ephemeral container can copy it"
        )),
    }
}

/// Why the copy of a claim on this node has to give way, where it has: a pod wants the volume on another one, or alone.
pub(super) fn gives_way(job: &Job, node: &str, users: &[User]) -> Option<String> {
    if job.is_shared() {
        return None;
    }
    let mut its = users
        .iter()
        .filter(|user| user.claim == job.claim && !user.is_mover);
    if job.is_of_one_pod() {
        // Nobody used it when its mover was made, and nobody can run while that does.
        return its.next().map(|user| {
            format!(
                "pod {} wants it alone (ReadWriteOncePod), and a copy does not stand in the way of that",
                user.pod
            )
        });
    }
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
            volume: "v".to_owned(),
            runs: node.is_some(),
            is_in_nodes_network: false,
            ephemeral: None,
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
        let jobs =
            ["one", "two", "three", "alone"].map(|claim| Task::Copy(job(claim, "ReadWriteOnce")));
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
                    group.claims.iter().map(|task| task.claim().1).collect(),
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
        let single: Vec<_> = single.iter().map(|task| task.claim().1).collect();
        assert_eq!(single, ["alone"]);
    }

    #[test]
    fn a_pod_of_another_uid_is_another_one() {
        let mut other = user("a", "one", Some("n"));
        other.uid = "uid-of-before".to_owned();
        let jobs = vec![Task::Copy(job("one", "ReadWriteOnce"))];
        let (groups, single) = groups(vec![hooked("a")], jobs, &users(vec![other]));
        assert!(groups[0].claims.is_empty());
        assert_eq!(single.len(), 1);
    }

    #[test]
    fn a_mover_goes_where_the_claim_is_and_nowhere_where_it_may_not_be() {
        let where_ = |mode: &str, users: Vec<User>| {
            place(&job("one", mode), &Ok(users), false).map(|place| match place {
                Place::Beside(beside) => Some(beside.node),
                Place::Anywhere => None,
                Place::Inside(_) => panic!("nobody asked for that"),
            })
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
            false,
        );
        assert!(unknown.is_err());
    }

    #[test]
    fn a_volume_of_one_pod_is_copied_in_it_only_where_that_is_asked_for_and_it_runs() {
        let of = |ephemeral: bool, users: Vec<User>| {
            place(&job("one", "ReadWriteOncePod"), &Ok(users), ephemeral)
        };
        let says = |says: Option<&str>| User {
            ephemeral: says.map(str::to_owned),
            ..user("p", "one", Some("n1"))
        };
        let refused = of(false, vec![says(None)]).unwrap_err();
        for hint in ["pod p uses it", "--ephemeral-movers", EPHEMERAL_MOVERS] {
            assert!(refused.contains(hint), "{refused}");
        }
        let refused = of(true, vec![says(Some("false"))]).unwrap_err();
        assert!(refused.contains("says that it gets none"), "{refused}");
        let refused = of(true, vec![says(Some("True"))]).unwrap_err();
        assert!(refused.contains("says \"True\""), "{refused}");
        let everybodys = User {
            is_in_nodes_network: true,
            ..says(Some("true"))
        };
        let refused = of(true, vec![everybodys]).unwrap_err();
        assert!(refused.contains("hostNetwork"), "{refused}");
        let waits = user("before", "one", None);
        for (ephemeral, users) in [
            (true, vec![says(None)]),
            (false, vec![says(Some("true"))]),
            (true, vec![waits.clone(), says(None)]),
        ] {
            let Ok(Place::Inside(host)) = of(ephemeral, users) else {
                panic!("it is copied in the pod that runs");
            };
            assert_eq!((host.pod.as_str(), host.uid.as_str()), ("p", "uid-p"));
            assert_eq!(host.volume, "v");
        }
        assert!(of(true, vec![waits]).unwrap_err().contains("does not run"));
        let mover = User {
            is_mover: true,
            ..says(None)
        };
        assert!(of(true, vec![mover]).is_err());
        assert_eq!(of(true, vec![]), Ok(Place::Anywhere));
        let shared = place(
            &job("one", "ReadWriteOnce"),
            &Ok(vec![says(Some("true"))]),
            true,
        );
        assert!(matches!(shared, Ok(Place::Beside(_))));
    }

    #[test]
    fn a_copy_gives_way_to_a_pod_on_another_node_and_to_one_that_wants_it_alone() {
        let of = |mode: &str, users: &[User]| gives_way(&job("one", mode), "n1", users);
        assert_eq!(of("ReadWriteOnce", &[user("p", "one", Some("n1"))]), None);
        let away = [user("p", "one", Some("n1")), user("q", "one", Some("n2"))];
        assert!(
            of("ReadWriteOnce", &away)
                .unwrap()
                .contains("pod q wants it on node n2")
        );
        assert_eq!(of("ReadWriteMany", &away), None);
        let waits = user("p", "one", None);
        let why = of("ReadWriteOncePod", std::slice::from_ref(&waits)).unwrap();
        assert!(why.contains("pod p wants it alone"), "{why}");
        assert_eq!(of("ReadWriteOncePod", &[user("p", "two", None)]), None);
        assert_eq!(of("ReadWriteOnce", &[waits]), None);
        let mut mover = user("m", "one", Some("n2"));
        mover.is_mover = true;
        assert_eq!(of("ReadWriteOnce", &[mover]), None);
    }
}
