//! A location checked from a pod on a real node: what a controller would find there, without the pod knowing a key longer than it lives.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use harness::node::{Node, NodeOptions};
use harness::process::Folder;
use harness::proxy::Proxy;
use harness::run::{Backup, Run, Signal, kubectl_backup};
use harness::store::Minio;
use harness::wait_for;

use crate::controller::installed::{IMAGE, image};

const NAMESPACE: &str = "kubectl-backup";
const PATIENT: Duration = Duration::from_secs(90);

struct World {
    node: Node,
    minio: Minio,
    home: Folder,
}

impl World {
    fn start() -> Self {
        let node = Node::start(NodeOptions::default());
        let minio = Minio::start_on(&node.host_address());
        minio.bucket("backups");
        node.import_image(&image());
        node.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}, labels: {{pod-security.kubernetes.io/enforce: restricted}}}}}}"
        ));
        let crds = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../manifests/controller/crds.yaml"
        );
        node.apply(&fs::read_to_string(crds).unwrap());
        let home = Folder::new("home");
        Self { node, minio, home }
    }

    fn call(&self, words: &[&str]) -> Backup {
        kubectl_backup(words)
            .home(self.home.path())
            .kubeconfig(self.node.kubeconfig())
    }

    /// Remembers the bucket at this address with these keys.
    fn remember(&self, name: &str, endpoint: &str, credentials: &Path) {
        let config = format!("s3Url={endpoint},region={}", self.minio.region());
        let credentials = credentials.display().to_string();
        self.call(&[
            "location",
            "create",
            name,
            "--provider=aws",
            "--bucket=backups",
        ])
        .args(&["--prefix=prod", "--config", &config])
        .args(&["--credentials-file", &credentials])
        .ok();
    }

    fn check(&self, name: &str) -> Backup {
        self.call(&[
            "location",
            "check",
            name,
            "--from-cluster",
            "--image",
            IMAGE,
        ])
    }

    fn jobs_and_pods(&self) -> String {
        let asked = ["-n", NAMESPACE, "get", "jobs,pods", "-o", "name"];
        self.node.kubectl(&asked).stdout
    }

    /// Neither in the cluster nor in the bucket anything stayed, and no key was told.
    #[track_caller]
    fn nothing_stays(&self, run: &Run) {
        assert_eq!(self.jobs_and_pods(), "", "{}", run.stderr);
        assert_eq!(self.minio.list("backups", ""), Vec::<String>::new());
        for text in [&run.stdout, &run.stderr] {
            assert!(!text.contains(self.minio.secret_key()), "{text}");
        }
    }
}

#[track_caller]
fn says(run: &Run, parts: &[&str]) {
    let all = format!("{}\n{}", run.stdout, run.stderr);
    for part in parts {
        assert!(all.contains(part), "{part} is missing in\n{all}");
    }
}

/// Whether a text holds a key, as it is or somewhere in base64.
fn holds(text: &str, key: &str) -> bool {
    let in_base64 = (0..3).any(|before| {
        let bytes = [&vec![0; before][..], key.as_bytes()].concat();
        let packed = STANDARD_NO_PAD.encode(bytes);
        // Without what its neighbours have a part in.
        let part = &packed[4 * before.min(1)..packed.len() - 2];
        text.contains(part)
    });
    in_base64 || text.contains(key)
}

/// A store that takes connections and never answers; who has connected is told.
fn mute(address: &str) -> (String, mpsc::Receiver<TcpStream>) {
    let listener = TcpListener::bind(format!("{address}:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        // Ends with the receiver.
        for stream in listener.incoming().flatten() {
            if tell.send(stream).is_err() {
                return;
            }
        }
    });
    (url, told)
}

