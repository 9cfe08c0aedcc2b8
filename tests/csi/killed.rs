//! kill -9 after each write of a backup with a snapshot, of the clearing that follows, and of a restore: the next backup removes what is left, the same restore goes on, and the driver
//! keeps no snapshot that nobody knows.

use std::fs;

use harness::node::csi::{CLAIM, Knob};
use harness::node::{Node, NodeOptions};
use harness::proxy::{Write, Writes};
use harness::run::Backup;
use harness::wait_for;
use serde_json::Value;

use super::{BUCKET, NOTES, PATIENT, World};

/// A world whose cluster and bucket are reached through proxies.
struct Watched {
    world: World,
    cluster: Writes,
    bucket: Writes,
    /// Of the claim and its volume, before anything was done with them.
    before: Value,
}

/// The server that is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Cluster,
    Bucket,
}

/// Whether a request to the cluster changes something of a snapshot or its claim; none of those that are only tried.
fn changes(method: &str, target: &str) -> bool {
    let is_meant = ["/volumesnapshot", "/persistentvolumeclaims"]
        .iter()
        .any(|part| target.contains(part));
    method != "GET" && is_meant && !target.contains("dryRun")
}

/// Whether one to the bucket says how far snapshots and their backup are.
fn tells(method: &str, target: &str) -> bool {
    method != "GET"
        && method != "HEAD"
        && (target.contains(NOTES) || target.contains("/velero-backup.json"))
}

impl Watched {
    fn start() -> Self {
        let world = World::start(NodeOptions::default());
        world.node.apply(CLAIM);
        fs::write(world.files("shop", "data").join("rows"), "before").unwrap();
        let mut watched = Self {
            cluster: Writes::to(&world.node.endpoint(), changes),
            bucket: Writes::to(world.minio.upstream(), tells),
            world,
            before: Value::Null,
        };
        watched.before = watched.claim();
        watched
    }

    fn call(&self, words: &[&str]) -> Backup {
        let kubeconfig = self.cluster.kubeconfig();
        self.world.at(&kubeconfig, &self.bucket.url(), words)
    }

    fn create(&self, name: &str) -> Backup {
        self.call(&["create", name, "-n", "shop"])
    }

    fn restore(&self, name: &str, backup: &str, into: &str) -> Backup {
        let words = ["restore", "create", name, "--from-backup", backup, "--yes"];
        self.call(&words)
            .args(&["--namespace-mappings", &format!("shop:{into}")])
    }

    /// What must not change of the claim.
    fn claim(&self) -> Value {
        let claim = self.world.get("shop", "pvc/data");
        serde_json::json!([
            claim["metadata"]["uid"],
            claim["metadata"]["deletionTimestamp"],
            claim["spec"],
            claim["status"]["phase"]
        ])
    }

    fn to(&self, server: Server) -> &Writes {
        match server {
            Server::Cluster => &self.cluster,
            Server::Bucket => &self.bucket,
        }
    }

    /// Runs it to its end; its writes, those that may be made again each once.
    fn writes_of(&self, call: Backup) -> Vec<(Server, Write)> {
        self.cluster.clear();
        self.bucket.clear();
        call.ok();
        let mut cluster = self.cluster.seen();
        cluster.retain(|write| write.nth == 1);
        let bucket = self.bucket.seen().into_iter();
        let bucket = bucket.map(|write| (Server::Bucket, write));
        let cluster = cluster.into_iter().map(|write| (Server::Cluster, write));
        cluster.chain(bucket).collect()
    }

    /// Kills it after this write.
    #[track_caller]
    fn kill_after(&self, (server, write): &(Server, Write), call: Backup) {
        self.to(*server).kill_after(write, call);
    }

    /// As if a quarter of an hour had gone by: nobody has refreshed the claims of dead runs.
    fn bury(&self) {
        for key in self.world.minio.list(BUCKET, "p/backups/") {
            if key.contains("/claim-") {
                self.world.minio.delete(BUCKET, &key);
            }
        }
    }

    /// The next backup is whole, nothing of dead runs is in the cluster, and all that the driver has is known.
    #[track_caller]
    fn goes_on(&self, name: &str, after: &str) {
        self.bury();
        self.create(name).ok();
        self.world.is_bare();
        assert_eq!(self.world.held(), self.world.known(), "after {after}");
        assert!(
            self.world
                .named()
                .contains(&self.world.handle(name, "data")),
            "after {after}"
        );
        assert_eq!(self.claim(), self.before, "after {after}");
        let file = self.world.files("shop", "data").join("rows");
        assert_eq!(fs::read_to_string(file).unwrap(), "before");
    }

    /// Snapshots that no backup has.
    fn unnamed(&self) -> Vec<String> {
        let named = self.world.named();
        let mut held = self.world.held();
        held.retain(|handle| !named.contains(handle));
        held
    }
}

