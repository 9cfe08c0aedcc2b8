//! A location with recipients: the controller makes encrypted backups there, keeps, copies and deletes them, and reads none.

use std::path::PathBuf;

use harness::run::{Backup, kubectl_backup};

use super::{NAMESPACE, Served};

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Secret
metadata: {name: crown-jewels, namespace: shop}
stringData: {v: a-value-that-nobody-may-read}
";

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/encryption")
        .join(name)
}

fn key(name: &str) -> String {
    let text = std::fs::read_to_string(fixture(name)).unwrap();
    text.trim().to_owned()
}

/// Gives the location an annotation, or takes it away.
fn annotate(served: &Served, location: &str, annotation: &str, value: &str) {
    let annotation = match value {
        "" => format!("kubectl-backup/{annotation}-"),
        value => format!("kubectl-backup/{annotation}={value}"),
    };
    served.kubectl(&[
        "annotate",
        "--overwrite",
        "backupstoragelocation",
        location,
        &annotation,
    ]);
}

fn files(served: &Served, prefix: &str) -> Vec<String> {
    served.minio.list(&served.bucket, prefix)
}

/// A call from here, into the prefix of a location.
fn from_here(served: &Served, prefix: &str, arguments: &[&str]) -> Backup {
    let url = format!(
        "s3://{}/{prefix}?endpoint={}",
        served.bucket,
        served.minio.endpoint()
    );
    kubectl_backup(arguments)
        .home(served.home.path())
        .kubeconfig(served.cluster.kubeconfig())
        .credentials_of(served.minio)
        .location(&url)
        .args(&["--identity".as_ref(), fixture("first.key").as_os_str()])
}

const VAULT: &str = "main/plugins/kubectl-backup/backups/";

