use backup_core::api::EtcdBackupConfigSpec;
use backup_core::api::hosted::ClusterReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

const CREATED: &str = "2026-11-20T12:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn config(schedule: Option<&str>) -> EtcdBackupConfig {
    let spec = EtcdBackupConfigSpec {
        cluster: ClusterReference::to("zvc78xnnz7"),
        schedule: schedule.map(str::to_owned),
        keep: Some(2),
        destination: "s3".to_owned(),
        ..EtcdBackupConfigSpec::default()
    };
    let mut config = EtcdBackupConfig::new("daily", spec);
    config.metadata.creation_timestamp = Some(Time(at(CREATED)));
    config
}

fn row(slot: &str, phase: RowPhase) -> SnapshotRow {
    let slot = at(slot);
    SnapshotRow {
        scheduled_time: Some(Time(slot)),
        backup_name: names::of("daily", slot).unwrap().to_string(),
        job_name: "etcd-1/1".to_owned(),
        backup_phase: phase,
        ..SnapshotRow::default()
    }
}

fn with_rows(mut config: EtcdBackupConfig, rows: Vec<SnapshotRow>) -> EtcdBackupConfig {
    let mut status = EtcdBackupConfigStatus::default();
    status.set_rows(rows);
    config.status = Some(status);
    config
}

fn plane() -> Plane {
    Plane {
        cluster: "zvc78xnnz7".to_owned(),
        namespace: "cluster-zvc78xnnz7".to_owned(),
        lives_in: Some("cluster-zvc78xnnz7".to_owned()),
        ..Plane::default()
    }
}

fn planned_with<'a>(
    config: &'a EtcdBackupConfig,
    now: &str,
    change: impl FnOnce(&mut Seen<'a>),
) -> Plan {
    let mut seen = Seen {
        config,
        unknown: &[],
        plane: Box::leak(Box::new(plane())),
        place: &Place::Ready,
        taking: false,
        now: at(now),
    };
    change(&mut seen);
    plan(&seen)
}

fn planned(config: &EtcdBackupConfig, now: &str) -> Plan {
    planned_with(config, now, |_| {})
}

#[test]
fn slots_that_were_missed_are_one_snapshot() {
    let config = config(Some("@every 20m"));
    assert_eq!(planned(&config, "2026-11-20T12:19:59Z").take, None);
    let due = planned(&config, "2026-11-20T15:01:00Z").take.unwrap();
    assert_eq!(due.name.as_str(), "daily-2026-11-20t15-00-00");
    assert_eq!((due.attempt, due.before), (1, None));
    let after = with_rows(
        config,
        vec![row("2026-11-20T15:00:00Z", RowPhase::Completed)],
    );
    let plan = planned(&after, "2026-11-20T15:01:05Z");
    assert_eq!(plan.take, None);
    assert_eq!(plan.told.next, Some(at("2026-11-20T15:20:00Z")));
    assert_eq!(plan.told.message, "");
    assert!(plan.told.scheduling.yes);
}

#[test]
fn one_snapshot_is_taken_once_and_its_row_stays() {
    let once = config(None);
    let due = planned(&once, "2026-11-20T12:00:03Z").take.unwrap();
    assert_eq!(due.name.as_str(), "daily-2026-11-20t12-00-00");
    for phase in [RowPhase::Completed, RowPhase::Failed] {
        let after = with_rows(config(None), vec![row(CREATED, phase)]);
        let plan = planned(&after, "2026-12-20T12:00:00Z");
        assert_eq!((plan.take, plan.forget.len()), (None, 0));
    }
    let mut removed = row(CREATED, RowPhase::Completed);
    removed.delete_phase = RowPhase::Completed;
    let plan = planned(
        &with_rows(config(None), vec![removed]),
        "2026-12-20T12:00:00Z",
    );
    assert_eq!(
        (plan.take, plan.forget.len()),
        (None, 0),
        "it would be taken again"
    );
}

