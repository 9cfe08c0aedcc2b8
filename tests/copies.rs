//! The files of volumes in a backup of a cluster, on a real node: read through pods beside them, kept in repositories that restic reads.

mod around;
mod bare;
mod chosen;
mod controller;
mod damaged;
mod denied;
mod elsewhere;
mod ephemeral;
mod expired;
mod given_up;
mod killed;
mod opened;
mod outages;
mod quiet;
mod refused;
mod restored;
mod stopped;
mod straight;
mod taken;
mod velero;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use harness::busybox::Busybox;
use harness::node::{Node, NodeOptions};
use harness::process::{Folder, Output};
use harness::repositories::{Bucket, Repositories};
use harness::run::{Backup, Signal, kubectl_backup};
use harness::store::Minio;
use harness::wait_for;
use serde_json::Value;

use crate::controller::installed::{IMAGE, image};
use crate::encryption::fixture;
use crate::readme::commands;

const BUCKET: &str = "backups";
const PATIENT: Duration = Duration::from_secs(120);

/// A node with volumes, and a bucket that it does not reach: nothing but the program that makes the backup has to. At its end restic finds no fault in what stands in the bucket.
struct World {
    node: Node,
    minio: Arc<Minio>,
    home: Folder,
    repositories: Repositories,
}

impl Drop for World {
    fn drop(&mut self) {
        self.repositories.all_are_whole(self.bucket());
    }
}

impl World {
    fn start() -> Self {
        let node = node();
        let minio = Minio::start_on(&node.host_address());
        Self::with(node, minio)
    }

    fn with(node: Node, minio: Minio) -> Self {
        minio.bucket(BUCKET);
        let home = Folder::new("home");
        let repositories = Repositories::opened_by(fixture("first.key"));
        Self {
            node,
            minio: Arc::new(minio),
            home,
            repositories,
        }
    }

