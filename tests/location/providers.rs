//! Every provider of buckets, through the program: what it is for from the first backup to the last, every way to sign in, and refusals that are told at once.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::azurite::{self, Azurite};
use harness::cluster::Cluster;
use harness::gcs::Gcs;
use harness::process::Folder;
use harness::proxy::{Action, Match, Proxy};
use harness::run::{Backup, kubectl_backup};
use harness::store::Minio;

/// Folders that a listing has to go through: more than fit one page of S3 and of Google.
const FOLDERS: usize = 1_100;

type PutAll = Box<dyn Fn(&[String])>;

/// A bucket, and how it is reached.
struct Bucket {
    /// What `location create` takes besides the name.
    create: Vec<String>,
    list: Box<dyn Fn() -> Vec<String>>,
    put_all: PutAll,
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Objects of one byte at these keys.
fn small(keys: &[String]) -> impl Iterator<Item = (String, String)> {
    keys.iter().map(|key| (key.clone(), "x".to_owned()))
}

/// From the first backup to the last: created, checked, listed past a page, verified, described, restored elsewhere, deleted.
fn serves(bucket: &Bucket, name: &str) {
    let cluster = Cluster::shared();
    let namespace = cluster.create_namespace(name);
    cluster.kubectl(&[
        "create",
        "configmap",
        "kept",
        "--from-literal=a=b",
        "-n",
        &namespace,
    ]);
    let home = Folder::new("home");
    let run = |arguments: &[&str]| -> Backup {
        kubectl_backup(arguments)
            .home(home.path())
            .kubeconfig(cluster.kubeconfig())
    };
    let mut create = words(&["location", "create", "it", "--default"]);
    create.extend_from_slice(&bucket.create);
    kubectl_backup(&create)
        .home(home.path())
        .kubeconfig(cluster.kubeconfig())
        .ok();

    let checked = run(&["location", "check", "-o", "json"]).ok().json();
    for step in [
        "list",
        "write",
        "create-only write",
        "read back",
        "clock",
        "multipart upload",
        "delete",
    ] {
        let found = checked["steps"].as_array().unwrap().iter();
        let ok = found
            .filter(|one| one["name"] == step)
            .all(|one| one["ok"] == true);
        let is_there = checked
            .to_string()
            .contains(&format!("\"name\":\"{step}\""));
        assert!(ok && is_there, "{step}: {checked:#}");
    }
    assert_eq!((bucket.list)(), Vec::<String>::new());

    run(&["create", "zz-first", "-n", &namespace]).ok();
    run(&["verify", "zz-first"]).ok();
    // What was begun and never finished is passed over, on every page.
    let others: Vec<String> = (0..FOLDERS)
        .map(|number| format!("p/backups/other-{number:04}/left.gz"))
        .collect();
    (bucket.put_all)(&others);
    let listed = run(&["get", "-o", "name"]).ok().stdout;
    assert_eq!(listed, "backup/zz-first\n");
    let described = run(&["describe", "zz-first"]).ok().stdout;
    assert!(described.contains("Completed"), "{described}");

    let elsewhere = format!("{namespace}-elsewhere");
    let mapping = format!("{namespace}:{elsewhere}");
    run(&[
        "restore",
        "create",
        "--from-backup",
        "zz-first",
        "--namespace-mappings",
        &mapping,
    ])
    .ok();
    let restored = cluster.get_raw(&format!("/api/v1/namespaces/{elsewhere}/configmaps/kept"));
    assert_eq!(restored["data"]["a"], "b");

    run(&["create", "zz-second", "-n", &namespace]).ok();
    run(&["delete", "zz-first", "--yes"]).ok();
    run(&["prune", "--yes"]).ok();
    let left = run(&["get", "-o", "name"]).ok().stdout;
    assert_eq!(left, "backup/zz-second\n");
    // The restore's own files stay.
    let left = (bucket.list)();
    let of_it: Vec<_> = left
        .iter()
        .filter(|key| key.contains("/backups/zz-first/"))
        .collect();
    assert!(of_it.is_empty(), "{of_it:?}");
}

fn gcs_bucket(gcs: &'static Gcs, name: &'static str) -> Bucket {
    gcs.bucket(name);
    let endpoint = format!("storeEndpoint={}", gcs.endpoint());
    let key = gcs.credentials_file().display().to_string();
    Bucket {
        create: words(&[
            "--provider=gcp",
            "--bucket",
            name,
            "--prefix=p",
            "--config",
            &endpoint,
            "--credentials-file",
            &key,
        ]),
        list: Box::new(move || gcs.list(name, "")),
        put_all: Box::new(move |keys| gcs.put_all(name, small(keys))),
    }
}

#[test]
fn a_folder_serves_as_every_bucket_does() {
    let folder = Folder::new("provider");
    let path = folder.path().to_owned();
    let all = |path: &Path| -> Vec<String> {
        fn walk(path: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(path).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                } else {
                    found.push(path.display().to_string());
                }
            }
        }
        let mut found = Vec::new();
        walk(path, &mut found);
        found
    };
    let (listed, written) = (path.clone(), path.clone());
    let bucket = Bucket {
        create: words(&[
            "--provider=local",
            "--bucket",
            &path.display().to_string(),
            "--prefix=p",
        ]),
        list: Box::new(move || all(&listed)),
        put_all: Box::new(move |keys| {
            for key in keys {
                let path: PathBuf = written.join(key);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, "x").unwrap();
            }
        }),
    };
    serves(&bucket, "provider-local");
}