#[test]
fn a_controller_encrypts_for_the_recipients_of_its_location_and_opens_nothing() {
    let served = Served::start_with("controller-sealed", &["--garbage-collection-frequency=1s"]);
    served.apply(SHOP);
    let frequent = r#"{"spec": {"backupSyncPeriod": "1s", "validationFrequency": "1s"}}"#;
    served.patch("backupstoragelocation", "default", frequent);
    // One of a schedule that is plain yet.
    served.schedule("s", "@every 2s");
    served.patch(
        "schedule",
        "s",
        r#"{"metadata": {"annotations": {"kubectl-backup/keep": "2"}}}"#,
    );
    let plain = served.wait("backups", "one of the schedule", |list| {
        list["items"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one["status"]["phase"] == "Completed"))
    });
    let plain = plain["items"][0]["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(!files(&served, &format!("main/backups/{plain}/")).is_empty());
    annotate(&served, "default", "recipients", &key("first.pub"));

    served.backup("b", "shop");
    let made = served.ends("b", "Completed");
    assert_eq!(
        made["metadata"]["annotations"]["kubectl-backup/encryption"],
        "age"
    );
    assert!(made["status"]["progress"]["totalItems"].as_u64().unwrap() > 0);
    assert_eq!(files(&served, "main/backups/b/"), [""; 0]);
    let all = files(&served, &format!("{VAULT}b/"));
    assert!(all.len() > 8, "{all:?}");
    for file in &all {
        let bytes = served.minio.get(&served.bucket, file);
        for hidden in ["crown-jewels", "a-value-that-nobody-may-read", "shop"] {
            let hidden = hidden.as_bytes();
            assert!(
                !bytes.windows(hidden.len()).any(|part| part == hidden),
                "{file}"
            );
        }
    }
    from_here(&served, "main", &["verify", "b"]).ok();

    // Of the schedule two are kept, of whatever sort: the plain one is the first to go.
    served.goes(&format!("backups/{plain}"));
    assert_eq!(files(&served, &format!("main/backups/{plain}/")), [""; 0]);
    served.patch("schedule", "s", r#"{"spec": {"paused": true}}"#);
    let of_s = |list: &serde_json::Value| -> Vec<String> {
        let all = list["items"].as_array().unwrap().iter();
        let of = all.filter(|one| one["metadata"]["labels"]["velero.io/schedule-name"] == "s");
        of.map(|one| one["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let kept = served.wait("backups", "two of the schedule", |list| {
        let sealed = |name: &String| !files(&served, &format!("{VAULT}{name}/")).is_empty();
        let kept = of_s(list);
        kept.len() == 2 && kept.iter().all(sealed)
    });
    let kept = of_s(&kept);

    // One that was made from here is found; what is there stays through syncs, and a lost end is found by the marker.
    from_here(
        &served,
        "main",
        &[
            "create",
            "mine",
            "-n",
            "shop",
            "--recipient",
            &key("first.pub"),
        ],
    )
    .ok();
    let mine = served.wait("backups/mine", "found", |object| {
        object["status"]["phase"] == "Completed"
    });
    assert_eq!(
        mine["metadata"]["annotations"]["kubectl-backup/encryption"],
        "age"
    );
    served.patch("backup", "b", r#"{"status": {"phase": "InProgress"}}"#);
    served.ends("b", "Completed");
    for name in kept.iter().map(String::as_str).chain(["b", "mine"]) {
        assert!(
            served.object(&format!("backups/{name}")).is_some(),
            "{name}"
        );
    }

    reads_nothing(&served);
    served.apply(&format!(
        "{{apiVersion: velero.io/v1, kind: DeleteBackupRequest, metadata: {{name: d, namespace: {NAMESPACE}}}, spec: {{backupName: b}}}}"
    ));
    served.goes("backups/b");
    assert_eq!(files(&served, &format!("{VAULT}b/")), [""; 0]);
    is_handed_over_and_copied(&served);
    what_it_lacks(&served);
}

fn reads_nothing(served: &Served) {
    served.apply(&format!(
        "{{apiVersion: velero.io/v1, kind: Restore, metadata: {{name: r, namespace: {NAMESPACE}}}, spec: {{backupName: b}}}}"
    ));
    let refused = served.wait("restores/r", "refused", |object| {
        object["status"]["phase"] == "FailedValidation"
    });
    let why = refused["status"]["validationErrors"].to_string();
    assert!(
        why.contains("has no identity") && why.contains("restore create --from-backup b"),
        "{why}"
    );
    served.apply(&format!(
        "{{apiVersion: velero.io/v1, kind: DownloadRequest, metadata: {{name: get, namespace: {NAMESPACE}}}, spec: {{target: {{kind: BackupContents, name: b}}}}}}"
    ));
    let refused = served.wait("downloadrequests/get", "answered", |object| {
        object["status"]["phase"] == "Processed"
    });
    assert!(refused["status"]["downloadURL"].is_null());
    let why = refused["metadata"]["annotations"]["kubectl-backup/message"].to_string();
    assert!(why.contains("is encrypted"), "{why}");
}

/// `create` leaves it to the controller where that comes out the same; copies are the same bytes.
fn is_handed_over_and_copied(served: &Served) {
    served.location("second", "copies", false);
    served.wait("backupstoragelocations/second", "available", |object| {
        object["status"]["phase"] == "Available"
    });
    annotate(served, "default", "replicate-to", "second");
    let call = |arguments: &[&str]| {
        kubectl_backup(arguments)
            .home(served.home.path())
            .kubeconfig(served.cluster.kubeconfig())
    };
    let made = call(&["create", "auto", "-n", "shop", "--in-cluster=auto"]).ok();
    assert!(!made.stderr.contains("done from here"), "{}", made.stderr);
    served.wait("backups/auto", "copied", |object| {
        object["metadata"]["annotations"]["kubectl-backup/copied-to"] == "second"
    });
    for file in files(served, &format!("{VAULT}auto/")) {
        let copy = file.replacen("main/", "copies/", 1);
        assert!(
            served.minio.get(&served.bucket, &file) == served.minio.get(&served.bucket, &copy),
            "{copy}"
        );
    }
    assert_eq!(files(served, "copies/backups/"), [""; 0]);
    let restore = call(&[
        "restore",
        "create",
        "--from-backup",
        "auto",
        "--in-cluster=auto",
        "--dry-run",
    ])
    .run();
    assert!(
        restore.stderr.contains("done from here") && restore.stderr.contains("no identity"),
        "{}",
        restore.stderr
    );
    annotate(served, "default", "replicate-to", "");
}

/// Recipients that it can not encrypt for, and keys that it has none to sign with, are refused where it is asked, and no backup is called failed.
fn what_it_lacks(served: &Served) {
    let public = crate::copy::signed::key_pair("backups")
        .into_iter()
        .find(|(name, _)| name.ends_with(".pub"));
    let pem = public.unwrap().1;
    let line: String = pem
        .lines()
        .filter(|line| !line.starts_with("---"))
        .collect();
    for (name, annotation, value, says) in [
        ("with-passphrase", "recipients", "passphrase", "passphrase"),
        ("with-nonsense", "recipients", "age1nonsense", "recipient"),
        ("with-no-word", "encrypt", "some", "not known"),
        // As where the other annotation is misspelt.
        ("with-nobody", "encrypt", "secrets", "has no recipients"),
        ("with-keys", "verify-keys", line.as_str(), "signed"),
    ] {
        for other in ["recipients", "verify-keys", "encrypt"] {
            annotate(served, "default", other, "");
        }
        if value == "some" {
            annotate(served, "default", "recipients", &key("first.pub"));
        }
        annotate(served, "default", annotation, value);
        served.backup(name, "shop");
        let refused = served.wait(&format!("backups/{name}"), "refused", |object| {
            object["status"]["phase"]
                .as_str()
                .is_some_and(|phase| phase.starts_with("Failed"))
        });
        assert_eq!(
            refused["status"]["phase"], "FailedValidation",
            "{refused:#}"
        );
        let why = refused["status"]["validationErrors"].to_string();
        assert!(why.contains(says), "{why}");
        assert_eq!(files(served, &format!("main/backups/{name}/")), [""; 0]);
        assert_eq!(files(served, &format!("{VAULT}{name}/")), [""; 0]);
    }
}

#[test]
fn a_controller_encrypts_secrets_alone_where_its_location_says_so_and_restores_the_rest() {
    let served = Served::start("controller-half-sealed");
    served.apply(SHOP);
    served.apply(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings, namespace: shop}, data: {a: b}}",
    );
    annotate(&served, "default", "recipients", &key("first.pub"));
    annotate(&served, "default", "encrypt", "secrets");
    served.backup("b", "shop");
    let made = served.ends("b", "Completed");
    let annotations = &made["metadata"]["annotations"];
    assert_eq!(annotations["kubectl-backup/encryption"], "secrets");
    assert_eq!(annotations["kubectl-backup/secrets"], "1");
    assert_eq!(files(&served, VAULT), [""; 0]);
    let all = files(&served, "main/backups/b/");
    for file in ["secrets.tar.gz.age", "secrets.key.age"] {
        assert!(all.iter().any(|one| one.ends_with(file)), "{all:?}");
    }
    let archive = served.minio.get(&served.bucket, "main/backups/b/b.tar.gz");
    let archive = crate::place::Archive::of(&archive);
    assert_eq!(archive.names("secrets"), [""; 0]);
    assert!(
        archive
            .names("configmaps")
            .contains(&"shop/settings".to_owned())
    );
    let checked = from_here(&served, "main", &["verify", "b", "-o", "json"])
        .ok()
        .json();
    assert_eq!(checked["secretsOpened"], true);

    // It restores what it can read, and says what it can not before it changes anything.
    let restore = |name: &str, more: &str| {
        served.apply(&format!(
            "{{apiVersion: velero.io/v1, kind: Restore, metadata: {{name: {name}, namespace: {NAMESPACE}}}, spec: {{backupName: b, namespaceMapping: {{shop: {name}}}{more}}}}}"
        ));
        served.wait(&format!("restores/{name}"), "ended", |object| {
            object["status"]["phase"]
                .as_str()
                .is_some_and(|phase| phase == "Completed" || phase.contains("Failed"))
        })
    };
    let stands = |path: &str| served.cluster.client().get(path).unwrap().status == 200;
    let refused = restore("whole", "");
    assert_eq!(refused["status"]["phase"], "Failed", "{refused:#}");
    let why = refused["status"]["failureReason"].to_string();
    assert!(
        why.contains("are encrypted") && why.contains("secrets"),
        "{why}"
    );
    assert!(!stands("/api/v1/namespaces/whole"));
    let rest = restore("rest", ", excludedResources: [secrets]");
    assert_eq!(rest["status"]["phase"], "Completed", "{rest:#}");
    assert!(stands("/api/v1/namespaces/rest/configmaps/settings"));
    assert!(!stands("/api/v1/namespaces/rest/secrets/crown-jewels"));
    let here = kubectl_backup(&[
        "restore",
        "create",
        "--from-backup",
        "b",
        "--in-cluster=auto",
    ])
    .home(served.home.path())
    .kubeconfig(served.cluster.kubeconfig())
    .args(&["--dry-run"])
    .run();
    assert!(
        here.stderr.contains("done from here") && here.stderr.contains("Secrets of backup b"),
        "{}",
        here.stderr
    );

    // What anybody wrote to the object leads nobody to other files.
    served.patch(
        "backup",
        "b",
        r#"{"metadata": {"annotations": {"kubectl-backup/encryption": "age"}}}"#,
    );
    served.apply(&format!(
        "{{apiVersion: velero.io/v1, kind: DeleteBackupRequest, metadata: {{name: d, namespace: {NAMESPACE}}}, spec: {{backupName: b}}}}"
    ));
    served.goes("backups/b");
    assert_eq!(files(&served, "main/backups/b/"), [""; 0]);
}
