use serde_json::json;

use super::*;

fn policies(volumes: &str) -> Policies {
    Policies::parse(&format!("version: v1\nvolumePolicies:\n{volumes}")).unwrap()
}

fn volume(spec: Value) -> VolumeFacts {
    VolumeFacts::of(&spec)
}

#[test]
fn every_condition_is_veleros() {
    let disk = volume(
        json!({"capacity": {"storage": "10Gi"}, "storageClassName": "fast",
        "csi": {"driver": "ebs.csi.aws.com", "volumeAttributes": {"type": "gp3"}}}),
    );
    let share =
        volume(json!({"capacity": {"storage": "1Ti"}, "nfs": {"server": "s", "path": "/p"}}));
    let claim = ClaimFacts::of(&json!({"metadata": {"labels": {"a": "b", "c": "d"}},
        "spec": {"volumeMode": "Block", "accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}, "status": {"phase": "Bound"}}));
    for (condition, of_disk, of_share) in [
        ("{}", true, true),
        ("{capacity: '10Gi,20Gi'}", true, false),
        ("{capacity: '0,10Gi'}", true, false),
        ("{capacity: ',9.9Gi'}", false, false),
        ("{capacity: '11Gi,'}", false, true),
        ("{capacity: ' 10737418240 , 10737418240 '}", true, false),
        ("{storageClass: [slow, fast]}", true, false),
        ("{storageClass: []}", true, true),
        ("{nfs: {}}", false, true),
        ("{nfs: {server: s}}", false, true),
        ("{nfs: {server: x}}", false, false),
        ("{nfs: {path: /p}}", false, true),
        ("{nfs: {server: x, path: /p}}", false, false),
        ("{csi: {}}", true, false),
        ("{csi: {driver: ebs.csi.aws.com}}", true, false),
        ("{csi: {driver: other}}", false, false),
        (
            "{csi: {driver: ebs.csi.aws.com, volumeAttributes: {type: gp3}}}",
            true,
            false,
        ),
        (
            "{csi: {driver: ebs.csi.aws.com, volumeAttributes: {type: io2}}}",
            false,
            false,
        ),
        ("{volumeTypes: [nfs, hostPath]}", false, true),
        ("{volumeTypes: [csi]}", true, false),
        ("{pvcLabels: {a: b}}", true, true),
        ("{pvcLabels: {a: b, x: y}}", false, false),
        ("{pvcPhase: [Bound, Lost]}", true, true),
        ("{pvcPhase: [Pending]}", false, false),
        ("{pvcVolumeMode: Block}", true, true),
        ("{pvcVolumeMode: Filesystem}", false, false),
        (
            "{pvcAccessModes: [ReadOnlyMany, ReadWriteOnce]}",
            true,
            true,
        ),
        ("{pvcAccessModes: [ReadWriteOnce]}", false, false),
        ("{storageClass: [fast], pvcPhase: [Pending]}", false, false),
    ] {
        let policies = policies(&format!(
            "- conditions: {condition}\n  action: {{type: skip}}"
        ));
        for (facts, holds) in [(&disk, of_disk), (&share, of_share)] {
            let want = if holds {
                Answer::Do(Action::Skip)
            } else {
                Answer::Nothing
            };
            assert_eq!(
                policies.answer(Seen::Facts(facts), Some(&claim)),
                want,
                "{condition} {facts:?}"
            );
        }
    }
}

#[test]
fn the_first_match_wins_and_what_is_not_known_is_not_guessed() {
    let policies = policies(
        "- conditions: {csi: {driver: d}, storageClass: [fast]}\n  action: {type: snapshot, parameters: {dataMover: velero}}\n\
         - conditions: {capacity: '1Gi,'}\n  action: {type: fs-backup}\n\
         - conditions: {}\n  action: {type: skip}\n",
    );
    let of = |spec: Value| policies.answer(Seen::Facts(&volume(spec)), None);
    let csi =
        json!({"csi": {"driver": "d"}, "storageClassName": "fast", "capacity": {"storage": "5Gi"}});
    assert_eq!(of(csi), Answer::Do(Action::Snapshot));
    assert_eq!(
        of(json!({"capacity": {"storage": "5Gi"}})),
        Answer::Do(Action::FsBackup)
    );
    assert_eq!(of(json!({"emptyDir": {}})), Answer::Do(Action::Skip));
    let claim = |class: &str| {
        ClaimFacts::of(
            &json!({"spec": {"storageClassName": class}, "status": {"capacity": {"storage": "1Mi"}}}),
        )
    };
    let unread = |class: &str| policies.answer(Seen::Unread, Some(&claim(class)));
    assert_eq!(unread("fast"), Answer::Unknown);
    assert_eq!(unread("slow"), Answer::Do(Action::Skip));
}

#[test]
fn what_velero_refuses_is_refused_and_named() {
    let deep = format!("version: v1\nvolumePolicies: {}", "[".repeat(500));
    let bomb = format!(
        "version: &a v1\nb: &b [{}]\nvolumePolicies: [{}]",
        "*a,".repeat(1000),
        "*b,".repeat(10_000)
    );
    let large = format!("version: v1 #{}", " ".repeat(LARGEST));
    for (text, says) in [
        ("", ""),
        ("version: v2", "version \"v2\""),
        ("volumePolicies: []", "version"),
        ("version: v1\nvolumePolicy: []", "volumePolicy"),
        (
            "version: v1\nvolumePolicies: [{conditions: {size: 1}, action: {type: skip}}]",
            "size",
        ),
        (
            "version: v1\nvolumePolicies: [{conditions: {}, action: {type: keep}}]",
            "keep",
        ),
        ("version: v1\nvolumePolicies: [{conditions: {}}]", "action"),
        (
            "version: v1\nvolumePolicies: [{conditions: {capacity: 5Gi}, action: {type: skip}}]",
            "capacity \"5Gi\"",
        ),
        (
            "version: v1\nvolumePolicies: [{conditions: {capacity: '1Gi,2Gi,3Gi'}, action: {type: skip}}]",
            "capacity",
        ),
        (
            "version: v1\nvolumePolicies: [{conditions: {capacity: '5Gi,1Gi'}, action: {type: skip}}]",
            "ends before",
        ),
        (
            "version: v1\nvolumePolicies: [{conditions: {capacity: 'x,'}, action: {type: skip}}]",
            "capacity",
        ),
        (
            "version: v1\nvolumePolicies: [{conditions: {storageClass: fast}, action: {type: skip}}]",
            "",
        ),
        (
            "version: v1\nvolumePolicies: [{conditions: {pvcLabels: [a]}, action: {type: skip}}]",
            "",
        ),
        (
            "version: v1\nvolumePolicies: [{conditions: {csi: {volumeAttributes: {a: b}}}, action: {type: skip}}]",
            "names no driver",
        ),
        (
            "version: v1\nvolumePolicies: [{conditions: {}, action: {type: skip, parameters: {dataMover: velero}}}]",
            "dataMover",
        ),
        (
            "version: v1\nincludeExcludePolicy: {includedNamespaceScopedResources: ['*']}",
            "\"*\"",
        ),
        (
            "version: v1\nincludeExcludePolicy: {includedClusterScopedResources: [pv], excludedClusterScopedResources: [pv]}",
            "pv",
        ),
        (
            "version: v1\nincludeExcludePolicy: {included: []}",
            "included",
        ),
        (
            "version: v1\nnamespacedFilterPolicies: []",
            "newer than Velero 1.18",
        ),
        (&deep, ""),
        (&bomb, ""),
        (&large, "larger"),
    ] {
        let shown = &text[..text.len().min(100)];
        let refused = Policies::of_file(text).unwrap_err();
        assert_eq!(refused.kind(), crate::Kind::Invalid, "{shown}");
        let told = refused.sentence();
        assert!(told.contains(says), "{shown}: {told}");
    }
}

#[test]
fn a_file_holds_them_or_the_config_map_with_them() {
    let plain = "version: v1\nvolumePolicies: [{conditions: {nfs: {}}, action: {type: custom, parameters: {by: me}}}]\n";
    let map = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: x}}\ndata:\n  policies.yaml: |\n    {}",
        plain.replace('\n', "\n    ")
    );
    assert_eq!(
        Policies::of_file(&map).unwrap(),
        Policies::of_file(plain).unwrap()
    );
    let two = format!("{map}\n  other: x\n");
    assert!(
        Policies::of_file(&two)
            .unwrap_err()
            .to_string()
            .contains("2 entries")
    );
}

#[test]
fn quantities_are_kubernetes() {
    for (text, value) in [
        ("0", Some(0.0)),
        ("10Gi", Some(10.0 * 1024.0 * 1024.0 * 1024.0)),
        ("1.5k", Some(1500.0)),
        ("1e3", Some(1000.0)),
        ("2E", Some(2e18)),
        ("500m", Some(0.5)),
        ("Gi", None),
        ("1GiB", None),
        ("1e", None),
        ("ten", None),
    ] {
        assert_eq!(quantity(text), value, "{text}");
    }
}
