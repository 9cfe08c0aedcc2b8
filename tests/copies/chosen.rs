//! What is done with each volume is somebody's choice: of a resource policy, a pod, whoever makes the backup, a location, a schedule. Every claim's row says what became of it, to readers of ours
//! and to Velero's.

use std::io::Read as _;

use flate2::read::GzDecoder;
use harness::busybox::Busybox;
use harness::node::csi::DRIVER;
use harness::node::{Node, NodeOptions};
use harness::run::{Backup, Run, kubectl_backup};
use harness::store::Minio;
use harness::wait_for;
use serde_json::{Value, json};

use super::controller::{self, is_completed};
use super::{BUCKET, IMAGE, PATIENT, World, started, straight};

pub(super) const NAMESPACE: &str = "mixed";

/// Claims of a Deployment, their classes and sizes. The first has the label `tier: scratch`.
pub(super) const CLAIMS: [(&str, &str, &str); 4] = [
    ("scratch", "local-path", "64Mi"),
    ("cut", "csi", "64Mi"),
    ("large", "local-path", "2Gi"),
    ("plain", "local-path", "64Mi"),
];

const VOLUMES: &str = "backup.velero.io/backup-volumes";
const EXCLUDES: &str = "backup.velero.io/backup-volumes-excludes";

const BY_POLICY: &str = "skipped due to resource policy";
const BY_POD: &str = "left out by the annotation backup.velero.io/backup-volumes-excludes";
const NOBODY: &str = "nobody asked for a copy of its files";
const UNWANTED: &str = "volumes were not wanted (snapshot-volumes=false)";
const NO_SNAPSHOT: &str = "a resource policy asks for a snapshot, and none can be made";

/// What became of a claim's data.
#[derive(Clone, Copy)]
enum Is {
    Copied,
    Cut,
    /// Not saved: the result, and why.
    Not(&'static str, &'static str),
}

use Is::{Copied, Cut, Not};

/// A Deployment whose pod has all claims, each at its name.
fn workload() -> String {
    let claims = CLAIMS.map(|(name, class, size)| {
        let tier = if name == "scratch" { name } else { "data" };
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"tier": tier}},
            "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
        })
    });
    let app = Busybox::new(NAMESPACE, "app");
    let app = CLAIMS
        .iter()
        .fold(app, |app, (name, ..)| app.claims(name, name));
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "app", "namespace": NAMESPACE},
        "spec": {
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {"app": "app"}},
            "template": app.template(),
        },
    });
    let all = claims.iter().chain([&deployment]);
    all.map(|object| format!("---\n{object}\n")).collect()
}

impl World {
    pub(super) fn is_rolled_out(&self, namespace: &str) {
        let words = ["rollout", "status", "deployment/app", "--timeout=120s"];
        self.node
            .kubectl(&[&["-n", namespace], &words[..]].concat());
    }

    /// What its pod finds in all of its volumes.
    pub(super) fn found(&self, namespace: &str) -> String {
        self.shell(
            namespace,
            "deployment/app",
            "sha256sum /scratch/* /cut/* /large/* /plain/*",
        )
    }

    /// A backup that says nothing of volumes.
    fn unsaid(&self, name: &str, more: &[&str]) -> Backup {
        let words = ["create", name, "-n", NAMESPACE, "--mover-image", IMAGE];
        self.call(&words).args(more)
    }

    /// With the resource policies of a file.
    fn by_policies(&self, name: &str, policies: &str) -> Backup {
        let text = format!("version: v1\nvolumePolicies:\n{policies}");
        let file = self.home.write(format!("{name}.yaml"), text);
        let words = ["--resource-policies-file", file.to_str().unwrap()];
        self.unsaid(name, &words)
    }

    fn annotate(&self, annotation: &str) {
        let words = [
            "-n", NAMESPACE, "annotate", "pod", "-l", "app=app", annotation,
        ];
        self.node.kubectl(&words);
    }

