//! The node is what kubeadm would have made, is left alone by its neighbour, and leaves nothing behind.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::node::{Image, Node, NodeOptions};
use harness::process::Folder;
use harness::store::Minio;
use harness::wait_for;

const CONTROL_PLANE: [&str; 4] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
];

fn is_there(pid: &u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_node_runs_its_control_plane_as_static_pods() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let node = Node::start(NodeOptions::default());
    let name = node.name();
    for part in CONTROL_PLANE {
        // The API server is there before the kubelet has told it so.
        wait_for(part, Duration::from_secs(60), || {
            let pod = format!("pod/{part}-{name}");
            let found = node.try_kubectl(&["-n", "kube-system", "get", &pod]);
            (found.code == 0).then_some(())
        });
        assert!(
            node.path(&format!("/etc/kubernetes/manifests/{part}.yaml"))
                .is_file()
        );
    }
    assert!(node.path("/var/lib/etcd/member/snap/db").is_file());
    let members = node.etcdctl(&["member", "list"]).stdout;
    assert!(
        members.contains(&format!("https://{}:2379", node.address())),
        "{members}"
    );

    // A manifest that is moved away ends its pod, and one that comes back starts it.
    let manifest = node.path("/etc/kubernetes/manifests/etcd.yaml");
    let aside = node.path("/etc/kubernetes/etcd.yaml");
    node.kubectl(&["create", "configmap", "kept"]);
    std::fs::rename(&manifest, &aside).unwrap();
    wait_for("the end of etcd", Duration::from_secs(60), || {
        (node.try_etcdctl(&["endpoint", "health"]).code != 0).then_some(())
    });
    std::fs::rename(&aside, &manifest).unwrap();
    node.wait_until_ready();
    node.kubectl(&["get", "configmap", "kept"]);

    // What runs inside for a test ends with the call.
    let sleeper = || {
        node.pids().into_iter().find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line == b"sleep\x001234567\x00"
        })
    };
    let running = node.inside(&["sleep", "1234567"]).spawn();
    let pid = wait_for("a program inside", Duration::from_secs(20), sleeper);
    running.kill();
    wait_for("its end", Duration::from_secs(20), || {
        (!is_there(&pid)).then_some(())
    });

    // Pods run, are scheduled, and say something.
    node.import_image(
        &Image::new("localhost/hello:1")
            .program("/bin/cat", "/bin/cat")
            .text("/hello", "hello\n"),
    );
    node.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: hello, namespace: default}
spec:
  restartPolicy: Never
  tolerations: [{operator: Exists}]
  containers: [{name: hello, image: "localhost/hello:1", imagePullPolicy: Never, command: [/bin/cat, /hello]}]
"#,
    );
    let finished = "--for=jsonpath={.status.phase}=Succeeded";
    node.kubectl(&["wait", finished, "pod/hello", "--timeout=60s"]);
    assert_eq!(node.kubectl(&["logs", "hello"]).stdout, "hello\n");
}

/// As a hosted control plane has it: members find each other by name, and each has a volume of its own.
const ETCD: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: etcd, namespace: default}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {app: etcd}
  ports: [{name: client, port: 2379}, {name: peer, port: 2380}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: etcd, namespace: default}
spec:
  replicas: 3
  serviceName: etcd
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: etcd}}
  template:
    metadata: {labels: {app: etcd}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: etcd
        image: @IMAGE@
        imagePullPolicy: Never
        env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        command:
        - etcd
        - --name=$(NAME)
        - --data-dir=/data/etcd
        - --listen-client-urls=http://0.0.0.0:2379
        - --advertise-client-urls=http://$(NAME).etcd:2379
        - --listen-peer-urls=http://0.0.0.0:2380
        - --initial-advertise-peer-urls=http://$(NAME).etcd:2380
        - --initial-cluster=etcd-0=http://etcd-0.etcd:2380,etcd-1=http://etcd-1.etcd:2380,etcd-2=http://etcd-2.etcd:2380
        - --unsafe-no-fsync
        readinessProbe: {httpGet: {path: /health, port: 2379}, periodSeconds: 1, timeoutSeconds: 5}
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"#;

#[test]
fn pods_have_names_volumes_and_a_store() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let node = Node::start(NodeOptions::default().services(true));
    let minio = Minio::start_on(&node.host_address());
    node.apply(&ETCD.replace("@IMAGE@", &node.etcd_image()));
    let roll_out = || node.kubectl(&["rollout", "status", "statefulset/etcd", "--timeout=240s"]);
    roll_out();
    let in_etcd = |pod: &str, arguments: &[&str]| {
        let prefix = ["exec", pod, "--", "etcdctl"];
        node.kubectl(&[&prefix, arguments].concat()).stdout
    };
    in_etcd("etcd-0", &["put", "key", "value"]);
    node.kubectl(&["delete", "pod", "etcd-1"]);
    roll_out();
    assert_eq!(
        in_etcd("etcd-1", &["get", "key", "--print-value-only"]),
        "value\n"
    );
    let listed = in_etcd("etcd-2", &["member", "list"]);
    assert_eq!(listed.matches("started").count(), 3, "{listed}");
    let volumes = std::fs::read_dir(node.path("/var/lib/local-path")).unwrap();
    assert_eq!(volumes.count(), 3);

    let url = format!("{}/minio/health/live", minio.endpoint());
    node.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: client, namespace: default}}