#[test]
fn a_bucket_of_s3_serves_from_the_first_backup_to_the_last() {
    let minio = Minio::shared();
    let name = minio.bucket("provider-aws");
    let endpoint = format!("s3Url={}", minio.endpoint());
    let bucket = Bucket {
        create: words(&[
            "--provider=aws",
            "--bucket",
            name,
            "--prefix=p",
            "--config",
            &endpoint,
            "--credentials-file",
            &minio.credentials_file().display().to_string(),
        ]),
        list: Box::new(move || minio.list(name, "")),
        put_all: Box::new(move |keys| minio.put_all(name, small(keys))),
    };
    serves(&bucket, name);
}

#[test]
fn a_bucket_of_google_serves_from_the_first_backup_to_the_last() {
    serves(&gcs_bucket(Gcs::shared(), "provider-gcp"), "provider-gcp");
}

#[test]
fn a_container_of_azure_serves_from_the_first_backup_to_the_last() {
    let Some(azurite) = Azurite::shared() else {
        harness::skip!("Azurite needs Node.js");
    };
    let name = azurite.container("provider-azure");
    let config = format!(
        "storageAccount={},storageAccountURI={}",
        azurite.account(),
        azurite.endpoint()
    );
    let bucket = Bucket {
        create: words(&[
            "--provider=azure",
            "--bucket",
            name,
            "--prefix=p",
            "--config",
            &config,
            "--credentials-file",
            &azurite.credentials_file().display().to_string(),
            "--cacert",
            &azurite.ca_file().display().to_string(),
        ]),
        list: Box::new(move || azurite.list(name, "")),
        put_all: Box::new(move |keys| azurite.put_all(name, small(keys))),
    };
    serves(&bucket, name);
}

/// A check of a location, which goes through all that a backup needs of a store.
fn check(location: &str) -> Backup {
    kubectl_backup(&["location", "check", "--location", location])
}

/// Fails the test unless the call is refused within seconds, in these words.
#[track_caller]
fn refused(call: Backup, words: &[&str]) {
    let began = Instant::now();
    let run = call.code(1);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}\n{}", run.stdout);
    let said = run.stdout.clone() + &run.stderr;
    for word in words {
        assert!(said.contains(word), "{word} is missing in\n{said}");
    }
}

