//! A Velero in its own namespace and the controller in another one of the same cluster: each does its own work, in one bucket too, neither touches what is
//! the other's, and the controller can go.

use std::collections::{BTreeMap, BTreeSet};

use harness::audit::Audit;
use harness::cluster::{Cluster, Controllers};
use harness::process::{Folder, Output};
use harness::run::{Backup, Signal, kubectl_backup};
use harness::served::{NAMESPACE, PATIENT};
use harness::store::Minio;
use harness::velero::{self, Velero};
use harness::wait_for;
use serde_json::Value;

const VELERO: &str = "velero";

/// What the installed Deployment's pods would be; no node runs them here.
const ACCOUNT: &str = "system:serviceaccount:kubectl-backup:kubectl-backup";

/// A cluster that keeps account of every write.
struct Audited {
    cluster: Cluster,
    audit: Audit,
    home: Folder,
}

impl Audited {
    fn start() -> Self {
        let audit = Audit::default();
        let builder = Cluster::builder().controllers(Controllers::NAMESPACES);
        Self {
            cluster: audit.of(builder).start(),
            audit,
            home: Folder::new("home"),
        }
    }

    /// Each wrote what it serves, and nothing else.
    fn assert_apart(&self) {
        let ours = self
            .audit
            .writes(|event| event["user"]["username"] == ACCOUNT);
        let agent = |event: &Value| event["userAgent"].as_str().unwrap_or_default().to_owned();
        let theirs = self
            .audit
            .writes(|event| agent(event).starts_with("velero-server/"));
        for (all, namespace, restored) in [
            (&ours, NAMESPACE, "app-ours"),
            (&theirs, VELERO, "app-theirs"),
        ] {
            for kind in ["backups", "schedules", "restores", "backupstoragelocations"] {
                let place = format!("{namespace} {kind}");
                assert!(all.contains(&place), "{place}: {all:?}");
            }
            for place in all {
                let (at, _) = place.split_once(' ').unwrap();
                assert!(at == namespace || at == restored, "{place}: {all:?}");
            }
        }
    }

    fn call<A: AsRef<std::ffi::OsStr>>(&self, arguments: &[A]) -> Backup {
        kubectl_backup(arguments).kubeconfig(self.cluster.kubeconfig())
    }

    /// The unchanged `velero` command.
    fn velero(&self, namespace: &str, arguments: &[&str]) -> Output {
        let within = [arguments, &["-n", namespace, "--colorized=false"]].concat();
        velero::cli(&self.cluster, &self.home, &within)
    }

