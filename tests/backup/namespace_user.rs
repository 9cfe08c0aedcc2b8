//! A user who may read one namespace backs up that namespace.

use crate::place::Place;

#[test]
fn a_user_who_may_read_one_namespace_backs_it_up_with_n() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("own");
    let user = place.cluster.user("owner-of-one", &[]);
    place.cluster.kubectl(&[
        "-n",
        &namespace,
        "create",
        "rolebinding",
        "owner",
        "--clusterrole=admin",
        "--user=owner-of-one",
    ]);
    place.cluster.kubectl(&[
        "-n",
        &namespace,
        "create",
        "configmap",
        "mine",
        "--from-literal=a=b",
    ]);
    let run = place
        .run(&["create", "b", "-n", &namespace])
        .kubeconfig(&user)
        .run();
    // The role "admin" can not read every namespaced type (leases, controller revisions): those are gaps, and nothing else is.
    assert!([0, 3].contains(&run.code), "{}{}", run.stdout, run.stderr);
    assert!(
        place
            .archive("b")
            .names("configmaps")
            .contains(&format!("{namespace}/mine"))
    );
    let shown = place.run(&["describe", "b"]).ok().stdout;
    assert!(
        shown.contains("scope"),
        "cluster-scoped types are left out by a rule that is named\n{shown}"
    );

    place.cluster.apply(&format!(
        "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: reader, namespace: {namespace}}}
rules: [{{apiGroups: ['*'], resources: ['*'], verbs: [get, list]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: reader, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: owner-of-one}}]
"
    ));
    place
        .run(&["create", "whole", "-n", &namespace])
        .kubeconfig(&user)
        .ok();
    assert_eq!(place.marker("whole")["status"]["phase"], "Completed");
}