#[test]
fn google_is_signed_in_to_in_every_way_and_refusals_are_told_at_once() {
    // A store of its own: how long its tokens last is a part of the test.
    let gcs = Gcs::start();
    let bucket = gcs.bucket("signed-in");
    let location = format!("gs://{bucket}/x?endpoint={}", gcs.endpoint());
    let with = |file: &Path| check(&location).env("KUBECTL_BACKUP_CREDENTIALS_FILE", file);
    // The key of a service account, and as the variable of Google's own tools names it.
    with(&gcs.credentials_file()).ok();
    let key = gcs.credentials_file();
    check(&location)
        .env("GOOGLE_APPLICATION_CREDENTIALS", &key)
        .ok();
    assert_eq!(gcs.tokens_given(), 0);
    // One token does for a whole run.
    with(&gcs.user_file(gcs.refresh_token())).ok();
    assert_eq!(gcs.tokens_given(), 1);
    with(&gcs.federated_file(true, false)).ok();
    assert_eq!(gcs.tokens_given(), 2);
    with(&gcs.federated_file(false, true)).ok();
    assert_eq!(gcs.tokens_given(), 4);
    let machine = || check(&location).env("GCE_METADATA_HOST", gcs.metadata_host());
    machine().ok();
    assert_eq!(gcs.tokens_given(), 5);
    // Where tokens end soon, new ones are had in the middle of a run.
    gcs.tokens_last(Duration::from_secs(30));
    machine().ok();
    assert!(gcs.tokens_given() > 10, "{}", gcs.tokens_given());

    // The key that new objects are encrypted with goes along with what makes one, and with nothing else.
    let kms = "projects/p/locations/l/keyRings/r/cryptoKeys/k";
    let encrypted = format!("{location}&kms-key-name={kms}");
    check(&encrypted)
        .env("KUBECTL_BACKUP_CREDENTIALS_FILE", &key)
        .ok();
    let asked = gcs.asked();
    let named: Vec<_> = asked
        .iter()
        .filter(|one| {
            one.headers
                .get("x-goog-encryption-kms-key-name")
                .is_some_and(|name| name == kms)
        })
        .collect();
    let makes = |method: &str, target: &str| {
        method == "PUT" && !target.contains("uploadId") || target.contains("uploads")
    };
    assert!(named.len() >= 3, "{named:?}");
    assert!(
        named
            .iter()
            .all(|one| makes(one.method.as_str(), &one.target)),
        "{named:?}"
    );

    refused(
        with(&gcs.foreign_credentials_file()),
        &["AuthenticationRequired", "credentials file"],
    );
    refused(
        with(&gcs.user_file("revoked")),
        &["invalid_grant", "gcloud auth application-default login"],
    );
    let nowhere = format!("gs://nowhere?endpoint={}", gcs.endpoint());
    refused(
        check(&nowhere).env("KUBECTL_BACKUP_CREDENTIALS_FILE", &key),
        &["NoSuchBucket", "objectStorage.bucket"],
    );
    refused(
        check(&location).env("GCE_METADATA_HOST", "127.0.0.1:9"),
        &["sign-in service does not answer"],
    );
    let no_json = gcs.folder().join("no.json");
    std::fs::write(&no_json, "[default]\naws_access_key_id=x\n").unwrap();
    refused(
        with(&no_json),
        &["no.json", "no credentials file of Google"],
    );
}

