//! Another cluster with the same location: it makes no claim of a snapshot that is not in its storage, and takes none away.

use harness::cluster::Cluster;

use super::World;

/// The uid by which a cluster is known.
fn uid(namespace: &serde_json::Value) -> String {
    namespace["metadata"]["uid"].as_str().unwrap().to_owned()
}

pub(super) fn all(world: &World) {
    let other = Cluster::shared();
    let own = uid(&world.get("default", "namespace/kube-system"));
    let handle = world.handle("single", "one");
    let call = |words: &[&str]| world.at(other.kubeconfig(), world.minio.endpoint(), words);

    let into = other.create_namespace("elsewhere");
    let words = [
        "restore",
        "create",
        "far",
        "--from-backup",
        "single",
        "--yes",
    ];
    let run = call(&words)
        .args(&["--namespace-mappings", &format!("single:{into}")])
        .code(3);
    let why = format!("it is a snapshot in the storage of cluster {own}");
    assert!(run.stderr.contains(&why), "{}", run.stderr);
    let made = ["-n", &into, "get", "pods,pvc", "-o", "name"];
    assert_eq!(other.kubectl(&made).stdout, "");

    // The location is another cluster's.
    let refused = call(&["delete", "single", "--yes", "--force"]).code(1);
    assert!(
        refused.stderr.contains("it belongs to the cluster"),
        "{}",
        refused.stderr
    );
    // Handed over, its snapshots are where they were.
    call(&["location", "adopt", "--yes"]).ok();
    let left = format!("left in cluster {own}");
    let kept = call(&["delete", "single", "--yes"]).code(3);
    assert!(
        kept.stderr.contains(&left) && kept.stderr.contains(&handle),
        "{}",
        kept.stderr
    );
    world.call(&["describe", "single"]).ok();
    let run = call(&["delete", "single", "--yes", "--force"]).ok();
    assert!(
        run.stderr.contains(&left) && run.stderr.contains(&handle),
        "{}",
        run.stderr
    );
    world.call(&["describe", "single"]).code(1);
    assert!(world.held().contains(&handle) && world.known().contains(&handle));

    world.call(&["location", "adopt", "--yes"]).ok();
    // Where no marker stands, nothing but what is known of it is dropped, and that by name.
    world.call(&["delete", "single", "--yes"]).code(1);
    let run = world.call(&["delete", "single", "--yes", "--force"]).ok();
    assert!(run.stderr.contains(&handle), "{}", run.stderr);
    assert!(world.held().contains(&handle) && !world.known().contains(&handle));
}
