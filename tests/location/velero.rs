//! A cluster whose Velero has locations already: they are used as they stand, with nothing configured here.

use std::time::Duration;

use harness::cluster::{Cluster, Controllers};
use harness::process::Folder;
use harness::run::{Backup, kubectl_backup};
use harness::store::Minio;
use harness::velero::Velero;
use serde_json::json;

use crate::many::renamed;

/// The keys of a store as Velero's installation has them, and more locations, one of them with all of its Secrets.
fn install(cluster: &Cluster, plain: &Minio, secure: &Minio) {
    let keys = |minio: &Minio| std::fs::read_to_string(minio.credentials_file()).unwrap();
    let secret = |name: &str, data: serde_json::Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "velero"}, "stringData": data});
    let location = |name: &str, spec: serde_json::Value| json!({"apiVersion": "velero.io/v1", "kind": "BackupStorageLocation", "metadata": {"name": name, "namespace": "velero"}, "spec": spec});
    let config = |url: &str| json!({"region": "us-east-1", "s3ForcePathStyle": "true", "s3Url": url, "checksumAlgorithm": ""});
    let all = json!({"apiVersion": "v1", "kind": "List", "items": [
        secret("cloud-credentials", json!({"cloud": keys(plain)})),
        secret("secure", json!({"keys": keys(secure), "ca.crt": secure.ca_pem().unwrap()})),
        location("secure", json!({
            "provider": "velero.io/aws",
            "objectStorage": {"bucket": secure.bucket("installed"), "caCertRef": {"name": "secure", "key": "ca.crt"}},
            "credential": {"name": "secure", "key": "keys"},
            "config": config(secure.endpoint()),
        })),
        location("inside", json!({
            "provider": "aws",
            "objectStorage": {"bucket": "b"},
            "config": config("http://minio.absent.svc:9000"),
        })),
        location("public", json!({
            "provider": "aws",
            "objectStorage": {"bucket": plain.bucket("installed")},
            "config": {
                "region": "us-east-1", "s3ForcePathStyle": "true", "checksumAlgorithm": "",
                "s3Url": "http://minio.absent.svc:9000", "publicUrl": plain.endpoint(),
            },
        })),
        location("elsewhere", json!({"provider": "gcp", "objectStorage": {"bucket": "b"}})),
        location("half", json!({
            "provider": "aws",
            "objectStorage": {"bucket": "b"},
            "credential": {"name": "secure", "key": "absent"},
            "config": config(plain.endpoint()),
        })),
    ]});
    cluster.apply(&all.to_string());
}

const RIGHTS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: looks, namespace: velero}
rules: [{apiGroups: [velero.io], resources: [backupstoragelocations], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: looks, namespace: velero}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: looks}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: looks-only}]
";

/// A second cluster, whose Velero has the same bucket: each cluster's own backups are meant, though the other one's are newer.
fn share(one: &Cluster, velero: &Velero<'_>, plain: &Minio, secure: &Minio, bucket: &str) {
    let two = Cluster::builder()
        .controllers(Controllers::NAMESPACES)
        .start();
    let second = Velero::start(&two, plain, bucket, "p", &[], None);
    install(&two, plain, secure);
    let hourly = "velero.io/schedule-name=hourly";
    let flags = ["--include-namespaces", "default", "--labels", hourly];
    velero.back_up("of-one", &flags);
    second.back_up("of-two", &flags);
    velero.sync("of-two");
    second.sync("of-one");
    let home = Folder::new("home");
    let files = [(one, "one"), (&two, "two")].map(|(cluster, name)| {
        let content = renamed(cluster.kubeconfig(), name);
        home.write(format!("{name}.kubeconfig"), content)
    });
    let kubeconfig = std::env::join_paths(&files).unwrap();
    let restore = |arguments: &[&str]| {
        kubectl_backup(&[&["restore", "create", "--dry-run=client"], arguments].concat())
            .home(home.path())
            .env("KUBECONFIG", &kubeconfig)
    };
    let newest = |context: &str| {
        let run = restore(&["--from-schedule", "hourly", "--context", context]).ok();
        run.stderr
    };
    for name in ["one", "two"] {
        let told = newest(name);
        assert!(told.contains(&format!("is of-{name} of")), "{told}");
        assert!(told.contains("own count"), "{told}");
    }
    let listed = kubectl_backup(&["get", "--contexts", "one,two", "-o", "name"])
        .home(home.path())
        .env("KUBECONFIG", &kubeconfig)
        .ok();
    let listed: Vec<_> = listed.stdout.lines().collect();
    for (name, other) in [("one", "two"), ("two", "one")] {
        let line = |of: &str| format!("{name}/backup/of-{of}");
        assert!(listed.contains(&line(name).as_str()), "{listed:?}");
        assert!(!listed.contains(&line(other).as_str()), "{listed:?}");
    }
    let many = ["--from-backup", "of-two", "--contexts", "one,two"];
    let refused = restore(&many).code(1).stderr;
    assert!(
        refused.contains("one: error") && refused.contains("is of another cluster"),
        "{refused}"
    );
    assert!(!refused.contains("two: error"), "{refused}");
    second
        .cli(&["backup", "delete", "of-two", "--confirm"])
        .ok();
    let gone = || {
        plain
            .try_get(bucket, "p/backups/of-two/velero-backup.json")
            .is_none()
    };
    harness::wait_for("the deletion", Duration::from_secs(120), || {
        gone().then_some(())
    });
    let told = newest("two");
    assert!(
        told.contains("warning: this cluster has no backup") && told.contains("is of-one of"),
        "{told}"
    );
}

