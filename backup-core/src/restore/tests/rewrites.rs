//! What Velero's ConfigMaps say, from an API server in memory.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::order;
use super::super::rewriting::{Found, Rewriting, StatusKinds, modifiers_of_cluster, of_cluster};
use super::fake::Fake;
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
