//! No silent gap: what could not be saved is named, and the exit code says so.

use crate::place::{Place, bind};
use harness::cluster::Cluster;
use harness::process::Folder;

const DEAD_API: &str = "
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.dead.example.com}
spec: {group: dead.example.com, version: v1, groupPriorityMinimum: 100, versionPriority: 100, insecureSkipTLSVerify: true, service: {name: dead, namespace: default, port: 443}}
";

#[test]
fn a_dead_aggregated_api_makes_the_backup_incomplete_and_is_named() {
    let cluster = Cluster::builder()
        .controllers(harness::cluster::Controllers::NAMESPACES)
        .start();
    let folder = Folder::new("location");
    let location = format!("file://{}", folder.path().display());
    cluster.apply(DEAD_API);
    let run = crate::place::on(&cluster, &location, &["create", "b"]).code(3);
    assert!(run.stderr.contains("dead.example.com"), "{}", run.stderr);
    let shown = crate::place::on(&cluster, &location, &["describe", "b"])
        .ok()
        .stdout;
    assert!(
        shown.contains("dead.example.com") && shown.contains("PartiallyFailed"),
        "{shown}"
    );
    let listed = crate::place::on(&cluster, &location, &["get"]).ok().stdout;
    assert!(listed.contains("PartiallyFailed"), "{listed}");
}

#[test]
fn a_list_that_is_forbidden_is_a_gap_in_a_backup_of_the_whole_cluster() {
    let place = Place::new();
    let user = place.cluster.user("reader-of-config-maps", &[]);
    place.cluster.apply(
        "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader-of-config-maps}
rules: [{apiGroups: [''], resources: [configmaps, namespaces, pods], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader-of-config-maps}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader-of-config-maps}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: reader-of-config-maps}]
",
    );
    // What else is missing is not hidden behind a gap whose kind its name holds.
    let namespace = place.cluster.create_namespace("secrets");
    asking_pod(&place, &namespace, "backup.velero.io/backup-volumes: data");
    let run = place.run(&["create", "b"]).kubeconfig(&user).code(3);
    let missing = |what: &str| {
        let line = format!("not saved: {what}");
        assert!(
            run.stderr.lines().any(|l| l.starts_with(&line)),
            "{line}: {}",
            run.stderr
        );
    };
    missing("secrets could not be read: secrets is forbidden");
    missing(&format!("pod {namespace}/app asks for the files"));
    assert_eq!(place.marker("b")["status"]["phase"], "PartiallyFailed");
    assert!(!place.archive("b").names("configmaps").is_empty());
    let shown = place.run(&["describe", "b"]).ok().stdout;
    assert!(
        shown.contains("secrets is forbidden") && shown.contains("Failed:"),
        "{shown}"
    );
}

/// A pod whose annotation asks for what is not done yet.
fn asking_pod(place: &Place, namespace: &str, annotation: &str) {
    place
        .cluster
        .kubectl(&["-n", namespace, "create", "serviceaccount", "waiting"]);
    place.cluster.apply(&format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: app, namespace: {namespace}, annotations: {{{annotation}}}}}
spec: {{serviceAccountName: waiting, containers: [{{name: app, image: 'localhost/none:1', volumeMounts: [{{name: data, mountPath: /data}}]}}], volumes: [{{name: data, emptyDir: {{}}}}]}}
"
    ));
}

#[test]
fn a_volume_is_named_with_its_data_not_saved() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("volume");
    place.cluster.apply(&format!(
        "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: data, namespace: {namespace}}}
spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}
"
    ));
    // What has no volume has no data.
    let run = place.run(&["create", "empty", "-n", &namespace]).ok();
    assert!(!run.stderr.contains("not saved"), "{}", run.stderr);
    let shown = place.run(&["describe", "empty"]).ok().stdout;
    let line = format!("{namespace}/data:  nothing saved (not bound: nothing to save)");
    assert!(shown.contains(&line), "{shown}");
    bind(place.cluster, &namespace, "data");
    let run = place.run(&["create", "b", "-n", &namespace]).ok();
    let named = format!("{namespace}/data");
    assert!(
        run.stderr.contains(&named) && run.stderr.contains("not saved"),
        "{}",
        run.stderr
    );
    let shown = place.run(&["describe", "b"]).ok().stdout;
    assert!(
        shown.contains(&named) && shown.contains("not saved"),
        "{shown}"
    );
    let info = place.side_file("b", "-volumeinfo.json.gz");
    assert_eq!(info[0]["pvcName"], "data");
    assert_eq!(info[0]["pvcNamespace"], namespace.as_str());
    assert_eq!(info[0]["skipped"], true);
    assert!(
        info[0]["skippedReason"]
            .as_str()
            .unwrap()
            .contains("nobody asked"),
        "{info}"
    );
    // What is not built is refused by its name in Velero.
    let run = place.run(&["create", "m", "-n", &namespace, "--snapshot-move-data"]);
    let told = run.code(3).stderr;
    let why = "not moved to the location yet (snapshotMoveData)";
    assert!(told.contains(&named) && told.contains(why), "{told}");
}

#[test]
fn data_that_was_asked_for_and_can_not_be_saved_makes_the_backup_incomplete() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("asked");
    asking_pod(&place, &namespace, "backup.velero.io/backup-volumes: data");
    let run = place.run(&["create", "b", "-n", &namespace]).code(3);
    assert!(
        run.stderr.contains(&format!("{namespace}/app")),
        "{}",
        run.stderr
    );
    assert_eq!(place.marker("b")["status"]["phase"], "PartiallyFailed");
    // That no snapshots are wanted says nothing of copies.
    let unwanted = "--snapshot-volumes=false";
    let run = place.run(&["create", "b-no", "-n", &namespace, unwanted]);
    let told = run.code(3).stderr;
    assert!(told.contains("this is of type emptyDir"), "{told}");
}

#[test]
fn a_pod_that_does_not_run_is_named_with_the_hooks_that_it_can_not_run() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("hooked");
    let hook = "pre.hook.backup.velero.io/command: '[\"/bin/sync\"]'";
    asking_pod(&place, &namespace, hook);
    let run = place.run(&["create", "b", "-n", &namespace]).ok();
    let told = format!("pod {namespace}/app: its hooks (annotation) are not run: it is Pending");
    assert!(run.stderr.contains(&told), "{}", run.stderr);
    assert_eq!(place.marker("b")["status"]["phase"], "Completed");
    assert!(!place.archive("b").names("pods").is_empty());
}
