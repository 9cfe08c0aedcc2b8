//! What is sent, and read again.

use super::*;

fn aim() -> Aim {
    Aim {
        restore: "again".into(),
        label: "again".into(),
        backup_uid: "b-uid".into(),
        snapshot: "5".repeat(64),
        namespace: "copy".into(),
        claim: "data".into(),
    }
}

fn claim() -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": "data", "namespace": "copy",
            "labels": {"app": "db", LABEL_RESTORE: "again"},
            "annotations": {
                "mine": "stays", CLASS: "slow", BOUND: "yes", "pv.kubernetes.io/bound-by-controller": "yes",
            },
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem", "volumeName": "old",
            "selector": {"matchLabels": {"a": "b"}},
            "dataSource": {"kind": "VolumeSnapshot", "name": "s"},
            "dataSourceRef": {"kind": "VolumeSnapshot", "name": "s"},
            "resources": {"requests": {"storage": "1Gi"}},
        },
    })
}

fn volume() -> Value {
    json!({
        "metadata": {"name": "pvc-1", "uid": "pvc-1-uid", "resourceVersion": "12"},
        "spec": {
            "capacity": {"storage": "1Gi"}, "storageClassName": "fast",
            "persistentVolumeReclaimPolicy": "Delete",
            "claimRef": {"namespace": "copy", "name": aim().staging(), "uid": "s-uid", "resourceVersion": "3"},
        },
        "status": {"phase": "Bound"},
    })
}

#[test]
fn a_staging_claim_wants_an_empty_volume_that_is_large_enough() {
    let size = |capacity: &str, allocated| Size {
        capacity: capacity.into(),
        allocated,
    };
    let of = |size: &Size| staging(&aim(), &claim(), size);
    let made = of(&size("", 0));
    let name = made["metadata"]["name"].as_str().unwrap();
    assert_eq!((name.len(), &name[..8]), (24, "restore-"));
    assert_eq!(made["metadata"]["namespace"], "copy");
    for key in ["volumeName", "dataSource", "dataSourceRef"] {
        assert!(made["spec"][key].is_null(), "{key}");
    }
    assert_eq!(made["spec"]["selector"], claim()["spec"]["selector"]);
    assert_eq!(made["spec"]["storageClassName"], "slow");
    assert_eq!(made["spec"]["accessModes"], json!(["ReadWriteOnce"]));
    assert_eq!(
        made["metadata"]["annotations"].as_object().unwrap().len(),
        4
    );
    assert_eq!(
        made["metadata"]["labels"]["app"],
        Value::Null,
        "no service finds it"
    );
    assert_eq!(made["metadata"]["labels"][EXCLUDE_LABEL], "true");
    for (size, wanted) in [
        (size("", 0), "1Gi"),
        (size("512Mi", 5 << 30), "1Gi"),
        (size("2Gi", 0), "2Gi"),
        (size("", 5 << 30), "5368709120"),
        (size("no size", 0), "1Gi"),
    ] {
        assert_eq!(request(&of(&size)), wanted);
    }
    let read = Staging::read(&made, &aim());
    assert!(read.is_ours && read.volume.is_none());
    for other in [
        Aim {
            snapshot: "6".repeat(64),
            ..aim()
        },
        Aim {
            restore: "other".into(),
            ..aim()
        },
        Aim {
            claim: "log".into(),
            ..aim()
        },
    ] {
        assert!(!Staging::read(&made, &other).is_ours);
        assert_ne!(other.staging(), aim().staging());
    }
}

