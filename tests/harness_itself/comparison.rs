//! The comparison finds what differs: a check that cannot fail proves nothing.

use harness::cluster::Cluster;
use harness::compare::{Options, compare};
use harness::exceptions::{NEVER_RESTORED, OBJECTS};
use harness::load::Load;
use harness::snapshot::{ObjectId, Snapshot};
use serde_json::{Value, json};

use crate::harness_itself::witness::ONE_OF_MANY_KINDS;

/// Changes the first text, number or boolean outside of what no comparison looks at; adds an annotation where there
/// is none.
fn alter(resource: &str, object: &mut Value) {
    fn alter_first(value: &mut Value) -> bool {
        match value {
            Value::String(text) => text.push_str("-altered"),
            Value::Number(number) => *value = json!(number.as_f64().unwrap() + 1.0),
            Value::Bool(truth) => *truth = !*truth,
            Value::Array(items) => return items.iter_mut().any(alter_first),
            Value::Object(fields) => return fields.values_mut().any(alter_first),
            Value::Null => return false,
        }
        true
    }
    let fields = object.as_object_mut().unwrap();
    let is_altered = fields
        .iter_mut()
        .filter(|(key, _)| !["metadata", "status", "apiVersion", "kind"].contains(&key.as_str()))
        // The first field of a service is its address, which may differ.
        .filter(|(key, _)| resource != "services" || *key != "spec")
        .any(|(_, value)| alter_first(value));
    if !is_altered {
        object["metadata"]["annotations"]["altered"] = json!("yes");
    }
}

#[test]
fn every_altered_and_every_removed_object_is_reported() {
    let cluster = Cluster::start();
    cluster.apply(ONE_OF_MANY_KINDS);
    let before = Snapshot::of(&cluster);
    let options = Options::default();
    compare(&before, &before, &options).assert_none();

    let resources = before.resources();
    assert!(resources.len() > 25, "{resources:?}");
    let mut checked = 0;
    for resource in resources {
        let id = before.of_resource(resource).find_map(|(id, object)| {
            let is_excepted = NEVER_RESTORED.iter().any(|(never, _)| *never == resource)
                || OBJECTS
                    .iter()
                    .any(|row| row.resource == resource && (row.fits)(object));
            (!is_excepted).then_some(id)
        });
        let Some(id) = id else { continue };
        checked += 1;

        let mut after = before.clone();
        alter(resource, after.objects.get_mut(id).unwrap());
        let found = compare(&before, &after, &options);
        assert!(
            found.missing.is_empty() && found.extra.is_empty(),
            "{found}"
        );
        assert_eq!(
            found
                .different
                .iter()
                .map(|it| &it.object)
                .collect::<Vec<_>>(),
            [id],
            "{found}"
        );

        let mut after = before.clone();
        after.objects.remove(id);
        let found = compare(&before, &after, &options);
        assert_eq!(found.missing, std::slice::from_ref(id));
        let found = compare(&after, &before, &options);
        assert_eq!(found.extra, std::slice::from_ref(id));
    }
    assert!(checked > 20, "only {checked} kinds were checked");
}

#[test]
fn every_single_leaf_of_a_spec_counts() {
    fn leaves(value: &Value, path: String, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    leaves(
                        value,
                        format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")),
                        found,
                    );
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    leaves(value, format!("{path}/{index}"), found);
                }
            }
            _ => found.push(path),
        }
    }
    let object = json!({
        "metadata": {"name": "web", "namespace": "a", "labels": {"app": "web"}},
        "spec": {"replicas": 3, "paused": false, "template": {"spec": {"containers": [{"name": "main", "ports": [{"containerPort": 80}]}]}}},
    });
    let id = ObjectId {
        resource: "deployments.apps".to_owned(),
        namespace: "a".to_owned(),
        name: "web".to_owned(),
    };
    let mut before = Snapshot::default();
    before.objects.insert(id.clone(), object.clone());
    let mut paths = Vec::new();
    leaves(&object, String::new(), &mut paths);
    assert_eq!(paths.len(), 7);
    for path in paths {
        let mut after = before.clone();
        *after
            .objects
            .get_mut(&id)
            .unwrap()
            .pointer_mut(&path)
            .unwrap() = json!("altered");
        let found = compare(&before, &after, &Options::default());
        assert_eq!(found.different.len(), 1, "{path}");
    }
}

#[test]
fn the_same_seed_makes_the_same_objects_and_namespaces_can_be_mapped() {
    let cluster = Cluster::shared();
    let load = |prefix: &str, seed| Load {
        prefix: prefix.to_owned(),
        seed,
        config_maps: 30,
        secrets: 5,
        deployments: 3,
        half_random: true,
        ..Load::default()
    };
    let counts = load("seed-one", 1).fill(&cluster.endpoint());
    assert_eq!((counts.total, counts.by_kind["ConfigMap"]), (39, 30));
    load("seed-same", 1).fill(&cluster.endpoint());
    load("seed-other", 2).fill(&cluster.endpoint());

    let state = Snapshot::of(cluster);
    let options = |new: &str| Options {
        // The label of a load names it.
        without_resources: vec!["namespaces".to_owned()],
        ..Options::in_namespaces(&["seed-one-000"]).mapped("seed-one-000", new)
    };
    compare(&state, &state, &options("seed-same-000")).assert_none();
    let found = compare(&state, &state, &options("seed-other-000"));
    // The text and the noise of each ConfigMap and each Secret.
    assert_eq!(found.different.len(), 2 * 35, "{found}");
}
