//! The launcher copies itself to where nothing else is: an image of etcd has no shell and no libraries.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use harness::etcd::Etcd;
use harness::process::{Folder, Output};
use harness::run::program;
use harness::store::Minio;
use harness::tools;

/// Runs a program with a folder as its root, in which there is nothing but what was put there.
fn alone(root: &Path, arguments: &[&str]) -> Output {
    let root = root.display().to_string();
    let before = ["--user", "--map-root-user", "--root", &root];
    program("unshare", &[&before, arguments].concat()).run()
}

#[test]
fn the_launcher_installs_itself_into_an_empty_root_and_runs_there() {
    let static_launcher = tools::static_launcher();
    let needs = Output::of(Command::new("ldd").arg(&static_launcher));
    let needs = needs.stdout + &needs.stderr;
    assert!(
        needs.contains("statically linked") || needs.contains("not a dynamic executable"),
        "{needs}"
    );
    // As an image has it: the launcher, and an etcdutl that it carries along.
    let image = Folder::new("image");
    let root = Folder::new("root");
    fs::copy(&static_launcher, image.join("etcd-launcher")).unwrap();
    fs::copy(tools::path("etcdutl"), image.join("etcdutl-3.6")).unwrap();
    image.write("something-else", "not carried along");
    let install = |into: &str| {
        program(
            &image.join("etcd-launcher").display().to_string(),
            &["install", &root.join(into).display().to_string()],
        )
        .ok()
    };
    let run = install("launcher");
    assert_eq!(run.stdout.lines().count(), 2, "{}", run.stdout);
    let installed = |name: &str| root.join("launcher").join(name);
    for (name, from) in [
        ("etcd-launcher", "etcd-launcher"),
        ("etcdutl-3.6", "etcdutl-3.6"),
    ] {
        assert!(
            run.stdout
                .contains(&format!("{} installed", installed(name).display()))
        );
        assert_eq!(
            fs::read(installed(name)).unwrap(),
            fs::read(image.join(from)).unwrap()
        );
        let mode = fs::metadata(installed(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "another user runs it");
    }
    assert_eq!(fs::read_dir(root.join("launcher")).unwrap().count(), 2);

    // Once more, over what is there: as when a pod is started again.
    install("launcher");
    assert_eq!(fs::read_dir(root.join("launcher")).unwrap().count(), 2);

    if alone(root.path(), &["/launcher/etcd-launcher", "version"])
        .stderr
        .contains("unshare failed")
    {
        harness::skip!("user namespaces are not allowed here");
    }
    let version = alone(root.path(), &["/launcher/etcd-launcher", "version"]).ok();
    assert!(
        version.stdout.contains(env!("CARGO_PKG_VERSION")),
        "{}",
        version.stdout
    );
    let carried = alone(root.path(), &["/launcher/etcdutl-3.6", "version"]).ok();
    assert!(
        carried.stdout.contains("etcdutl version: 3.6"),
        "{}",
        carried.stdout
    );
}

#[test]
fn an_installation_that_can_not_be_made_leaves_nothing_half_done() {
    let launcher = tools::static_launcher().display().to_string();
    let folder = Folder::new("full");
    let blocked = folder.write("file", "not a folder");
    let refused = program(&launcher, &["install", &blocked.display().to_string()]).code(1);
    assert!(
        refused.stderr.contains(&blocked.display().to_string()),
        "{}",
        refused.stderr
    );
    program(&launcher, &["install"]).code(2);
    // A folder stands where the program should go.
    fs::create_dir_all(folder.join("into/etcd-launcher/x")).unwrap();
    let into = folder.join("into").display().to_string();
    let refused = program(&launcher, &["install", &into]).code(1);
    assert!(
        refused.stderr.contains("can not copy"),
        "{}",
        refused.stderr
    );
    assert_eq!(fs::read_dir(folder.join("into")).unwrap().count(), 1);
}

#[test]
fn where_there_are_no_certificates_a_snapshot_goes_to_a_store_that_asks_for_none() {
    let root = Folder::new("root");
    let launcher = tools::static_launcher().display().to_string();
    program(
        &launcher,
        &["install", &root.join("bin").display().to_string()],
    )
    .ok();
    // A pod has a /dev, and this root has as much of it as is needed.
    let mut noise = [0; 4096];
    File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut noise)
        .unwrap();
    for name in ["dev/random", "dev/urandom"] {
        root.write(name, noise);
    }
    let etcd = Etcd::start();
    let written = etcd.put("/registry/a", "1");
    let minio = Minio::start();
    let bucket = minio.bucket("snapshots");
    let call = |url: &str| {
        let inside = root.path().display().to_string();
        let arguments = [
            "--user",
            "--map-root-user",
            "--root",
            &inside,
            "/bin/etcd-launcher",
            "snapshot",
            url,
            "--endpoints",
            etcd.endpoint(),
            "-o",
            "json",
        ];
        program("unshare", &arguments).credentials_of(&minio).run()
    };
    let taken = call(&format!("s3://{bucket}/a.db?endpoint={}", minio.endpoint()));
    if taken.stderr.contains("unshare failed") {
        harness::skip!("user namespaces are not allowed here");
    }
    assert_eq!(taken.ok().json()["facts"]["revision"], written);
    assert!(minio.try_get(bucket, "a.db").is_some());
    // Where some are needed it is said what to do.
    let refused = call("s3://b/a.db?endpoint=https://127.0.0.1:1").code(1);
    assert!(
        refused.stderr.contains("SSL_CERT_FILE") && refused.stderr.contains("caCert"),
        "{}",
        refused.stderr
    );
}
