//! The real Velero and a backup whose Secrets are encrypted: it restores the rest, and we what it could not.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::cluster::Cluster;
use harness::compare::compare;
use harness::load::Load;
use harness::snapshot::Snapshot;
use harness::store::Minio;
use harness::velero::Velero;

use super::super::{SECRET, VALUE, fixture, key};
use super::tells_none;
use crate::interop::{install_like_other_projects, options, without_velero};
use crate::place;

/// Names, labels and values of every Secret of a cluster that are long enough to stand for nothing else.
fn secrets_of(cluster: &Cluster) -> BTreeSet<String> {
    let mut hidden = BTreeSet::from([VALUE.to_owned(), SECRET.to_owned()]);
    let list = cluster.get_raw("/api/v1/secrets");
    for secret in list["items"].as_array().unwrap() {
        for text in [&secret["metadata"]["name"], &secret["metadata"]["uid"]] {
            hidden.insert(text.as_str().unwrap().to_owned());
        }
        for value in secret["data"].as_object().into_iter().flatten() {
            let value = value.1.as_str().unwrap();
            hidden.insert(value.to_owned());
            hidden.extend(String::from_utf8(STANDARD.decode(value).unwrap()).ok());
        }
    }
    hidden.retain(|text| text.len() >= 12);
    hidden
}

#[test]
fn velero_restores_the_rest_of_a_backup_whose_secrets_are_encrypted_and_we_restore_those() {
    let minio = Minio::shared();
    let bucket = minio.bucket("secrets-only");
    let location = format!("s3://{bucket}/p?endpoint={}", minio.endpoint());
    let source = Cluster::start();
    install_like_other_projects(&source);
    let load = Load {
        namespaces: 2,
        config_maps: 10,
        secrets: 40,
        deployments: 3,
        ..Load::default()
    };
    load.fill(&source.endpoint());
    let literal = format!("--from-literal=v={VALUE}");
    source.kubectl(&[
        "-n", "default", "create", "secret", "generic", SECRET, &literal,
    ]);
    source.kubectl(&[
        "-n",
        "default",
        "label",
        "secret",
        SECRET,
        "owner=label-that-nobody-may-read",
    ]);
    let before = Snapshot::of(&source);
    let on = |cluster: &Cluster, arguments: &[&str]| {
        place::on(cluster, &location, arguments).credentials_of(minio)
    };
    let recipient = key("first.pub");
    let create = [
        "create",
        "ours",
        "--recipient",
        &recipient,
        "--encrypt",
        "secrets",
    ];
    let made = on(&source, &create).ok();
    assert!(
        made.stderr.contains("Velero restores the rest"),
        "{}",
        made.stderr
    );
    // Nothing in the whole bucket tells of a Secret, but that there are some, and what other objects say of them.
    let mut hidden = secrets_of(&source);
    let others: Vec<_> = before
        .objects
        .iter()
        .filter(|(id, _)| id.resource != "secrets")
        .map(|(_, object)| object.to_string())
        .collect();
    hidden.retain(|text| !others.iter().any(|other| other.contains(text.as_str())));
    hidden.insert("label-that-nobody-may-read".to_owned());
    assert!(hidden.len() > 40 && hidden.contains(SECRET) && hidden.contains(VALUE));
    let keys = minio.list(bucket, "");
    assert!(keys.len() > 14, "{keys:?}");
    for object in &keys {
        tells_none(object, &minio.get(bucket, object), &hidden);
    }
    drop(source);

    let target = Cluster::start();
    let velero = Velero::start(&target, minio, bucket, "p", &[], None);
    velero.sync("ours");
    let described = velero.cli(&["backup", "describe", "ours", "--details"]);
    let described = described.ok().stdout;
    assert!(
        described.contains("platform/settings") && !described.contains("<error"),
        "{described}"
    );
    assert!(!described.contains("v1/Secret:"), "{described}");
    velero.cli(&["backup", "logs", "ours"]).ok();
    velero.restore("r", "ours", &[]);
    let is_secret = |resource: &str| resource == "secrets";
    let mut rest = before.clone();
    rest.objects.retain(|id, _| !is_secret(&id.resource));
    let mut got = without_velero(&target);
    got.objects.retain(|id, _| !is_secret(&id.resource));
    compare(&rest, &got, &options()).assert_none();

    // And what it could not, we bring: the Secrets alone, into what it restored.
    let identity = fixture("first.key");
    let restore = [
        "restore",
        "create",
        "s",
        "--from-backup",
        "ours",
        "--include-resources",
        "secrets",
        "--yes",
    ];
    let restored = on(&target, &restore).args(&["--identity".as_ref(), identity.as_os_str()]);
    let restored = restored.ok();
    assert!(restored.stderr.contains("alone"), "{}", restored.stderr);
    drop(velero);
    compare(&before, &without_velero(&target), &options()).assert_none();
    // Nor does the record of that restore tell of them.
    for object in minio.list(bucket, "") {
        tells_none(&object, &minio.get(bucket, &object), &hidden);
    }

    // Into a new cluster we bring all of it at once.
    let whole = Cluster::start();
    on(
        &whole,
        &["restore", "create", "w", "--from-backup", "ours", "--yes"],
    )
    .args(&["--identity".as_ref(), identity.as_os_str()])
    .ok();
    compare(&before, &Snapshot::of(&whole), &options()).assert_none();
}
