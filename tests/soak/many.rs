//! 500 Schedules and 5,000 Backups: what the controller costs while nothing is to be done, and what one backup takes beside them.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use harness::load::Load;
use harness::proc::{bytes, cpu_time};
use harness::proxy::{Call, Proxy};
use harness::run::Running;
use harness::served::{NAMESPACE, Served};
use serde_json::{Value, json};

use super::schedules::items;
use super::{Row, mebibytes, must, row, say};

const SCHEDULES: usize = 500;
const BACKUPS: usize = 5000;
/// Measured for so long; figures are a minute's.
const MINUTES: u32 = 3;

/// What the Deployment of `install` may take.
const LIMIT: u64 = 512 << 20;
/// Backups that are made at a time by default.
const AT_A_TIME: usize = 4;

pub(super) fn run() -> Vec<Row> {
    let mut served = Served::without_controller("soak-many");
    let api = Proxy::start(&served.cluster.endpoint());
    let store = Proxy::start(served.minio.upstream());
    let kubeconfig = served.cluster.token_kubeconfig(&api.url());
    let start =
        |served: &Served, flags: &[&str]| served.call(flags).kubeconfig(&kubeconfig).spawn();

    // They come from the bucket, as those of a cluster that was lost.
    let makes = Instant::now();
    served.minio.put_all(&served.bucket, markers());
    say(&format!("{BACKUPS} folders made in {:?}", makes.elapsed()));
    let finds = Instant::now();
    served.controller = Some(start(&served, &["--backup-sync-period=1s"]));
    served.cluster_has_kinds();
    served.location_at(&store.url(), "default", "main", true);
    let schedules = "/apis/velero.io/v1/namespaces/kubectl-backup/schedules";
    let mut client = served.cluster.client();
    for number in 0..SCHEDULES {
        let made = client
            .post_json(schedules, schedule(number).to_string())
            .unwrap();
        assert!(made.is_success(), "{}", made.text());
    }
    harness::wait_for("an object for each", Duration::from_secs(900), || {
        thread::sleep(Duration::from_secs(2));
        let path = "/apis/velero.io/v1/namespaces/kubectl-backup/backups?limit=1";
        let list = client.get(path).ok()?.json();
        let rest = list["metadata"]["remainingItemCount"].as_u64()?;
        (rest as usize + 1 >= BACKUPS).then_some(())
    });
    let found = finds.elapsed();
    let pid = |served: &Served| served.controller.as_ref().map(Running::pid).unwrap();
    let finding = bytes(pid(&served), "VmHWM");
    drop(served.controller.take().unwrap().kill());

    served.controller = Some(start(&served, &[]));
    let pid = pid(&served);
    let known = |served: &Served| {
        let all = items(served, "schedules");
        all.iter()
            .all(|schedule| schedule["status"]["phase"] == "Enabled")
    };
    served.wait("backupstoragelocations/default", "synced", |location| {
        // After the Lease of the one that was killed is over, and by this one.
        served.log().contains("serving velero.io/v1")
            && location["status"]["lastSyncedTime"].is_string()
    });
    harness::wait_for(
        "schedules that are followed",
        harness::served::PATIENT,
        || known(&served).then_some(()),
    );
    thread::sleep(Duration::from_secs(30));

    api.clear_calls();
    store.clear_calls();
    let work = cpu_time(pid);
    thread::sleep(Duration::from_secs(60) * MINUTES);
    let work = (cpu_time(pid) - work) / MINUTES;
    let (requests, bucket) = (api.calls(), store.calls());
    let idle = bytes(pid, "VmRSS");
    assert_eq!(items(&served, "backups").len(), BACKUPS);

    api.clear_calls();
    store.clear_calls();
    let took = Instant::now();
    served.apply(&format!("{{apiVersion: velero.io/v1, kind: Backup, metadata: {{name: one, namespace: {NAMESPACE}}}, spec: {{includedNamespaces: [default]}}}}"));
    served.ends("one", "Completed");
    let took = took.elapsed();
    let of_one = format!(
        "{:.1} s, {}, {}",
        took.as_secs_f64(),
        api.calls().len(),
        store.calls().len()
    );
    for call in api.calls().iter().chain(&store.calls()) {
        say(&format!("{} {}", call.method, call.target));
    }
    let peak = bytes(pid, "VmHWM");
    large(&served);
    let large = bytes(pid, "VmHWM");
    let title = format!("{SCHEDULES} Schedules and {BACKUPS} Backups");
    let number = |calls: &[Call]| a_minute(calls.len());
    vec![
        row(
            &format!("{title}: from an empty cluster and a full bucket to an object for each"),
            format!("{:.0} s", found.as_secs_f64()),
        ),
        row("the same: most memory ever resident", mebibytes(finding)),
        must(
            &format!("{title}, nothing to be done: resident memory"),
            mebibytes(idle),
            "at most 160 MiB",
            idle <= 160 << 20,
        ),
        row("the same: most memory ever resident", mebibytes(peak)),
        row(
            "the same: processor time a minute",
            format!("{:.2} s", work.as_secs_f64()),
        ),
        must(
            "the same: requests to the API server a minute",
            by_kind(&requests),
            "at most 60",
            number(&requests) <= 60.0,
        ),
        must(
            "the same: requests to the bucket a minute",
            by_kind(&bucket),
            "at most 12",
            number(&bucket) <= 12.0,
        ),
        row(
            "a Backup of one namespace beside them: from kubectl apply to Completed, requests to the API server, to the bucket",
            of_one,
        ),
        must(
            &format!(
                "{AT_A_TIME} Backups of 300 Secrets of 1 MiB at a time beside them: most memory ever resident"
            ),
            mebibytes(large),
            "at most four fifths of what the Deployment may take",
            large <= LIMIT / 5 * 4,
        ),
    ]
}

