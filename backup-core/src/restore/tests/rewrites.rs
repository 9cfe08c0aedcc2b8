//! What Velero's ConfigMaps say, and what is changed on the way, from an API server in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::rewriting::{Found, Rewriting, StatusKinds, modifiers_of_cluster, of_cluster};
use super::super::*;
use super::fake::Fake;
use super::whole::{Saved, mappings, object};
use crate::error::{Kind, Result};

const STORAGE: &str = "velero.io/change-storage-class";
const IMAGES: &str = "velero.io/change-image-name";
const ACTION: &str = "RestoreItemAction";

fn config_map(
    namespace: &str,
    name: &str,
    kind: &str,
    action: &str,
    data: Value,
) -> (String, Value) {
    let labels = json!({"velero.io/plugin-config": "", kind: action});
    (
        format!("/api/v1/configmaps/{namespace}-{name}"),
        json!({"metadata": {"namespace": namespace, "name": name, "labels": labels}, "data": data}),
    )
}

async fn found(maps: &[(String, Value)]) -> Result<Found> {
    let fake = Fake::default();
    for (path, map) in maps {
        fake.put(path, map.clone());
    }
    of_cluster(&fake.cluster(), "velero").await
}

#[test]
fn storage_classes_are_restored_before_what_names_them() {
    let classes = order::place("storageclasses.storage.k8s.io");
    for kind in [
        "persistentvolumeclaims",
        "persistentvolumes",
        "statefulsets.apps",
    ] {
        assert!(classes < order::place(kind), "{kind}");
    }
}

#[tokio::test]
async fn veleros_config_maps_count_in_its_namespace_and_are_told() {
    let found = found(&[
        config_map("velero", "c", STORAGE, ACTION, json!({"slow": "fast", "bad name": "x", "y": "../z"})),
        config_map("velero", "i", IMAGES, ACTION, json!({"2": " 1.1.1.1:5000 , 2.2.2.2:3000", "1": "abc:test,edf:test", "3": "none", "4": ",x", "5": "gone, "})),
        config_map("velero", "n", "velero.io/change-pvc-node-selector", ACTION, json!({"a": "b"})),
        config_map("velero", "other", STORAGE, "BackupItemAction", json!({"a": "b"})),
        config_map("elsewhere", "c", STORAGE, ACTION, json!({"a": "b"})),
    ])
    .await
    .unwrap();
    assert_eq!(
        found.rewriting.storage_classes,
        BTreeMap::from([("slow".to_owned(), "fast".to_owned())])
    );
    let image = |old: &str, new: &str| (old.to_owned(), new.to_owned());
    assert_eq!(
        found.rewriting.images,
        [
            image("abc:test", "edf:test"),
            image("1.1.1.1:5000", "2.2.2.2:3000"),
            image("gone", "")
        ]
    );
    assert_eq!(
        found.told,
        [
            "storage classes: slow to fast (ConfigMap velero/c)",
            "images: abc:test to edf:test, 1.1.1.1:5000 to 2.2.2.2:3000, gone to  (ConfigMap velero/i)"
        ]
    );
    let warned = found.warnings.join("\n");
    for part in [
        "elsewhere/c in the target asks for other storage classes, which is not done: Velero is looked for in namespace velero",
        "velero/c: \"bad name\" to \"x\" names no storage classes",
        "velero/c: \"y\" to \"../z\" names no storage classes",
        "velero/i: \"3\" is not of the form old,new",
        "velero/i: \"4\" is not of the form old,new",
        "velero/n in the target asks for other nodes of claims",
        "velero/other in the target asks for other storage classes, which is not done",
    ] {
        assert!(warned.contains(part), "{part}: {warned}");
    }
    assert_eq!(found.warnings.len(), 7, "{warned}");
}

