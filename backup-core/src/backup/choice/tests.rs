use serde_json::json;

use super::super::volumes::{self, Pod as SeenPod};
use super::*;
use crate::records::copies::{FileCopy, Saved};

/// What was seen of namespace `a`: claims and pods as the server has them.
#[derive(Default)]
struct Cluster {
    seen: Seen,
    policies: Option<Policies>,
    offer: Offer,
    annotations: BTreeMap<String, String>,
    moved: bool,
}

fn key(claim: &str) -> (String, String) {
    ("a".to_owned(), claim.to_owned())
}

impl Cluster {
    fn with(policies: &str) -> Self {
        let text = format!("version: v1\nvolumePolicies:\n{policies}");
        Self {
            policies: Some(Policies::parse(&text).unwrap()),
            ..Self::default()
        }
    }

    fn claim(mut self, name: &str, more: serde_json::Value) -> Self {
        let mut claim = json!({"metadata": {"uid": format!("uid-{name}")},
            "spec": {"volumeName": format!("pv-{name}")}, "status": {"phase": "Bound"}});
        for (pointer, value) in more.as_object().unwrap() {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            claim.pointer_mut(parent).unwrap()[key] = value.clone();
        }
        let claim = volumes::claim(&claim.to_string(), self.policies.is_some());
        self.seen.claims.insert(key(name), claim);
        self
    }

    fn volume(mut self, name: &str, spec: serde_json::Value) -> Self {
        let text = json!({"metadata": {}, "spec": spec}).to_string();
        let volume = volumes::volume(&format!("pv-{name}"), &text, true);
        self.seen.volumes.extend(volume);
        self
    }

    /// A pod that mounts each of these as the volume of the same name.
    fn pod(
        mut self,
        name: &str,
        phase: &str,
        annotations: serde_json::Value,
        claims: &[&str],
    ) -> Self {
        let volumes: Vec<_> = claims
            .iter()
            .map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}))
            .collect();
        let pod = json!({"metadata": {"name": name, "uid": format!("uid-{name}"), "annotations": annotations},
            "spec": {"volumes": volumes}, "status": {"phase": phase}});
        let SeenPod { uses, .. } = volumes::pod("a", &pod.to_string(), self.policies.as_ref());
        for (claim, uses) in uses {
            self.seen.uses.entry(key(&claim)).or_default().merge(uses);
        }
        self
    }

    fn choose(&self, copies: bool, snapshots: Option<bool>) -> Choices {
        choose(
            &self.seen,
            Wanted {
                copies,
                snapshots,
                moved: self.moved,
                offer: Some(&self.offer),
                annotations: Some(&self.annotations),
                policies: self.policies.as_ref(),
                cluster: Some("c-1"),
            },
        )
    }

    /// What is done, in a word.
    fn words(&self, copies: bool, snapshots: Option<bool>) -> Vec<String> {
        self.choose(copies, snapshots)
            .into_iter()
            .map(|((_, name), chosen)| format!("{name} {}", word(&chosen.choice)))
            .collect()
    }
}

fn word(choice: &Choice) -> String {
    match choice {
        Choice::Copy(copy) => {
            let by = copy.pod.as_ref().map_or("-", |pod| pod.name.as_str());
            format!("{:?} {by}", copy.asked).to_lowercase()
        }
        Choice::Cut(cut) => format!("cut by {}", cut.class),
        Choice::LeftOut(why) => format!("left out: {why}"),
        Choice::NotAsked(why) => format!("not asked: {why}"),
        Choice::Refused(why) => format!("refused: {why}"),
        Choice::Nothing(why) => format!("nothing: {why}"),
    }
}

fn asks(volumes: &str) -> serde_json::Value {
    json!({"backup.velero.io/backup-volumes": volumes})
}

fn excludes(volumes: &str) -> serde_json::Value {
    json!({EXCLUDES: volumes})
}

#[test]
fn without_being_asked_nothing_is_copied_and_without_a_volume_there_is_nothing() {
    let cluster = Cluster::default()
        .claim("bound", json!({}))
        .claim("new", json!({"/spec/volumeName": null}))
        .claim("waits", json!({"/status/phase": "Pending"}))
        .pod("p", "Running", json!({}), &["bound", "new"]);
    let nothing = format!("nothing: {NOT_BOUND}");
    for (snapshots, bound) in [
        (None, format!("bound not asked: {NOT_ASKED}")),
        (Some(false), format!("bound not asked: {NOT_WANTED}")),
        (
            Some(true),
            "bound refused: a snapshot was asked for, and none can be made: its volume could not be read".to_owned(),
        ),
    ] {
        let words = cluster.words(false, snapshots);
        assert_eq!(
            words,
            [bound, format!("new {nothing}"), format!("waits {nothing}")]
        );
    }
}

