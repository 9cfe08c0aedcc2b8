use std::collections::BTreeMap;
use std::io::Read as _;

use super::options::COPY_ALL_BEFORE;
use super::server::{Server, refuse};
use super::*;
use crate::api::Phase;
use crate::archive::verify;
use crate::filter::Filter;
use crate::layout::BackupKeys;
use crate::progress::Silent;

impl BackupOptions {
    /// Of everything, at a moment that is always the same: for the tests of this crate.
    pub(crate) fn of_everything(name: &str) -> Self {
        Self {
            name: name.parse().unwrap(),
            filter: Filter::default(),
            single_namespace: false,
            expires: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            snapshot_volumes: None,
            policies: None,
            copies: None,
            template: crate::api::BackupSpec::default(),
            exact: true,
            host: "test".into(),
            process: crate::hooks::Process::default(),
            now: "2026-11-21T02:00:00Z".parse().unwrap(),
        }
    }
}

fn options() -> BackupOptions {
    BackupOptions {
        expires: Some("2026-12-21T02:00:00Z".parse().unwrap()),
        labels: [("team".to_owned(), "x".to_owned())].into(),
        now: "2026-11-21T02:00:00.5Z".parse().unwrap(),
        ..BackupOptions::of_everything("nightly")
    }
}

fn server() -> Server {
    let mut server = Server::new();
    for n in 0..50 {
        server.add(
            "/api/v1/configmaps",
            &format!(
                r#"{{"metadata":{{"name":"c{n:03}","namespace":"default"}},"data":{{"n":"{n}"}}}}"#
            ),
        );
    }
    server.add(
        "/api/v1/persistentvolumeclaims",
        r#"{"metadata":{"name":"data","namespace":"default","uid":"uid-data"},"spec":{"volumeName":"pv-1"}}"#,
    );
    server.add("/api/v1/persistentvolumes", r#"{"metadata":{"name":"pv-1","labels":{"a":"b"}},"spec":{"persistentVolumeReclaimPolicy":"Delete"}}"#);
    server
}

async fn make(
    server: Server,
    location: &Location,
    options: &BackupOptions,
) -> Result<BackupReport> {
    let (cluster, _) = server.start();
    let (_sender, cancel) = tokio::sync::watch::channel(false);
    create(&cluster, location, options, cancel, &Silent).await
}

async fn read(location: &Location, key: &str) -> String {
    let bytes = location.store.get(key, 10 << 20).await.unwrap();
    if !key.ends_with(".gz") {
        return String::from_utf8(bytes.to_vec()).unwrap();
    }
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(bytes.as_ref())
        .read_to_string(&mut text)
        .unwrap();
    text
}

async fn files(location: &Location) -> Vec<String> {
    let mut keys: Vec<String> = location
        .store
        .entries("backups/", 1000)
        .await
        .unwrap()
        .into_iter()
        .map(|entry| entry.key)
        .collect();
    keys.sort();
    keys
}

#[tokio::test]
async fn a_backup_has_every_file_of_velero_and_ours_and_they_agree() {
    let location = Location::in_memory("mem");
    let report = make(server(), &location, &options()).await.unwrap();
    let keys = BackupKeys::new(&options().name);
    assert_eq!(
        report.backup.status.phase,
        Phase::Completed,
        "{:?}",
        report.errors
    );
    assert_eq!(report.volumes_not_saved, ["default/data"]);
    assert_eq!(files(&location).await.len(), 13);
    assert!(files(&location).await.contains(&keys.snapshots()));
    let sums =
        crate::catalog::Digests::parse(read(&location, &keys.digests()).await.as_bytes()).unwrap();
    for key in files(&location).await {
        if key != keys.digests() {
            let bytes = location.store.get(&key, 10 << 20).await.unwrap();
            let file = key.rsplit('/').next().unwrap();
            assert_eq!(
                sums.of(file).unwrap(),
                crate::location::sha256(&bytes),
                "{key}"
            );
        }
    }
    let marker: Backup = serde_json::from_str(&read(&location, &keys.marker()).await).unwrap();
    assert_eq!(marker.status.progress.unwrap().total_items, 54);
    assert_eq!(marker.spec.included_namespaces, ["*"]);
    assert_eq!(marker.spec.ttl.unwrap().to_string(), "719h59m59s");
    assert_eq!(
        marker.metadata.annotations["kubectl-backup/cluster-uid"],
        "uid-kube-system"
    );
    assert_eq!(
        marker.metadata.annotations["kubectl-backup/revision"],
        "100"
    );
    assert_eq!(marker.metadata.labels["velero.io/storage-location"], "mem");
    let list: BTreeMap<String, Vec<String>> =
        serde_json::from_str(&read(&location, &keys.resource_list()).await).unwrap();
    assert_eq!(list["v1/ConfigMap"].len(), 50);
    assert_eq!(list["v1/Namespace"], ["default", "kube-system"]);
    let volumes: serde_json::Value =
        serde_json::from_str(&read(&location, &keys.volume_info()).await).unwrap();
    assert_eq!(volumes[0]["skipped"], true);
    let copies = crate::records::copies::copies(&location.store, keys.name());
    let copies = copies.await.unwrap().unwrap();
    assert_eq!(copies.cluster.as_deref(), Some("uid-kube-system"));
    assert_eq!(
        (copies.rows.len(), copies.rows[0].uid.as_str()),
        (1, "uid-data")
    );
    assert_eq!(volumes[0]["pvInfo"]["reclaimPolicy"], "Delete");
    let results: serde_json::Value =
        serde_json::from_str(&read(&location, &keys.results()).await).unwrap();
    assert!(
        results["warnings"]["namespaces"]["default"][0]
            .as_str()
            .unwrap()
            .contains("default/data")
    );
    assert_eq!(read(&location, &keys.volume_snapshots()).await, "[]");
    assert!(
        read(&location, &keys.logs())
            .await
            .contains("saved 50 configmaps at revision 100")
    );
    let (archive, index) = (
        location.store.source(keys.archive()),
        location.store.source(keys.index()),
    );
    let findings = verify::verify(&archive, Some(&index), &Silent)
        .await
        .unwrap();
    assert_eq!(findings.problems, Vec::<String>::new());
    assert_eq!(findings.objects, 54);
}

#[tokio::test]
async fn gaps_and_hooks_that_were_asked_for_make_it_partially_failed() {
    let location = Location::in_memory("mem");
    let asking = || {
        let mut server = server();
        server.add("/api/v1/pods", r#"{"metadata":{"name":"db","namespace":"default","annotations":{"backup.velero.io/backup-volumes":"data"}}}"#);
        server
    };
    let report = make(asking(), &location, &options()).await.unwrap();
    assert_eq!(report.backup.status.phase, Phase::PartiallyFailed);
    assert!(
        report.errors[0].contains("pod default/db"),
        "{:?}",
        report.errors
    );

    let mut wanted = options();
    wanted.name = "without".parse().unwrap();
    wanted.snapshot_volumes = Some(false);
    let report = make(server(), &location, &wanted).await.unwrap();
    assert_eq!(report.backup.status.phase, Phase::Completed);
    assert_eq!(report.volumes_not_saved, ["default/data"]);
    assert_eq!(report.warnings, Vec::<String>::new());

    let mut server = server();
    server.fault = Box::new(|asked| {
        (asked.path == "/api/v1/secrets").then(|| refuse(403, "Forbidden", "no secrets for you"))
    });
    wanted.name = "forbidden".parse().unwrap();
    let report = make(server, &location, &wanted).await.unwrap();
    assert_eq!(report.backup.status.phase, Phase::PartiallyFailed);
    assert_eq!(
        report.errors,
        ["secrets could not be read: no secrets for you"]
    );
    assert_eq!(report.backup.status.errors, 1);
}

#[tokio::test]
async fn a_backup_that_is_stopped_or_fails_leaves_nothing() {
    let location = Location::in_memory("mem");
    // Stopped while the lists are read.
    let (sender, cancel) = tokio::sync::watch::channel(false);
    let mut stopped = server();
    stopped.fault = Box::new(move |asked| {
        if asked.path == "/api/v1/pods" && asked.is_first_page() {
            sender.send_replace(true);
            return Some(refuse(429, "TooManyRequests", "for ever"));
        }
        None
    });
    let (cluster, _) = stopped.start();
    let error = create(&cluster, &location, &options(), cancel, &Silent)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted);
    assert_eq!(files(&location).await, Vec::<String>::new());
    // The credentials expire half-way.
    let mut expired = server();
    expired.fault = Box::new(|asked| {
        (asked.path == "/api/v1/configmaps" && asked.get("continue").is_some())
            .then(|| refuse(401, "Unauthorized", "token expired"))
    });
    let error = make(expired, &location, &options()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthorized);
    assert_eq!(files(&location).await, Vec::<String>::new());
    // And the name is free.
    make(server(), &location, &options()).await.unwrap();
    let error = make(server(), &location, &options()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::AlreadyExists);
    assert_eq!(files(&location).await.len(), 13);
}

#[tokio::test]
async fn another_cluster_may_not_write_here() {
    let location = Location::in_memory("mem");
    make(server(), &location, &options()).await.unwrap();
    let mut other = server();
    other.fix(
        "/api/v1/namespaces/kube-system",
        200,
        r#"{"metadata":{"uid":"somebody-else"}}"#,
    );
    let mut options = options();
    options.name = "second".parse().unwrap();
    let error = make(other, &location, &options).await.unwrap_err();
    assert!(
        error
            .hint_text()
            .unwrap()
            .contains("kubectl backup location adopt mem")
    );
    // Who may not read who they are may create.
    let mut unknown = server();
    unknown.fix("/api/v1/namespaces/kube-system", 403, "{}");
    make(unknown, &location, &options).await.unwrap();
}

#[tokio::test]
async fn a_namespace_that_is_not_there_is_an_error() {
    let location = Location::in_memory("mem");
    let mut options = options();
    options.filter.namespaces = vec!["typo".into()];
    let error = make(server(), &location, &options).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    options.filter.namespaces = vec!["default".into(), "typo".into()];
    let report = make(server(), &location, &options).await.unwrap();
    assert_eq!(report.backup.status.phase, Phase::PartiallyFailed);
    assert!(report.errors[0].contains("typo"));
}

#[tokio::test]
async fn resource_policies_say_which_volumes_need_not_be_saved_and_which_have_to_be() {
    let mut server = server();
    for (name, labels) in [("scratch", "skip"), ("theirs", "custom"), ("gold", "copy")] {
        server.add(
            "/api/v1/persistentvolumeclaims",
            &format!(
                r#"{{"metadata":{{"name":"{name}","namespace":"default","uid":"uid-{name}","labels":{{"do":"{labels}"}}}},"spec":{{"volumeName":"unseen"}}}}"#
            ),
        );
    }
    for (pod, annotation) in [("asks-in-vain", "s"), ("asks", "s, d"), ("silent", "")] {
        server.add(
            "/api/v1/pods",
            &format!(
                r#"{{"metadata":{{"name":"{pod}","namespace":"default","annotations":{{"backup.velero.io/backup-volumes":"{annotation}"}}}},
                "spec":{{"volumes":[{{"name":"s","persistentVolumeClaim":{{"claimName":"scratch"}}}},{{"name":"d","persistentVolumeClaim":{{"claimName":"data"}}}}]}}}}"#
            ),
        );
    }
    let policies = Policies::parse(
        "version: v1
volumePolicies:
- {conditions: {pvcLabels: {do: skip}}, action: {type: skip}}
- {conditions: {pvcLabels: {do: custom}}, action: {type: custom}}
- {conditions: {pvcLabels: {do: copy}}, action: {type: fs-backup}}",
    )
    .unwrap();
    let mut options = options();
    options.policies = Some(Arc::new(policies));
    let location = Location::in_memory("mem");
    let report = make(server, &location, &options).await.unwrap();
    assert_eq!(report.backup.status.phase, Phase::PartiallyFailed);
    assert_eq!(
        report.volumes_left_out,
        ["default/scratch", "default/theirs"]
    );
    assert_eq!(report.volumes_not_saved, ["default/data", "default/gold"]);
    assert_eq!(
        report.errors,
        [
            "the data of PersistentVolumeClaim default/data is not saved: a copy of its files was asked for, and none was made",
            "the data of PersistentVolumeClaim default/gold is not saved: a copy of its files was asked for, and none was made",
        ]
    );
    let infos = read(&location, &BackupKeys::new(&options.name).volume_info()).await;
    let infos: serde_json::Value = serde_json::from_str(&infos).unwrap();
    let mut all = infos.as_array().unwrap().iter();
    let scratch = all.find(|info| info["pvcName"] == "scratch").unwrap();
    assert_eq!(scratch["skippedReason"], "skipped due to resource policy");
    assert_eq!(
        (&scratch["skipped"], &scratch["pvName"]),
        (&true.into(), &"unseen".into())
    );

    let choosing =
        "version: v1\nincludeExcludePolicy: {excludedNamespaceScopedResources: [secrets]}";
    options.policies = Some(Arc::new(Policies::parse(choosing).unwrap()));
    options.validate().unwrap();
    options.filter.resources = vec!["pods".into()];
    let refused = options.validate().unwrap_err();
    assert!(
        refused.to_string().contains("includeExcludePolicy"),
        "{refused}"
    );
}

