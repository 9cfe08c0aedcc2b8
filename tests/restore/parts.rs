//! A part of a backup, in the same or another namespace.

use crate::place::{Place, on};
use harness::cluster::Cluster;
use harness::compare::{Options, compare};
use harness::process::Folder;
use harness::snapshot::Snapshot;

const SHOP: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: NS, labels: {app: web}}
data: {a: b}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other, namespace: NS}
data: {c: d}
---
apiVersion: v1
kind: Secret
metadata: {name: token, namespace: NS, labels: {app: web}}
stringData: {t: s}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NS}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot, namespace: NS}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: robot, namespace: NS}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: robot, namespace: NS}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NS, labels: {app: web}}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: 'localhost/none:1'}]}}
";

fn saved() -> (Place, String) {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("shop");
    place
        .cluster
        .kubectl(&["label", "namespace", &namespace, "team=shop"]);
    place.cluster.apply(&SHOP.replace("NS", &namespace));
    place
        .run(&["create", "b", "--include-namespaces", &namespace])
        .ok();
    (place, namespace)
}

fn names(place: &Place, namespace: &str, kind: &str) -> String {
    place
        .cluster
        .kubectl(&["-n", namespace, "get", kind, "-o", "name"])
        .stdout
}

#[test]
fn a_namespace_that_was_deleted_comes_back() {
    let (place, namespace) = saved();
    let before = Snapshot::of(place.cluster);
    place
        .cluster
        .kubectl(&["delete", "namespace", &namespace, "--wait=true"]);
    place.run(&["restore", "create", "--from-backup", "b"]).ok();
    compare(
        &before,
        &Snapshot::of(place.cluster),
        &Options::in_namespaces(&[&namespace]),
    )
    .assert_none();
    let labels = place
        .cluster
        .get_raw(&format!("/api/v1/namespaces/{namespace}"));
    assert_eq!(labels["metadata"]["labels"]["team"], "shop");
}

#[test]
fn a_namespace_is_restored_beside_the_old_one_under_another_name() {
    let (place, namespace) = saved();
    let before = Snapshot::of(place.cluster);
    let copy = format!("{namespace}-copy");
    place
        .run(&[
            "restore",
            "create",
            "--from-backup",
            "b",
            "--namespace-mappings",
            &format!("{namespace}:{copy}"),
        ])
        .ok();
    compare(
        &before,
        &Snapshot::of(place.cluster),
        &Options::in_namespaces(&[&namespace]).mapped(&namespace, &copy),
    )
    .assert_none();
    let binding = place.cluster.get_raw(&format!(
        "/apis/rbac.authorization.k8s.io/v1/namespaces/{copy}/rolebindings/robot"
    ));
    assert_eq!(binding["subjects"][0]["namespace"], copy.as_str());
}

#[test]
fn two_namespaces_that_would_become_one_are_refused() {
    let place = Place::new();
    let namespaces = ["one", "two"].map(|name| place.cluster.create_namespace(name));
    for namespace in &namespaces {
        place
            .cluster
            .kubectl(&["-n", namespace, "create", "configmap", "x"]);
    }
    let [one, two] = &namespaces;
    let both = namespaces.join(",");
    place
        .run(&["create", "b", "--include-namespaces", &both])
        .ok();
    let refused = |mapping: &str, code: i32| {
        let restore = [
            "restore",
            "create",
            "--from-backup",
            "b",
            "--namespace-mappings",
        ];
        place.run(&restore).arg(mapping).code(code).stderr
    };
    let together = refused(&format!("{one}:{one}-new,{two}:{one}-new"), 2);
    assert!(together.contains("would both be restored"), "{together}");
    // Whether the other one is wanted, the backup tells.
    let onto = refused(&format!("{one}:{two}"), 1);
    assert!(onto.contains("would both be restored"), "{onto}");
    for bad in ["", "Upper", "a/b"] {
        let text = refused(&format!("{one}:{bad}"), 2);
        assert!(
            text.contains("can not be the name of a namespace"),
            "{text}"
        );
    }
}

