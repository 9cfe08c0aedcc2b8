//! Whole restores, from a backup in memory into an API server in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::place::Place;
use super::super::*;
use super::fake::Fake;
use crate::api::Phase;
use crate::archive::pack::{self, Item};
use crate::archive::read::Archive;
use crate::archive::row::{Outcome, ResourceRow};
use crate::archive::write::ArchiveWriter;
use crate::discovery::ApiResource;
use crate::error::Kind;
use crate::layout::BackupKeys;
use crate::location::Location;

pub(super) struct Saved {
    pub(super) location: Location,
    pub(super) target: Fake,
    folder: tempfile::TempDir,
}

pub(super) fn api(resource: &str) -> Arc<ApiResource> {
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    let kind = match plural {
        "configmaps" => "ConfigMap",
        "namespaces" => "Namespace",
        "persistentvolumeclaims" => "PersistentVolumeClaim",
        "persistentvolumes" => "PersistentVolume",
        "pods" => "Pod",
        "datauploads" => "DataUpload",
        _ => "Service",
    };
    Arc::new(ApiResource {
        group: group.into(),
        version: "v1".into(),
        plural: plural.into(),
        kind: kind.into(),
        namespaced: !matches!(plural, "namespaces" | "persistentvolumes"),
        ..ApiResource::default()
    })
}

/// An object as a backup holds it; its uid is made of its number.
pub(super) fn object(
    resource: &str,
    number: u64,
    path: &str,
    rest: Value,
) -> (Arc<ApiResource>, Item) {
    let api = api(resource);
    let (namespace, name) = match path.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name),
        None => (None, path),
    };
    let mut body = rest;
    body["apiVersion"] = api.api_version().into();
    body["kind"] = api.kind.clone().into();
    body["metadata"]["name"] = name.into();
    body["metadata"]["uid"] = uid(number).into();
    if let Some(namespace) = &namespace {
        body["metadata"]["namespace"] = namespace.clone().into();
    }
    let item = Item::read(namespace, name.to_owned(), body.to_string().into()).unwrap();
    (api, item)
}

pub(super) fn uid(number: u64) -> String {
    format!("aaaaaaaa-0000-0000-0000-{number:012}")
}

pub(super) async fn packed(
    objects: &[(Arc<ApiResource>, Item)],
    rows: &[ResourceRow],
) -> (Bytes, Bytes) {
    let mut writer = ArchiveWriter::start(Vec::new(), Vec::new(), "b", 0)
        .await
        .unwrap();
    for (api, item) in objects {
        let page = pack::pack(api, std::slice::from_ref(item), 0, pack::LEVEL).unwrap();
        writer.append(page).await.unwrap();
    }
    let (archive, index, _) = writer.finish(rows).await.unwrap();
    (archive.into(), index.into())
}

impl Saved {
    pub(super) async fn new(objects: &[(Arc<ApiResource>, Item)]) -> Self {
        Self::with(objects, &[], "Completed").await
    }