    fn bucket(&self) -> Bucket<'_> {
        Bucket::Minio(&self.minio, BUCKET)
    }

    fn namespace(&self, name: &str) {
        self.node.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}"
        ));
    }

    /// The program, with the bucket as location.
    fn call(&self, words: &[&str]) -> Backup {
        let url = format!("s3://{BUCKET}/p?endpoint={}", self.minio.endpoint());
        self.at(words, &url).credentials_of(&self.minio)
    }

    fn at(&self, words: &[&str], location: &str) -> Backup {
        kubectl_backup(words)
            .home(self.home.path())
            .kubeconfig(self.node.kubeconfig())
            .location(location)
    }

    /// A backup of a namespace with all of its volumes.
    fn create(&self, name: &str, namespace: &str) -> Backup {
        self.create_at(self.minio.endpoint(), name, namespace)
    }

    /// The same by another way to the bucket.
    fn create_at(&self, endpoint: &str, name: &str, namespace: &str) -> Backup {
        let url = format!("s3://{BUCKET}/p?endpoint={endpoint}");
        self.at(&["create", name, "-n", namespace], &url)
            .credentials_of(&self.minio)
            .args(&["--default-volumes-to-fs-backup", "--mover-image", IMAGE])
    }

    /// A command in a pod.
    #[track_caller]
    fn shell(&self, namespace: &str, pod: &str, script: &str) -> String {
        let words = ["-n", namespace, "exec", pod, "--", "sh", "-c", script];
        self.node.kubectl(&words).stdout
    }

    fn wait(&self, namespace: &str, pods: &[&str]) {
        for pod in pods {
            let pod = format!("pod/{pod}");
            let words = [
                "-n",
                namespace,
                "wait",
                "--for=condition=Ready",
                &pod,
                "--timeout=120s",
            ];
            self.node.kubectl(&words);
        }
    }

    fn get(&self, namespace: &str, what: &str) -> Value {
        self.node
            .kubectl(&["-n", namespace, "get", what, "-o", "json"])
            .json()
    }

    /// Pods of ours, in all namespaces.
    fn movers(&self) -> Vec<String> {
        self.movers_in("-A")
    }

    /// Pods of ours in one namespace.
    fn movers_of(&self, namespace: &str) -> Vec<String> {
        self.movers_in(&format!("--namespace={namespace}"))
    }

    fn movers_in(&self, place: &str) -> Vec<String> {
        let ours = "app.kubernetes.io/component=mover";
        let words = ["get", "pods", place, "-l", ours, "-o", "name"];
        let listed = self.node.kubectl(&words).stdout;
        listed.lines().map(str::to_owned).collect()
    }

    /// Ends movers whose runs are dead, as their own clock would do. Says how many they were.
    fn end_movers(&self) -> usize {
        let count = self.node.signal_all("mover\0hold\0", Signal::TERM);
        if count > 0 {
            let over = "--for=jsonpath={.status.phase}=Succeeded";
            let all = ["pods", "-A", "-l", "app.kubernetes.io/component=mover"];
            let words = [&["wait", over, "--timeout=60s"], &all[..]].concat();
            self.node.kubectl(&words);
        }
        count
    }

    /// What the backup says of each claim, by its name.
    fn row(&self, backup: &str, claim: &str) -> Value {
        let key = format!("p/backups/{backup}/volumes.json");
        let all: Value = serde_json::from_slice(&self.minio.get(BUCKET, &key)).unwrap();
        let rows = all["volumes"].as_array().unwrap();
        let row = rows.iter().find(|row| row["claim"] == claim);
        row.unwrap_or_else(|| panic!("{claim} is not in {all:#}"))
            .clone()
    }

    fn marker(&self, backup: &str) -> Value {
        let key = format!("p/backups/{backup}/velero-backup.json");
        serde_json::from_slice(&self.minio.get(BUCKET, &key)).unwrap()
    }

    /// Where the files of a claim are on this machine.
    fn folder(&self, namespace: &str, claim: &str) -> PathBuf {
        let volume = self.get(namespace, &format!("pvc/{claim}"));
        let volume = volume["spec"]["volumeName"].as_str().unwrap().to_owned();
        let volume = self
            .node
            .kubectl(&["get", "pv", &volume, "-o", "json"])
            .json();
        let spec = &volume["spec"];
        let path = spec["local"]["path"]
            .as_str()
            .or(spec["hostPath"]["path"].as_str());
        self.node.path(path.unwrap())
    }

    /// The repository of a claim, and a file with the password that the bucket has for it.
    fn repository(&self, row: &Value) -> (String, PathBuf) {
        let cluster = self
            .node
            .kubectl(&["get", "ns", "kube-system", "-o", "jsonpath={.metadata.uid}"])
            .stdout;
        let text = |key: &str| row[key].as_str().unwrap();
        let repository = format!(
            "p/restic/{cluster}/{}/{}",
            text("namespace"),
            text("claimUid")
        );
        let password = self.minio.get(BUCKET, &format!("{repository}.key"));
        (repository, self.home.write("password", password))
    }

    /// The password of the repository at this key, whoever it is encrypted for.
    fn password(&self, repository: &str) -> String {
        let password = self.repositories.password(self.bucket(), repository);
        String::from_utf8(password).unwrap()
    }

    fn restic(&self, row: &Value, words: &[&str]) -> Output {
        let (repository, password) = self.repository(row);
        self.bucket().restic(&repository, &password, words)
    }

    /// restic finds no fault, and brings it back into a folder.
    #[track_caller]
    fn back(&self, row: &Value) -> PathBuf {
        let snapshot = row["data"][0]["snapshot"].as_str();
        let snapshot = snapshot.unwrap_or_else(|| panic!("{row:#}"));
        let (repository, password) = self.repository(row);
        let target = self.home.join(format!("back-{snapshot}"));
        self.repositories
            .comes_back(self.bucket(), (&repository, &password), snapshot, &target);
        target.join("data")
    }

    /// It is what an independent lister finds in the volume.
    #[track_caller]
    fn is_in(&self, row: &Value, folder: &Path) {
        assert_eq!(listed(folder), listed(&self.back(row)));
    }

    /// How many objects of this kind the repositories of a namespace have.
    fn stored(&self, namespace: &str, kind: &str) -> usize {
        let keys = self.minio.list(BUCKET, "p/restic/");
        let (namespace, kind) = (format!("/{namespace}/"), format!("/{kind}/"));
        keys.iter()
            .filter(|key| key.contains(&namespace) && key.contains(&kind))
            .count()
    }

    /// Waits until there are more packs than before.
    fn until_it_copies(&self, namespace: &str, before: usize) {
        wait_for("a copy that is under way", PATIENT, || {
            (self.stored(namespace, "data") > before).then_some(())
        });
    }

    /// Nothing of a run that ended stays: no pod, and no claim of one at work in the bucket.
    #[track_caller]
    fn nothing_is_at_work(&self) {
        wait_for("the end of all movers", PATIENT, || {
            self.movers().is_empty().then_some(())
        });
        let keys = self.minio.list(BUCKET, "");
        let claims: Vec<_> = keys.iter().filter(|key| key.contains("claim-")).collect();
        assert!(claims.is_empty(), "{claims:?}");
    }
}

/// A node with volumes, which has the images that these stories start.
fn node() -> Node {
    started(NodeOptions::default())
}

fn started(options: NodeOptions) -> Node {
    let node = Node::start(options.services(true));
    node.import_image(&image());
    node
}

/// What `find`, `stat` and `sha256sum` say of a folder.
fn listed(folder: &Path) -> String {
    let script = "cd \"$1\" && find . -printf '%P %y %m %U %G %s %T@ %l\\n' | sort && find . -type f -print0 | sort -z | xargs -0r sha256sum";
    let mut command = Command::new("bash");
    command.args(["-c", script, "list"]).arg(folder);
    let said = Output::of(&mut command).ok().stdout;
    // A folder's size is its file system's own.
    said.lines()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            match words.get(1) {
                Some(&"d") => [&words[..5], &words[6..]].concat().join(" "),
                _ => line.to_owned(),
            }
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// A claim of the default class.
fn claim(namespace: &str, name: &str, more: &str) -> String {
    let mode = if more.contains("accessModes") {
        ""
    } else {
        "accessModes: [ReadWriteOnce],"
    };
    format!(
        "
---
{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}, namespace: {namespace}}},
 spec: {{{mode} {more} resources: {{requests: {{storage: 64Mi}}}}}}}}
