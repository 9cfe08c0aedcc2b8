//! 100 schedules at `@every 1m` for ten minutes: no slot is missed, none is taken twice, and memory does not grow. Backups live for two minutes, so that as
//! many go as come: what grows then is a leak.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use harness::load::Load;
use harness::proc::{bytes, cpu_time};
use harness::served::{NAMESPACE, PATIENT, Served};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Row, mebibytes, must, row, say};

const SCHEDULES: usize = 100;
const SLOTS: usize = 10;
const MINUTE: Duration = Duration::from_secs(60);

pub(super) fn run() -> Vec<Row> {
    let served = Served::start_with("soak-schedules", &["--garbage-collection-frequency=30s"]);
    let load = Load {
        prefix: "soak".to_owned(),
        namespaces: 10,
        config_maps: 20,
        secrets: 5,
        deployments: 5,
        ..Load::default()
    };
    load.fill(&served.cluster.endpoint());
    let pid = served.controller.as_ref().unwrap().pid();
    let schedules = "/apis/velero.io/v1/namespaces/kubectl-backup/schedules";
    let mut client = served.cluster.client();
    let began = Instant::now();
    for number in 0..SCHEDULES {
        let schedule = json!({
            "apiVersion": "velero.io/v1", "kind": "Schedule",
            "metadata": {"name": format!("s{number:03}"), "namespace": NAMESPACE},
            "spec": {"schedule": "@every 1m", "template": {"ttl": "2m0s", "includedNamespaces": [load.namespace(number % load.namespaces)]}},
        });
        let made = client.post_json(schedules, schedule.to_string()).unwrap();
        assert!(made.is_success(), "{}", made.text());
    }
    let created: BTreeMap<String, Timestamp> = items(&served, "schedules")
        .iter()
        .map(|schedule| {
            (
                name(schedule).to_owned(),
                time(schedule, "/metadata/creationTimestamp").unwrap(),
            )
        })
        .collect();
    say(&format!(
        "{SCHEDULES} schedules made in {:?}",
        began.elapsed()
    ));

    // By minute, the most memory that was seen in it.
    let mut memory = [0; SLOTS + 1];
    let work = cpu_time(pid);
    let mut backups: BTreeMap<String, Value> = BTreeMap::new();
    let mut see = |seen: Vec<Value>| {
        for backup in seen {
            let uid = backup["metadata"]["uid"].as_str().unwrap().to_owned();
            backups.insert(uid, backup);
        }
    };
    // Half a minute after the tenth slot of the last one, and before the eleventh of the first.
    while began.elapsed() < MINUTE * SLOTS as u32 + MINUTE / 2 {
        let minute = began.elapsed().as_secs() as usize / 60;
        memory[minute] = memory[minute].max(bytes(pid, "VmRSS"));
        see(items(&served, "backups"));
        thread::sleep(Duration::from_secs(1));
    }
    let work = cpu_time(pid) - work;
    served.cluster.kubectl(&[
        "-n",
        NAMESPACE,
        "delete",
        "schedules.velero.io",
        "--all",
        "--wait=false",
    ]);
    say(&format!(
        "memory by minute: {:?}",
        memory
            .iter()
            .map(|bytes| mebibytes(*bytes))
            .collect::<Vec<_>>()
    ));
    let stored = || -> BTreeSet<String> {
        let keys = served.minio.list(&served.bucket, "main/backups");
        let markers = keys
            .iter()
            .filter(|key| key.ends_with("/velero-backup.json"));
        markers
            .filter_map(|key| Some(key.split('/').nth(2)?.to_owned()))
            .collect()
    };
    let left = harness::wait_for("backups that ended and are in the bucket", PATIENT, || {
        let all = items(&served, "backups");
        see(all.clone());
        let left: BTreeSet<String> = all.iter().map(|backup| name(backup).to_owned()).collect();
        let is_over = |backup: &Value| time(backup, "/status/completionTimestamp").is_some();
        (all.iter().all(is_over) && left == stored()).then_some(left)
    });
    let backups: Vec<Value> = backups.into_values().collect();

    let mut taken: BTreeMap<(String, Timestamp), usize> = BTreeMap::new();
    let mut waits = Vec::new();
    for backup in &backups {
        let schedule = backup["metadata"]["labels"]["velero.io/schedule-name"].as_str();
        let slot = time(backup, "/metadata/annotations/kubectl-backup~1slot").unwrap();
        *taken
            .entry((schedule.unwrap().to_owned(), slot))
            .or_default() += 1;
        if let Some(started) = time(backup, "/status/startTimestamp") {
            waits.push(started.duration_since(slot).as_secs());
        }
    }
    let expected: BTreeSet<(String, Timestamp)> = created
        .iter()
        .flat_map(|(schedule, created)| {
            let slot =
                |nth: usize| *created + SignedDuration::from_secs(60) * i32::try_from(nth).unwrap();
            (1..=SLOTS).map(move |nth| (schedule.clone(), slot(nth)))
        })
        .collect();
    let missed: Vec<_> = expected
        .iter()
        .filter(|slot| !taken.contains_key(*slot))
        .collect();
    let odd: Vec<_> = taken
        .iter()
        .filter(|(slot, count)| **count > 1 || !expected.contains(*slot))
        .collect();
    let failed = backups
        .iter()
        .filter(|backup| backup["status"]["phase"] != "Completed")
        .count();
    if !missed.is_empty() || !odd.is_empty() || failed > 0 {
        say(&format!(
            "missed: {missed:?}\nodd: {odd:?}\n{}",
            served.log()
        ));
    }
    waits.sort_unstable();
    let wait = |part: usize| waits.get(waits.len() * part / 100).copied().unwrap_or(-1);
    let ratio = memory[SLOTS - 1] as f64 / memory[2].max(1) as f64;
    vec![
        row(
            &format!("{SCHEDULES} schedules at @every 1m for {SLOTS} minutes: backups made"),
            backups.len(),
        ),
        must(
            "the same: slots missed",
            missed.len(),
            "0",
            missed.is_empty(),
        ),
        must(
            "the same: slots taken twice, or that are none",
            odd.len(),
            "0",
            odd.is_empty(),
        ),
        must(
            "the same: backups that are not Completed",
            failed,
            "0",
            failed == 0,
        ),
        must(
            "the same: backups that are left, as objects and in the bucket",
            left.len(),
            "fewer than of 5 minutes",
            left.len() < 5 * SCHEDULES,
        ),
        row(
            "the same: seconds from a slot to its backup's beginning, median, 99 of 100, most",
            format!(
                "{}, {}, {}",
                wait(50),
                wait(99),
                waits.last().copied().unwrap_or(-1)
            ),
        ),
        must(
            "the same: resident memory in the tenth minute, beside the third",
            format!(
                "{} beside {}: {ratio:.2} times",
                mebibytes(memory[SLOTS - 1]),
                mebibytes(memory[2])
            ),
            "at most 1.1 times",
            ratio <= 1.1,
        ),
        row(
            "the same: most memory ever resident",
            mebibytes(bytes(pid, "VmHWM")),
        ),
        row(
            "the same: processor time",
            format!("{:.1} s", work.as_secs_f64()),
        ),
    ]
}

pub(super) fn items(served: &Served, plural: &str) -> Vec<Value> {
    let mut list = served.object(plural).unwrap();
    list["items"].as_array_mut().unwrap().split_off(0)
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

fn time(object: &Value, pointer: &str) -> Option<Timestamp> {
    object.pointer(pointer)?.as_str()?.parse().ok()
}
