//! The controller with locations of every provider: what it says, writes, measures and leaves in the cluster and the buckets.

use std::fs;
use std::path::Path;

use harness::azurite::Azurite;
use harness::gcs::Gcs;
use harness::http_client::Endpoint;
use harness::ports::Port;
use harness::process::Folder;
use harness::run::kubectl_backup;
use harness::served::{NAMESPACE, Served};
use serde_json::{Value, json};

use super::Witness;

/// A location and its Secret.
fn apply(served: &Served, name: &str, file: &Path, mut spec: Value) {
    let secret = format!("keys-of-{name}");
    served.secret(&secret, file);
    spec["credential"] = json!({"name": secret, "key": "cloud"});
    served.apply(
        &json!({
            "apiVersion": "velero.io/v1", "kind": "BackupStorageLocation", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
        })
        .to_string(),
    );
}

fn is(served: &Served, location: &str, phase: &str) {
    let what = format!("backupstoragelocations/{location}");
    served.wait(&what, phase, |object| object["status"]["phase"] == phase);
}

/// Every object of every kind but Secrets, with what no printer shows.
fn objects(served: &Served, witness: &mut Witness) {
    let listed = served
        .cluster
        .kubectl(&["api-resources", "--verbs=list", "-o", "name"])
        .stdout;
    let kinds: Vec<&str> = listed.lines().filter(|kind| *kind != "secrets").collect();
    assert!(
        kinds.contains(&"events") && kinds.contains(&"downloadrequests.velero.io"),
        "{kinds:?}"
    );
    for kind in kinds {
        let shown = ["get", kind, "-A", "-o", "json", "--show-managed-fields"];
        let run = served.cluster.try_kubectl(&shown);
        // Some kinds, as those of metrics, nobody serves here.
        witness.hears(format!("objects of the kind {kind}"), run.stdout);
    }
}