"
    )
}

/// A pod with these claims at /CLAIM.
fn pod(namespace: &str, name: &str, claims: &[&str], annotations: &[(&str, &str)]) -> String {
    let pod = Busybox::new(namespace, name).annotations(annotations);
    let pod = claims
        .iter()
        .fold(pod, |pod, claim| pod.claims(claim, claim));
    pod.to_string()
}

#[test]
fn the_files_of_a_volume_in_use_are_in_its_backup_and_restic_brings_them_back() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let world = World::start();
    world.namespace("shop");
    world
        .node
        .apply(&(claim("shop", "data", "") + &pod("shop", "db", &["data"], &[])));
    world.wait("shop", &["db"]);
    world.shell(
        "shop",
        "db",
        "cd /data; mkdir -p a/b; echo text > a/b/file; dd if=/dev/urandom of=large bs=1M count=9 2>/dev/null; ln large a/again; ln -s ../no where; \
         chown 77:78 a/b/file; chmod 4711 a/b/file; mkfifo pipe; : > empty; chown 5:6 a; chmod 700 a",
    );
    let folder = world.folder("shop", "data");

    let run = world.create("first", "shop").ok();
    assert!(run.stderr.contains(IMAGE), "{}", run.stderr);
    let first = world.row("first", "data");
    assert_eq!(first["result"], "saved", "{first:#}");
    assert_eq!(
        (&first["pod"]["name"], &first["node"]),
        (&"db".into(), &"node1".into())
    );
    assert_eq!(first["data"][0]["files"], 4);
    world.is_in(&first, &folder);
    world.nothing_is_at_work();
    assert_eq!(world.marker("first")["status"]["phase"], "Completed");
    as_in_the_readme(&world);
    damaged::all(&world);

    // What is unchanged is not read again, and is in the next snapshot.
    world.shell("shop", "db", "echo more > /data/a/new");
    world.create("second", "shop").ok();
    let second = world.row("second", "data");
    let (datum, before) = (&second["data"][0], &first["data"][0]);
    assert_eq!(datum["base"], before["snapshot"]);
    assert!(datum["added"].as_u64().unwrap() < 1 << 20, "{datum:#}");
    assert!(before["added"].as_u64().unwrap() > 9 << 20, "{before:#}");
    world.is_in(&second, &folder);

    expired::all(&world);
    straight::both_ways(&world, &folder);
    in_a_folder(&world, &folder);
    around::ways_to_ask(&world);
    around::hooks(&world);
    around::not_in_use(&world);
    refused::volumes(&world);
    refused::movers_that_do_not_come(&world);
    refused::rights(&world);
    stopped::all(&world);
    controller::sealed(&world);
    expired::elsewhere(&world);
}

/// What the README says of volumes is typed as it stands there.
fn as_in_the_readme(world: &World) {
    let mut all = commands("kubectl backup ");
    all.retain(|words| words.iter().any(|word| word == "shop-files"));
    let verbs: Vec<&str> = all.iter().map(|words| &*words[0]).collect();
    assert_eq!(verbs, ["create", "describe", "verify", "contents"]);
    for words in &all {
        let words: Vec<&str> = words
            .iter()
            .map(|word| match word.as_str() {
                "registry.example.com/kubectl-backup:0.1.0" => IMAGE,
                word => word,
            })
            .collect();
        let said = world.call(&words).ok().stdout;
        if words[0] == "contents" {
            assert!(said.contains("a/b/file"), "{said}");
        }
    }
    let row = world.row("shop-files", "data");
    assert_eq!(row["result"], "saved", "{row:#}");
    world.call(&["delete", "shop-files", "--yes"]).ok();
}

/// Whoever makes the backup archives: a location that is a folder needs nothing else.
fn in_a_folder(world: &World, files: &Path) {
    let bucket = world.home.join("bucket");
    fs::create_dir_all(&bucket).unwrap();
    let url = format!("file://{}", bucket.display());
    world
        .at(&["create", "folder", "-n", "shop"], &url)
        .args(&["--default-volumes-to-fs-backup", "--mover-image", IMAGE])
        .ok();
    let text = fs::read(bucket.join("backups/folder/volumes.json")).unwrap();
    let all: Value = serde_json::from_slice(&text).unwrap();
    let row = &all["volumes"][0];
    let snapshot = row["data"][0]["snapshot"]
        .as_str()
        .unwrap_or_else(|| panic!("{all:#}"));
    let repository = format!(
        "restic/{}/shop/{}",
        all["cluster"].as_str().unwrap(),
        row["claimUid"].as_str().unwrap()
    );
    let password = bucket.join(format!("{repository}.key"));
    let target = world.home.join("from-folder");
    let stored = Bucket::Folder(&bucket);
    let place = (repository.as_str(), password.as_path());
    let repositories = Repositories::default();
    repositories.comes_back(stored, place, snapshot, &target);
    repositories.all_are_whole(stored);
    assert_eq!(listed(files), listed(&target.join("data")));
}