/// As many large backups as are made at a time.
fn large(served: &Served) {
    let load = Load {
        prefix: "large".to_owned(),
        secrets: 300,
        secret_bytes: 1_040_000,
        half_random: true,
        ..Load::default()
    };
    load.fill(&served.cluster.endpoint());
    for number in 0..AT_A_TIME {
        served.apply(&format!("{{apiVersion: velero.io/v1, kind: Backup, metadata: {{name: large-{number}, namespace: {NAMESPACE}}}, spec: {{includedNamespaces: [{}]}}}}", load.namespace(0)));
    }
    for number in 0..AT_A_TIME {
        let backup = format!("backups/large-{number}");
        harness::wait_for(&backup, Duration::from_secs(900), || {
            let phase = served.object(&backup)?["status"]["phase"].take();
            assert!(
                !phase.as_str().unwrap_or_default().contains("Failed"),
                "{backup}: {phase}\n{}",
                served.log()
            );
            (phase == "Completed").then_some(())
        });
    }
}

/// Numbers of requests a minute, in all and of each kind.
fn by_kind(calls: &[Call]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for call in calls {
        let path = call.target.split('?').next().unwrap_or_default();
        let what = match path.rsplit('/').find(|part| !part.is_empty()) {
            _ if call.target.contains("list-type=2") => "list",
            Some(last) => last,
            None => "/",
        };
        let watch = if call.target.contains("watch=") {
            " watch"
        } else {
            ""
        };
        *counts
            .entry(format!("{}{watch} {what}", call.method))
            .or_default() += 1;
    }
    let each = counts
        .iter()
        .map(|(what, count)| format!("{what} {:.1}", a_minute(*count)));
    let each: Vec<String> = each.collect();
    format!("{:.1} ({})", a_minute(calls.len()), each.join(", "))
}

fn a_minute(count: usize) -> f64 {
    count as f64 / f64::from(MINUTES)
}

/// Half of them are paused; the others are due in a month.
fn schedule(number: usize) -> Value {
    json!({
        "apiVersion": "velero.io/v1", "kind": "Schedule",
        "metadata": {"name": schedule_name(number), "namespace": NAMESPACE, "labels": {"team": "shop"}},
        "spec": {
            "schedule": if number.is_multiple_of(2) { "0 0 1 * *" } else { "*/5 * * * *" },
            "paused": !number.is_multiple_of(2),
            "template": {"includedNamespaces": ["shop"], "ttl": "2400h0m0s", "labelSelector": {"matchLabels": {"app": "web"}}},
        },
    })
}

fn schedule_name(number: usize) -> String {
    format!("schedule-{number:03}")
}

/// The markers of backups that each of the schedules made, as the controller writes them, and where they lie.
fn markers() -> impl Iterator<Item = (String, String)> {
    (0..BACKUPS).map(|number| {
        let schedule = schedule_name(number % SCHEDULES);
        let (month, day) = (number / SCHEDULES % 10 + 1, number % 28 + 1);
        let name = format!("{schedule}-2026{month:02}{day:02}000000");
        let at = |time: &str| format!("2026-{month:02}-{day:02}T{time}Z");
        let marker = json!({
            "apiVersion": "velero.io/v1", "kind": "Backup",
            "metadata": {
                "name": name, "namespace": NAMESPACE, "uid": format!("{number:032x}"), "creationTimestamp": at("00:00:00"),
                "labels": {"velero.io/schedule-name": schedule, "velero.io/storage-location": "default", "team": "shop"},
                "annotations": {
                    "kubectl-backup/cluster-uid": "00000000-0000-0000-0000-000000000000", "kubectl-backup/expires": "2099-01-01T00:00:00Z",
                    "velero.io/source-cluster-k8s-gitversion": "v1.35.0", "velero.io/source-cluster-k8s-major-version": "1",
                    "velero.io/source-cluster-k8s-minor-version": "35",
                },
            },
            "spec": {
                "includedNamespaces": ["shop"], "storageLocation": "default", "ttl": "2400h0m0s", "csiSnapshotTimeout": "10m0s",
                "itemOperationTimeout": "4h0m0s", "labelSelector": {"matchLabels": {"app": "web"}},
            },
            "status": {
                "phase": "Completed", "version": 1, "formatVersion": "1.1.0", "startTimestamp": at("00:00:01"),
                "completionTimestamp": at("00:00:09"), "progress": {"totalItems": 40, "itemsBackedUp": 40},
            },
        });
        (
            format!("main/backups/{name}/velero-backup.json"),
            marker.to_string(),
        )
    })
}