#[test]
fn a_row_that_somebody_left_running_is_taken_up_and_given_up_in_the_end() {
    let mut left = row("2026-11-20T12:20:00Z", RowPhase::Running);
    let config = config(Some("@every 20m"));
    let with = |row: &SnapshotRow| with_rows(config.clone(), vec![row.clone()]);
    let now = "2026-11-20T12:45:00Z";
    let due = planned(&with(&left), now).take.unwrap();
    assert_eq!((due.attempt, due.before.as_deref()), (2, Some("etcd-1/1")));
    assert_eq!(
        due.slot,
        at("2026-11-20T12:20:00Z"),
        "the newer slot comes after it"
    );
    let here = planned_with(&with(&left), now, |seen| seen.taking = true);
    assert_eq!(here.take, None, "this launcher is at work on it");
    left.job_name = job("etcd-2", MOST_ATTEMPTS);
    let plan = planned(&with(&left), now);
    let (due, why) = plan.fail.unwrap();
    assert_eq!(plan.take, None);
    assert!(why.contains("etcd-2/3"), "{why}");
    assert_eq!(due.before.as_deref(), Some("etcd-2/3"));
}

#[test]
fn a_destination_that_can_not_be_used_fails_a_slot_and_holds_a_request_up() {
    let place = Place::Unusable("destination \"s3\" is not there".to_owned());
    let now = "2026-11-20T12:20:00Z";
    let plan = planned_with(&config(Some("@every 20m")), now, |seen| seen.place = &place);
    assert_eq!(
        plan.fail.as_ref().unwrap().1,
        "destination \"s3\" is not there"
    );
    assert!(!plan.told.destination.as_ref().unwrap().yes);
    assert!(plan.told.message.contains("is not there"));
    let plan = planned_with(&config(None), now, |seen| seen.place = &place);
    assert_eq!((plan.take, plan.fail), (None, None));
    assert!(plan.told.message.contains("is not there"));
    // The hosting API did not say: nothing is known, and nothing is failed.
    let plan = planned_with(&config(Some("@every 20m")), now, |seen| {
        seen.place = &Place::Unknown;
    });
    assert_eq!(
        (plan.take, plan.fail, plan.told.destination),
        (None, None, None)
    );
}

#[test]
fn removals_that_fail_do_not_stop_snapshots() {
    let mut rows: Vec<_> = (0..200)
        .map(|minute| {
            let slot = at("2026-11-20T13:00:00Z") + jiff::SignedDuration::from_mins(20 * minute);
            let mut row = row(&slot.to_string(), RowPhase::Completed);
            row.delete_phase = RowPhase::Failed;
            row.delete_message = "403".to_owned();
            row
        })
        .collect();
    rows.push(row("2026-11-24T00:00:00Z", RowPhase::Completed));
    let config = with_rows(config(Some("@every 20m")), rows);
    let plan = planned(&config, "2026-11-24T00:20:00Z");
    assert!(plan.take.is_some());
    assert_eq!(plan.remove.len(), 200);
    assert_eq!(plan.leave.len(), 0);
    assert!(plan.told.message.contains("200 old snapshots") && plan.told.message.contains("403"));
}

#[test]
fn what_can_not_be_removed_does_not_eat_the_object_up() {
    let rows: Vec<_> = (0..MOST_ROWS + 7)
        .map(|number| {
            let slot = at("2026-11-20T13:00:00Z")
                + jiff::SignedDuration::from_mins(20 * i64::try_from(number).unwrap());
            let mut row = row(&slot.to_string(), RowPhase::Completed);
            row.delete_phase = RowPhase::Failed;
            row
        })
        .collect();
    let oldest = rows[0].backup_name.clone();
    let plan = planned(
        &with_rows(config(Some("@daily")), rows),
        "2026-11-20T14:00:00Z",
    );
    assert_eq!(plan.leave.len(), 7);
    assert_eq!(plan.leave[0], oldest);
    assert_eq!(plan.remove.len(), MOST_ROWS);
}

#[test]
fn keep_is_obeyed_and_told_where_it_counts_as_another_number() {
    let rows = ["12:20", "12:40", "13:00"]
        .map(|time| row(&format!("2026-11-20T{time}:00Z"), RowPhase::Completed))
        .to_vec();
    let mut config = with_rows(config(Some("@every 20m")), rows);
    let now = "2026-11-20T13:01:00Z";
    assert_eq!(planned(&config, now).remove, ["daily-2026-11-20t12-20-00"]);
    config.spec.keep = Some(-3);
    let plan = planned(&config, now);
    assert_eq!(plan.remove.len(), 2);
    assert!(
        plan.told.message.contains("keep is -3, which counts as 1"),
        "{}",
        plan.told.message
    );
}

