//! Google at its own address, which is reached through a proxy of the network: no setting names a store, and only there addresses can be signed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use harness::gcs::Gcs;
use harness::run::Backup;
use harness::served::{NAMESPACE, Served};
use serde_json::json;

use crate::place::{gunzip, on};

#[test]
fn google_at_its_own_address_is_used_through_a_proxy_and_signs_addresses_that_nobody_can_alter() {
    let gcs = Gcs::start();
    let google = gcs.itself();
    let bucket = gcs.bucket("at-google");
    let mut served = Served::without_controller("google-itself");
    let through = |call: Backup| {
        call.env("HTTPS_PROXY", google.proxy())
            .env("NO_PROXY", "127.0.0.1")
    };
    let namespace = served.cluster.create_namespace("google");
    let call = |location: &str, arguments: &[&str]| {
        through(on(&served.cluster, location, arguments))
            .env("KUBECTL_BACKUP_CREDENTIALS_FILE", gcs.credentials_file())
            .env("KUBECTL_BACKUP_CACERT", google.ca_file())
    };
    let location = format!("gs://{bucket}/x");
    call(&location, &["location", "check"]).ok();
    call(&location, &["create", "b", "-n", &namespace]).ok();
    call(&location, &["verify", "b"]).ok();
    assert!(google.tunnels() >= 3, "{}", google.tunnels());
    let told = call("gs://nowhere/x", &["get"]).code(1).stderr;
    for word in [
        "NoSuchBucket",
        "\"nowhere\" of Google Cloud",
        "objectStorage.bucket",
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
    // Without its authority, nobody takes this one for Google.
    let told = call(&location, &["get"])
        .env_remove("KUBECTL_BACKUP_CACERT")
        .code(1)
        .stderr;
    assert!(told.contains("--cacert"), "{told}");

    served.controller = Some(through(served.call(&[])).spawn());
    served.cluster_has_kinds();
    served.secret("google", &gcs.credentials_file());
    let ca = STANDARD.encode(std::fs::read(google.ca_file()).unwrap());
    let spec = json!({
        "provider": "gcp", "objectStorage": {"bucket": bucket, "prefix": "main", "caCert": ca},
        "credential": {"name": "google", "key": "cloud"},
    });
    let apply = |kind: &str, name: &str, spec: serde_json::Value| {
        let object = json!({
            "apiVersion": "velero.io/v1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
        });
        served.apply(&object.to_string());
    };
    apply("BackupStorageLocation", "google", spec);
    served.wait("backupstoragelocations/google", "available", |object| {
        object["status"]["phase"] == "Available"
    });
    served.backed_up("of-google", "google");
    let target = json!({"target": {"kind": "BackupLog", "name": "of-google"}});
    apply("DownloadRequest", "log", target);
    let request = served.wait("downloadrequests/log", "answered", |object| {
        object["status"]["phase"] == "Processed"
    });
    let url = request["status"]["downloadURL"].as_str().unwrap();
    let place = "https://storage.googleapis.com";
    let target = url.strip_prefix(place).unwrap_or_else(|| panic!("{url}"));
    let key = "main/backups/of-google/of-google-logs.gz";
    assert!(target.starts_with(&format!("/{bucket}/{key}?")), "{url}");
    let read = |target: &str| gcs.upstream().client().get(target).unwrap();
    let log = read(target);
    assert_eq!(log.status, 200, "{}", log.text());
    assert!(gunzip(&log.body).contains("level=info"));
    for altered in [
        target.replace("of-google-logs.gz", "of-google.tar.gz"),
        target.replace("X-Goog-Expires=600", "X-Goog-Expires=6000"),
        target.split_once('?').unwrap().0.to_owned(),
    ] {
        assert_ne!(altered, target);
        assert_eq!(read(&altered).status, 401, "{altered}");
    }
}