#[tokio::test]
async fn what_a_spec_asks_for_and_is_not_done_is_no_success() {
    let mut options = options();
    options.template.hooks = serde_json::json!({"resources": [{"name": "freeze"}]});
    options
        .template
        .rest
        .insert("defaultVolumesToFsBackup".into(), true.into());
    let location = Location::in_memory("mem");
    let report = make(server(), &location, &options).await.unwrap();
    assert_eq!(report.backup.status.phase, Phase::PartiallyFailed);
    let told = report.errors.join("\n");
    assert!(told.contains("default/data"), "{told}");
    assert_eq!(report.backup.spec.hooks["resources"][0]["name"], "freeze");
    assert_eq!(report.backup.spec.rest["defaultVolumesToFsBackup"], true);
}

#[test]
fn a_location_asks_for_copies_of_all_volumes_where_nobody_else_says() {
    let mut location = Location::in_memory("mem");
    for (word, said, is_asked) in [
        ("true", None, true),
        ("true", Some((COPY_ALL, false)), false),
        ("true", Some((COPY_ALL_BEFORE, false)), false),
        ("false", Some((COPY_ALL_BEFORE, true)), true),
        ("false", None, false),
    ] {
        let annotations = &mut location.spec.metadata.annotations;
        annotations.insert(COPY_ALL_OF_LOCATION.to_owned(), word.to_owned());
        let mut options = options();
        let said = said.map(|(key, said)| (key.to_owned(), said.into()));
        options.template.rest.extend(said.clone());
        let asked = options.at(&location).unwrap();
        assert_eq!(asked.copies_by_default(), is_asked, "{word} {said:?}");
        // Who looks at the backup sees what was meant.
        let is_told = asked.template.rest.values().any(|value| *value == true);
        assert_eq!(is_told, is_asked, "{word} {said:?}");
    }
    let annotations = &mut location.spec.metadata.annotations;
    annotations.insert(COPY_ALL_OF_LOCATION.to_owned(), "yes".to_owned());
    let refused = options().at(&location).unwrap_err();
    assert!(
        refused.to_string().contains(COPY_ALL_OF_LOCATION),
        "{refused}"
    );
}
