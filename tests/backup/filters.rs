//! What is saved, and what is left out by which rule.

use crate::place::Place;

const OBJECTS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: red, namespace: NS, labels: {colour: red}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: blue, namespace: NS, labels: {colour: blue}}
---
apiVersion: v1
kind: Secret
metadata: {name: red, namespace: NS, labels: {colour: red}}
---
apiVersion: v1
kind: Secret
metadata: {name: left-out, namespace: NS, labels: {velero.io/exclude-from-backup: 'true'}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot, namespace: NS}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: NS-robot}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: NS-role}
subjects: [{kind: ServiceAccount, name: robot, namespace: NS}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: NS-role}
rules: []
";

fn filled(place: &Place) -> String {
    let namespace = place.cluster.create_namespace("filter");
    place.cluster.apply(&OBJECTS.replace("NS", &namespace));
    namespace
}

#[test]
fn a_namespace_is_saved_with_the_cluster_objects_it_refers_to_and_nothing_else() {
    let place = Place::new();
    let namespace = filled(&place);
    place
        .run(&["create", "b", "--include-namespaces", &namespace])
        .ok();
    let archive = place.archive("b");
    assert_eq!(archive.names("namespaces"), [namespace.as_str()]);
    assert!(
        archive
            .names("configmaps")
            .contains(&format!("{namespace}/blue"))
    );
    assert!(
        archive
            .0
            .keys()
            .filter(|path| path.contains("/namespaces/"))
            .all(|path| path.contains(&namespace) || path.contains("resources/namespaces/"))
    );
    assert!(
        archive
            .names("clusterrolebindings.rbac.authorization.k8s.io")
            .contains(&format!("{namespace}-robot"))
    );
    assert!(
        archive
            .names("clusterroles.rbac.authorization.k8s.io")
            .contains(&format!("{namespace}-role"))
    );
    assert!(
        archive
            .names("customresourcedefinitions.apiextensions.k8s.io")
            .is_empty()
    );
    assert!(
        !archive
            .names("secrets")
            .contains(&format!("{namespace}/left-out")),
        "the exclude label counts"
    );
}

#[test]
fn cluster_objects_can_be_wanted_all_or_not_at_all() {
    let place = Place::new();
    let namespace = filled(&place);
    place
        .run(&[
            "create",
            "none",
            "--include-namespaces",
            &namespace,
            "--include-cluster-resources=false",
        ])
        .ok();
    let roles = "clusterroles.rbac.authorization.k8s.io";
    assert!(place.archive("none").names(roles).is_empty());
    place
        .run(&[
            "create",
            "all",
            "--include-namespaces",
            &namespace,
            "--include-cluster-resources",
        ])
        .ok();
    assert!(
        place
            .archive("all")
            .names(roles)
            .contains(&"cluster-admin".to_owned())
    );
}

#[test]
fn kinds_are_chosen_by_any_name_kubectl_knows_and_excludes_win() {
    let place = Place::new();
    let namespace = filled(&place);
    place
        .run(&[
            "create",
            "in",
            "-n",
            &namespace,
            "--include-resources",
            "cm,secrets",
        ])
        .ok();
    let archive = place.archive("in");
    assert_eq!(archive.names("secrets"), [format!("{namespace}/red")]);
    assert!(archive.names("serviceaccounts").is_empty());
    place
        .run(&[
            "create",
            "out",
            "-n",
            &namespace,
            "--exclude-resources",
            "secret",
        ])
        .ok();
    let archive = place.archive("out");
    assert!(archive.names("secrets").is_empty());
    assert!(
        archive
            .names("serviceaccounts")
            .contains(&format!("{namespace}/robot"))
    );
}

#[test]
fn scoped_lists_choose_cluster_and_namespaced_kinds_apart() {
    let place = Place::new();
    let namespace = filled(&place);
    let run = place
        .run(&[
            "create",
            "b",
            "--include-namespaces",
            &namespace,
            "--include-namespace-scoped-resources",
            "configmaps",
        ])
        .args(&["--include-cluster-scoped-resources", "clusterroles"])
        .ok();
    let first = run.stderr.lines().next().unwrap_or_default();
    assert!(
        first.contains("of namespaced kinds only configmaps")
            && first.contains("of cluster-scoped kinds only clusterroles"),
        "the scope is the first line: {first}"
    );
    let archive = place.archive("b");
    assert!(
        archive
            .names("clusterroles.rbac.authorization.k8s.io")
            .contains(&"cluster-admin".to_owned())
    );
    assert!(
        archive
            .names("configmaps")
            .contains(&format!("{namespace}/red"))
    );
    assert!(archive.names("secrets").is_empty());
    assert!(
        archive
            .names("clusterrolebindings.rbac.authorization.k8s.io")
            .is_empty()
    );
}

#[test]
fn labels_select_objects_and_an_or_selector_widens_the_choice() {
    let place = Place::new();
    let namespace = filled(&place);
    place
        .run(&["create", "red", "-n", &namespace, "-l", "colour=red"])
        .ok();
    let none = place
        .run(&["create", "none", "-n", &namespace, "-l", "colour=green"])
        .ok();
    assert!(
        none.stderr.contains("the backup holds no object"),
        "{}",
        none.stderr
    );
    let archive = place.archive("red");
    assert_eq!(archive.names("configmaps"), [format!("{namespace}/red")]);
    assert_eq!(archive.names("secrets"), [format!("{namespace}/red")]);
    assert_eq!(
        archive.names("namespaces"),
        [namespace.as_str()],
        "a namespace comes with its content"
    );
    place
        .run(&[
            "create",
            "both",
            "-n",
            &namespace,
            "--or-selector",
            "colour=red or colour=blue",
        ])
        .ok();
    assert_eq!(
        place.archive("both").names("configmaps"),
        [format!("{namespace}/blue"), format!("{namespace}/red")]
    );
}

#[test]
fn a_namespace_with_the_exclude_label_is_left_out() {
    let place = Place::new();
    let (stays, goes) = (filled(&place), filled(&place));
    place.cluster.kubectl(&[
        "label",
        "namespace",
        &goes,
        "velero.io/exclude-from-backup=true",
    ]);
    place
        .run(&[
            "create",
            "b",
            "--include-namespaces",
            &format!("{stays},{goes}"),
        ])
        .ok();
    let archive = place.archive("b");
    assert_eq!(archive.names("namespaces"), [stays]);
    assert!(
        !archive
            .0
            .keys()
            .any(|path| path.contains(&goes) && !path.contains("clusterrole"))
    );
}

#[test]
fn each_resource_the_server_has_is_reported_with_its_outcome() {
    let place = Place::new();
    let namespace = filled(&place);
    place
        .run(&[
            "create",
            "b",
            "-n",
            &namespace,
            "--exclude-resources",
            "secrets",
        ])
        .ok();
    let shown = place.run(&["describe", "b", "--details"]).ok().stdout;
    for resource in [
        "configmaps",
        "secrets",
        "deployments.apps",
        "nodes",
        "customresourcedefinitions.apiextensions.k8s.io",
    ] {
        assert!(
            shown.contains(resource),
            "{resource} is missing in\n{shown}"
        );
    }
}