#[test]
fn a_pod_asks_for_its_volumes_unless_it_has_ended() {
    let cluster = Cluster::default()
        .claim("data", json!({}))
        .claim("logs", json!({}))
        .claim("old", json!({}))
        .pod("z", "Pending", asks(" logs ,data"), &["data", "logs"])
        .pod("b", "Running", json!({}), &["data"])
        .pod("done", "Succeeded", asks("old"), &["old"])
        .pod("failed", "Failed", asks("old"), &["old"]);
    // Whoever does not want snapshots may want copies.
    for snapshots in [None, Some(false), Some(true)] {
        let words = cluster.words(false, snapshots);
        assert_eq!(words[..2], ["data pod z", "logs pod z"]);
        assert!(!words[2].contains("pod"), "{words:?}");
    }
    let choices = cluster.choose(false, None);
    let Choice::Copy(copy) = &choices[&key("data")].choice else {
        panic!("{choices:?}");
    };
    assert_eq!(copy.keys.repository(), "restic/c-1/a/uid-data/");
    assert_eq!(copy.pod.as_ref().unwrap().uid, "uid-z");
    assert_eq!(copy.pod.as_ref().unwrap().volume, "data");
}

#[test]
fn where_all_are_copied_a_claim_is_left_out_that_all_its_pods_exclude() {
    let cluster = Cluster::default()
        .claim("both", json!({}))
        .claim("cache", json!({}))
        .claim("ended", json!({}))
        .claim("idle", json!({}))
        .claim("said", json!({}))
        .pod(
            "p",
            "Running",
            excludes("both, cache,said"),
            &["both", "cache", "said"],
        )
        .pod("q", "Running", json!({}), &["both"])
        .pod("r", "Running", asks("said"), &["said"])
        .pod("s", "Succeeded", excludes("ended"), &["ended"]);
    assert_eq!(
        cluster.words(true, None),
        [
            "both default p".to_owned(),
            format!("cache left out: left out by the annotation {EXCLUDES}"),
            "ended default -".to_owned(),
            "idle default -".to_owned(),
            "said pod r".to_owned(),
        ]
    );
    // Where not all are copied there is nothing to exclude.
    assert!(cluster.words(false, None)[1].starts_with("cache not asked"));
    // As Velero does, what is excluded from copies is to be snapshotted.
    assert!(cluster.words(true, Some(true))[1].starts_with("cache refused"));
}

#[test]
fn a_resource_policy_comes_before_pods_and_before_what_is_wanted_of_all() {
    let cluster = Cluster::with(
        "- {conditions: {storageClass: [scratch]}, action: {type: skip}}
- {conditions: {csi: {driver: d.example}}, action: {type: snapshot}}
- {conditions: {capacity: '100Gi,'}, action: {type: custom}}
- {conditions: {pvcLabels: {tier: gold}}, action: {type: fs-backup}}",
    )
    .claim("class", json!({}))
    .volume("class", json!({"storageClassName": "scratch"}))
    .claim("driver", json!({}))
    .volume(
        "driver",
        json!({"csi": {"driver": "d.example"}, "capacity": {"storage": "1Gi"}}),
    )
    .claim("large", json!({}))
    .volume("large", json!({"capacity": {"storage": "200Gi"}}))
    .claim("gold", json!({"/metadata/labels": {"tier": "gold"}}))
    .volume("gold", json!({"capacity": {"storage": "1Gi"}}))
    .claim("plain", json!({}))
    .volume("plain", json!({}))
    .claim(
        "unbound",
        json!({"/spec/volumeName": "", "/metadata/labels": {"tier": "gold"}}),
    )
    .pod(
        "p",
        "Running",
        asks("class,driver,large,plain"),
        &["class", "driver", "large", "plain", "gold"],
    );
    for (copies, snapshots) in [(false, None), (true, Some(true)), (false, Some(false))] {
        assert_eq!(
            cluster.words(copies, snapshots),
            [
                format!("class left out: {SKIPPED}"),
                "driver refused: a resource policy asks for a snapshot, and none can be made: the cluster does not serve snapshot.storage.k8s.io/v1"
                    .to_owned(),
                "gold policy p".to_owned(),
                format!("large left out: {CUSTOM}"),
                "plain pod p".to_owned(),
                format!("unbound nothing: {NOT_BOUND}"),
            ]
        );
    }
}

#[test]
fn what_a_policy_may_say_of_a_volume_that_was_not_read_keeps_nothing_from_being_copied() {
    let cluster = Cluster::with("- {conditions: {csi: {driver: d}}, action: {type: skip}}")
        .claim("asked", json!({}))
        .claim("silent", json!({}))
        .pod("p", "Running", asks("asked"), &["asked"]);
    assert_eq!(
        cluster.words(false, None),
        [
            "asked pod p".to_owned(),
            format!("silent not asked: {NOT_KNOWN}")
        ]
    );
    assert_eq!(cluster.words(true, None)[1], "silent default -");
}