#[test]
fn a_location_is_checked_from_a_node_and_nothing_of_the_check_stays() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let world = World::start();
    let (node, minio) = (&world.node, &world.minio);
    let right = minio.credentials_file().to_path_buf();
    world.remember("offsite", minio.endpoint(), &right);

    let run = world.check("offsite").ok();
    says(
        &run,
        &["STEP", "multipart upload", "clock", "from node node1"],
    );
    world.nothing_stays(&run);
    let run = world.check("offsite").args(&["-o", "json"]).ok();
    let seen: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(seen["node"], "node1", "{seen:#}");

    let text = fs::read_to_string(&right).unwrap();
    let wrong = text.replace(minio.secret_key(), "another-secret");
    assert_ne!(text, wrong);
    let wrong = world.home.write("wrong", wrong);
    world.remember("wrong", minio.endpoint(), &wrong);
    let run = world.check("wrong").code(1);
    says(&run, &["list", "failed", "from node node1"]);
    assert!(!run.stderr.contains("another-secret"), "{}", run.stderr);
    world.nothing_stays(&run);

    // What this machine alone reaches is good from here, and is found out from there.
    let near = Proxy::start(minio.upstream());
    world.remember("near", &near.url(), &right);
    world.call(&["location", "check", "near"]).ok();
    let run = world.check("near").code(1);
    says(&run, &["list", "failed", "is the pod itself there"]);
    world.nothing_stays(&run);

    of_the_cluster(&world);
    what_does_not_come(&world);
    stopped(&world);
    node.kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"]);
    let run = world
        .check("offsite")
        .args(&["--controller-namespace", "absent"])
        .code(1);
    says(&run, &["namespace absent", "--controller-namespace"]);
}

/// One of the cluster's locations is checked with its own Secret, which the user need not be able to read.
fn of_the_cluster(world: &World) {
    let (node, minio) = (&world.node, &world.minio);
    let file = format!("--from-file=cloud={}", minio.credentials_file().display());
    node.kubectl(&[
        "-n", NAMESPACE, "create", "secret", "generic", "keys", &file,
    ]);
    for (name, secret) in [("inside", "keys"), ("lacks", "absent")] {
        node.apply(&format!(
            "{{apiVersion: velero.io/v1, kind: BackupStorageLocation, metadata: {{name: {name}, namespace: {NAMESPACE}}}, spec: {{provider: aws, \
             config: {{s3Url: '{}', region: {}}}, credential: {{name: {secret}, key: cloud}}, objectStorage: {{bucket: backups, prefix: inside}}}}}}",
            minio.endpoint(),
            minio.region()
        ));
    }
    // The rights that docs/locations.md names.
    node.apply(
        "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: checks}
rules:
- {apiGroups: [batch], resources: [jobs], verbs: [create, get, list, delete]}
- {apiGroups: [''], resources: [pods, events], verbs: [list]}
- {apiGroups: [''], resources: [pods/attach], verbs: [get, create]}
- {apiGroups: [velero.io], resources: [backupstoragelocations], verbs: [list]}
",
    );
    node.kubectl(&[
        "create",
        "clusterrolebinding",
        "checks",
        "--clusterrole=checks",
        "--user=chuck",
    ]);
    let run = world.check("inside").args(&["--as", "chuck"]).ok();
    says(&run, &["multipart upload", "from node node1"]);
    world.nothing_stays(&run);
    node.apply(&format!(
        "{{apiVersion: velero.io/v1, kind: BackupStorageLocation, metadata: {{name: bare, namespace: {NAMESPACE}}}, spec: {{provider: aws, \
         config: {{s3Url: '{}', region: {}}}, objectStorage: {{bucket: backups, prefix: inside}}}}}}",
        minio.endpoint(),
        minio.region()
    ));
    let run = world.check("bare").args(&["--as", "chuck"]).code(1);
    says(&run, &["right to get serviceaccounts"]);
    world.nothing_stays(&run);
    let run = world.check("lacks").code(1);
    says(&run, &["FailedMount", "\"absent\" not found"]);
    world.nothing_stays(&run);
}