    /// What Velero is told of each claim, by its name.
    fn info(&self, backup: &str, claim: &str) -> Value {
        let key = format!("p/backups/{backup}/{backup}-volumeinfo.json.gz");
        let mut text = String::new();
        let packed = self.minio.get(BUCKET, &key);
        GzDecoder::new(&packed[..])
            .read_to_string(&mut text)
            .unwrap();
        let all: Value = serde_json::from_str(&text).unwrap();
        let mut all = all.as_array().unwrap().iter();
        let info = all.find(|one| one["pvcName"] == claim);
        info.unwrap_or_else(|| panic!("{claim}: {text}")).clone()
    }

    /// Makes a backup, which says what became of each claim; where one is `failed`, it is no success.
    #[track_caller]
    fn makes(&self, name: &str, call: Backup, wanted: [Is; 4]) -> Run {
        let run = call.run();
        let failed = wanted.iter().any(|is| matches!(is, Not("failed", _)));
        let run = run.code(if failed { 3 } else { 0 });
        for ((claim, ..), is) in CLAIMS.iter().zip(wanted) {
            let claim = format!("{NAMESPACE}/{claim}");
            let (begins, has) = match is {
                Copied => (format!("  {claim}: copied 2 files, "), ""),
                Cut => (format!("  {claim}: a snapshot, ready in "), ""),
                Not("leftOut", _) => ("data left out as asked: ".to_owned(), &*claim),
                Not(..) => ("data not saved: ".to_owned(), &*claim),
            };
            let mut lines = run.stderr.lines();
            let is_told = lines.any(|line| line.contains(&begins) && line.contains(has));
            assert!(is_told, "{begins}{has}: {}", run.stderr);
        }
        self.came(name, wanted);
        run
    }

