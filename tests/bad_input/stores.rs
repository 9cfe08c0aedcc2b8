//! Stores that can not be used.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use harness::cluster::Cluster;
use harness::process::Folder;
use harness::run::kubectl_backup;
use harness::store::Minio;

use crate::place::{Place, on};

#[test]
fn an_unknown_location_is_named_with_those_there_are() {
    let place = Place::new();
    let run = place
        .run(&["get", "--location", "nowhere"])
        .env_remove("KUBECTL_BACKUP_LOCATION")
        .code(1);
    assert!(
        run.stderr.contains("nowhere") && run.stderr.contains("location"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_missing_bucket_wrong_keys_and_a_dead_endpoint_each_name_the_setting() {
    let (cluster, minio) = (Cluster::shared(), Minio::shared());
    let missing = format!("s3://no-such-bucket/x?endpoint={}", minio.endpoint());
    let run = on(cluster, &missing, &["create", "b"])
        .credentials_of(minio)
        .code(1);
    assert!(run.stderr.contains("no-such-bucket"), "{}", run.stderr);
    let location = format!(
        "s3://{}/x?endpoint={}",
        minio.bucket("keys"),
        minio.endpoint()
    );
    let run = on(cluster, &location, &["create", "b"])
        .credentials_of(minio)
        .env("AWS_SECRET_ACCESS_KEY", "wrong")
        .code(1);
    assert!(
        run.stderr.contains("hint:") && run.stderr.to_lowercase().contains("secret"),
        "{}",
        run.stderr
    );
    assert!(!run.stderr.contains(minio.secret_key()));
    let dead = "s3://bucket/x?endpoint=http://127.0.0.1:1";
    let run = on(cluster, dead, &["get"])
        .credentials_of(minio)
        .env_remove("AWS_ENDPOINT_URL")
        .code(1);
    assert!(run.stderr.contains("127.0.0.1:1"), "{}", run.stderr);
}

#[test]
fn a_store_of_an_unknown_ca_is_refused_with_the_flag_that_helps() {
    let minio = Minio::start_tls();
    let location = format!(
        "s3://{}/x?endpoint={}",
        minio.bucket("tls"),
        minio.endpoint()
    );
    let run = on(Cluster::shared(), &location, &["get"])
        .credentials_of(&minio)
        .env_remove("AWS_CA_BUNDLE")
        .code(1);
    assert!(
        run.stderr.contains("cacert") || run.stderr.contains("caCert"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_folder_that_can_not_be_written_is_named() {
    let place = Place::new();
    let file = place.folder.write("a-file", "not a folder");
    let run = on(
        place.cluster,
        &format!("file://{}", file.display()),
        &["create", "b"],
    )
    .code(1);
    assert!(run.stderr.contains("a-file"), "{}", run.stderr);
    let closed = place.folder.join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, Permissions::from_mode(0o555)).unwrap();
    // Root may write to any folder of a disk, and nobody to those of the kernel.
    let closed = match std::fs::write(closed.join("probe"), "") {
        Ok(()) => PathBuf::from("/sys/kernel"),
        Err(_) => closed,
    };
    let run = on(
        place.cluster,
        &format!("file://{}", closed.display()),
        &["create", "b"],
    )
    .code(1);
    let name = closed.display().to_string();
    assert!(run.stderr.contains(&name), "{}", run.stderr);
}

#[test]
fn settings_of_a_location_that_are_unknown_or_unreadable_are_named() {
    let home = Folder::new("home");
    let run = |arguments: &[&str]| kubectl_backup(arguments).home(home.path());
    for (provider, setting, named) in [
        (
            "aws",
            &["--config", "s3url=http://127.0.0.1:9"][..],
            "s3url",
        ),
        (
            "aws",
            &["--credentials-file", "/absent/file"],
            "/absent/file",
        ),
        ("floppy", &[], "floppy"),
    ] {
        let create = ["location", "create", "x", "--bucket=b", "--provider"];
        let refused = run(&create).arg(provider).args(setting).run();
        assert!(
            [1, 2].contains(&refused.code) && refused.stderr.contains(named),
            "{}",
            refused.stderr
        );
    }
    assert!(
        run(&["location", "get"]).ok().stdout.is_empty()
            || !run(&["location", "get"]).ok().stdout.contains('x')
    );
}

#[test]
fn a_bucket_that_may_not_be_listed_is_refused_with_the_right_that_is_missing() {
    let (cluster, minio) = (Cluster::shared(), Minio::shared());
    let bucket = minio.bucket("unreadable");
    let user = minio.limited_user(
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:PutObject"],"Resource":["arn:aws:s3:::unreadable/*"]}]}"#,
    );
    let location = format!("s3://{bucket}/x?endpoint={}", minio.endpoint());
    let credentials = user.credentials_file.to_str().unwrap();
    for arguments in [&["create", "b"] as &[&str], &["get"]] {
        let run = on(cluster, &location, arguments)
            .args(&["--credentials-file", credentials])
            .code(1);
        assert!(
            run.stderr.contains("unreadable") && run.stderr.contains("hint:"),
            "{}",
            run.stderr
        );
        assert!(!run.stderr.contains(&user.secret_key), "{}", run.stderr);
    }
}