fn what_does_not_come(world: &World) {
    let node = &world.node;
    let absent = [
        "location",
        "check",
        "offsite",
        "--from-cluster",
        "--image",
        "localhost/absent:1",
    ];
    let run = world.call(&absent).code(1);
    says(
        &run,
        &[
            "image can not be pulled",
            "localhost/absent:1",
            "last event",
        ],
    );
    world.nothing_stays(&run);

    node.kubectl(&["-n", NAMESPACE, "create", "quota", "none", "--hard=pods=0"]);
    let run = world.check("offsite").code(1);
    says(&run, &["FailedCreate", "exceeded quota"]);
    world.nothing_stays(&run);
    node.kubectl(&["-n", NAMESPACE, "delete", "quota", "none"]);

    node.kubectl(&["cordon", "node1"]);
    let run = world.check("offsite").args(&["--timeout", "6s"]).code(1);
    says(&run, &["no node takes it", "FailedScheduling"]);
    world.nothing_stays(&run);
    node.kubectl(&["uncordon", "node1"]);

    let run = world.check("offsite").args(&["--as", "nobody"]).code(1);
    says(&run, &["pods/attach"]);
    world.nothing_stays(&run);

    let folder = [
        "location",
        "check",
        "--location",
        "file:///backups",
        "--from-cluster",
    ];
    let run = world.call(&folder).code(2);
    says(&run, &["folder"]);
    let run = world
        .call(&["location", "check", "offsite", "--image", "x"])
        .code(2);
    says(&run, &["--from-cluster"]);
}

/// While it works its objects and processes hold no key; stopped, it takes the pod along; killed, the next one does.
fn stopped(world: &World) {
    let (node, minio) = (&world.node, &world.minio);
    let (url, connected) = mute(&node.host_address());
    let right = minio.credentials_file().to_path_buf();
    world.remember("mute", &url, &right);

    let running = world.check("mute").spawn();
    let _first = connected.recv_timeout(PATIENT).unwrap();
    let objects = [
        "-n",
        NAMESPACE,
        "get",
        "jobs,pods,configmaps,events",
        "-o",
        "json",
    ];
    let objects = node.kubectl(&objects).stdout;
    assert!(objects.contains("location-check"), "{objects}");
    let mut seen = 0;
    for pid in node.pids() {
        let read = |file: &str| {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (words, variables) = (read("cmdline"), read("environ"));
        seen += usize::from(words.contains("--within"));
        for text in [&words, &variables] {
            assert!(!holds(text, minio.secret_key()), "{words}");
        }
    }
    assert!(seen > 0, "the pod's process was not seen");
    assert!(!holds(&objects, minio.secret_key()));
    // The Secret of the location of the cluster is the one that was there.
    let secrets = ["-n", NAMESPACE, "get", "secrets", "-o", "name"];
    assert_eq!(node.kubectl(&secrets).stdout.trim(), "secret/keys");
    running.signal(Signal::INT);
    let run = running.wait(PATIENT);
    assert_eq!(run.code, 130, "{}", run.stderr);
    world.nothing_stays(&run);

    let run = world.check("mute").args(&["--timeout", "8s"]).code(1);
    says(&run, &["did not end within 8s", "NetworkPolicy"]);
    world.nothing_stays(&run);

    let killed = world.check("mute").args(&["--timeout", "8s"]).spawn();
    while connected.try_recv().is_ok() {}
    let _held = connected.recv_timeout(PATIENT).unwrap();
    killed.kill();
    let over = [
        "-n",
        NAMESPACE,
        "wait",
        "--for=condition=failed",
        "jobs",
        "--all",
        "--timeout=90s",
    ];
    node.kubectl(&over);
    assert!(world.jobs_and_pods().contains("job.batch/location-check-"));
    world.check("offsite").ok();
    wait_for("the end of what the killed one left", PATIENT, || {
        world.jobs_and_pods().is_empty().then_some(())
    });
}
