//! Backups in S3 stores: through TLS, with the disk out of reach, and while the store fails.

use harness::cluster::Cluster;
use harness::http_client::Endpoint;
use harness::process::Folder;
use harness::proxy::{Action, Match, Proxy};
use harness::run::kubectl_backup;
use harness::store::{KMS_KEY, Minio};
use http::Method;

use crate::place::on;

#[test]
fn a_backup_needs_no_disk_at_all() {
    let (cluster, minio) = (Cluster::shared(), Minio::shared());
    let namespace = cluster.create_namespace("diskless");
    harness::load::Load {
        prefix: namespace.clone(),
        config_maps: 300,
        config_map_bytes: 30_000,
        half_random: true,
        ..Default::default()
    }
    .fill(&cluster.endpoint());
    let location = format!(
        "s3://{}/x?endpoint={}",
        minio.bucket("diskless"),
        minio.endpoint()
    );
    let program = harness::tools::plugin();
    // A file size limit of 0 ends any process that writes to a file with SIGXFSZ. The root is made read-only in a mount namespace of its own.
    let limited = format!(
        "exec unshare --mount --map-root-user sh -c 'mount --make-rprivate / && for m in $(cut -d\" \" -f2 /proc/mounts | sort -r); do mount -o remount,bind,ro $m 2>/dev/null || true; done; touch /tmp/x 2>/dev/null && exit 99; ulimit -f 0; exec {} create b --include-namespaces {namespace}-000'",
        program.display()
    );
    let run = harness::run::program("sh", &["-c", &limited])
        .kubeconfig(cluster.kubeconfig())
        .credentials_of(minio)
        .env("KUBECTL_BACKUP_LOCATION", &location)
        .run();
    if run.stderr.contains("unshare") {
        harness::skip::report(&format!(
            "this machine allows no mount namespaces: {}",
            run.stderr.trim()
        ));
        return;
    }
    run.ok();
    on(cluster, &location, &["verify", "b"])
        .credentials_of(minio)
        .ok();
}

#[test]
fn a_store_with_a_ca_of_its_own_works_through_a_stored_location() {
    let cluster = Cluster::shared();
    let minio = Minio::start_tls();
    let bucket = minio.bucket("secure");
    let namespace = cluster.create_namespace("secure");
    let home = Folder::new("home");
    let config = format!(
        "region=us-east-1,s3ForcePathStyle=true,s3Url={}",
        minio.endpoint()
    );
    let run = |arguments: &[&str]| {
        kubectl_backup(arguments)
            .home(home.path())
            .kubeconfig(cluster.kubeconfig())
    };
    let credentials = minio.credentials_file().to_str().unwrap();
    let ca = minio.ca_file().unwrap().to_str().unwrap();
    run(&[
        "location",
        "create",
        "s",
        "--provider",
        "aws",
        "--bucket",
        bucket,
        "--prefix",
        "p",
        "--config",
        &config,
    ])
    .args(&[
        "--credentials-file",
        credentials,
        "--cacert",
        ca,
        "--default",
    ])
    .ok();
    run(&["location", "check", "s"]).ok();
    run(&["create", "b", "-n", &namespace]).ok();
    run(&["verify", "b"]).ok();
    assert!(
        minio
            .list(bucket, "p/backups/b/")
            .iter()
            .any(|key| key.ends_with("velero-backup.json"))
    );
    // Without its CA, only who asks for no proof is let in.
    let bare = |name: &str, more: &str| {
        let config = format!("{config}{more}");
        run(&[
            "location",
            "create",
            name,
            "--provider",
            "aws",
            "--bucket",
            bucket,
        ])
        .args(&[
            "--prefix",
            "p",
            "--config",
            &config,
            "--credentials-file",
            credentials,
        ])
        .ok();
        run(&["location", "check", name])
    };
    let refused = bare("unproven", "").code(1);
    let told = format!("{}{}", refused.stdout, refused.stderr);
    assert!(told.contains("caCert"), "{told}");
    bare("trusting", ",insecureSkipTLSVerify=true").ok();
    let listed = run(&["location", "get"]).ok().stdout;
    assert!(
        listed.contains('s') && !listed.contains(minio.secret_key()),
        "{listed}"
    );
    let shown = run(&["location", "get", "s", "-o", "yaml"]).ok().stdout;
    assert!(
        shown.contains("kind: BackupStorageLocation") && !shown.contains(minio.secret_key()),
        "{shown}"
    );
}