    async fn with(objects: &[(Arc<ApiResource>, Item)], rows: &[ResourceRow], phase: &str) -> Self {
        let location = Location::in_memory("x");
        let keys = BackupKeys::new(&"b".parse().unwrap());
        let (archive, index) = packed(objects, rows).await;
        let marker = json!({"apiVersion": "velero.io/v1", "kind": "Backup", "metadata": {"name": "b", "annotations": {"kubectl-backup/version": "0.1.0"}}, "status": {"phase": phase}});
        let store = &location.store;
        store.put(&keys.archive(), archive).await.unwrap();
        store.put(&keys.index(), index).await.unwrap();
        store
            .put(&keys.marker(), marker.to_string().into())
            .await
            .unwrap();
        Self {
            location,
            target: Fake::default(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(super) async fn side(&self, key: &str, list: Value) {
        let packed = report::gzip(list.to_string().as_bytes()).unwrap();
        self.location.store.put(key, packed).await.unwrap();
    }

    pub(super) fn options(&self) -> RestoreOptions {
        super::options(self.folder.path())
    }

    pub(super) async fn restore(
        &self,
        change: impl FnOnce(&mut RestoreOptions),
    ) -> Result<RestoreReport> {
        let mut options = self.options();
        options.backup = "b".parse().unwrap();
        change(&mut options);
        let (cluster, name) = (self.target.cluster(), "r".parse().unwrap());
        let (_keep, cancel) = watch::channel(false);
        let mut consent = |_: &[Lack]| Ok(cancel.clone());
        let silent = &crate::progress::Silent;
        restore(
            &cluster,
            &self.location,
            &name,
            &options,
            &mut consent,
            silent,
        )
        .await
    }

    /// The steps of a dry run, and what it tells besides.
    pub(super) async fn plan(
        &self,
        dry: DryRun,
        change: impl FnOnce(&mut RestoreOptions),
    ) -> (Vec<Step>, Planned) {
        let mut options = self.options();
        options.backup = "b".parse().unwrap();
        change(&mut options);
        let mut steps = Vec::new();
        let mut show = |step| steps.push(step);
        let (cluster, silent) = (self.target.cluster(), &crate::progress::Silent);
        let planned = plan(&cluster, &self.location, &options, dry, silent, &mut show).await;
        (steps, planned.unwrap())
    }
}

pub(super) fn mappings(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
    pairs.collect()
}

#[tokio::test]
async fn two_namespaces_are_never_restored_as_one() {
    let saved = Saved::new(&[
        object("configmaps", 1, "a/x", json!({"data": {"from": "a"}})),
        object("configmaps", 2, "b/x", json!({"data": {"from": "b"}})),
    ])
    .await;
    for list in [
        &[("a", "c"), ("b", "c")][..],
        &[("a", "b")],
        &[("a", "")],
        &[("a", "B/c")],
    ] {
        let refused = saved
            .restore(|o| o.namespace_mappings = mappings(list))
            .await;
        assert_eq!(refused.unwrap_err().kind(), Kind::Invalid, "{list:?}");
    }
    assert!(
        saved.target.0.lock().unwrap().objects.is_empty(),
        "nothing was made"
    );
    let places = [Place::Store(saved.location.store.clone())];
    let begun = journal::earlier(&places, &"r".parse().unwrap())
        .await
        .unwrap();
    assert!(begun.is_none(), "a refused restore leaves no record");
    let report = saved
        .restore(|o| o.namespace_mappings = mappings(&[("a", "b"), ("b", "a")]))
        .await;
    assert_eq!(report.unwrap().counts[3], 0);
    let swapped = saved.target.get("/api/v1/namespaces/b/configmaps/x");
    assert_eq!(swapped["data"]["from"], "a");
}

#[tokio::test]
async fn a_selector_that_matches_nothing_is_a_warning_and_a_name_that_is_not_there_an_error() {
    let saved = Saved::new(&[object("configmaps", 1, "n/x", json!({}))]).await;
    let choose = |options: &mut RestoreOptions| {
        options.filter.selectors = vec![crate::filter::Selector::parse("app=none").unwrap()];
    };
    let report = saved.restore(choose).await.unwrap();
    assert_eq!(report.counts, [0; 4]);
    assert_eq!(report.restore.status.phase, Phase::Completed);
    assert!(
        report.warnings[0].contains("has the labels"),
        "{:?}",
        report.warnings
    );
    assert!(saved.target.0.lock().unwrap().objects.is_empty());
    let (steps, planned) = saved.plan(DryRun::Client, choose).await;
    assert!(steps.is_empty() && planned.warnings[0].contains("has the labels"));
    let other = Saved::new(&[object("configmaps", 1, "n/x", json!({}))]).await;
    let refused = other.restore(|options| {
        choose(options);
        options.filter.namespaces = vec!["none".into()];
    });
    assert_eq!(refused.await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_backups_gaps_and_its_phase_are_told() {
    let failed = |resource: &str| ResourceRow {
        resource: resource.into(),
        version: "v1".into(),
        kind: "Secret".into(),
        namespaced: true,
        outcome: Outcome::Failed,
        why: "forbidden".into(),
        ..ResourceRow::default()
    };
    let rows = [failed("secrets"), failed("*.metrics.k8s.io")];
    let objects = [object("configmaps", 1, "n/x", json!({}))];
    let saved = Saved::with(&objects, &rows, "PartiallyFailed").await;
    let told = saved.restore(|_| {}).await.unwrap().warnings.join("\n");
    for part in [
        "secrets could not be read when it was made: forbidden",
        "*.metrics.k8s.io",
        "backup b is PartiallyFailed",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let saved = Saved::with(&objects, &rows, "Completed").await;
    let chosen = saved
        .restore(|o| o.filter.resources = vec!["configmaps".into()])
        .await
        .unwrap();
    assert!(chosen.warnings.is_empty(), "{:?}", chosen.warnings);
}

#[tokio::test]
async fn a_bare_kind_means_one_resource_and_an_unknown_one_is_told() {
    let saved = Saved::new(&[
        object("services", 1, "n/core", json!({"spec": {}})),
        object("services.serving.knative.dev", 2, "n/other", json!({})),
    ])
    .await;
    let report = saved
        .restore(|o| o.filter.resources = vec!["services".into(), "gizmos".into()])
        .await;
    let report = report.unwrap();
    assert!(
        !saved
            .target
            .get("/api/v1/namespaces/n/services/core")
            .is_null()
    );
    let other = "/apis/serving.knative.dev/v1/namespaces/n/services/other";
    assert!(saved.target.get(other).is_null());
    assert_eq!(report.warnings, ["the backup knows no kind \"gizmos\""]);
}

#[tokio::test]
async fn hooks_that_can_not_be_run_are_told_and_counted() {
    let hooked = |n: u64, name: &str, on_error: &str| {
        object(
            "pods",
            n,
            &format!("n/{name}"),
            json!({"metadata": {"annotations": {
            "post.hook.restore.velero.io/command": "[\"x\"]", "post.hook.restore.velero.io/on-error": on_error}}}),
        )
    };
    let saved = Saved::new(&[hooked(1, "one", "Fail"), hooked(2, "two", "")]).await;
    let report = saved.restore(|_| {}).await.unwrap();
    let counts = &report.restore.status.rest["hookStatus"];
    assert_eq!(*counts, json!({"hooksAttempted": 2, "hooksFailed": 2}));
    for (texts, pod) in [(&report.errors, "n/one"), (&report.warnings, "n/two")] {
        assert_eq!(texts.len(), 1, "{texts:?}");
        assert!(
            texts[0].contains(pod) && texts[0].contains("no container"),
            "{texts:?}"
        );
    }
}

#[tokio::test]
async fn what_is_asked_for_and_not_done_is_told_once_a_kind() {
    let saved = Saved::new(&[object(
        "configmaps",
        4,
        "n/image",
        json!({"metadata": {"labels": {"velero.io/change-image-name": "RestoreItemAction"}}}),
    )])
    .await;
    let warnings = saved.restore(|_| {}).await.unwrap().warnings;
    let told = warnings.join("\n");
    assert_eq!(warnings.len(), 1, "{told}");
    let part =
        "n/image in the backup asks for other images: a restore goes by what stands in the target";
    assert!(told.contains(part), "{told}");
}

#[tokio::test]
async fn an_object_under_anothers_name_is_not_made() {
    let (api, mut item) = object("configmaps", 1, "n/x", json!({}));
    item.name = "y".into();
    let saved = Saved::new(&[(api, item)]).await;
    let report = saved.restore(|_| {}).await.unwrap();
    assert!(
        report.errors[0].contains("another object under this name"),
        "{:?}",
        report.errors
    );
    assert!(
        saved
            .target
            .get("/api/v1/namespaces/n/configmaps/x")
            .is_null()
    );
}

#[tokio::test]
async fn a_damaged_object_keeps_no_other_from_its_owner() {
    let owned = |n: u64, name: &str| {
        let noise: String = (0..20_000_u64)
            .map(|i| char::from(b'a' + (i.wrapping_mul(i * n + 7) >> 3) as u8 % 26))
            .collect();
        object(
            "configmaps",
            n,
            &format!("n/{name}"),
            json!({"data": {"noise": noise},
            "metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "parent", "uid": uid(9)}]}}),
        )
    };
    let objects = [
        object("configmaps", 9, "n/parent", json!({})),
        owned(1, "a"),
        owned(2, "damaged"),
        owned(3, "z"),
    ];
    let saved = Saved::new(&objects).await;
    let keys = BackupKeys::new(&"b".parse().unwrap());
    let (archive, index) = packed(&objects, &[]).await;
    let opened = Archive::open(archive.clone(), index).await.unwrap();
    let rows = opened.index.rows("configmaps", 0).await.unwrap();
    let row = rows.iter().find(|row| row.name == "damaged").unwrap();
    let member = opened.index.members(row.member, 1).await.unwrap().remove(0);
    let mut bytes = archive.to_vec();
    bytes[(member.at + member.length / 2) as usize] ^= 0xff;
    saved
        .location
        .store
        .put(&keys.archive(), bytes.into())
        .await
        .unwrap();
    let report = saved.restore(|_| {}).await.unwrap();
    assert_eq!(
        (report.counts[0], report.counts[3]),
        (4, 1),
        "{:?}",
        report.errors
    );
    for name in ["a", "z"] {
        let made = saved
            .target
            .get(&format!("/api/v1/namespaces/n/configmaps/{name}"));
        assert_eq!(
            made["metadata"]["ownerReferences"][0]["name"], "parent",
            "{name}"
        );
    }
    assert!(
        report.errors.iter().all(|e| e.contains("n/damaged")),
        "{:?}",
        report.errors
    );
}

#[tokio::test]
async fn damage_is_laid_to_the_object_that_has_it() {
    let objects = [
        object("configmaps", 1, "n/a", json!({})),
        object("configmaps", 2, "n/b", json!({})),
    ];
    let (archive, index) = packed(&objects, &[]).await;
    let archive = Archive::open(archive, index).await.unwrap();
    let rows = archive.index.rows("configmaps", 0).await.unwrap();
    let mut nowhere = rows[0].clone();
    nowhere.member = 999;
    let mut bodies = bodies::Bodies::new(&archive, vec![rows[0].clone(), nowhere, rows[1].clone()]);
    let mut read = Vec::new();
    while let Some((_, object)) = bodies.next().await {
        read.push(object.is_ok());
    }
    assert_eq!(read, [true, false, true]);
}

#[tokio::test]
async fn a_server_that_is_away_for_a_while_is_waited_for() {
    let saved = Saved::new(&[object("configmaps", 1, "n/x", json!({}))]).await;
    let line = "POST /api/v1/namespaces/n/configmaps";
    saved.target.0.lock().unwrap().away = Some((line, 12));
    let report = saved.restore(|_| {}).await.unwrap();
    assert_eq!(
        report.restore.status.phase,
        Phase::Completed,
        "{:?}",
        report.errors
    );
    let asked = saved.target.0.lock().unwrap().asked.clone();
    assert_eq!(asked.iter().filter(|asked| *asked == line).count(), 13);
    assert_eq!(report.counts, [2, 0, 0, 0]);
}