    /// The same in every place that tells of it: our own rows, Velero's, and `describe`.
    #[track_caller]
    fn came(&self, backup: &str, wanted: [Is; 4]) {
        let told = self.call(&["describe", backup, "--details"]).ok().stdout;
        for ((claim, ..), is) in CLAIMS.iter().zip(wanted) {
            let (row, info) = (self.row(backup, claim), self.info(backup, claim));
            let name = format!("{NAMESPACE}/{claim}");
            // A copy is a row of a table, and what else is known of it is under its name.
            let is_of = |line: &&str| {
                let first = line.split_whitespace().next().unwrap_or_default();
                first.trim_end_matches(':') == name
            };
            let lines = told.lines().filter(is_of);
            let line: String = lines.collect();
            let (datum, method) = (&row["data"][0], &info["backupMethod"]);
            match is {
                Copied => {
                    assert_eq!(
                        (&row["result"], &datum["method"]),
                        (&"saved".into(), &"files".into()),
                        "{row:#}"
                    );
                    assert!(datum["bytes"].as_u64().unwrap() > 1000, "{row:#}");
                    assert!(
                        datum["ended"].is_string() && datum["began"].is_string(),
                        "{row:#}"
                    );
                    assert_eq!(
                        (method, &info["pvbInfo"]["size"]),
                        (&"PodVolumeBackup".into(), &datum["bytes"])
                    );
                    let words: Vec<&str> = line.split_whitespace().collect();
                    assert_eq!(words[1..3], ["copied", "2"], "{line}");
                }
                Cut => {
                    assert_eq!(
                        (&row["result"], &datum["method"]),
                        (&"saved".into(), &"snapshot".into()),
                        "{row:#}"
                    );
                    assert_eq!(method, "CSISnapshot");
                    assert!(line.contains("as a CSI snapshot"), "{line}");
                }
                Not(result, why) => {
                    assert_eq!(row["result"], result, "{row:#}");
                    assert_eq!(info["skipped"], true, "{info:#}");
                    for place in [&row["why"], &info["skippedReason"], &line.clone().into()] {
                        assert!(place.as_str().unwrap().contains(why), "{why}: {place}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_becomes_of_each_volume_is_somebodys_choice_and_said_of_every_one() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let world = opened();
    straight::renewed(&world);
    by_policies(&world);
    by_pods(&world);
    by_flags(&world);
    by_location(&world);
    back(&world);
    by_schedules(&world);
}

/// A node with a storage driver, and the Deployment, which has written to all of its volumes.
pub(super) fn opened() -> World {
    let node = started(NodeOptions::default().csi(true));
    let minio = Minio::start_on(&node.host_address());
    let world = World::with(node, minio);
    world.namespace(NAMESPACE);
    world.node.apply(&workload());
    world.is_rolled_out(NAMESPACE);
    let write = "for at in scratch cut large plain; do seq 1 1000 > /$at/numbers; echo $at > /$at/name; done";
    world.shell(NAMESPACE, "deployment/app", write);
    world
}

/// The first that fits, by labels, driver, class and size; what no policy is for goes as without any.
fn by_policies(world: &World) {
    let policies = format!(
        "- {{conditions: {{pvcLabels: {{tier: scratch}}}}, action: {{type: skip}}}}
- {{conditions: {{csi: {{driver: {DRIVER}}}}}, action: {{type: snapshot}}}}
- {{conditions: {{capacity: '1Gi,'}}, action: {{type: fs-backup}}}}
"
    );
    let call = world.by_policies("by-policy", &policies);
    let call = call.arg("--snapshot-volumes=false");
    let wanted = [
        Not("leftOut", BY_POLICY),
        Cut,
        Copied,
        Not("notAsked", UNWANTED),
    ];
    world.makes("by-policy", call, wanted);

    let policies = "- {conditions: {storageClass: [csi]}, action: {type: fs-backup}}
- {conditions: {storageClass: [local-path], capacity: ',1Gi'}, action: {type: snapshot}}
";
    let call = world.by_policies("by-class", policies);
    let refused = Not("failed", NO_SNAPSHOT);
    let wanted = [refused, Copied, Not("notAsked", NOBODY), refused];
    let run = world.makes("by-class", call, wanted);
    for claim in ["scratch", "plain"] {
        let text = format!(
            "{NAMESPACE}/{claim} is not saved: {NO_SNAPSHOT}: its volume is not of a CSI driver"
        );
        assert!(run.stderr.contains(&text), "{}", run.stderr);
    }
    let phase = &world.marker("by-class")["status"]["phase"];
    assert_eq!(phase, "PartiallyFailed");
}

/// A pod names its volumes, for and against.
fn by_pods(world: &World) {
    world.annotate(&format!("{VOLUMES}=cut,plain"));
    let not = Not("notAsked", NOBODY);
    let call = world.unsaid("by-pod", &[]);
    world.makes("by-pod", call, [not, Copied, not, Copied]);
    world.annotate(&format!("{VOLUMES}-"));

    // One that can have a snapshot has one then.
    world.annotate(&format!("{EXCLUDES}=scratch,cut"));
    let call = world.unsaid("excluded", &["--default-volumes-to-fs-backup"]);
    let wanted = [Not("leftOut", BY_POD), Cut, Copied, Copied];
    world.makes("excluded", call, wanted);
    world.annotate(&format!("{EXCLUDES}-"));
}

/// Nothing at all is wanted, and nobody is warned of it.
fn by_flags(world: &World) {
    let before = world.node.csi().snapshots().len();
    let call = world.unsaid("unwanted", &["--snapshot-volumes=false"]);
    let run = world.makes("unwanted", call, [Not("notAsked", UNWANTED); 4]);
    assert!(!run.stderr.contains("is not saved"), "{}", run.stderr);
    let status = &world.marker("unwanted")["status"];
    assert_eq!(status["phase"], "Completed");
    assert_eq!(status["warnings"], Value::Null);
    assert_eq!(world.node.csi().snapshots().len(), before);
}

/// What a location says holds where nobody else says anything.
fn by_location(world: &World) {
    let config = format!(
        "s3Url={},region={},s3ForcePathStyle=true",
        world.minio.endpoint(),
        world.minio.region()
    );
    let location = |words: &[&str]| {
        let words = [&["location"], words].concat();
        kubectl_backup(&words).home(world.home.path())
    };
    let words = ["create", "said", "--provider=aws", "--bucket=backups"];
    location(&words)
        .args(&["--prefix=p", "--default-volumes-to-fs-backup"])
        .args(&["--config", &config, "--credentials-file"])
        .arg(world.minio.credentials_file())
        .ok();
    let create = |name: &str| {
        let words = ["create", name, "-n", NAMESPACE, "--mover-image", IMAGE];
        world.at(&words, "said")
    };
    world.makes("located", create("located"), [Copied; 4]);
    let not = Not("notAsked", NOBODY);
    let call = create("otherwise").arg("--default-volumes-to-fs-backup=false");
    world.makes("otherwise", call, [not, Cut, not, not]);
    location(&["set", "said", "--default-volumes-to-fs-backup=false"]).ok();
    let call = create("unlocated").arg("--snapshot-volumes=false");
    world.makes("unlocated", call, [Not("notAsked", UNWANTED); 4]);
}

/// All volumes of a Deployment come back into another namespace, by a mover that they share; its own spec is what it was.
fn back(world: &World) {
    let mapping = format!("{NAMESPACE}:again");
    let mapping = ["--namespace-mappings", &mapping];
    super::restored::restore(world, "again", "located", &mapping).ok();
    world.is_rolled_out("again");
    assert_eq!(world.found("again"), world.found(NAMESPACE));
    let spec = |namespace: &str| world.get(namespace, "deployment/app")["spec"].clone();
    assert_eq!(spec("again"), spec(NAMESPACE));
    let pods = world.get("again", "pods");
    let pods = pods["items"].as_array().unwrap();
    assert_eq!(pods.len(), 1, "{pods:#?}");
    assert_eq!(pods[0]["spec"]["initContainers"], Value::Null);
    super::restored::delete_namespace(world, "again");
}

/// The template of a Schedule is followed by the controller, with the policies that it names.
fn by_schedules(world: &World) {
    controller::install(world, "p", &[], &[]);
    let policies = "version: v1\nvolumePolicies:\n- {conditions: {pvcLabels: {tier: scratch}}, action: {type: skip}}\n";
    let schedule = |name: &str, all: bool, more: Value| {
        let mut template =
            json!({"includedNamespaces": [NAMESPACE], "defaultVolumesToFsBackup": all});
        template
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({
            "apiVersion": "velero.io/v1", "kind": "Schedule", "metadata": {"name": name, "namespace": controller::NAMESPACE},
            "spec": {"schedule": "@every 2s", "template": template},
        })
    };
    let objects = [
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "policies", "namespace": controller::NAMESPACE},
            "data": {"policies.yaml": policies},
        }),
        schedule(
            "files",
            true,
            json!({"resourcePolicy": {"kind": "configmap", "name": "policies"}}),
        ),
        schedule("none", false, json!({"snapshotVolumes": false})),
    ];
    for object in &objects {
        world.node.apply(&object.to_string());
    }
    let unwanted = [Not("notAsked", UNWANTED); 4];
    for (schedule, wanted) in [
        ("files", [Not("leftOut", BY_POLICY), Copied, Copied, Copied]),
        ("none", unwanted),
    ] {
        let made = wait_for("a backup of the schedule", PATIENT, || {
            let label = format!("velero.io/schedule-name={schedule}");
            let words = ["get", "backups.velero.io", "-l", &label, "-o", "name"];
            let made = world
                .node
                .kubectl(&[&["-n", controller::NAMESPACE], &words[..]].concat());
            let first = made.stdout.lines().next()?.to_owned();
            Some(first.rsplit('/').next()?.to_owned())
        });
        let words = [
            "-n",
            controller::NAMESPACE,
            "delete",
            "schedules.velero.io",
            schedule,
        ];
        world.node.kubectl(&words);
        is_completed(world, "backups", &made);
        world.came(&made, wanted);
    }
}
