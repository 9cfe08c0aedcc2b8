//! Whole restores, from a backup in memory into an API server in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::*;
use super::fake::Fake;
use crate::archive::pack::{self, Item};
use crate::archive::row::{Outcome, ResourceRow};
use crate::archive::write::ArchiveWriter;
use crate::discovery::ApiResource;
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

    async fn side(&self, key: &str, list: Value) {
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

fn mappings(list: &[(&str, &str)]) -> BTreeMap<String, String> {
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

fn claim(number: u64, name: &str, volume: &str) -> (Arc<ApiResource>, Item) {
    let rest = json!({"spec": {"volumeName": volume}});
    object("persistentvolumeclaims", number, &format!("n/{name}"), rest)
}

fn volume(number: u64, name: &str, claim: &str, policy: &str) -> (Arc<ApiResource>, Item) {
    let rest = json!({"spec": {"persistentVolumeReclaimPolicy": policy, "csi": {"volumeHandle": "disk"},
        "claimRef": {"namespace": "n", "name": claim, "uid": "old"}}});
    object("persistentvolumes", number, name, rest)
}

#[tokio::test]
async fn data_of_volumes_that_does_not_come_back_is_an_error_and_its_disks_are_left_alone() {
    let saved = Saved::new(&[
        claim(1, "native", "pv-native"),
        claim(2, "files", "pv-files"),
        claim(3, "none", "pv-none"),
        claim(4, "plain", "pv-plain"),
        volume(11, "pv-native", "native", "Retain"),
        volume(12, "pv-files", "files", "Retain"),
        volume(13, "pv-none", "none", "Delete"),
        volume(14, "pv-plain", "plain", "Retain"),
        object("pods", 5, "n/p", json!({})),
    ])
    .await;
    let keys = BackupKeys::new(&"b".parse().unwrap());
    saved
        .side(&keys.volume_info(), json!([
            {"pvcName": "native", "pvcNamespace": "n", "pvName": "pv-native", "backupMethod": "NativeSnapshot", "result": "succeeded"},
            {"pvcName": "none", "pvcNamespace": "n", "pvName": "pv-none", "skipped": true}]))
        .await;
    saved
        .side(&keys.pod_volume_backups(), json!([
            {"metadata": {"annotations": {"velero.io/pvc-name": "files"}}, "spec": {"pod": {"namespace": "n", "name": "p"}, "volume": "v"},
             "status": {"phase": "Completed", "snapshotID": "s"}},
            {"metadata": {}, "spec": {"pod": {"namespace": "n", "name": "p"}, "volume": "scratch"}, "status": {"phase": "Completed", "snapshotID": "s"}}]))
        .await;
    let report = saved.restore(|_| {}).await.unwrap();
    assert_eq!(report.restore.status.phase, Phase::PartiallyFailed);
    let errors = report.errors.join("\n");
    assert_eq!(report.errors.len(), 3, "{errors}");
    for part in [
        "n/native: its data is in the backup as a snapshot",
        "n/files: its data is in the backup as a copy",
        "n/p: the data of its volume \"scratch\"",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    for (volume, stands) in [
        ("pv-native", false),
        ("pv-files", false),
        ("pv-none", false),
        ("pv-plain", true),
    ] {
        let made = saved
            .target
            .get(&format!("/api/v1/persistentvolumes/{volume}"));
        assert_eq!(!made.is_null(), stands, "{volume}");
    }
    let native = saved
        .target
        .get("/api/v1/namespaces/n/persistentvolumeclaims/native");
    assert!(
        native["spec"]["volumeName"].is_null(),
        "it is provisioned anew"
    );
    // Again: what this restore made before is as empty as it was.
    assert_eq!(saved.restore(|_| {}).await.unwrap().errors.len(), 3);
}

#[tokio::test]
async fn who_wants_no_data_of_volumes_gets_no_error() {
    let saved = Saved::new(&[claim(1, "moved", "pv")]).await;
    let keys = BackupKeys::new(&"b".parse().unwrap());
    saved
        .side(&keys.volume_info(), json!([{"pvcName": "moved", "pvcNamespace": "n", "backupMethod": "CSISnapshot", "snapshotDataMoved": true}]))
        .await;
    let report = saved
        .restore(|o| o.restore_volumes = Some(false))
        .await
        .unwrap();
    assert_eq!(
        report.restore.status.phase,
        Phase::Completed,
        "{:?}",
        report.errors
    );
    saved
        .location
        .store
        .put(&keys.volume_info(), "no gzip".into())
        .await
        .unwrap();
    saved.target.0.lock().unwrap().objects.clear();
    let mut options = saved.options();
    options.backup = "b".parse().unwrap();
    let (_keep, cancel) = watch::channel(false);
    let name = "other".parse().unwrap();
    let report = restore(
        &saved.target.cluster(),
        &saved.location,
        &name,
        &options,
        &mut |_| Ok(cancel.clone()),
        &crate::progress::Silent,
    )
    .await;
    let report = report.unwrap();
    assert!(
        report.errors[0].contains("can not be told"),
        "{:?}",
        report.errors
    );
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
async fn what_is_asked_for_and_not_done_is_told_once_a_kind() {
    let hooked = |n: u64, name: &str| {
        object(
            "pods",
            n,
            &format!("n/{name}"),
            json!({"metadata": {"annotations": {
            "post.hook.restore.velero.io/command": "[\"x\"]", "init.hook.restore.velero.io/container-name": "c"}}}),
        )
    };
    let saved = Saved::new(&[
        hooked(1, "one"),
        hooked(2, "two"),
        object(
            "configmaps",
            4,
            "n/image",
            json!({"metadata": {"labels": {"velero.io/change-image-name": "RestoreItemAction"}}}),
        ),
    ])
    .await;
    let warnings = saved.restore(|_| {}).await.unwrap().warnings;
    let told = warnings.join("\n");
    assert_eq!(warnings.len(), 2, "{told}");
    for part in [
        "pods n/one and others",
        "n/image in the backup asks for other images: a restore goes by what stands in the target",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[tokio::test]
async fn what_was_asked_for_is_changed_and_an_object_that_can_not_be_is_not_made() {
    let saved = Saved::new(&[
        object(
            "persistentvolumeclaims",
            1,
            "n/a",
            json!({"spec": {"storageClassName": "slow"}}),
        ),
        object(
            "persistentvolumeclaims",
            2,
            "n/b",
            json!({"spec": {"storageClassName": "old"}}),
        ),
        object(
            "pods",
            3,
            "n/p",
            json!({"spec": {"containers": [{"image": "docker.io/x"}]}}),
        ),
        object("configmaps", 4, "n/good", json!({"data": {"k": "v"}})),
        object("configmaps", 5, "n/bad", json!({})),
    ])
    .await;
    saved.target.put(
        "/apis/storage.k8s.io/v1/storageclasses/fast",
        json!({"metadata": {"name": "fast"}}),
    );
    let rules = "version: v1
resourceModifierRules:
- conditions: {groupResource: configmaps, namespaces: [n]}
  patches: [{operation: replace, path: /data/k, value: w}, {operation: replace, path: /metadata/namespace, value: x}]
";
    let modifiers = Arc::new(rewriting::ResourceModifiers::parse(rules).unwrap());
    let ask = |options: &mut RestoreOptions| {
        options.namespace_mappings = mappings(&[("n", "m")]);
        options.rewriting = rewriting::Rewriting {
            storage_classes: mappings(&[("slow", "fast"), ("old", "gone")]),
            images: vec![("docker.io".into(), "mirror".into())],
            modifiers: Some(modifiers.clone()),
            ..rewriting::Rewriting::default()
        };
    };
    let report = saved.restore(ask).await.unwrap();
    assert_eq!(report.counts, [4, 0, 0, 2], "{:?}", report.errors);
    let errors = report.errors.join("\n");
    for part in [
        "m/bad: resource modifiers can not be applied: rule 1: there is no /data/k",
        "m/b: storage class old is mapped to gone, which the target does not have",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    let made = |path: &str| saved.target.get(&format!("/api/v1/namespaces/m/{path}"));
    assert_eq!(
        made("persistentvolumeclaims/a")["spec"]["storageClassName"],
        "fast"
    );
    assert_eq!(made("pods/p")["spec"]["containers"][0]["image"], "mirror/x");
    let good = made("configmaps/good");
    assert_eq!(
        (&good["data"]["k"], &good["metadata"]["namespace"]),
        (&json!("w"), &json!("m"))
    );
    assert!(made("configmaps/bad").is_null());
    // The rewrites count for whose restore it is.
    let other = saved.restore(|options| {
        options.name = Some("r".parse().unwrap());
        options.namespace_mappings = mappings(&[("n", "m")]);
    });
    let other = other.await;
    assert!(other.unwrap_err().to_string().contains("had other options"));
    let report = saved.restore(ask).await.unwrap();
    assert_eq!(report.counts, [0, 0, 3, 2]);
}

#[tokio::test]
async fn a_restore_that_goes_on_keeps_the_mappings_of_the_target_with_which_it_began() {
    let claim = |number, name: &str| {
        let spec = json!({"spec": {"storageClassName": "slow"}});
        object("persistentvolumeclaims", number, &format!("n/{name}"), spec)
    };
    let saved = Saved::new(&[claim(1, "a"), claim(2, "b")]).await;
    for class in ["fast", "other"] {
        saved.target.put(
            &format!("/apis/storage.k8s.io/v1/storageclasses/{class}"),
            json!({"metadata": {"name": class}}),
        );
    }
    let path = |name: &str| format!("/api/v1/namespaces/n/persistentvolumeclaims/{name}");
    let class = |name: &str| saved.target.get(&path(name))["spec"]["storageClassName"].clone();
    let says = |classes: &[(&str, &str)], images: &[&str]| rewriting::Rewriting {
        storage_classes: mappings(classes),
        images: images
            .iter()
            .map(|image| ((*image).into(), "new".into()))
            .collect(),
        ..rewriting::Rewriting::default()
    };
    let given = says(&[("mine", "own")], &["x"]);
    let first = saved.restore(|options| {
        options.rewriting = given.clone();
        options.of_target = says(&[("slow", "fast")], &["y"]);
    });
    let first = first.await.unwrap();
    assert_eq!((class("a"), class("b")), (json!("fast"), json!("fast")));
    // Since then the ConfigMaps have gone, or say something else.
    for now in [says(&[], &[]), says(&[("slow", "other")], &["z"])] {
        saved.target.0.lock().unwrap().objects.remove(&path("b"));
        let again = saved.restore(|options| {
            options.rewriting = given.clone();
            options.of_target = now;
        });
        let again = again.await.unwrap();
        assert!(again.resumed);
        assert_eq!(class("b"), "fast");
        assert_eq!(again.restore.spec, first.restore.spec);
    }
    let want = json!({"mine": "own", "slow": "fast"});
    assert_eq!(first.restore.spec.rest["storageClassMapping"], want);
    let want = json!([["x", "new"], ["y", "new"]]);
    assert_eq!(first.restore.spec.rest["imageMapping"], want);
}

#[tokio::test]
async fn a_status_comes_back_where_the_kind_or_the_object_asks_for_it() {
    let status = || json!({"phase": "Bound", "n": {"x": 1e2}});
    let annotated = |said: &str| json!({"metadata": {"annotations": {"velero.io/restore-status": said}}, "status": status()});
    let saved = Saved::new(&[
        object("services", 1, "n/plain", json!({"status": status()})),
        object("services", 2, "n/not", annotated(" False ")),
        object("services", 3, "n/odd", annotated("maybe")),
        object("services", 4, "n/none", json!({})),
        object("configmaps", 5, "n/said", annotated("TRUE")),
        object("configmaps", 6, "n/plain", json!({"status": status()})),
        object("pods", 7, "n/refused", annotated("true")),
        object("namespaces", 8, "n", annotated("true")),
    ])
    .await;
    {
        let mut target = saved.target.0.lock().unwrap();
        target.conflicts = 3;
        target.annotates = true;
        target.refuses = vec![("PUT", "pods/refused/status", 404, "NotFound")];
    }
    let report = saved
        .restore(|options| {
            options.rewriting.status = Some(rewriting::StatusKinds {
                included: vec!["svc".into(), "services".into()],
                excluded: Vec::new(),
            });
        })
        .await
        .unwrap();
    assert!(report.errors.is_empty(), "{:?}", report.errors);
    let warned = report.warnings.join("\n");
    assert!(
        warned.contains("n/refused: created, but its status was not restored"),
        "{warned}"
    );
    let of =
        |path: &str| saved.target.get(&format!("/api/v1/namespaces/n/{path}"))["status"].clone();
    for path in ["services/plain", "services/odd", "configmaps/said"] {
        assert_eq!(of(path), status(), "{path}");
        let live = saved.target.get(&format!("/api/v1/namespaces/n/{path}"));
        let annotations = &live["metadata"]["annotations"];
        assert_eq!(annotations["admission"], "was here", "{path}");
    }
    for path in [
        "services/not",
        "services/none",
        "configmaps/plain",
        "pods/refused",
    ] {
        assert!(of(path).is_null(), "{path}");
    }
    assert!(saved.target.get("/api/v1/namespaces/n")["status"].is_null());
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