#[test]
fn azure_is_signed_in_to_in_every_way_and_refusals_are_told_at_once() {
    let Some(azurite) = Azurite::start() else {
        harness::skip!("Azurite needs Node.js");
    };
    let container = azurite.container("signed-in");
    let at = |container: &str, more: &str| {
        let location = format!(
            "az://{container}/x?storage-account={}&endpoint={}&authority={}{more}",
            azurite.account(),
            azurite.endpoint(),
            azurite.authority()
        );
        check(&location).env("KUBECTL_BACKUP_CACERT", azurite.ca_file())
    };
    let with =
        |file: &Path, more: &str| at(container, more).env("KUBECTL_BACKUP_CREDENTIALS_FILE", file);
    let key = azurite.credentials_file();
    with(&key, "").ok();
    let text = std::fs::read_to_string(&key).unwrap();
    let (_, value) = text.trim().split_once('=').unwrap();
    at(container, "").env("AZURE_STORAGE_KEY", value).ok();
    let renamed = azurite.credentials("renamed.env", &format!("AZURE_X=1\nMY_KEY={value}\n"));
    with(&renamed, "&storage-account-key-env-var=MY_KEY").ok();
    let sas = azurite.sas(container, "racwdl", 3600);
    let sas = azurite.credentials("sas.env", &format!("AZURE_STORAGE_SAS_TOKEN={sas}\n"));
    with(&sas, "").ok();
    assert_eq!(azurite.tokens_given(), 0);

    let secret = |tenant: &str, client: &str, secret: &str| {
        let lines = format!(
            "AZURE_SUBSCRIPTION_ID=s\nAZURE_RESOURCE_GROUP=g\nAZURE_TENANT_ID={tenant}\nAZURE_CLIENT_ID={client}\nAZURE_CLIENT_SECRET={secret}\nAZURE_CLOUD_NAME=AzurePublicCloud\n"
        );
        azurite.credentials(&format!("{client}-{secret}.env"), &lines)
    };
    let (tenant, client) = (azurite::TENANT, azurite::CLIENT);
    with(&secret(tenant, client, azurite::CLIENT_SECRET), "").ok();
    let given = azurite.tokens_given();
    // One for those who read and one for those who write.
    assert!((1..=2).contains(&given), "{given}");
    let workload = || {
        at(container, "&use-aad=true")
            .env("AZURE_TENANT_ID", tenant)
            .env("AZURE_CLIENT_ID", client)
            .env("AZURE_FEDERATED_TOKEN_FILE", azurite.federated_token_file())
    };
    workload().ok();
    let machine = |client: &str| {
        at(container, "&use-aad=true")
            .env("IDENTITY_ENDPOINT", azurite.identity_endpoint())
            .env("AZURE_CLIENT_ID", client)
    };
    machine(client).ok();
    azurite.tokens_last(Duration::from_secs(30));
    // More than the one for those who read and the one for those who write. What comes within 100 ms shares one, so a fast machine may have to try twice.
    let is_renewed = (0..10).any(|_| {
        let before = azurite.tokens_given();
        workload().ok();
        azurite.tokens_given() > before + 2
    });
    assert!(is_renewed);

    let other = azurite.credentials(
        "other.env",
        "AZURE_STORAGE_ACCOUNT_ACCESS_KEY=b3RoZXIgb3RoZXIgb3RoZXI=\n",
    );
    // Azure itself calls this AuthenticationFailed.
    refused(
        with(&other, ""),
        &["InvalidAuthenticationInfo", "credentials"],
    );
    let late = azurite.sas(container, "racwdl", -300);
    let late = azurite.credentials("late.env", &format!("AZURE_STORAGE_SAS_TOKEN={late}\n"));
    refused(with(&late, ""), &["403", "SAS"]);
    let reads = azurite.sas(container, "rl", 3600);
    let reads = azurite.credentials("reads.env", &format!("AZURE_STORAGE_SAS_TOKEN={reads}\n"));
    refused(with(&reads, ""), &["403", "racwdl"]);
    refused(
        with(&secret(tenant, client, "wrong"), ""),
        &["invalid_client", "AZURE_CLIENT_SECRET"],
    );
    refused(
        with(&secret(tenant, "nobody", "x"), ""),
        &["unauthorized_client", "AZURE_CLIENT_ID"],
    );
    refused(
        with(&secret("elsewhere", client, "x"), ""),
        &["invalid_request", "AZURE_TENANT_ID"],
    );
    refused(machine("nobody"), &["managed identity"]);
    refused(
        at("nowhere", "").env("KUBECTL_BACKUP_CREDENTIALS_FILE", &key),
        &["ContainerNotFound", "objectStorage.bucket"],
    );
    refused(
        at(container, "").env("AZURE_CLIENT_SECRET", "x"),
        &["AZURE_TENANT_ID"],
    );
}

#[test]
fn a_store_that_refuses_in_the_middle_of_a_part_is_not_waited_for() {
    let (minio, gcs) = (Minio::shared(), Gcs::shared());
    let denied = "<Error><Code>AccessDenied</Code><Message>Revoked.</Message></Error>";
    let (s3, google) = (
        Proxy::start(minio.upstream()),
        Proxy::start(&gcs.upstream()),
    );
    let of_s3 = format!("s3://{}/x?endpoint={}", minio.bucket("revoked"), s3.url());
    let of_google = format!("gs://{}/x?endpoint={}", gcs.bucket("revoked"), google.url());
    for (proxy, location, file) in [
        (&s3, of_s3, minio.credentials_file().to_owned()),
        (&google, of_google, gcs.credentials_file()),
    ] {
        // The upload begins well; then the rights are gone.
        let part = Match::method("PUT").and_path("uploadId=");
        proxy.every(part, Action::Interrupt(403, denied.into()));
        proxy.nth(
            2,
            Match::method("POST").and_path("uploads"),
            Action::status(403, denied),
        );
        let call = check(&location).env("KUBECTL_BACKUP_CREDENTIALS_FILE", file);
        refused(call, &["multipart upload", "AccessDenied"]);
    }
}