#[tokio::test]
async fn two_of_a_kind_are_refused_and_who_may_not_look_has_none() {
    let two = ["a", "b"].map(|name| config_map("velero", name, STORAGE, ACTION, json!({"x": "y"})));
    let refused = found(&two).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid);
    assert!(
        refused
            .to_string()
            .contains("ConfigMap velero/b is the second one for storage classes")
    );

    let fake = Fake::default();
    fake.0.lock().unwrap().refuses = vec![("GET", "/configmaps", 403, "Forbidden")];
    let found = of_cluster(&fake.cluster(), "velero").await.unwrap();
    assert!(found.told.is_empty() && found.rewriting.storage_classes.is_empty());
    assert!(found.warnings[0].contains("namespace velero in the target may not be read"));
    let asked = fake.0.lock().unwrap().asked.join("\n");
    assert_eq!(
        asked,
        "GET /api/v1/configmaps\nGET /api/v1/namespaces/velero/configmaps"
    );
    // No answer is not the answer that there are none.
    fake.0.lock().unwrap().refuses = vec![("GET", "/configmaps", 500, "InternalError")];
    let error = of_cluster(&fake.cluster(), "velero").await.unwrap_err();
    assert!(error.sentence().contains("can not be read"), "{error}");
}

#[tokio::test]
async fn modifiers_are_read_from_the_config_map_that_is_named() {
    let fake = Fake::default();
    let rules = "version: v1\nresourceModifierRules: [{conditions: {groupResource: pods}, mergePatches: [{patchData: 'a: 1'}]}]";
    let path = |name: &str| format!("/api/v1/namespaces/velero/configmaps/{name}");
    let map = |data: Value| json!({"metadata": {"namespace": "velero", "name": "m"}, "data": data});
    fake.put(&path("m"), map(json!({"rules.yaml": rules})));
    fake.put(&path("two"), map(json!({"a": rules, "b": rules})));
    fake.put(&path("bad"), map(json!({"a": "version: v7"})));
    let cluster = fake.cluster();
    let found = modifiers_of_cluster(&cluster, "velero", "m").await.unwrap();
    assert_eq!(
        found.told,
        ["resource modifiers: one rule (ConfigMap velero/m)"]
    );
    let record = found.rewriting.record();
    assert_eq!(
        record["resourceModifier"],
        json!({"apiGroup": "", "kind": "configmap", "name": "m"})
    );
    for (name, kind, part) in [
        (
            "none",
            Kind::NotFound,
            "ConfigMap velero/none with resource modifiers is not in the target",
        ),
        ("two", Kind::Invalid, "has 2 entries"),
        (
            "bad",
            Kind::Invalid,
            "ConfigMap velero/m: the resource modifiers are of version \"v7\"",
        ),
    ] {
        let refused = modifiers_of_cluster(&cluster, "velero", name)
            .await
            .unwrap_err();
        let said = refused.sentence();
        assert!(
            refused.kind() == kind && said.contains(part),
            "{name}: {said}"
        );
    }
}

#[test]
fn the_record_holds_all_of_it_in_veleros_fields_where_it_has_some() {
    assert!(Rewriting::default().record().is_empty());
    let rewriting = Rewriting {
        storage_classes: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        images: vec![("c".to_owned(), "d".to_owned())],
        status: Some(StatusKinds {
            included: vec!["*".to_owned()],
            excluded: vec!["pods".to_owned()],
        }),
        ..Rewriting::default()
    };
    rewriting.validate().unwrap();
    let want = json!({"storageClassMapping": {"a": "b"}, "imageMapping": [["c", "d"]],
        "restoreStatus": {"includedResources": ["*"], "excludedResources": ["pods"]}});
    assert_eq!(Value::Object(rewriting.record()), want);
    for bad in [
        Rewriting {
            storage_classes: BTreeMap::from([("a".to_owned(), "../b".to_owned())]),
            ..Rewriting::default()
        },
        Rewriting {
            images: vec![(String::new(), "d".to_owned())],
            ..Rewriting::default()
        },
        Rewriting {
            status: Some(StatusKinds {
                included: vec!["pods".to_owned(), "*".to_owned()],
                excluded: Vec::new(),
            }),
            ..Rewriting::default()
        },
    ] {
        assert_eq!(bad.validate().unwrap_err().kind(), Kind::Invalid);
    }
}