#[test]
fn the_locations_of_an_installed_velero_are_used_as_they_stand() {
    let (plain, secure) = (Minio::shared(), Minio::start_tls());
    let cluster = Cluster::builder()
        .controllers(Controllers::NAMESPACES)
        .start();
    let bucket = plain.bucket("installed");
    let velero = Velero::start(&cluster, plain, bucket, "p", &[], None);
    install(&cluster, plain, &secure);
    let namespace = cluster.create_namespace("app");
    velero.back_up("theirs", &["--include-namespaces", &namespace]);
    let home = Folder::new("home");
    let run = |arguments: &[&str]| {
        kubectl_backup(arguments)
            .home(home.path())
            .kubeconfig(cluster.kubeconfig())
    };
    let told = |call: Backup, code: i32, says: &[&str]| {
        let run = call.code(code);
        for word in says {
            assert!(
                run.stderr.contains(word),
                "{word}\n{}\n{}",
                run.stdout,
                run.stderr
            );
        }
        for minio in [plain, &secure] {
            let secret = minio.secret_key();
            assert!(!run.stderr.contains(secret) && !run.stdout.contains(secret));
        }
        run
    };

    let listed = told(run(&["get"]), 0, &[]).stdout;
    assert!(
        listed.contains("theirs") && listed.contains("Completed"),
        "{listed}"
    );
    let made = told(
        run(&["create", "ours", "-n", &namespace]),
        0,
        &["s3://installed/p"],
    );
    assert!(made.stdout.contains("backup/ours"), "{}", made.stdout);
    let keys = plain.list(bucket, "p");
    assert!(
        keys.iter()
            .any(|key| key == "p/backups/ours/velero-backup.json"),
        "{keys:?}"
    );
    // Shared with Velero, it belongs to nobody alone.
    assert!(
        !keys.iter().any(|key| key.contains(".kubectl-backup.json")),
        "{keys:?}"
    );
    velero.sync("ours");
    velero.cli(&["backup", "describe", "ours"]).ok();
    told(
        run(&["location", "adopt", "default", "--yes"]),
        1,
        &["Velero's"],
    );

    // Velero deletes what is expired, whatever `prune` promises; whose a backup is that no guard keeps, somebody has to read.
    let label = "velero.io/schedule-name=daily";
    let daily = ["create", "daily", "-n", &namespace, "--labels", label];
    told(run(&daily), 0, &["warning: Velero", "--ttl never"]);
    let key = "p/backups/daily/velero-backup.json";
    let uid = &cluster.get_raw("/api/v1/namespaces/kube-system")["metadata"]["uid"];
    let marker = String::from_utf8(plain.get(bucket, key).to_vec()).unwrap();
    plain.put(
        bucket,
        key,
        marker.replace(uid.as_str().unwrap(), "another-uid"),
    );
    let delete = ["delete", "daily", "--yes"];
    told(run(&delete), 1, &["is of cluster", "--force"]);
    let dry = told(
        run(&["delete", "daily", "--dry-run"]),
        0,
        &["is of cluster"],
    )
    .stdout;
    assert!(dry.contains("backup/daily"), "{dry}");
    assert!(plain.try_get(bucket, key).is_some());
    let newest = [
        "restore",
        "create",
        "--from-schedule",
        "daily",
        "--dry-run=client",
    ];
    told(
        run(&newest),
        0,
        &["warning: this cluster has no backup of schedule daily"],
    );
    told(run(&[&delete[..], &["--force"]].concat()), 0, &[]);
    assert!(plain.try_get(bucket, key).is_none());

    share(&cluster, &velero, plain, &secure, bucket);

    let table = told(run(&["location", "get"]), 0, &[]).stdout;
    let row = table
        .lines()
        .find(|row| row.starts_with("default "))
        .unwrap();
    assert!(
        row.contains("true") && row.contains("namespace velero"),
        "{table}"
    );
    let yaml = told(run(&["location", "get", "secure", "-o", "yaml"]), 0, &[]).stdout;
    assert!(
        yaml.contains("caCertRef") && yaml.contains("namespace: velero"),
        "{yaml}"
    );
    told(run(&["location", "check", "secure"]), 0, &[]);
    told(
        run(&["create", "s", "-n", &namespace, "--location", "secure"]),
        0,
        &[],
    );
    assert!(
        secure
            .try_get("installed", "backups/s/velero-backup.json")
            .is_some()
    );
    told(
        run(&["get", "--location", "inside"]),
        1,
        &["minio.absent.svc", "publicUrl"],
    );
    told(run(&["location", "check", "public"]), 0, &[]);
    told(
        run(&["get", "--location", "elsewhere"]),
        1,
        &["velero/cloud-credentials is no credentials file of Google"],
    );
    told(
        run(&["get", "--location", "half"]),
        1,
        &["no key \"absent\"", "spec.credential"],
    );
    told(
        run(&["get", "--location", "absent"]),
        1,
        &["there are: default"],
    );
    told(
        run(&[
            "get",
            "--velero-namespace",
            "default",
            "--location",
            "secure",
        ]),
        1,
        &["namespace default"],
    );
    // A mistyped namespace sends nobody's backup to a folder of this machine.
    let mistyped = [
        "create",
        "lost",
        "-n",
        &namespace,
        "--velero-namespace",
        "vlero",
    ];
    let says = "namespace vlero holds no BackupStorageLocation";
    told(run(&mistyped), 1, &[says]);

    // What this user's own file says comes first; what it does not name is looked up in the cluster.
    let folder = home.join("own").display().to_string();
    let mine = [
        "location",
        "create",
        "mine",
        "--provider",
        "local",
        "--default",
        "--bucket",
        &folder,
    ];
    told(run(&mine), 0, &[]);
    told(run(&["create", "own", "-n", &namespace]), 0, &["file://"]);
    let listed = told(run(&["get"]), 0, &[]).stdout;
    assert!(
        listed.contains("own") && !listed.contains("theirs"),
        "{listed}"
    );
    told(
        run(&["describe", "theirs", "--location", "default"]),
        0,
        &[],
    );
    told(
        run(&["location", "delete", "mine", "--yes"]),
        0,
        &["was used where none is named"],
    );

    cluster.apply(RIGHTS);
    let looks = cluster.user("looks-only", &[]);
    let missing = [
        "`get` secrets in namespace velero",
        "cloud-credentials",
        "--credentials-file",
    ];
    told(run(&["get"]).kubeconfig(&looks), 1, &missing);
    let file = plain.credentials_file().to_str().unwrap();
    let given = told(
        run(&["get", "--credentials-file", file]).kubeconfig(&looks),
        0,
        &[],
    );
    assert!(given.stdout.contains("theirs"), "{}", given.stdout);
    // The variable is this user's for a place of his own: Velero's Secret comes before it, and it goes to no address that an object names.
    let wrong = home.write(
        "wrong",
        "[default]\naws_access_key_id=a\naws_secret_access_key=b\n",
    );
    let wrong = wrong.to_str().unwrap();
    let variable = "KUBECTL_BACKUP_CREDENTIALS_FILE";
    told(run(&["get"]).env(variable, wrong), 0, &[]);
    told(
        run(&["get"]).env(variable, file).kubeconfig(&looks),
        1,
        &missing,
    );
    told(run(&["get", "--credentials-file", wrong]), 1, &[]);
    let blind = cluster.user("sees-nothing", &[]);
    told(
        run(&["get"]).kubeconfig(&blind),
        0,
        &["can not list BackupStorageLocations"],
    );
    told(
        run(&["create", "-n", &namespace]).kubeconfig(&blind),
        1,
        &["`list` backupstoragelocations"],
    );

    // Read-only, as on the cluster that a disaster is rehearsed on.
    let patch = r#"{"spec":{"accessMode":"ReadOnly"}}"#;
    cluster.kubectl(&[
        "patch",
        "bsl",
        "default",
        "-n",
        "velero",
        "--type=merge",
        "-p",
        patch,
    ]);
    for arguments in [
        &["create", "-n", &namespace][..],
        &["delete", "ours", "--yes"],
        &["prune", "--yes"],
    ] {
        told(run(arguments), 1, &["read-only"]);
    }
    let checked = told(run(&["location", "check"]), 0, &["accessMode"]).stdout;
    assert!(checked.contains("read-only"), "{checked}");
    let doctor = told(run(&["doctor"]), 1, &[]).stdout;
    assert!(doctor.contains("read-only"), "{doctor}");
    let mapping = format!("{namespace}:{namespace}-copy");
    let before = plain.list(bucket, "p");
    let restore = [
        "restore",
        "create",
        "r",
        "--from-backup",
        "theirs",
        "--namespace-mappings",
        &mapping,
    ];
    told(run(&restore), 0, &[]);
    cluster.kubectl(&["get", "namespace", &format!("{namespace}-copy")]);
    assert_eq!(plain.list(bucket, "p"), before);
}
