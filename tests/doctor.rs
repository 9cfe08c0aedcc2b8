//! Whether a backup would succeed, told before it is needed.

use std::os::unix::fs::PermissionsExt;

use harness::process::Folder;
use harness::run::{kubectl_backup, program};
use harness::store::Minio;

use crate::place::{Place, bind, on};

#[test]
fn doctor_tells_what_a_backup_would_miss_and_what_would_keep_it_from_succeeding() {
    let place = Place::new();
    let cluster = place.cluster;
    let namespace = cluster.create_namespace("doctor");
    let result = |checks: &serde_json::Value, name: &str| {
        let all = checks["checks"].as_array().unwrap();
        let check = all.iter().find(|check| check["name"] == name);
        let check = check.unwrap_or_else(|| panic!("no check {name} in {checks}"));
        (
            check["result"].as_str().unwrap().to_owned(),
            check["detail"].as_str().unwrap().to_owned(),
        )
    };
    let new = place.run(&["doctor", "-o", "json"]).ok();
    assert!(new.stderr.contains("create"), "{}", new.stderr);
    let new = new.json();
    assert_eq!(new["kind"], "Doctor");
    for name in [
        "kubeconfig",
        "cluster",
        "identity",
        "rights",
        "location",
        "clock",
    ] {
        assert_eq!(result(&new, name).0, "ok", "{name}");
    }
    assert_eq!(result(&new, "newest backup").0, "warning");
    // Nothing is left of the look at the location.
    let folder = place.folder.path().display().to_string();
    let left = program("find", &[&folder, "-type", "f"]).ok().stdout;
    assert_eq!(left, "");
    place.run(&["create", "b", "-n", &namespace]).ok();
    let table = place.run(&["doctor"]).ok().stdout;
    let row = table.lines().find(|row| row.starts_with("newest backup"));
    assert!(
        row.is_some_and(|row| row.contains(" ok ") && row.contains(" b,")),
        "{table}"
    );

    let user = cluster.user("sees-little", &[]);
    let blind = place
        .run(&["doctor", "-o", "json"])
        .kubeconfig(&user)
        .ok()
        .json();
    assert_eq!(result(&blind, "identity").0, "warning");
    let (verdict, detail) = result(&blind, "rights");
    assert_eq!(verdict, "warning");
    assert!(
        detail.contains("configmaps") && detail.contains("more"),
        "{detail}"
    );

    let nowhere = place
        .run(&["doctor", "--server", "https://127.0.0.1:1", "-o", "json"])
        .code(1)
        .json();
    assert_eq!(result(&nowhere, "cluster").0, "failed");
    assert_eq!(result(&nowhere, "location").0, "ok");
    let folder = place.folder.path().to_str().unwrap();
    let archive = [
        &["location", "create", "archive", "--provider", "local"][..],
        &["--bucket", folder, "--access-mode", "ReadOnly"],
    ];
    let home = Folder::new("home");
    let run = |arguments: &[&str]| {
        kubectl_backup(arguments)
            .home(home.path())
            .kubeconfig(cluster.kubeconfig())
    };
    run(&archive.concat()).ok();
    let refused = run(&["doctor", "--location", "archive", "-o", "json"])
        .code(1)
        .json();
    let (verdict, detail) = result(&refused, "location: access");
    assert_eq!(verdict, "failed");
    assert!(detail.contains("read-only"), "{detail}");
    // Where files of volumes are copied by whom may be asked.
    let files = Folder::new("files");
    let copies = [
        &["location", "create", "files", "--provider", "local"][..],
        &["--bucket", files.path().to_str().unwrap()],
        &["--default-volumes-to-fs-backup"],
    ];
    run(&copies.concat()).ok();
    let asks = ["doctor", "--location", "files", "-o", "json"];
    let told = run(&asks).ok().json();
    let (verdict, detail) = result(&told, "mover image");
    assert_eq!(verdict, "ok");
    assert!(detail.contains("kubectl-backup:"), "{detail}");
    assert_eq!(result(&told, "mover rights").0, "ok");
    let blind = run(&asks).kubeconfig(&user).ok().json();
    let (verdict, detail) = result(&blind, "mover rights");
    assert_eq!(verdict, "warning");
    assert!(
        detail.contains("create pods/exec") && !detail.contains("ephemeral"),
        "{detail}"
    );
    let unwritable = on(cluster, "file:///proc/none", &["doctor", "-o", "json"])
        .code(1)
        .json();
    let failed = unwritable["checks"]
        .as_array()
        .unwrap()
        .iter()
        .any(|check| {
            check["result"] == "failed" && check["name"].as_str().unwrap().starts_with("location")
        });
    assert!(failed, "{unwritable}");
}

const CLAIM: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: NS}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: Secret
metadata: {name: token, namespace: NS}
stringData: {t: s3cr3t-of-the-cluster}
";

#[test]
fn the_bundle_holds_what_went_wrong_and_no_secret() {
    let (place, minio) = (Place::new(), Minio::shared());
    let cluster = place.cluster;
    let namespace = cluster.create_namespace("bundle");
    cluster.apply(&CLAIM.replace("NS", &namespace));
    let bucket = minio.bucket("bundle");
    let location = format!("s3://{bucket}/x?endpoint={}", minio.endpoint());
    let home = Folder::new("home");
    let run = |arguments: &[&str]| {
        on(cluster, &location, arguments)
            .credentials_of(minio)
            .home(home.path())
    };
    run(&["create", "good", "-n", &namespace]).ok();
    // A snapshot of a volume is asked for and can not be made yet.
    bind(cluster, &namespace, "data");
    run(&["create", "bad", "-n", &namespace, "--snapshot-volumes"]).code(3);
    run(&["doctor", "--bundle", "support.json"]).ok();
    let file = home.join("support.json");
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let bundle: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(bundle["kind"], "SupportBundle");
    assert_eq!(bundle["backups"].as_array().unwrap().len(), 2);
    assert_eq!(bundle["troubled"].as_array().unwrap().len(), 1);
    assert_eq!(bundle["troubled"][0]["backup"], "bad");
    assert!(
        bundle["troubled"][0]["results"]
            .to_string()
            .contains("data"),
        "{text}"
    );
    assert_eq!(bundle["missing"].as_array().unwrap().len(), 0, "{text}");
    // In the clear, and as a Secret holds it.
    for secret in [
        minio.secret_key(),
        "s3cr3t-of-the-cluster",
        "czNjcjN0LW9mLXRoZS1jbHVzdGVy",
        cluster.token(),
    ] {
        assert!(!text.contains(secret), "{secret} is in\n{text}");
    }
    // What exists is not replaced, and that is said before anything is looked at.
    for file in ["support.json", "none/support.json"] {
        let refused = run(&["doctor", "--bundle", file]).code(1);
        assert!(refused.stderr.contains(file), "{}", refused.stderr);
        assert_eq!(refused.stdout, "");
    }
    // A log that can not be read takes nothing else with it.
    minio.put(bucket, "x/backups/bad/bad-logs.gz", "no gzip");
    run(&["doctor", "--bundle", "again.json"]).ok();
    let text = std::fs::read_to_string(home.join("again.json")).unwrap();
    let again: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        again["troubled"][0]["results"],
        bundle["troubled"][0]["results"]
    );
    assert!(
        again["missing"][0].as_str().unwrap().contains("log"),
        "{text}"
    );
    let left = program("ls", &["-A", home.path().to_str().unwrap()]).ok();
    assert!(!left.stdout.contains(".part"), "{}", left.stdout);
}