#[test]
fn kinds_labels_and_single_objects_can_be_chosen() {
    let (place, namespace) = saved();
    let restore = |copy: &str, arguments: &[&str]| {
        let mapping = format!("{namespace}:{namespace}-{copy}");
        place
            .run(&[
                "restore",
                "create",
                "--from-backup",
                "b",
                "--namespace-mappings",
                &mapping,
            ])
            .args(arguments)
            .ok();
        format!("{namespace}-{copy}")
    };
    let kinds = restore(
        "kinds",
        &["--include-resources", "configmaps,secrets", "-l", "app=web"],
    );
    assert!(
        names(&place, &kinds, "configmaps").contains("settings")
            && !names(&place, &kinds, "configmaps").contains("other")
    );
    assert!(names(&place, &kinds, "secrets").contains("token"));
    assert!(names(&place, &kinds, "deployments").is_empty());
    let single = restore(
        "single",
        &[
            "--include-resources",
            "configmaps",
            "--objects",
            &format!("{namespace}/other"),
        ],
    );
    assert!(
        names(&place, &single, "configmaps").contains("other")
            && !names(&place, &single, "configmaps").contains("settings")
    );
    assert!(names(&place, &single, "services").is_empty());
    // A selector that matches nothing is no mistake.
    let selector = ["restore", "create", "--from-backup", "b", "-l", "app=none"];
    let none = place.run(&selector).ok();
    assert!(
        none.stderr.contains("has the labels that were asked for"),
        "{}",
        none.stderr
    );
    let without = restore("without", &["--exclude-resources", "secrets"]);
    assert!(
        names(&place, &without, "secrets").is_empty()
            && names(&place, &without, "deployments").contains("web")
    );
}

#[test]
fn a_dry_run_shows_each_object_with_what_would_be_done_and_why() {
    let (place, namespace) = saved();
    place
        .cluster
        .kubectl(&["-n", &namespace, "delete", "configmap", "settings"]);
    let run = place
        .run(&[
            "restore",
            "create",
            "--from-backup",
            "b",
            "--dry-run=client",
        ])
        .ok();
    let line = |name: &str| {
        run.stdout
            .lines()
            .find(|line| line.contains(name))
            .unwrap_or_else(|| panic!("{name}: {}", run.stdout))
            .to_lowercase()
    };
    assert!(line("settings").contains("create"), "{}", run.stdout);
    assert!(
        line("other").contains("skip") && line("other").contains("exists"),
        "{}",
        run.stdout
    );
    assert!(
        !names(&place, &namespace, "configmaps").contains("settings"),
        "nothing was changed"
    );
    assert!(
        place.run(&["restore", "get"]).ok().stdout.lines().count() <= 1,
        "a dry run is no restore"
    );
}

#[test]
fn objects_the_target_refuses_are_listed_and_the_rest_is_restored() {
    let (place, namespace) = saved();
    let copy = place.cluster.create_namespace("refusing");
    place.cluster.apply(&format!(
        "
apiVersion: v1
kind: ResourceQuota
metadata: {{name: none, namespace: {copy}}}
spec: {{hard: {{secrets: '0', count/deployments.apps: '0'}}}}
"
    ));
    harness::wait_for("the quota", std::time::Duration::from_secs(20), || {
        place
            .cluster
            .get_raw(&format!("/api/v1/namespaces/{copy}/resourcequotas/none"))["status"]
            .get("used")
            .map(|_| ())
    });
    let run = place
        .run(&[
            "restore",
            "create",
            "--from-backup",
            "b",
            "--namespace-mappings",
            &format!("{namespace}:{copy}"),
        ])
        .code(3);
    assert!(
        run.stderr.contains("token") && run.stderr.contains("quota"),
        "{}",
        run.stderr
    );
    assert!(names(&place, &copy, "configmaps").contains("settings"));
    let listed = place.run(&["restore", "get"]).ok().stdout;
    assert!(listed.contains("PartiallyFailed"), "{listed}");
}

#[test]
fn what_admission_denies_is_listed_with_its_reason_and_the_rest_is_restored() {
    let (place, namespace) = saved();
    let copy = place.cluster.create_namespace("denying");
    place.cluster.apply(&format!(
        "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: {copy}}}
spec:
  matchConstraints:
    namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {copy}}}}}
    resourceRules: [{{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [secrets]}}]
  validations: [{{expression: 'false', message: no secrets here}}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {copy}}}
