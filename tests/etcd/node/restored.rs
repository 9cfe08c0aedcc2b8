//! etcd is lost in several ways, and comes back from a file and from a store; what was restored is rolled back.

use std::fs;

use harness::node::Node;
use harness::store::Minio;

use super::place::{PARTS, Place, told};

#[test]
fn a_node_whose_etcd_is_gone_comes_back_from_a_file_and_from_a_store() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let place = Place::start();
    place.assert_whole();
    place.mark("a-early");
    let file = place.snapshot("etcd.db");
    let minio = Minio::start_on(&place.node.host_address());
    let bucket = minio.bucket("backups");
    let location = format!("s3://{bucket}/prod?endpoint={}", minio.endpoint());
    let in_store = ["--cluster=prod", "--location", &location];
    place.mark("b-late");
    let revision = revision(&place);

    // Nobody can read the database any more: etcd fails at each start, and no API server is there.
    place.destroy();
    let plan = place.restore(&file).arg("--dry-run").ok();
    assert!(
        plan.stdout.contains("nothing was changed"),
        "{}",
        plan.stdout
    );
    assert!(!place.fence().exists());
    let run = place.restore(&file).ok();
    assert!(
        run.stdout.contains("the control plane is ready"),
        "{}",
        run.stdout
    );
    place.assert_marked(&["a-early"]);
    let restored = revision_of(&place.status());
    assert!(restored > revision + 1_000_000_000, "{restored}");
    assert!(self::revision(&place) >= restored);
    place.mark("c-new");
    let last = &place.status()["data"]["attempts"][0];
    assert_eq!(last["step"], "Committed");
    assert!(
        fs::metadata(place.node.path(last["kept"].as_str().unwrap()))
            .unwrap()
            .is_dir()
    );
    for part in PARTS {
        assert_eq!(place.processes(part).len(), 1, "{part}");
    }

    // Into a location, with the API alive; then the data dir is emptied under the running etcd.
    place
        .snapshot_to(&["--name=nightly", in_store[0], in_store[1], in_store[2]])
        .credentials_of(&minio)
        .ok();
    place.mark("d-lost");
    fs::remove_dir_all(place.data_dir().join("member")).unwrap();
    place.kill_etcd();
    let run = place
        .restore("nightly".as_ref())
        .args(&in_store)
        .credentials_of(&minio)
        .ok();
    assert!(!run.stderr.contains(minio.secret_key()), "{}", run.stderr);
    place.assert_marked(&["a-early", "c-new"]);

    // A restore that was one too many: etcd ran on it, so the state before comes back above its revisions.
    place.mark("e-kept");
    place.restore(&file).ok();
    place.assert_marked(&["a-early"]);
    place.mark("f-since");
    let before = self::revision(&place);
    let run = place.rollback().ok();
    told(&run, &["etcd has run"]);
    place.assert_marked(&["a-early", "c-new", "e-kept"]);
    assert!(self::revision(&place) > before);
    // Said again, it is not undone, and nothing is stopped for it.
    let pids = place.processes("etcd");
    let again = place.rollback().ok();
    assert!(again.stdout.contains("already"), "{}", again.stdout);
    assert_eq!(place.processes("etcd"), pids);

    // Pods are scheduled and run: controllers and kubelet have listed anew.
    let image = "--image=localhost/pause:1";
    place.node.kubectl(&["create", "deployment", "web", image]);
    place
        .node
        .kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]);
}

fn revision(place: &Place) -> i64 {
    let status = place
        .node
        .etcdctl(&["endpoint", "status", "-w=json"])
        .json();
    status[0]["Status"]["header"]["revision"].as_i64().unwrap()
}

fn revision_of(status: &serde_json::Value) -> i64 {
    let attempts = status["data"]["attempts"].as_array().unwrap();
    attempts.last().unwrap()["targetRevision"].as_i64().unwrap()
}
