//! What the real Velero makes of a backup with copies of files, with the node-agent that looks after such copies of its own: it has nothing to do with them.

use harness::node::Node;
use harness::velero::{Velero, start_node_agent};
use harness::wait_for;
use serde_json::Value;

use super::{BUCKET, PATIENT, World, claim, pod};

fn objects(world: &World, kind: &str) -> Vec<Value> {
    let path = format!("/apis/velero.io/v1/namespaces/velero/{kind}");
    let list = world.node.client().get(&path).unwrap().json();
    list["items"].as_array().cloned().unwrap_or_default()
}

fn agent_log(world: &World) -> String {
    let words = ["-n", "velero", "logs", "daemonset/node-agent"];
    world.node.kubectl(&words).stdout
}

#[test]
fn velero_and_its_node_agent_have_nothing_to_do_with_a_copy_when_its_backup_is_restored_and_deleted()
 {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let world = World::start();
    world.namespace("shop");
    world
        .node
        .apply(&(claim("shop", "data", "") + &pod("shop", "db", &["data"], &[])));
    world.wait("shop", &["db"]);
    world.shell("shop", "db", "echo text > /data/file");
    world.create("ours", "shop").ok();
    assert_eq!(world.row("ours", "data")["result"], "saved");
    let repository = world.minio.contents(BUCKET, "p/restic/");
    assert!(!repository.is_empty());
    let gone = ["delete", "namespace", "shop", "--wait=true"];
    world.node.kubectl(&gone);

    let often = ["--backup-sync-period=1s"];
    let velero = Velero::start(&world.node, &world.minio, BUCKET, "p", &often, None);
    start_node_agent(&world.node, &world.home);
    let synced = wait_for("the PodVolumeBackup", PATIENT, || {
        objects(&world, "podvolumebackups").pop()
    });
    assert_eq!(synced["spec"]["node"], "node1");
    let described = velero.cli(&["backup", "describe", "ours", "--details"]);
    let described = described.ok().stdout;
    assert!(described.contains("shop/db: data (size: "), "{described}");

    velero.restore("r", "ours", &[]);
    world.wait("shop", &["db"]);
    let pod = world.get("shop", "pod/db");
    assert_eq!(pod["spec"]["initContainers"], Value::Null);
    // Anew, and empty: what Velero is told.
    assert_eq!(world.shell("shop", "db", "ls /data"), "");
    assert_eq!(objects(&world, "podvolumerestores"), [""; 0]);
    let synced = objects(&world, "podvolumebackups").pop().unwrap();
    assert_eq!(synced["status"]["phase"], "Completed");
    assert_eq!(synced["status"]["snapshotID"], Value::Null);
    assert_eq!(synced["metadata"]["finalizers"], Value::Null);

    velero.cli(&["backup", "delete", "ours", "--confirm"]).ok();
    wait_for("the end of the backup", PATIENT, || {
        for request in objects(&world, "deletebackuprequests") {
            let errors = request["status"]["errors"].as_array();
            assert!(errors.is_none_or(Vec::is_empty), "{request:#}");
        }
        let files = world.minio.list(BUCKET, "p/backups/ours");
        (objects(&world, "backups").is_empty() && files.is_empty()).then_some(())
    });
    // It was asked about the copy until then.
    let name = synced["metadata"]["name"].as_str().unwrap();
    let log = wait_for("the end of the PodVolumeBackup", PATIENT, || {
        let log = agent_log(&world);
        log.contains(name).then_some(log)
    });
    assert!(!log.contains("level=error"), "{log}");
    assert_eq!(objects(&world, "backuprepositories"), [""; 0]);
    assert_eq!(world.minio.contents(BUCKET, "p/restic/"), repository);
    assert_eq!(world.minio.list(BUCKET, "p/kopia"), [""; 0]);
}