#[test]
fn what_can_not_be_copied_is_refused_by_name_where_it_is_asked_for() {
    let cluster = Cluster::default()
        .claim("block", json!({"/spec/volumeMode": "Block"}))
        .claim("lost", json!({"/status/phase": "Lost"}))
        .claim("odd", json!({"/metadata/uid": "a/b"}));
    assert!(
        cluster
            .words(false, None)
            .iter()
            .all(|word| word.contains("not asked"))
    );
    let words = cluster.words(true, None);
    for (word, why) in words.iter().zip(["block device", "is lost", "no place"]) {
        assert!(word.contains("refused") && word.contains(why), "{word}");
    }
    let nameless = Wanted {
        copies: true,
        ..Wanted::default()
    };
    let cluster = Cluster::default().claim("data", json!({}));
    let choices = choose(&cluster.seen, nameless);
    let why = word(&choices[&key("data")].choice);
    assert!(why.contains("kube-system"), "{why}");
}

fn class(name: &str, driver: &str) -> class::Class {
    json!({"metadata": {"name": name}, "driver": driver}).into()
}

/// Claims of a CSI volume, of one whose driver has no class, and of another kind of volume.
fn with_snapshots(policies: &str) -> Cluster {
    let csi = |driver: &str| json!({"csi": {"driver": driver}, "capacity": {"storage": "1Gi"}});
    Cluster {
        offer: Offer::Classes(vec![class("fast", "d.io"), class("late", "e.io")]),
        ..match policies {
            "" => Cluster::default(),
            some => Cluster::with(some),
        }
    }
    .claim("csi", json!({}))
    .volume("csi", csi("d.io"))
    .claim("none", json!({}))
    .volume("none", csi("f.io"))
    .claim("other", json!({}))
    .volume("other", json!({"hostPath": {"path": "/a"}}))
}

#[test]
fn where_nobody_asks_for_files_a_snapshot_is_made_of_what_can_have_one_and_nothing_else_fails() {
    let none = "there is no VolumeSnapshotClass of driver f.io";
    assert_eq!(
        with_snapshots("").words(false, None),
        [
            "csi cut by fast".to_owned(),
            format!("none not asked: {NOT_ASKED}, and no snapshot can be made: {none}"),
            format!("other not asked: {NOT_ASKED}"),
        ]
    );
    let refused = "refused: a snapshot was asked for, and none can be made:";
    assert_eq!(
        with_snapshots("").words(false, Some(true)),
        [
            "csi cut by fast".to_owned(),
            format!("none {refused} {none}"),
            format!("other {refused} its volume is not of a CSI driver"),
        ]
    );
    let words = with_snapshots("").words(false, Some(false));
    assert!(
        words.iter().all(|word| word.contains(NOT_WANTED)),
        "{words:?}"
    );
    // Files come first.
    let words = with_snapshots("").words(true, None);
    assert!(
        words.iter().all(|word| word.contains("default -")),
        "{words:?}"
    );
    // What is left out of copies is not left out of snapshots, as with Velero.
    let excluded = with_snapshots("").pod("p", "Running", excludes("csi,other"), &["csi", "other"]);
    let words = excluded.words(true, None);
    assert_eq!(words[0], "csi cut by fast");
    assert!(words[2].starts_with("other left out"), "{words:?}");
}

#[test]
fn where_a_right_or_the_api_is_missing_only_what_is_asked_for_fails() {
    let mut cluster = with_snapshots("");
    cluster.offer = Offer::Lacks("this user may not".to_owned());
    let word = |snapshots| cluster.words(false, snapshots).remove(0);
    assert_eq!(
        word(None),
        format!("csi not asked: {NOT_ASKED}, and no snapshot can be made: this user may not")
    );
    assert!(word(Some(true)).starts_with("csi refused"));
    cluster.offer = Offer::Nothing;
    let word = |snapshots| cluster.words(false, snapshots).remove(0);
    assert_eq!(word(None), format!("csi not asked: {NOT_ASKED}"));
    assert!(word(Some(true)).contains("does not serve"));
    let mut cluster = with_snapshots("");
    cluster.moved = true;
    assert!(cluster.words(false, Some(true))[0].contains("snapshotMoveData"));
}