#[test]
fn the_real_claim_names_its_volume_and_nothing_else_fills_it() {
    let made = real(&aim(), &claim(), &volume());
    let spec = json!({
        "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem", "volumeName": "pvc-1",
        "storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}},
    });
    assert_eq!(made["spec"], spec);
    let annotations = json!({"mine": "stays", SNAPSHOT: aim().snapshot, MADE_FOR: "pvc-1", MADE_FOR_UID: "pvc-1-uid", BACKUP: "b-uid"});
    assert_eq!(made["metadata"]["annotations"], annotations);
    let mut small = volume();
    small["spec"]["capacity"]["storage"] = "900Mi".into();
    assert_eq!(request(&real(&aim(), &claim(), &small)), "900Mi");
    let read = Real::read(&made, &aim());
    assert!(read.is_ours && !read.was_bound && !read.is_bound);
    assert_eq!(
        (read.volume.as_str(), read.made_for.as_str()),
        ("pvc-1", "pvc-1")
    );
    assert_eq!(read.made_for_uid, Volume::read(&volume(), &aim(), None).uid);
    let mut other = made.clone();
    other["metadata"]["labels"][LABEL_RESTORE] = "other".into();
    assert!(!Real::read(&other, &aim()).is_ours);
    let mut before = made.clone();
    for lacks in [MADE_FOR, MADE_FOR_UID] {
        before["metadata"]["annotations"][lacks] = Value::Null;
        assert!(!Real::read(&before, &aim()).is_ours, "an older version's");
        before = made.clone();
    }
    let mut stripped = made.clone();
    stripped["spec"]["volumeName"] = "pvc-empty".into();
    let read = Real::read(&stripped, &aim());
    assert_eq!(
        (read.volume.as_str(), read.made_for.as_str()),
        ("pvc-empty", "pvc-1")
    );
    let mut bound = made;
    bound["metadata"]["annotations"][BOUND] = "yes".into();
    assert!(Real::read(&bound, &aim()).was_bound);
    assert!(Real::read(&json!({"status": {"phase": "Lost"}}), &aim()).was_bound);
}

#[test]
fn what_is_written_on_a_volume_is_read_again() {
    let read = |volume: &Value, real: Option<&Real>| Volume::read(volume, &aim(), real);
    let mut live = volume();
    let before = read(&live, None);
    assert_eq!(before.owner, Owner::Staging("s-uid".into()));
    assert_eq!((before.held_for, before.former), (None, None));
    let patch = retain(&aim(), "12", "r-uid", Some("Delete"));
    assert_eq!(patch["metadata"]["resourceVersion"], "12");
    live["metadata"]["annotations"] = patch["metadata"]["annotations"].clone();
    live["spec"]["persistentVolumeReclaimPolicy"] =
        patch["spec"]["persistentVolumeReclaimPolicy"].clone();
    let after = read(&live, None);
    assert_eq!(after.held_for, Some(HeldFor::Ours("r-uid".into())));
    assert_eq!(
        (after.policy.as_str(), after.former.as_deref()),
        (RETAIN, Some("Delete"))
    );
    let again = retain(&aim(), "13", "r-uid", None);
    assert!(again["metadata"]["annotations"][POLICY].is_null());
    let another = Aim {
        claim: "log".into(),
        ..aim()
    };
    assert!(matches!(
        Volume::read(&live, &another, None).held_for,
        Some(HeldFor::Other(_))
    ));
    live["metadata"]["annotations"][POLICY] = "whatever".into();
    assert_eq!(read(&live, None).former, None);
}

#[test]
fn a_volume_is_given_to_one_claim_by_its_uid() {
    let patch = bind(&aim(), "12", "r-uid");
    let claim = &patch["spec"]["claimRef"];
    assert_eq!(
        (&claim["uid"], &claim["name"]),
        (&json!("r-uid"), &json!("data"))
    );
    assert!(claim.as_object().unwrap().contains_key("resourceVersion"));
    let mut live = volume();
    live["spec"]["claimRef"] = claim.clone();
    let stands = Real {
        uid: "r-uid".into(),
        is_going: false,
        is_ours: true,
        made_for: "pvc-1".into(),
        made_for_uid: "pvc-1-uid".into(),
        volume: "pvc-1".into(),
        was_bound: false,
        is_bound: false,
    };
    assert_eq!(
        Volume::read(&live, &aim(), Some(&stands)).owner,
        Owner::Real
    );
    let other = Real {
        uid: "x".into(),
        ..stands.clone()
    };
    assert!(matches!(
        Volume::read(&live, &aim(), Some(&other)).owner,
        Owner::Other(_)
    ));
    live["spec"]["claimRef"]["uid"] = "".into();
    assert!(matches!(
        Volume::read(&live, &aim(), Some(&stands)).owner,
        Owner::Other(_)
    ));
    live["spec"]["claimRef"] = Value::Null;
    assert_eq!(
        Volume::read(&live, &aim(), Some(&stands)).owner,
        Owner::Nobody
    );
    let back = put_back("14", Some("Delete"));
    assert_eq!(back["spec"]["persistentVolumeReclaimPolicy"], "Delete");
    assert!(
        back["metadata"]["annotations"]
            .as_object()
            .unwrap()
            .values()
            .all(Value::is_null)
    );
    assert!(put_back("14", None)["spec"].is_null());
}