#[tokio::test]
async fn what_was_asked_for_is_changed_and_an_object_that_can_not_be_is_not_made() {
    let saved = Saved::new(&[
        object(
            "persistentvolumeclaims",
            1,
            "n/a",
            json!({"spec": {"storageClassName": "slow"}}),
        ),
        object(
            "persistentvolumeclaims",
            2,
            "n/b",
            json!({"spec": {"storageClassName": "old"}}),
        ),
        object(
            "pods",
            3,
            "n/p",
            json!({"spec": {"containers": [{"image": "docker.io/x"}]}}),
        ),
        object("configmaps", 4, "n/good", json!({"data": {"k": "v"}})),
        object("configmaps", 5, "n/bad", json!({})),
    ])
    .await;
    saved.target.put(
        "/apis/storage.k8s.io/v1/storageclasses/fast",
        json!({"metadata": {"name": "fast"}}),
    );
    let rules = "version: v1
resourceModifierRules:
- conditions: {groupResource: configmaps, namespaces: [n]}
  patches: [{operation: replace, path: /data/k, value: w}, {operation: replace, path: /metadata/namespace, value: x}]
";
    let modifiers = Arc::new(rewriting::ResourceModifiers::parse(rules).unwrap());
    let ask = |options: &mut RestoreOptions| {
        options.namespace_mappings = mappings(&[("n", "m")]);
        options.rewriting = rewriting::Rewriting {
            storage_classes: mappings(&[("slow", "fast"), ("old", "gone")]),
            images: vec![("docker.io".into(), "mirror".into())],
            modifiers: Some(modifiers.clone()),
            ..rewriting::Rewriting::default()
        };
    };
    let report = saved.restore(ask).await.unwrap();
    assert_eq!(report.counts, [4, 0, 0, 2], "{:?}", report.errors);
    let errors = report.errors.join("\n");
    for part in [
        "m/bad: resource modifiers can not be applied: rule 1: there is no /data/k",
        "m/b: storage class old is mapped to gone, which the target does not have",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    let made = |path: &str| saved.target.get(&format!("/api/v1/namespaces/m/{path}"));
    assert_eq!(
        made("persistentvolumeclaims/a")["spec"]["storageClassName"],
        "fast"
    );
    assert_eq!(made("pods/p")["spec"]["containers"][0]["image"], "mirror/x");
    let good = made("configmaps/good");
    assert_eq!(
        (&good["data"]["k"], &good["metadata"]["namespace"]),
        (&json!("w"), &json!("m"))
    );
    assert!(made("configmaps/bad").is_null());
    // The rewrites count for whose restore it is.
    let other = saved.restore(|options| {
        options.name = Some("r".parse().unwrap());
        options.namespace_mappings = mappings(&[("n", "m")]);
    });
    let other = other.await;
    assert!(other.unwrap_err().to_string().contains("had other options"));
    let report = saved.restore(ask).await.unwrap();
    assert_eq!(report.counts, [0, 0, 3, 2]);
}

#[tokio::test]
async fn a_restore_that_goes_on_keeps_the_mappings_of_the_target_with_which_it_began() {
    let claim = |number, name: &str| {
        let spec = json!({"spec": {"storageClassName": "slow"}});
        object("persistentvolumeclaims", number, &format!("n/{name}"), spec)
    };
    let saved = Saved::new(&[claim(1, "a"), claim(2, "b")]).await;
    for class in ["fast", "other"] {
        saved.target.put(
            &format!("/apis/storage.k8s.io/v1/storageclasses/{class}"),
            json!({"metadata": {"name": class}}),
        );
    }
    let path = |name: &str| format!("/api/v1/namespaces/n/persistentvolumeclaims/{name}");
    let class = |name: &str| saved.target.get(&path(name))["spec"]["storageClassName"].clone();
    let says = |classes: &[(&str, &str)], images: &[&str]| rewriting::Rewriting {
        storage_classes: mappings(classes),
        images: images
            .iter()
            .map(|image| ((*image).into(), "new".into()))
            .collect(),
        ..rewriting::Rewriting::default()
    };
    let given = says(&[("mine", "own")], &["x"]);
    let first = saved.restore(|options| {
        options.rewriting = given.clone();
        options.of_target = says(&[("slow", "fast")], &["y"]);
    });
    let first = first.await.unwrap();
    assert_eq!((class("a"), class("b")), (json!("fast"), json!("fast")));
    // Since then the ConfigMaps have gone, or say something else.
    for now in [says(&[], &[]), says(&[("slow", "other")], &["z"])] {
        saved.target.0.lock().unwrap().objects.remove(&path("b"));
        let again = saved.restore(|options| {
            options.rewriting = given.clone();
            options.of_target = now;
        });
        let again = again.await.unwrap();
        assert!(again.resumed);
        assert_eq!(class("b"), "fast");
        assert_eq!(again.restore.spec, first.restore.spec);
    }
    let want = json!({"mine": "own", "slow": "fast"});
    assert_eq!(first.restore.spec.rest["storageClassMapping"], want);
    let want = json!([["x", "new"], ["y", "new"]]);
    assert_eq!(first.restore.spec.rest["imageMapping"], want);
}

#[tokio::test]
async fn a_status_comes_back_where_the_kind_or_the_object_asks_for_it() {
    let status = || json!({"phase": "Bound", "n": {"x": 1e2}});
    let annotated = |said: &str| json!({"metadata": {"annotations": {"velero.io/restore-status": said}}, "status": status()});
    let saved = Saved::new(&[
        object("services", 1, "n/plain", json!({"status": status()})),
        object("services", 2, "n/not", annotated(" False ")),
        object("services", 3, "n/odd", annotated("maybe")),
        object("services", 4, "n/none", json!({})),
        object("configmaps", 5, "n/said", annotated("TRUE")),
        object("configmaps", 6, "n/plain", json!({"status": status()})),
        object("pods", 7, "n/refused", annotated("true")),
        object("namespaces", 8, "n", annotated("true")),
    ])
    .await;
    {
        let mut target = saved.target.0.lock().unwrap();
        target.conflicts = 3;
        target.annotates = true;
        target.refuses = vec![("PUT", "pods/refused/status", 404, "NotFound")];
    }
    let report = saved
        .restore(|options| {
            options.rewriting.status = Some(rewriting::StatusKinds {
                included: vec!["svc".into(), "services".into()],
                excluded: Vec::new(),
            });
        })
        .await
        .unwrap();
    assert!(report.errors.is_empty(), "{:?}", report.errors);
    let warned = report.warnings.join("\n");
    assert!(
        warned.contains("n/refused: created, but its status was not restored"),
        "{warned}"
    );
    let of =
        |path: &str| saved.target.get(&format!("/api/v1/namespaces/n/{path}"))["status"].clone();
    for path in ["services/plain", "services/odd", "configmaps/said"] {
        assert_eq!(of(path), status(), "{path}");
        let live = saved.target.get(&format!("/api/v1/namespaces/n/{path}"));
        let annotations = &live["metadata"]["annotations"];
        assert_eq!(annotations["admission"], "was here", "{path}");
    }
    for path in [
        "services/not",
        "services/none",
        "configmaps/plain",
        "pods/refused",
    ] {
        assert!(of(path).is_null(), "{path}");
    }
    assert!(saved.target.get("/api/v1/namespaces/n")["status"].is_null());
}
