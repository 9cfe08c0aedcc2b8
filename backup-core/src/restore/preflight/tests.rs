use std::sync::Arc;

use serde_json::json;

use super::*;

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn told(needs: &Needs, has: &Has, brought: &Brought) -> Vec<String> {
    let found = decide(needs, has, brought, &[], &Served::default());
    found.lacks.iter().map(ToString::to_string).collect()
}

#[test]
fn classes_that_neither_the_target_has_nor_the_backup_brings_are_lacking() {
    let claim = |class: Value| json!({"spec": {"storageClassName": class}});
    let mut needs = Needs::default();
    needs.learn("persistentvolumeclaims", "a/one", &claim(json!("fast")));
    needs.learn("persistentvolumeclaims", "a/two", &claim(json!("fast")));
    needs.learn("persistentvolumeclaims", "a/static", &claim(json!("")));
    needs.learn(
        "persistentvolumeclaims",
        "a/manual",
        &claim(json!("manual")),
    );
    needs.learn("persistentvolumes", "pv", &claim(json!("manual")));
    needs.learn(
        "persistentvolumeclaims",
        "a/bound",
        &json!({"spec": {"storageClassName": "gone", "volumeName": "pv"}}),
    );
    needs.learn(
        "persistentvolumeclaims",
        "a/old",
        &json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "beta"}}, "spec": {}}),
    );
    needs.learn(
        "statefulsets.apps",
        "a/db",
        &json!({"spec": {"template": {"spec": {"priorityClassName": "high", "runtimeClassName": "kata"}},
            "volumeClaimTemplates": [{"spec": {"storageClassName": "slow"}}]}}),
    );
    needs.learn(
        "ingresses.networking.k8s.io",
        "a/web",
        &json!({"spec": {"ingressClassName": "nginx"}}),
    );
    let mut has = Has {
        storage: Some(set(&["beta"])),
        ingress: Some(set(&[])),
        priority: Some(set(&["high"])),
        runtime: None,
        ..Has::default()
    };
    assert_eq!(
        told(&needs, &has, &Brought::new()),
        [
            "StorageClass fast: needed by persistentvolumeclaims a/one and 1 more",
            "StorageClass slow: needed by statefulsets.apps a/db",
            "IngressClass nginx: needed by ingresses.networking.k8s.io a/web",
        ]
    );
    let notes = decide(&needs, &has, &Brought::new(), &[], &Served::default()).notes;
    assert!(
        notes[0].contains("RuntimeClass kata can not be told"),
        "{notes:?}"
    );
    let brought = Brought::from([
        (STORAGE, set(&["fast", "slow"])),
        (INGRESS, set(&["nginx"])),
    ]);
    assert!(told(&needs, &has, &brought).is_empty());
    // Who names no class gets the default one.
    needs.learn("persistentvolumeclaims", "a/any", &json!({"spec": {}}));
    assert_eq!(
        told(&needs, &has, &Brought::from([(INGRESS, set(&["nginx"]))])).len(),
        3
    );
    has.default_storage = true;
    assert_eq!(
        told(&needs, &has, &Brought::from([(INGRESS, set(&["nginx"]))])).len(),
        2
    );
}

#[test]
fn node_ports_that_another_has_or_nobody_may_have_are_lacking() {
    let mut needs = Needs::default();
    let service = json!({"spec": {"loadBalancerClass": "x", "healthCheckNodePort": 30003,
        "ports": [{"nodePort": 30001}, {"nodePort": 30002}, {"port": 80}, {"nodePort": 70000}, {"nodePort": 31000}]}});
    needs.learn("services", "a/web", &service);
    let has = Has {
        services: Some(Services {
            ports: BTreeMap::from([(30001, "b/other".to_owned()), (30002, "a/web".to_owned())]),
            balancers: BTreeSet::new(),
        }),
        range: Some((30000, 30999)),
        ..Has::default()
    };
    assert_eq!(
        told(&needs, &has, &Brought::new()),
        [
            "NodePort 30001: taken by services b/other; needed by services a/web",
            "NodePort 31000: out of the target's range 30000-30999; needed by services a/web",
        ]
    );
    let notes = decide(&needs, &has, &Brought::new(), &[], &Served::default()).notes;
    assert!(notes[0].contains("load-balancer class x"), "{notes:?}");
}

#[test]
fn kinds_and_versions_that_are_not_served_are_lacking_unless_their_definition_comes_along() {
    let api = |group: &str, version: &str| ApiResource {
        group: group.into(),
        version: version.into(),
        plural: "gadgets".into(),
        ..ApiResource::default()
    };
    let served = Served {
        all: vec![Arc::new(api("a", "v1")), Arc::new(api("a", "v2"))],
        gaps: Vec::new(),
    };
    let of = |api: ApiResource, defined: bool| {
        let kind = Kind {
            api: &api,
            count: 2,
            defined: defined.then(|| vec![api.version.clone()]),
            redefined: false,
        };
        unserved(&kind, &served).map(|lack| lack.to_string())
    };
    assert_eq!(of(api("a", "v2"), false), None);
    assert_eq!(
        of(api("a", "v3"), true).unwrap(),
        "Version v3 of gadgets.a: the target serves v1, v2; needed by 2 objects"
    );
    assert_eq!(of(api("b", "v1"), true), None);
    assert!(
        of(api("b", "v1"), false)
            .unwrap()
            .starts_with("API gadgets.b: ")
    );
}

#[test]
fn what_a_hostile_backup_needs_is_bounded() {
    let mut needs = Needs::default();
    for n in 0..MOST + 10 {
        let claim = json!({"spec": {"storageClassName": format!("c{n}")}});
        needs.learn("persistentvolumeclaims", "a/x", &claim);
    }
    assert_eq!(needs.storage.0.len(), MOST);
}