spec:
  restartPolicy: Never
  containers:
  - name: client
    image: localhost/busybox:1
    imagePullPolicy: Never
    command: [sh, -c, "wget -q -O - {url} && nslookup etcd-0.etcd.default.svc.cluster.local"]
"#
    ));
    let finished = "--for=jsonpath={.status.phase}=Succeeded";
    node.kubectl(&["wait", finished, "pod/client", "--timeout=60s"]);
}

#[test]
fn two_nodes_do_not_meet_and_leave_nothing() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let first = Node::start(NodeOptions::default());
    let second = Node::start(NodeOptions::default().name("node2"));
    assert_ne!(first.address(), second.address());
    first.kubectl(&["create", "configmap", "mine"]);
    let answer = second.try_kubectl(&["get", "configmap", "mine"]).code(1);
    assert!(answer.stderr.contains("NotFound"), "{}", answer.stderr);
    let listed = second.run_inside(&["hostname"]).ok().stdout;
    assert_eq!(listed, "node2\n");

    let pids = [first.pids(), second.pids()].concat();
    let mut places = vec![
        first.folder().path().to_owned(),
        second.folder().path().to_owned(),
    ];
    for node in [&first, &second] {
        places.extend(places_of(node.control_group(), node.link()));
    }
    assert!(pids.len() > 20 && pids.iter().all(is_there), "{pids:?}");
    assert!(places.iter().all(|place| place.exists()), "{places:?}");
    drop(first);
    drop(second);
    let pids: Vec<_> = pids.iter().filter(|pid| is_there(pid)).collect();
    let places: Vec<_> = places.iter().filter(|place| place.exists()).collect();
    assert!(pids.is_empty() && places.is_empty(), "{pids:?} {places:?}");
}

/// What of a node can be seen in this machine's own file systems, but for its folder.
fn places_of(group: &str, link: &str) -> Vec<PathBuf> {
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    let groups = hierarchies.map(|hierarchy| hierarchy.path().join(group));
    groups
        .filter(|group| group.exists())
        .chain([Path::new("/sys/class/net").join(link)])
        .collect()
}

#[test]
fn the_guardian_cleans_up_a_node_of_a_killed_test_process() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let folder = Folder::new("doomed");
    let mut doomed = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "harness_itself::node::doomed"])
        .env("HARNESS_DOOMED", "yes")
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Killed in the middle of a start, as soon as the first container runs.
    let group = format!("kubectl-backup-{}-0", doomed.id());
    let pods = wait_for("the first pod", Duration::from_secs(300), || {
        assert!(
            doomed.try_wait().unwrap().is_none(),
            "it has ended by itself"
        );
        places_of(&group, "lo")
            .into_iter()
            .map(|place| place.join("kubepods"))
            .find(|pods| pods.exists() && !processes(pods).is_empty())
    });
    let pids = processes(&pods);
    let places = places_of(&group, "lo");
    doomed.kill().unwrap();
    doomed.wait().unwrap();
    wait_for("the end of all that", Duration::from_secs(30), || {
        let is_gone = !pids.iter().any(is_there)
            && !places[..places.len() - 1]
                .iter()
                .any(|place| place.exists())
            && std::fs::read_dir(folder.path()).unwrap().next().is_none();
        is_gone.then_some(())
    });
}

/// The processes of a control group and of those below it.
fn processes(group: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(processes(&entry.path()));
        }
    }
    let mine = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    found.extend(mine.lines().filter_map(|line| line.parse::<u32>().ok()));
    found
}

/// Runs only inside the test above, which kills it.
#[test]
#[ignore = "the other half of the_guardian_cleans_up_a_node_of_a_killed_test_process"]
fn doomed() {
    if std::env::var_os("HARNESS_DOOMED").is_some() {
        let _node = Node::start(NodeOptions::default());
        std::thread::sleep(Duration::from_secs(600));
    }
}
