//! What a node's commands refuse, before anything is moved; and a fence that is asked for by itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use harness::etcd::Etcd;
use harness::node::Node;
use harness::{tools, wait_for};

use super::place::{PARTS, Place, told};

#[test]
fn a_node_that_can_not_be_restored_is_left_alone_and_a_fence_is_undone() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let place = Place::start();
    place.mark("kept");
    let file = place.snapshot("etcd.db");
    let pids: Vec<_> = PARTS.iter().map(|part| place.processes(part)).collect();
    let untouched = || {
        place.assert_whole();
        let now: Vec<_> = PARTS.iter().map(|part| place.processes(part)).collect();
        assert_eq!(now, pids, "nothing was started anew");
    };

    let run = place.launcher(&["node", "restore"]).arg(&file).code(2);
    told(&run, &["--yes"]);
    untouched();

    let manifests = place.node.path("/etc/kubernetes/manifests");
    // Ending does not matter to the kubelet. It is no running pod: its name and uid are another's, and its command is not run.
    let second = manifests.join("old-etcd.bak");
    fs::write(
        &second,
        "{apiVersion: v1, kind: Pod, metadata: {name: old, namespace: kube-system}, spec: {hostNetwork: true, nodeName: elsewhere, containers: [{name: etcd, image: 'localhost/absent:1', imagePullPolicy: Never, command: [etcd]}]}}",
    )
    .unwrap();
    for command in ["fence", "restore", "rollback", "start", "status"] {
        let mut call = place.launcher(&["node", command]);
        if command != "status" {
            call = call.arg("--yes");
        }
        if command == "restore" {
            call = call.arg(&file);
        }
        let run = call.code(1);
        told(
            &run,
            &[
                "two static pods start etcd",
                "old-etcd.bak",
                "etcd.yaml",
                "hint:",
            ],
        );
    }
    fs::remove_file(&second).unwrap();
    untouched();

    let run = place
        .restore(&file)
        .arg("--kubelet-config=/no/such/config.yaml")
        .code(1);
    told(&run, &["/no/such/config.yaml", "--kubelet-config"]);

    let launcher = tools::launcher();
    let readable = launcher.metadata().unwrap().permissions().mode() & 0o005 == 0o005;
    assert!(readable, "for who is not root");
    let mut other = vec![
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--",
    ];
    let launcher = launcher.display().to_string();
    other.extend([launcher.as_str(), "node", "status"]);
    let run = place.node.inside(&other).code(1);
    told(&run, &["only root", "sudo"]);

    // Of another cluster, damaged, absent: found before anything is stopped.
    let stranger = Etcd::start();
    stranger.put("/other", "x");
    let saved = stranger.save_snapshot("other.db");
    let other = file.with_file_name("other.db");
    fs::copy(&saved, place.node.path(other.to_str().unwrap())).unwrap();
    let run = place.restore(&other).code(1);
    told(
        &run,
        &[
            "another cluster",
            "--another-cluster",
            "the control plane was not touched",
        ],
    );
    let cut = file.with_file_name("cut.db");
    let whole = fs::read(place.node.path(file.to_str().unwrap())).unwrap();
    fs::write(
        place.node.path(cut.to_str().unwrap()),
        &whole[..whole.len() / 2],
    )
    .unwrap();
    let run = place.restore(&cut).code(1);
    told(&run, &["cut.db", "the control plane was not touched"]);
    place.restore("/no/such/file.db".as_ref()).code(1);
    let run = place.rollback().code(0);
    assert!(
        run.stdout.contains("already"),
        "what failed was given up: {}",
        run.stdout
    );
    untouched();

    // Without an etcdutl the message says where it is, and that works.
    let bare = "/usr/sbin:/usr/bin:/sbin:/bin";
    let run = place.restore(&file).env("PATH", bare).code(1);
    let image = place.node.etcd_image();
    told(&run, &["no etcdutl", &image, "/mnt/usr/local/bin/etcdutl"]);
    untouched();
    place
        .node
        .inside(&["ctr", "-n", "k8s.io", "images", "mount", &image, "/mnt"])
        .ok();
    let run = place
        .restore(&file)
        .env("PATH", bare)
        .args(&["--etcdutl=/mnt/usr/local/bin/etcdutl", "--dry-run"])
        .ok();
    for word in [
        "kube-apiserver.yaml",
        "manifests.etcd-launcher",
        "nothing was changed",
    ] {
        assert!(run.stdout.contains(word), "{word}: {}", run.stdout);
    }
    untouched();

    // A kubelet that does not run would neither stop nor start anything.
    place.node.stop_kubelet();
    let run = place.restore(&file).code(1);
    told(&run, &["no kubelet", "systemctl start kubelet"]);
    place.node.start_kubelet();
    place.node.wait_until_ready();
    untouched();

    // Stopped by itself, and started again.
    let run = place.launcher(&["node", "fence", "--yes"]).ok();
    assert!(run.stdout.contains("node start"), "{}", run.stdout);
    for part in PARTS {
        assert_eq!(place.processes(part), [0; 0], "{part}");
        assert!(place.fence().join(format!("{part}.yaml")).is_file());
    }
    assert_eq!(place.status()["state"], "Fenced");
    // Once more, and nothing more happens.
    place.launcher(&["node", "fence", "--yes"]).ok();
    // A manifest that somebody wrote anew meanwhile is seen.
    let name = "kube-scheduler.yaml";
    fs::copy(place.fence().join(name), manifests.join(name)).unwrap();
    let run = place.start_all().code(1);
    told(&run, &[name, "somebody wrote it anew"]);
    fs::remove_file(manifests.join(name)).unwrap();
    // There is no restore to take back, and to start is another command.
    let run = place.rollback().code(1);
    told(&run, &["no restore of this node", "node start"]);
    assert_eq!(place.status()["state"], "Fenced");
    let run = place.start_all().ok();
    assert!(run.stdout.contains("manifests are back"), "{}", run.stdout);
    place.assert_marked(&["kept"]);
    // Once more, and nothing happens.
    let run = place.start_all().ok();
    assert!(run.stdout.contains("nothing was stopped"), "{}", run.stdout);
    place.assert_marked(&["kept"]);

    // Restored from where it was fenced by itself.
    place.mark("later");
    place.launcher(&["node", "fence", "--yes"]).ok();
    place.restore(&file).ok();
    place.assert_marked(&["kept"]);
}