#[test]
fn a_restore_or_a_pause_of_the_cluster_holds_snapshots_up() {
    let config = config(Some("@every 20m"));
    let now = "2026-11-20T13:01:00Z";
    let restoring = Plane {
        restoring: Some("cluster-restore".to_owned()),
        ..plane()
    };
    let plan = planned_with(&config, now, |seen| seen.plane = &restoring);
    assert_eq!((plan.take, plan.cancel), (None, true));
    assert_eq!(plan.told.scheduling.reason, "RestoreActive");
    assert!(plan.told.message.contains("cluster-restore"));
    let paused = Plane {
        paused: true,
        ..plane()
    };
    let plan = planned_with(&config, now, |seen| seen.plane = &paused);
    assert_eq!((plan.take, plan.cancel), (None, false));
    assert_eq!(plan.told.scheduling.reason, "ClusterPaused");
}

#[test]
fn what_can_not_be_meant_is_told_and_nothing_is_taken() {
    let elsewhere = Plane {
        lives_in: Some("cluster-x".to_owned()),
        ..plane()
    };
    let nowhere = Plane {
        lives_in: None,
        ..plane()
    };
    let unknown = ["shedule".to_owned()];
    fn told<'a>(
        config: &'a EtcdBackupConfig,
        change: &dyn Fn(&mut Seen<'a>),
    ) -> (&'static str, String) {
        let plan = planned_with(config, "2026-11-20T13:01:00Z", |seen| change(seen));
        assert_eq!(
            (&plan.take, &plan.fail, plan.remove.len()),
            (&None, &None, 0)
        );
        assert!(!plan.told.scheduling.yes);
        (plan.told.scheduling.reason, plan.told.message)
    }
    for bad in [
        "61 * * * *",
        "@every banana",
        "0 0 31 2 *",
        "TZ=Mars/Base 0 1 * * *",
    ] {
        let (reason, message) = told(&config(Some(bad)), &|_| {});
        assert_eq!(reason, "InvalidSchedule", "{bad}");
        assert!(!message.is_empty());
    }
    let mut foreign = config(Some("@daily"));
    foreign.spec.cluster.name = "other".to_owned();
    let (reason, message) = told(&foreign, &|_| {});
    assert_eq!(reason, "ClusterNotHere");
    assert!(
        message.contains("other") && message.contains("zvc78xnnz7"),
        "{message}"
    );
    let good = config(Some("@daily"));
    let (reason, message) = told(&good, &|seen| seen.unknown = &unknown);
    assert_eq!(reason, "InvalidSpec");
    assert!(
        message.contains("shedule") && message.contains("schedule,"),
        "{message}"
    );
    for plane in [&elsewhere, &nowhere] {
        assert_eq!(told(&good, &|seen| seen.plane = plane).0, "ClusterNotHere");
    }
}

#[test]
fn with_the_object_its_snapshots_go_only_where_it_says_so() {
    let rows = vec![
        row("2026-11-20T12:20:00Z", RowPhase::Completed),
        row("2026-11-20T12:40:00Z", RowPhase::Failed),
    ];
    let mut config = with_rows(config(Some("@every 20m")), rows);
    assert!(!planned(&config, "2026-11-20T12:41:00Z").finalizer);
    config.metadata.deletion_timestamp = Some(Time(at("2026-11-20T12:45:00Z")));
    let plan = planned(&config, "2026-11-20T13:01:00Z");
    assert_eq!(
        (plan.finalizer, plan.remove.len(), plan.take),
        (false, 0, None)
    );
    config.spec.deletion_policy = DeletionPolicy::Delete;
    let plan = planned(&config, "2026-11-20T13:01:00Z");
    assert_eq!(plan.remove, ["daily-2026-11-20t12-20-00"]);
    assert!(plan.finalizer);
    config.metadata.deletion_timestamp = None;
    assert!(planned(&config, "2026-11-20T12:41:00Z").finalizer);
}

#[test]
fn whatever_a_status_holds_there_is_a_plan() {
    let words = [
        "",
        "Running",
        "Completed",
        "Failed",
        "Whatever",
        "../..",
        "\u{1F4A5}/4294967295",
    ];
    for (backup_name, phase) in words.iter().flat_map(|a| words.iter().map(move |b| (a, b))) {
        for deleted in words {
            let odd = SnapshotRow {
                backup_name: (*backup_name).to_owned(),
                job_name: (*backup_name).to_owned(),
                backup_phase: (*phase).into(),
                delete_phase: deleted.into(),
                ..SnapshotRow::default()
            };
            let config = with_rows(config(Some("@every 20m")), vec![odd.clone(), odd]);
            let plan = planned(&config, "2026-11-20T13:01:00Z");
            assert!(plan.take.is_none() || plan.fail.is_none());
        }
    }
}