#[test]
fn the_controller_tells_no_secret_of_its_locations() {
    let gcs = Gcs::start();
    let azurite = Azurite::start();
    let mut served = Served::without_controller("secrets-controller");
    let minio = served.minio;
    let mut witness = Witness::default();
    let (folder, wrong) = (Folder::new("keys"), "wR0ng+s3cr3t/k3y");
    witness.keeps("the access key", minio.access_key());
    witness.keeps("the secret key", minio.secret_key());
    witness.keeps("a wrong secret key", wrong);
    witness.keeps("the cluster's token", served.cluster.token());

    let port = Port::lease();
    let address = format!("127.0.0.1:{}", port.number);
    let metrics = format!("--metrics-address={address}");
    let flags = [
        metrics.as_str(),
        "--v=9",
        "--backup-sync-period=1s",
        "--store-validation-frequency=1s",
        "--garbage-collection-frequency=1s",
    ];
    let controller = served.call(&flags).home(served.home.path()).spawn();
    let pid = controller.pid();
    served.controller = Some(controller);
    served.cluster_has_kinds();
    let bucket = served.bucket.clone();
    let amazon = |url: &str| {
        json!({
            "provider": "aws", "objectStorage": {"bucket": bucket, "prefix": "main"},
            "config": {"region": "us-east-1", "s3ForcePathStyle": "true", "s3Url": url},
        })
    };
    let file = minio.credentials_file();
    apply(&served, "amazon", file, amazon(minio.endpoint()));
    let google = |name: &str| {
        json!({
            "provider": "gcp", "objectStorage": {"bucket": name, "prefix": "main"}, "config": {"storeEndpoint": gcs.endpoint()},
        })
    };
    let text = fs::read_to_string(gcs.credentials_file()).unwrap();
    let key: Value = serde_json::from_str(&text).unwrap();
    let pem = key["private_key"].as_str().unwrap();
    witness.keeps("the private key", pem.lines().nth(1).unwrap());
    let of_google = google(gcs.bucket("secrets"));
    apply(
        &served,
        "google",
        &gcs.credentials_file(),
        of_google.clone(),
    );
    let mut good = vec!["amazon", "google"];
    if let Some(azurite) = &azurite {
        witness.keeps("the account's key", azurite.key());
        let container = azurite.container("secrets");
        let authority = fs::read_to_string(azurite.ca_file()).unwrap();
        let ca = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ca", "namespace": NAMESPACE}, "stringData": {"ca.crt": authority}});
        served.apply(&ca.to_string());
        let spec = json!({
            "provider": "azure", "objectStorage": {"bucket": container, "prefix": "main", "caCertRef": {"name": "ca", "key": "ca.crt"}},
            "config": {"storageAccount": azurite.account(), "storageAccountURI": azurite.endpoint()},
        });
        apply(&served, "azure", &azurite.credentials_file(), spec);
        good.push("azure");
    } else {
        harness::skip::report("Azurite needs Node.js; without Azure");
    }
    // Locations with which something is wrong, each in a way of its own.
    let text = fs::read_to_string(file).unwrap();
    let of_wrong = folder.write("wrong", text.replace(minio.secret_key(), wrong));
    apply(&served, "wrong", &of_wrong, amazon(minio.endpoint()));
    apply(&served, "away", file, amazon("http://127.0.0.1:1"));
    let no_equals = folder.write("no-equals", text.replace('=', " "));
    apply(&served, "garbled", &no_equals, amazon(minio.endpoint()));
    apply(&served, "of-another", file, of_google.clone());
    apply(
        &served,
        "foreign",
        &gcs.foreign_credentials_file(),
        of_google,
    );
    for name in ["wrong", "away", "garbled", "of-another", "foreign"] {
        is(&served, name, "Unavailable");
    }

    served.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept, namespace: shop}\n");
    for name in &good {
        is(&served, name, "Available");
        let made = |kind: &str, object: &str, spec: Value| {
            served.apply(&json!({"apiVersion": "velero.io/v1", "kind": kind, "metadata": {"name": object, "namespace": NAMESPACE}, "spec": spec}).to_string());
        };
        let backup = format!("of-{name}");
        let spec = json!({"includedNamespaces": ["shop"], "storageLocation": name});
        made("Backup", &backup, spec.clone());
        served.ends(&backup, "Completed");
        let mapped =
            json!({"backupName": backup, "namespaceMapping": {"shop": format!("shop-{name}")}});
        made("Restore", &backup, mapped);
        served.wait(&format!("restores/{backup}"), "restored", |object| {
            object["status"]["phase"] == "Completed"
        });
        made(
            "Schedule",
            &backup,
            json!({"schedule": "0 1 * * *", "template": spec}),
        );
        served.wait(&format!("schedules/{backup}"), "enabled", |object| {
            object["status"]["phase"] == "Enabled"
        });
        // An address has the access key's name in it, which everybody is shown who may ask for one; so only that it is answered counts here.
        let request = format!("{backup}-log");
        made(
            "DownloadRequest",
            &request,
            json!({"target": {"kind": "BackupLog", "name": backup}}),
        );
        let what = format!("downloadrequests/{request}");
        let answered = served.wait(&what, "answered", |object| {
            object["status"]["phase"] == "Processed"
        });
        let url = answered["status"]["downloadURL"]
            .as_str()
            .unwrap_or_default();
        assert_eq!(url.is_empty(), *name == "google", "{url}");
        if *name == "amazon" {
            let mut alone = Witness::default();
            alone.keeps("the secret key", minio.secret_key());
            alone.hears("a signed address", url);
            alone.was_told_nothing();
        }
        served.kubectl(&["delete", "downloadrequest", &request]);
    }
    for name in ["wrong", "away"] {
        let spec = json!({"includedNamespaces": ["shop"], "storageLocation": name});
        let backup = format!("of-{name}");
        served.apply(&json!({"apiVersion": "velero.io/v1", "kind": "Backup", "metadata": {"name": backup, "namespace": NAMESPACE}, "spec": spec}).to_string());
        served.ends(&backup, "FailedValidation");
    }
    let home = Folder::new("home");
    let call = |words: &[&str]| {
        kubectl_backup(words)
            .arg("--v=9")
            .home(home.path())
            .kubeconfig(served.cluster.kubeconfig())
    };
    for format in ["json", "yaml"] {
        for words in [
            &["status"][..],
            &["get", "--location", "amazon"],
            &["describe", "of-google", "--location", "google"],
            &["location", "get"],
            &["schedule", "get"],
            &["schedule", "describe", "of-amazon"],
            &["restore", "get", "--location", "amazon"],
        ] {
            let words = [words, &["-o", format]].concat();
            let run = witness.run(call(&words), &[]);
            assert!(!run.stdout.is_empty(), "{words:?} {}", run.stderr);
        }
    }
    for location in [
        "amazon",
        "google",
        "wrong",
        "away",
        "garbled",
        "of-another",
        "foreign",
    ] {
        witness.run(call(&["location", "check", location]), &[0, 1]);
    }
    witness.run(
        call(&["doctor", "--bundle", "bundle.json", "--location", "amazon"]),
        &[0, 1],
    );
    witness.run(
        call(&["delete", "of-amazon", "--yes", "--location", "amazon"]),
        &[],
    );
    witness.reads(home.path());

    let mut metrics = Endpoint::plain(format!("http://{address}")).client();
    for path in ["/metrics", "/healthz", "/readyz", "/"] {
        let answer = metrics.get(path).unwrap();
        assert!(path != "/metrics" || answer.text().contains("velero_backup_success_total"));
        witness.hears(path, answer.text());
    }
    objects(&served, &mut witness);
    let log = served.log();
    assert!(log.contains("of-amazon"), "{log}");
    witness.hears("the controller's log", log);
    for file in ["cmdline", "environ"] {
        let read = fs::read(format!("/proc/{pid}/{file}")).unwrap();
        assert!(!read.is_empty());
        witness.hears(format!("{file} of the controller"), read);
    }
    witness.reads(served.home.path());
    for key in minio.list(&served.bucket, "") {
        witness.hears(key.clone(), minio.get(&served.bucket, &key).to_vec());
    }
    for key in gcs.list("secrets", "") {
        witness.hears(key.clone(), gcs.get("secrets", &key).to_vec());
    }
    if let Some(azurite) = &azurite {
        for key in azurite.list("secrets", "") {
            witness.hears(key.clone(), azurite.get("secrets", &key).to_vec());
        }
    }
    for token in gcs.bearers() {
        witness.keeps("a token", &token);
    }
    witness.was_told_nothing();
}