#[test]
fn objects_are_tagged_and_encrypted_by_the_key_that_a_location_names() {
    let (cluster, minio) = (Cluster::shared(), Minio::shared());
    let bucket = minio.bucket("tagged");
    let namespace = cluster.create_namespace("tagged");
    let home = Folder::new("home");
    let run = |arguments: &[&str]| {
        kubectl_backup(arguments)
            .home(home.path())
            .kubeconfig(cluster.kubeconfig())
    };
    let config = format!(
        "region=us-east-1,s3Url={},kmsKeyId={KMS_KEY},tagging=team=shop&cost%20center=7",
        minio.endpoint()
    );
    run(&[
        "location",
        "create",
        "t",
        "--provider=aws",
        "--default",
        "--bucket",
        bucket,
    ])
    .args(&["--config", &config, "--credentials-file"])
    .arg(minio.credentials_file())
    .ok();
    run(&["location", "check"]).ok();
    run(&["create", "b", "-n", &namespace]).ok();
    run(&["verify", "b"]).ok();
    let keys = minio.list(bucket, "backups/b");
    assert!(keys.len() > 3, "{keys:?}");
    for key in keys {
        let path = format!("/{bucket}/{key}");
        let head = minio.signed(Method::HEAD, &path, "s3", "", &[]);
        let header = |name: &str| head.headers[name].to_str().unwrap().to_owned();
        assert_eq!(header("x-amz-server-side-encryption"), "aws:kms", "{key}");
        let id = header("x-amz-server-side-encryption-aws-kms-key-id");
        assert!(id.ends_with(KMS_KEY), "{key}: {id}");
        let tags = minio.signed(Method::GET, &format!("{path}?tagging="), "s3", "", &[]);
        let tags = tags.text();
        assert!(
            tags.contains("<Key>team</Key><Value>shop</Value>")
                && tags.contains("<Key>cost center</Key><Value>7</Value>"),
            "{key}: {tags}"
        );
    }
}

#[test]
fn a_store_that_fails_for_a_while_is_waited_for_and_one_that_stays_away_leaves_nothing() {
    let (cluster, minio) = (Cluster::shared(), Minio::shared());
    let bucket = minio.bucket("flaky");
    let namespace = cluster.create_namespace("flaky");
    let proxy = Proxy::start(&Endpoint::plain(minio.endpoint()));
    let location = format!("s3://{bucket}/x?endpoint={}", proxy.url());
    let create = |name: &str| {
        on(cluster, &location, &["create", name, "-n", &namespace])
            .credentials_of(minio)
            .env("AWS_ENDPOINT_URL", proxy.url())
    };
    for nth in [1, 3, 5] {
        proxy.nth(
            nth,
            Match::method("PUT"),
            Action::status(503, "<Error><Code>SlowDown</Code></Error>"),
        );
        proxy.nth(nth + 1, Match::any(), Action::Cut);
    }
    create("patient").ok();
    proxy.clear_rules();
    proxy.every(
        Match::method("PUT").and_path("tar.gz"),
        Action::status(
            403,
            "<Error><Code>AccessDenied</Code><Message>no</Message></Error>",
        ),
    );
    let run = create("hopeless").code(1);
    assert!(run.stderr.contains("hopeless.tar.gz"), "{}", run.stderr);
    proxy.clear_rules();
    assert_eq!(
        minio.list(bucket, "x/backups/hopeless/"),
        Vec::<String>::new()
    );
    create("hopeless").ok();
    on(cluster, &location, &["verify", "patient"])
        .credentials_of(minio)
        .ok();
}

#[test]
fn an_api_server_under_load_is_obeyed() {
    let place = crate::place::Place::new();
    let namespace = place.cluster.create_namespace("busy");
    let proxy = Proxy::start(&place.cluster.endpoint());
    for nth in [2, 5, 9, 14, 20] {
        let slow = Action::Status(
            429,
            vec![("retry-after".to_owned(), "1".to_owned())],
            r#"{"kind":"Status","code":429,"reason":"TooManyRequests","message":"slow down"}"#
                .into(),
        );
        proxy.nth(nth, Match::method("GET"), slow);
    }
    proxy.nth(25, Match::method("GET"), Action::Cut);
    proxy.nth(28, Match::method("GET"), Action::CutBody(100));
    let through = place.cluster.token_kubeconfig(&proxy.url());
    place
        .run(&["create", "b", "-n", &namespace])
        .kubeconfig(&through)
        .ok();
    assert_eq!(place.marker("b")["status"]["phase"], "Completed");
    assert!(proxy.calls().iter().any(|call| call.status == Some(429)));
}