#[test]
fn a_policy_asks_for_a_snapshot_whatever_is_wanted_of_all_and_a_wrong_class_fails_what_is_asked_for()
 {
    let policy = "- {conditions: {csi: {driver: d.io}}, action: {type: snapshot}}";
    for snapshots in [None, Some(false), Some(true)] {
        assert_eq!(
            with_snapshots(policy).words(true, snapshots)[0],
            "csi cut by fast"
        );
    }
    let wrong = with_snapshots("").claim(
        "csi",
        json!({"/metadata/annotations": {class::CLASS: "late"}}),
    );
    let is_named = |cluster: &Cluster, part: &str| {
        let unasked = cluster.words(false, None).remove(0);
        let asked = cluster.words(false, Some(true)).remove(0);
        assert!(
            unasked.starts_with("csi not asked") && unasked.contains(part),
            "{unasked}"
        );
        assert!(
            asked.starts_with("csi refused") && asked.contains(part),
            "{asked}"
        );
    };
    is_named(&wrong, "which is of driver e.io and not of d.io");
    let mut named = with_snapshots("");
    named
        .annotations
        .insert(class::of_backup("d.io"), "gone".to_owned());
    is_named(&named, "the backup names");
}

#[test]
fn volumes_of_pods_that_are_no_claims_are_told_apart() {
    let policies = Policies::parse(
        "version: v1\nvolumePolicies:\n- {conditions: {volumeTypes: [emptyDir]}, action: {type: fs-backup}}\n- {conditions: {nfs: {}}, action: {type: skip}}",
    )
    .unwrap();
    let pod = |annotation: &str, phase: &str, policies: Option<&Policies>| {
        let text = json!({"metadata": {"name": "p", "annotations": asks(annotation)}, "status": {"phase": phase},
            "spec": {"volumes": [{"name": "e", "emptyDir": {}}, {"name": "n", "nfs": {"server": "s", "path": "/"}},
                {"name": "h", "hostPath": {"path": "/"}}, {"name": "t", "projected": {}}, {"name": "g", "ephemeral": {}}]}});
        volumes::pod("a", &text.to_string(), policies)
    };
    let seen = pod("", "Running", None);
    assert_eq!((seen.in_vain.len(), seen.unclaimed), (0, 2));
    // A claim that is made for the pod is one.
    assert_eq!(seen.claims, ["p-g"]);
    assert_eq!(seen.uses[0].0, "p-g");
    let seen = pod("n,h,gone,g", "Running", None);
    let vain: Vec<_> = seen
        .in_vain
        .iter()
        .map(|(name, kind)| (name.as_str(), *kind))
        .collect();
    assert_eq!(vain, [("n", "nfs"), ("h", "hostPath"), ("gone", "")]);
    assert!(seen.uses[0].1.asked);
    let seen = pod("n", "Running", Some(&policies));
    let vain: Vec<_> = seen
        .in_vain
        .iter()
        .map(|(name, kind)| (name.as_str(), *kind))
        .collect();
    assert_eq!((vain, seen.unclaimed), (vec![("e", "emptyDir")], 0));
    let seen = pod("n,gone", "Succeeded", None);
    assert_eq!(
        (seen.in_vain.len(), seen.uses.len(), seen.unclaimed),
        (0, 0, 0)
    );
    assert_eq!(seen.claims, ["p-g"]);
}

#[test]
fn every_claim_has_a_row_and_a_copy_that_nobody_made_failed() {
    let cluster = Cluster::default()
        .volume("a", json!({"csi": {"driver": "d.example"}}))
        .claim("a", json!({"/status/capacity": {"storage": "2Gi"}, "/spec/resources": {"requests": {"storage": "1Gi"}}, "/spec/storageClassName": "fast", "/spec/accessModes": ["ReadWriteOnce"]}))
        .claim("b", json!({}))
        .claim("c", json!({}))
        .claim("d", json!({"/spec/volumeName": ""}));
    let saved = Saved {
        hooks: None,
        pod: None,
        node: None,
        copy: FileCopy {
            repository: 1,
            snapshot: "0".repeat(64),
            ..FileCopy::default()
        },
    };
    let copied = [
        (key("a"), Ok(Outcome::Saved(Box::new(saved.clone())))),
        (key("b"), Err("the node is gone".to_owned())),
        (key("d"), Ok(Outcome::Saved(Box::new(saved.clone())))),
    ];
    let rows = rows(
        &cluster.choose(true, None),
        &cluster.seen.volumes,
        &copied.into(),
    );
    let outcomes: Vec<_> = rows.iter().map(|row| row.outcome.clone()).collect();
    assert_eq!(
        outcomes,
        [
            Outcome::Saved(Box::new(saved)),
            Outcome::Failed("the node is gone".to_owned()),
            Outcome::Failed(NOT_MADE.to_owned()),
            Outcome::Nothing(NOT_BOUND.to_owned()),
        ]
    );
    let first = &rows[0];
    assert_eq!(
        (first.name().as_str(), first.uid.as_str()),
        ("a/a", "uid-a")
    );
    assert_eq!(
        (first.volume.as_str(), first.capacity.as_str()),
        ("pv-a", "2Gi")
    );
    assert_eq!(
        (first.storage_class.as_str(), first.access_modes.len()),
        ("fast", 1)
    );
}