#[test]
fn after_a_kill_at_any_write_the_next_backup_leaves_no_snapshot_that_nobody_knows_and_the_same_restore_goes_on()
 {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let watched = Watched::start();
    let writes = watched.writes_of(watched.create("run-1"));
    backups(&watched, &writes);
    clearings(&watched, &writes);
    at_the_cut(&watched);
    restores(&watched);
}

/// A backup.
fn backups(watched: &Watched, writes: &[(Server, Write)]) {
    assert!(writes.len() >= 7, "{writes:#?}");
    let mut orphans = 0;
    for (number, write) in writes.iter().enumerate() {
        watched.kill_after(write, watched.create(&format!("run-{}", 100 + number)));
        watched.goes_on(&format!("run-{}", 200 + number), &format!("{write:?}"));
        // Sealed and without a marker: it is kept, for the marker may have been on its way, until two looks with a day between them found none.
        let (server, Write { what, nth }) = write;
        let is_sealed = *server == Server::Bucket && what.contains(NOTES) && *nth == 2;
        orphans += usize::from(is_sealed);
        assert_eq!(watched.unnamed().len(), orphans, "after {write:?}");
    }
    assert_eq!(orphans, 1);
    let prune = || watched.call(&["prune", "--yes"]).ok();
    prune();
    assert_eq!(watched.unnamed().len(), 1);
    // A day goes by.
    for key in watched.world.minio.list(BUCKET, NOTES) {
        let mut note: Value =
            serde_json::from_slice(&watched.world.minio.get(BUCKET, &key)).unwrap();
        if note["missing"].is_string() {
            note["missing"] = "2020-01-01T00:00:00Z".into();
            watched.world.minio.put(BUCKET, &key, note.to_string());
        }
    }
    prune();
    assert_eq!(watched.unnamed(), Vec::<String>::new());
    assert_eq!(watched.world.held(), watched.world.known());
}

/// A backup while it removes what another one left.
fn clearings(watched: &Watched, writes: &[(Server, Write)]) {
    let first = |server: Server, parts: [&str; 2]| {
        let fits = |(at, write): &&(Server, Write)| {
            *at == server && parts.iter().all(|part| write.what.contains(part))
        };
        writes.iter().find(fits).expect("such a write").clone()
    };
    let kept = first(Server::Cluster, ["PATCH ", "/volumesnapshotcontents/"]);
    let unwanted = first(Server::Cluster, ["DELETE ", "/volumesnapshots/"]);
    let noted = first(Server::Bucket, ["PUT ", NOTES]);
    // It has a snapshot that stays whatever becomes of its objects, and has told nobody.
    watched.kill_after(&kept, watched.create("run-300"));
    // The first writes of those that come next are of the clearing.
    for (number, write) in [&noted, &kept, &unwanted].into_iter().enumerate() {
        watched.bury();
        watched.kill_after(write, watched.create(&format!("run-{}", 301 + number)));
    }
    watched.goes_on("run-310", "a clearing");
    assert_eq!(watched.unnamed(), Vec::<String>::new());
}

/// A backup whose driver is at the cut, which nobody can end: the next one has its objects go at once, and goes on as soon as the driver has ended.
fn at_the_cut(watched: &Watched) {
    let contents = || {
        let listed = ["get", "volumesnapshotcontents", "-o", "json"];
        let listed = watched.world.node.kubectl(&listed).json();
        listed["items"].as_array().unwrap().clone()
    };
    let until = |what: &str, is: &dyn Fn(&Value) -> bool| {
        wait_for(what, PATIENT, || contents().iter().any(is).then_some(()));
    };
    let csi = watched.world.csi();
    csi.turn(Knob::HoldCut, "");
    let running = watched.create("run-400").spawn();
    until("a driver at the cut", &|content| {
        let begun = "snapshot.storage.kubernetes.io/volumesnapshot-being-created";
        content["metadata"]["annotations"][begun].is_string()
    });
    running.kill();
    watched.bury();
    let next = watched.create("run-401").spawn();
    until("a content that is to go", &|content| {
        content["metadata"]["deletionTimestamp"].is_string()
    });
    csi.release(Knob::HoldCut);
    next.wait(PATIENT).code(0);
    watched.goes_on("run-402", "a kill at the cut");
    assert_eq!(watched.unnamed(), Vec::<String>::new());
}

/// A restore.
fn restores(watched: &Watched) {
    let writes = watched.writes_of(watched.restore("whole", "run-1", "copy-1"));
    assert!(writes.len() >= 5, "{writes:#?}");
    for write in &writes {
        watched.kill_after(write, watched.restore("killed", "run-1", "copy-2"));
    }
    watched.restore("killed", "run-1", "copy-2").ok();
    watched.world.is_bare();
    for namespace in ["copy-1", "copy-2"] {
        let file = watched.world.files(namespace, "data").join("rows");
        assert_eq!(fs::read_to_string(file).unwrap(), "before");
    }
    assert_eq!(watched.world.held(), watched.world.known());
    assert_eq!(watched.claim(), watched.before);
}