    fn object(&self, namespace: &str, what: &str) -> Option<Value> {
        let path = format!("/apis/velero.io/v1/namespaces/{namespace}/{what}");
        let answer = self.cluster.client().get(&path).ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    #[track_caller]
    fn wait(&self, namespace: &str, what: &str, phase: &str) -> Value {
        wait_for(
            &format!("{namespace}/{what} to be {phase}"),
            PATIENT,
            || {
                let object = self.object(namespace, what)?;
                (object["status"]["phase"] == phase).then_some(object)
            },
        )
    }

    /// Names of the backups of a schedule.
    fn backups_of(&self, namespace: &str, schedule: &str) -> Vec<String> {
        let list = self.object(namespace, "backups").unwrap();
        let all = list["items"].as_array().unwrap().iter();
        let of = all.filter(|one| one["metadata"]["labels"]["velero.io/schedule-name"] == schedule);
        of.map(|one| one["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Velero's definitions, whole.
    fn definitions(&self) -> BTreeMap<String, Value> {
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        self.items(path)
            .filter(|(name, _)| name.ends_with(".velero.io"))
            .collect()
    }

    fn items(&self, path: &str) -> impl Iterator<Item = (String, Value)> + use<> {
        // A kind that was just brought asks for patience.
        let mut list = wait_for(path, PATIENT, || {
            let answer = self.cluster.client().get(path).ok()?;
            (answer.status == 200).then(|| answer.json())
        });
        let all = list["items"].as_array_mut().map(std::mem::take);
        let named = |one: Value| (one["metadata"]["name"].as_str().unwrap().to_owned(), one);
        all.unwrap_or_default().into_iter().map(named)
    }

    /// What a server has in its namespace, whole: of locations without the time of the last look, and without what is asked and answered in passing.
    fn objects(&self, namespace: &str) -> BTreeMap<String, Value> {
        let mut paths = vec![
            ("/apis/apps/v1".to_owned(), "deployments".to_owned()),
            ("/api/v1".to_owned(), "secrets".to_owned()),
            ("/api/v1".to_owned(), "configmaps".to_owned()),
        ];
        for definition in self.definitions().values() {
            let version = definition["spec"]["versions"][0]["name"].as_str().unwrap();
            let plural = definition["spec"]["names"]["plural"].as_str().unwrap();
            if !["downloadrequests", "serverstatusrequests"].contains(&plural) {
                paths.push((format!("/apis/velero.io/{version}"), plural.to_owned()));
            }
        }
        let mut found = BTreeMap::new();
        for (group, kind) in paths {
            for (name, mut one) in self.items(&format!("{group}/namespaces/{namespace}/{kind}")) {
                if kind == "backupstoragelocations" {
                    for (part, fields) in [
                        (
                            "metadata",
                            &["resourceVersion", "generation", "managedFields"][..],
                        ),
                        ("status", &["lastValidationTime", "lastSyncedTime"]),
                    ] {
                        let part = one[part].as_object_mut();
                        part.unwrap()
                            .retain(|key, _| !fields.contains(&key.as_str()));
                    }
                }
                found.insert(format!("{kind}/{name}"), one);
            }
        }
        found
    }

    /// A location as Velero documents it, at a folder of its own.
    fn location(&self, namespace: &str, name: &str, minio: &Minio, bucket: &str, credential: &str) {
        let endpoint = minio.endpoint();
        self.cluster.apply(&format!(
            r#"
apiVersion: velero.io/v1
kind: BackupStorageLocation
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  provider: aws
  backupSyncPeriod: 1s
  objectStorage: {{bucket: {bucket}, prefix: both}}
  config: {{region: us-east-1, s3ForcePathStyle: "true", s3Url: "{endpoint}", checksumAlgorithm: ""}}
{credential}"#
        ));
        self.wait(
            namespace,
            &format!("backupstoragelocations/{name}"),
            "Available",
        );
    }

    /// Waits until the controller's namespace is gone.
    fn is_taken_out(&self) {
        let path = format!("/api/v1/namespaces/{NAMESPACE}");
        wait_for("the end of the namespace", PATIENT, || {
            let answer = self.cluster.client().get(&path).ok()?;
            (answer.status == 404).then_some(())
        });
    }

    fn apply_in(&self, namespace: &str, kind: &str, name: &str, rest: &str) {
        self.cluster.apply(&format!(
            "{{apiVersion: velero.io/v1, kind: {kind}, metadata: {{name: {name}, namespace: {namespace}}}, {rest}}}"
        ));
    }
}

/// Objects of before are what they were, to the last field.
#[track_caller]
fn assert_as_before(before: &BTreeMap<String, Value>, after: &BTreeMap<String, Value>) {
    for (name, object) in before {
        assert_eq!(after.get(name), Some(object), "{name}");
    }
}

/// Where a Velero works the controller does not go, neither by `install` nor by itself, and there is nothing to take out.
fn refused(one: &Audited) {
    let scale = ["-n", VELERO, "scale", "deployment/velero", "--replicas=1"];
    one.cluster.kubectl(&scale);
    let before = one.objects(VELERO);
    assert!(before.contains_key("deployments/velero"));
    let image = ["--image", "example.com/none:1"];
    let at = ["--controller-namespace", VELERO];
    for (words, says) in [
        (
            [&["install"], &at[..], &image[..]].concat(),
            "a Velero works in namespace velero; nothing was changed",
        ),
        (
            vec!["controller", "--namespace", VELERO],
            "a Velero serves namespace velero already",
        ),
        (
            [&["uninstall", "--yes"], &at[..]].concat(),
            "no controller is installed in namespace velero",
        ),
    ] {
        let refused = one.call(&words).code(1);
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
    }
    assert_eq!(one.objects(VELERO), before);
}

/// One name in both namespaces, for a backup and for what is restored of it; and a schedule in each.
fn each_its_own(one: &Audited, velero: &Velero<'_>, minio: &Minio, app: &str) {
    velero.back_up("same", &["--include-namespaces", app]);
    one.apply_in(
        NAMESPACE,
        "Backup",
        "same",
        &format!("spec: {{includedNamespaces: [{app}]}}"),
    );
    one.wait(NAMESPACE, "backups/same", "Completed");
    velero.restore(
        "again",
        "same",
        &["--namespace-mappings", &format!("{app}:app-theirs")],
    );
    one.apply_in(
        NAMESPACE,
        "Restore",
        "again",
        &format!("spec: {{backupName: same, namespaceMapping: {{{app}: app-ours}}}}"),
    );
    one.wait(NAMESPACE, "restores/again", "Completed");
    for namespace in ["app-theirs", "app-ours"] {
        let get = ["-n", namespace, "get", "configmap", "settings"];
        one.cluster.kubectl(&get);
    }
    // A slot that was missed long ago is due at once.
    one.apply_in(
        VELERO,
        "Schedule",
        "yearly",
        &format!(
            "spec: {{schedule: '0 0 1 1 *', template: {{includedNamespaces: [{app}]}}}}, status: {{phase: Enabled, lastBackup: '2020-01-01T00:00:00Z'}}"
        ),
    );
    let first = wait_for("the backup of Velero's schedule", PATIENT, || {
        one.backups_of(VELERO, "yearly").pop()
    });
    one.wait(VELERO, &format!("backups/{first}"), "Completed");
    // Velero may make two where its copy of the Schedule does not know of the first yet.
    let made = one.backups_of(VELERO, "yearly");
    for backup in &made {
        one.wait(VELERO, &format!("backups/{backup}"), "Completed");
    }
    assert_eq!(one.backups_of(NAMESPACE, "yearly"), [""; 0]);
    for namespace in [VELERO, NAMESPACE] {
        let logs = one.velero(namespace, &["backup", "logs", "same"]).ok();
        assert!(logs.stdout.contains("level=info"), "{}", logs.stdout);
    }
    // Each bucket has what its own server made.
    let made_in = |bucket: &str, prefix: &str| -> BTreeSet<String> {
        let folder = format!("{prefix}/backups/");
        let keys = minio.list(bucket, &folder);
        let names = keys.iter().filter_map(|key| {
            let (name, _) = key.strip_prefix(&folder)?.split_once('/')?;
            Some(name.to_owned())
        });
        names.collect()
    };
    let same = || "same".to_owned();
    let theirs = made.into_iter().chain([same()]).collect();
    assert_eq!(made_in("beside-theirs", "p"), theirs);
    assert_eq!(made_in("beside-ours", "prod"), [same()].into());
}

/// A schedule of ours whose backups are expired at once; the newest good one stays, and its name is returned.
fn expired(one: &Audited, app: &str) -> String {
    one.apply_in(
        NAMESPACE,
        "Schedule",
        "often",
        &format!(
            "spec: {{schedule: '@every 2s', template: {{includedNamespaces: [{app}], storageLocation: shared, ttl: 1s}}}}"
        ),
    );
    wait_for("a backup of our schedule", PATIENT, || {
        one.backups_of(NAMESPACE, "often").pop()
    });
    one.call(&["schedule", "pause", "often"]).ok();
    wait_for("the newest backup alone", PATIENT, || {
        let all = one.backups_of(NAMESPACE, "often");
        let [name] = &all[..] else { return None };
        let object = one.object(NAMESPACE, &format!("backups/{name}"))?;
        let is_kept = object["metadata"]["annotations"]["kubectl-backup/kept"].is_string();
        (is_kept && object["status"]["phase"] == "Completed").then(|| name.clone())
    })
}

/// Each sees in the shared bucket what the other one made. What is expired of Velero's own, Velero takes away; what is kept of ours, it leaves.
fn shared(one: &Audited, velero: &Velero<'_>, minio: &Minio, app: &str, kept: &str) {
    let folder = format!("both/backups/{kept}");
    let before = minio.contents("beside-both", &folder);
    assert!(before.len() > 3, "{before:?}");
    let synced = one.wait(VELERO, &format!("backups/{kept}"), "Completed");
    // At the end of that look Velero removes what its listing had not, and its clock is a minute.
    wait_for("the end of Velero's look", PATIENT, || {
        let location = one.object(VELERO, "backupstoragelocations/shared")?;
        location["status"]["lastSyncedTime"]
            .is_string()
            .then_some(())
    });
    assert_eq!(synced["status"]["expiration"], Value::Null);
    assert_eq!(synced["spec"]["storageLocation"], "shared");
    let into = ["--include-namespaces", app, "--storage-location", "shared"];
    velero.back_up("common", &into);
    let common = minio.contents("beside-both", "both/backups/common");
    assert!(!common.is_empty());
    one.wait(NAMESPACE, "backups/common", "Completed");
    let brief = [
        "backup",
        "create",
        "brief",
        "--snapshot-volumes=false",
        "--ttl",
        "10s",
    ];
    velero.cli(&[&brief[..], &into].concat()).ok();
    for namespace in [VELERO, NAMESPACE] {
        wait_for(
            "the end of what Velero made and is expired",
            PATIENT,
            || {
                let is_there = one.object(namespace, "backups/brief").is_some();
                let files = minio.list("beside-both", "both/backups/brief");
                (!is_there && files.is_empty()).then_some(())
            },
        );
    }
    let says = |words: &[&str]| {
        let log = velero.log();
        let mut lines = log.lines();
        lines
            .any(|line| words.iter().all(|word| line.contains(word)))
            .then_some(())
    };
    // It was made before it went, and Velero took it away.
    for words in [
        &["backup processing complete", "velero/brief"][..],
        &["Removing backup from backup storage"],
    ] {
        assert!(says(words).is_some(), "{words:?}");
    }
    // It looked at ours as well.
    wait_for("Velero's look at our backup", PATIENT, || {
        says(&["has not expired yet", kept])
    });
    for namespace in [VELERO, NAMESPACE] {
        for backup in [kept, "common"] {
            let what = format!("backups/{backup}");
            assert!(one.object(namespace, &what).is_some(), "{namespace}/{what}");
        }
    }
    assert_eq!(minio.contents("beside-both", &folder), before);
    assert_eq!(minio.contents("beside-both", "both/backups/common"), common);
}

fn contents(minio: &Minio) -> BTreeMap<String, (usize, String)> {
    let mut all = BTreeMap::new();
    for bucket in ["beside-ours", "beside-theirs", "beside-both"] {
        let here = minio.contents(bucket, "").into_iter();
        all.extend(here.map(|(key, content)| (format!("{bucket}/{key}"), content)));
    }
    all
}

fn app(cluster: &Cluster) -> String {
    let app = cluster.create_namespace("app");
    let settings = [
        "create",
        "configmap",
        "settings",
        "--from-literal=greeting=hello",
    ];
    cluster.kubectl(&[&["-n", app.as_str()], &settings[..]].concat());
    app
}

fn credentials(minio: &Minio) -> [String; 2] {
    let file = minio.credentials_file().display();
    ["--credentials-file".to_owned(), file.to_string()]
}

#[test]
fn a_velero_in_its_own_namespace_and_the_controller_in_another_do_not_notice_each_other() {
    let minio = Minio::shared();
    for bucket in ["beside-ours", "beside-both"] {
        minio.bucket(bucket);
    }
    let one = Audited::start();
    let flags = ["--garbage-collection-frequency=1s", "--log-level=debug"];
    let velero = Velero::start(&one.cluster, minio, "beside-theirs", "p", &flags, None);
    let app = app(&one.cluster);
    let definitions = one.definitions();
    assert!(definitions.len() >= 13);
    refused(&one);

    // With the rights that `install` gives, outside of the cluster.
    let url = format!("s3://beside-ours/prod?endpoint={}", minio.endpoint());
    let install = [
        "install",
        "--image",
        "example.com/none:1",
        "--location",
        &url,
    ];
    one.call(&install).args(&credentials(minio)).ok();
    let account = one.cluster.user(ACCOUNT, &["system:serviceaccounts"]);
    let flags = [
        "--backup-sync-period=1s",
        "--garbage-collection-frequency=1s",
        "--store-validation-frequency=2s",
    ];
    let controller = kubectl_backup(&["controller"])
        .args(&flags)
        .kubeconfig(&account)
        .spawn();
    one.wait(NAMESPACE, "backupstoragelocations/default", "Available");
    let keys = "  credential: {name: default-credentials, key: cloud}";
    one.location(NAMESPACE, "shared", minio, "beside-both", keys);
    let kept = expired(&one, &app);
    // Velero looks through locations once a minute: meanwhile each works for itself.
    one.location(VELERO, "shared", minio, "beside-both", "");
    each_its_own(&one, &velero, minio, &app);
    let done = [VELERO, NAMESPACE].map(|namespace| one.objects(namespace));
    for object in ["backups/same", "restores/again"] {
        assert!(done.iter().all(|all| all.contains_key(object)), "{object}");
    }
    shared(&one, &velero, minio, &app, &kept);
    for (namespace, before) in [VELERO, NAMESPACE].iter().zip(&done) {
        assert_as_before(before, &one.objects(namespace));
    }
    assert!(one.definitions() == definitions, "definitions were changed");
    one.assert_apart();

    // The controller goes, and nothing else.
    controller.signal(Signal::TERM);
    let told = controller.wait(PATIENT).stderr;
    assert!(!told.contains("velero/"), "{told}");
    assert!(!told.contains("backup brief of location"), "{told}");
    let theirs = one.objects(VELERO);
    let before = contents(minio);
    let gone = one.call(&["uninstall", "--yes"]).ok();
    for name in definitions.keys() {
        let stays = format!("customresourcedefinition/{name} stays: another tool brought it");
        assert!(gone.stderr.contains(&stays), "{}", gone.stderr);
    }
    one.is_taken_out();
    assert!(one.definitions() == definitions, "definitions were changed");
    assert_as_before(&theirs, &one.objects(VELERO));
    assert_eq!(contents(minio), before);
    velero.back_up("after", &["--include-namespaces", &app]);
    assert_as_before(&theirs, &one.objects(VELERO));
    let errors = velero.log();
    let is_about_ours = |line: &&str| line.contains("level=error") && line.contains(NAMESPACE);
    let errors = errors.lines().filter(is_about_ours);
    assert_eq!(errors.collect::<Vec<_>>(), [""; 0]);
}

/// The kinds are ours then; a server needs all of them, those too of which it has no object.
#[test]
fn a_velero_that_found_our_kinds_goes_on_when_the_controller_is_taken_out() {
    let minio = Minio::shared();
    let one = Audited::start();
    one.call(&["install", "--image", "example.com/none:1"]).ok();
    let ours = one.definitions();
    let velero = Velero::start(&one.cluster, minio, "beside-after", "p", &[], None);
    let app = app(&one.cluster);
    velero.back_up("before", &["--include-namespaces", &app]);
    let theirs = one.objects(VELERO);
    let gone = one.call(&["uninstall", "--yes"]).ok();
    for (name, definition) in &ours {
        assert_eq!(definition["metadata"]["labels"]["kubectl-backup/crd"], "1");
        let stays = format!(
            "customresourcedefinition/{name} stays: Velero's objects are in namespace velero"
        );
        assert!(gone.stderr.contains(&stays), "{}", gone.stderr);
    }
    one.is_taken_out();
    assert!(one.definitions() == ours, "definitions were changed");
    assert_as_before(&theirs, &one.objects(VELERO));
    velero.back_up("after", &["--include-namespaces", &app]);
    let mapping = format!("{app}:app-again");
    velero.restore("again", "after", &["--namespace-mappings", &mapping]);
    let get = ["-n", "app-again", "get", "configmap", "settings"];
    one.cluster.kubectl(&get);
}