spec: {{policyName: {copy}, validationActions: [Deny]}}
"
    ));
    harness::wait_for("the policy", std::time::Duration::from_secs(30), || {
        let path = format!("/api/v1/namespaces/{copy}/secrets?dryRun=All");
        let probe = r#"{"metadata":{"name":"probe"}}"#;
        let answer = place.cluster.client().post_json(&path, probe).unwrap();
        (answer.status >= 400).then_some(())
    });
    let mapping = format!("{namespace}:{copy}");
    let run = place
        .run(&[
            "restore",
            "create",
            "--from-backup",
            "b",
            "--namespace-mappings",
            &mapping,
        ])
        .code(3);
    assert!(
        run.stderr.contains("token") && run.stderr.contains("no secrets here"),
        "{}",
        run.stderr
    );
    assert!(names(&place, &copy, "configmaps").contains("settings"));
}

#[test]
fn a_kind_the_target_does_not_serve_is_listed_and_the_rest_is_restored() {
    // A definition that goes while others back the shared cluster up would be a gap of theirs.
    let cluster = Cluster::start();
    let folder = Folder::new("location");
    let location = format!("file://{}", folder.path().display());
    let run = |arguments: &[&str]| on(&cluster, &location, arguments);
    let namespace = cluster.create_namespace("unknown-kind");
    let group = format!("{namespace}.example.com");
    cluster.apply(&format!(
        "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: gadgets.{group}}}
spec:
  group: {group}
  scope: Namespaced
  names: {{plural: gadgets, singular: gadget, kind: Gadget, listKind: GadgetList}}
  versions: [{{name: v1, served: true, storage: true, schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: settings, namespace: {namespace}}}
"
    ));
    let path = format!("/apis/{group}/v1/namespaces/{namespace}/gadgets");
    harness::wait_for("the new kind", std::time::Duration::from_secs(30), || {
        (cluster.client().get(&path).unwrap().status == 200).then_some(())
    });
    cluster.apply(&format!(
        "apiVersion: {group}/v1\nkind: Gadget\nmetadata: {{name: one, namespace: {namespace}}}\n"
    ));
    run(&["create", "b", "--include-namespaces", &namespace]).ok();
    let definition = format!("gadgets.{group}");
    cluster.kubectl(&["delete", "crd", &definition, "--wait=true"]);
    cluster.kubectl(&["-n", &namespace, "delete", "configmap", "settings"]);
    let without = ["--exclude-resources", "customresourcedefinitions"];
    let restore = ["restore", "create", "--from-backup", "b"];
    let asked = run(&restore).args(&without).code(2);
    let lack = format!("the target lacks API {definition}");
    assert!(asked.stderr.contains(&lack), "{}", asked.stderr);
    let partly = run(&restore).args(&without).arg("--yes").code(3);
    assert!(partly.stderr.contains("gadgets"), "{}", partly.stderr);
    cluster.get_raw(&format!(
        "/api/v1/namespaces/{namespace}/configmaps/settings"
    ));
    // With its definition, which the backup holds, it comes back.
    run(&["restore", "create", "--from-backup", "b"]).ok();
    cluster.get_raw(&format!("{path}/one"));
}

#[test]
fn restores_that_begin_in_one_second_each_have_a_name_of_their_own() {
    let (place, namespace) = saved();
    let copies: Vec<String> = (0..6).map(|n| format!("{namespace}-once-{n}")).collect();
    std::thread::scope(|scope| {
        for copy in &copies {
            let mapping = format!("{namespace}:{copy}");
            let place = &place;
            scope.spawn(move || {
                place
                    .run(&["restore", "create", "--from-backup", "b"])
                    .args(&["--namespace-mappings", &mapping])
                    .ok();
            });
        }
    });
    let listed = place
        .run(&["restore", "get", "-o", "name"])
        .ok()
        .stdout
        .lines()
        .count();
    assert_eq!(listed, copies.len());
    for copy in &copies {
        assert!(names(&place, copy, "configmaps").contains("settings"));
    }
}