#[test]
fn a_lost_quorum_and_an_empty_data_dir_are_told_and_need_a_word() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let (place, file) = Place::saved("kept", "later");

    // A second member that never comes: etcd has no quorum any more, and the API server no etcd.
    place.node.etcdctl(&[
        "member",
        "add",
        "ghost",
        "--peer-urls=https://10.99.99.99:2380",
    ]);
    let run = place.restore(&file).code(1);
    told(&run, &["2 members", "--lost-members", "manifests are back"]);
    assert!(!place.fence().exists());
    place.restore(&file).arg("--lost-members").ok();
    place.assert_marked(&["kept"]);
    let members = place.node.etcdctl(&["member", "list"]).stdout;
    assert_eq!(members.lines().count(), 1, "{members}");

    // Nothing is left of the data: an etcd that is started would begin an empty cluster.
    place.launcher(&["node", "fence", "--yes"]).ok();
    fs::remove_dir_all(place.data_dir().join("member")).unwrap();
    let run = place.start_all().code(3);
    told(&run, &["empty cluster", "--empty-cluster"]);
    assert!(place.fence().join("etcd.yaml").is_file());
    assert_eq!(place.processes("etcd"), [0; 0]);
    place.restore(&file).ok();
    place.assert_marked(&["kept"]);

    // Unless it is what is wanted.
    place.launcher(&["node", "fence", "--yes"]).ok();
    fs::remove_dir_all(place.data_dir().join("member")).unwrap();
    place.start_all().arg("--empty-cluster").ok();
    wait_for(
        "an API server with nothing in it",
        Duration::from_secs(300),
        || {
            let read = place.node.try_kubectl(&["get", "configmap", "kept"]);
            read.stderr.contains("NotFound").then_some(())
        },
    );
    // And back from that as well.
    place.restore(&file).ok();
    place.assert_marked(&["kept"]);
}
