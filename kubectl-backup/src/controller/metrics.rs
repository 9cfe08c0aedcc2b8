//! Metrics in Prometheus' text format. Pure: what the copies of objects say now, and what was counted of them.
//!
//! Names are Velero's where it has the number, so that its dashboards and alerts work as they are; the others begin with `kubectl_backup_`. Gauges tell of the
//! objects that are there, so that a restart changes none; counters begin at nothing with each controller, as Prometheus expects of counters.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::history::{BOUNDS, Counts, schedule_of};
use super::objects::{annotation, name, phase, time};

/// The annotation with the size of a backup's archive, in bytes.
pub(crate) const ARCHIVE_BYTES: &str = "kubectl-backup/archive-bytes";

/// What there is.
#[derive(Default)]
pub(crate) struct Facts {
    locations: Vec<Arc<Value>>,
    backups: Vec<Arc<Value>>,
    schedules: Vec<Arc<Value>>,
    restores: Vec<Arc<Value>>,
    counts: Counts,
    works: bool,
}

impl Facts {
    /// Objects of all kinds, what was counted of them, and whether this controller works or waits for another one.
    pub(crate) fn of(objects: Vec<Arc<Value>>, counts: Counts, works: bool) -> Self {
        let mut facts = Self {
            counts,
            works,
            ..Self::default()
        };
        for object in objects {
            let of = match object["kind"].as_str() {
                Some("BackupStorageLocation") => &mut facts.locations,
                Some("Backup") => &mut facts.backups,
                Some("Schedule") => &mut facts.schedules,
                Some("Restore") => &mut facts.restores,
                _ => continue,
            };
            of.push(object);
        }
        facts
    }
}

/// Families of metrics as text.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (at, (key, value)) in labels.iter().enumerate() {
            self.0.push(if at == 0 { '{' } else { ',' });
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            let _ = write!(self.0, "{key}=\"{value}\"");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }
}

/// The text of all metrics.
pub(crate) fn render(facts: &Facts) -> String {
    let mut text = Text::default();
    text.family(
        "kubectl_backup_build_info",
        "gauge",
        "The version that runs.",
    );
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    text.sample("kubectl_backup_build_info", &version, 1);
    let help = "1 where this controller works, 0 where it waits for another one.";
    text.gauge("kubectl_backup_works", help, u8::from(facts.works));
    of_locations(&mut text, facts);
    of_backups(&mut text, facts);
    of_schedules(&mut text, facts);
    text.gauge(
        "velero_restore_total",
        "Restores that are there.",
        facts.restores.len(),
    );
    of_counts(&mut text, &facts.counts);
    text.0
}

fn of_locations(text: &mut Text, facts: &Facts) {
    let family = "velero_backup_location_status_gauge";
    text.family(family, "gauge", "1 where a location is available.");
    for location in &facts.locations {
        let is_available = u8::from(phase(location) == "Available");
        text.sample(
            family,
            &[("backup_location_name", name(location))],
            is_available,
        );
    }
}

fn of_backups(text: &mut Text, facts: &Facts) {
    text.gauge(
        "velero_backup_total",
        "Backups that are there.",
        facts.backups.len(),
    );
    let mut by_phase: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut waiting = 0;
    for backup in &facts.backups {
        let phase = match phase(backup) {
            "" => "New",
            phase => phase,
        };
        waiting += u64::from(matches!(phase, "New" | "Queued" | "ReadyToStart"));
        *by_phase.entry((schedule_of(backup), phase)).or_default() += 1;
    }
    let family = "kubectl_backup_backups";
    text.family(
        family,
        "gauge",
        "Backups that are there, by phase and schedule.",
    );
    for ((schedule, phase), count) in by_phase {
        text.sample(family, &[("schedule", schedule), ("phase", phase)], count);
    }
    text.gauge(
        "kubectl_backup_waiting_backups",
        "Backups that wait for their place.",
        waiting,
    );
}

/// Numbers of the newest backup, and of the newest good one, of each schedule; those that no schedule made count together, under an empty name.
fn of_schedules(text: &mut Text, facts: &Facts) {
    let mut last: BTreeMap<&str, (Timestamp, &Value)> = BTreeMap::new();
    let mut good: BTreeMap<&str, (Timestamp, &Value)> = BTreeMap::new();
    for backup in &facts.backups {
        let is_good = phase(backup) == "Completed";
        if !is_good && !matches!(phase(backup), "PartiallyFailed" | "Failed") {
            continue;
        }
        let Some(ended) = time(backup, "/status/completionTimestamp") else {
            continue;
        };
        let newest = |of: &mut BTreeMap<_, (Timestamp, _)>| {
            let there = of.entry(schedule_of(backup)).or_insert((ended, &**backup));
            if there.0 < ended {
                *there = (ended, &**backup);
            }
        };
        newest(&mut last);
        if is_good {
            newest(&mut good);
        }
    }
    let mut each = |family: &str,
                    help: &str,
                    of: &BTreeMap<&str, (Timestamp, &Value)>,
                    value: &dyn Fn(Timestamp, &Value) -> Option<f64>| {
        text.family(family, "gauge", help);
        for (schedule, (ended, backup)) in of {
            if let Some(value) = value(*ended, backup) {
                text.sample(family, &[("schedule", schedule)], value);
            }
        }
    };
    let number = |backup: &Value, pointer: &str| backup.pointer(pointer).and_then(Value::as_f64);
    each(
        "velero_backup_last_successful_timestamp",
        "When the newest good backup ended, seconds since 1970.",
        &good,
        &|ended, _| Some(ended.as_second() as f64),
    );
    each(
        "velero_backup_last_status",
        "1 where the newest backup is good.",
        &last,
        &|_, backup| Some(f64::from(phase(backup) == "Completed")),
    );
    each(
        "velero_backup_items_total",
        "Objects of the newest backup.",
        &last,
        &|_, backup| number(backup, "/status/progress/totalItems"),
    );
    each(
        "velero_backup_items_errors",
        "Errors of the newest backup.",
        &last,
        &|_, backup| Some(number(backup, "/status/errors").unwrap_or(0.0)),
    );
    each(
        "velero_backup_tarball_size_bytes",
        "Bytes of the newest backup's archive.",
        &last,
        &|_, backup| annotation(backup, ARCHIVE_BYTES)?.parse().ok(),
    );
    each(
        "kubectl_backup_last_duration_seconds",
        "How long the newest backup took.",
        &last,
        &|ended, backup| {
            let began = time(backup, "/status/startTimestamp")?;
            Some(ended.duration_since(began).as_secs_f64().max(0.0))
        },
    );
    let family = "kubectl_backup_schedule_enabled";
    text.family(
        family,
        "gauge",
        "1 where a schedule is followed, 0 where it is paused or can not be.",
    );
    for schedule in &facts.schedules {
        let is_followed = phase(schedule) == "Enabled" && schedule["spec"]["paused"] != true;
        text.sample(
            family,
            &[("schedule", name(schedule))],
            u8::from(is_followed),
        );
    }
}

fn of_counts(text: &mut Text, counts: &Counts) {
    let mut family = "";
    for ((metric, schedule), count) in &counts.totals {
        if family != *metric {
            text.family(
                metric,
                "counter",
                "As Velero counts it, since this controller was started.",
            );
            family = metric;
        }
        text.sample(metric, &[("schedule", schedule)], count);
    }
    let family = "velero_backup_duration_seconds";
    text.family(
        family,
        "histogram",
        "How long backups took, since this controller was started.",
    );
    for (schedule, durations) in &counts.durations {
        let of = ("schedule", schedule.as_str());
        for (count, bound) in durations.within.iter().zip(BOUNDS) {
            text.sample(
                &format!("{family}_bucket"),
                &[of, ("le", &bound.to_string())],
                count,
            );
        }
        text.sample(
            &format!("{family}_bucket"),
            &[of, ("le", "+Inf")],
            durations.count,
        );
        text.sample(&format!("{family}_sum"), &[of], durations.sum);
        text.sample(&format!("{family}_count"), &[of], durations.count);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::history::Durations;

    fn backup(name: &str, schedule: &str, phase: &str, minute: u32) -> Arc<Value> {
        Arc::new(json!({
            "kind": "Backup",
            "metadata": {"name": name, "labels": {"velero.io/schedule-name": schedule}, "annotations": {ARCHIVE_BYTES: "1234"}},
            "status": {
                "phase": phase, "errors": 2, "progress": {"totalItems": 9},
                "startTimestamp": "2026-11-21T02:00:00Z", "completionTimestamp": format!("2026-11-21T02:{minute:02}:00Z"),
            },
        }))
    }

    fn facts(counts: Counts) -> Facts {
        let mut objects = vec![
            backup("a", "nightly", "Completed", 1),
            backup("b", "nightly", "Failed", 2),
            backup("c", "", "Completed", 3),
            Arc::new(json!({"kind": "Backup", "metadata": {"name": "d"}})),
        ];
        for (kind, name, spec, phase) in [
            ("BackupStorageLocation", "a\"b", json!({}), "Available"),
            ("Schedule", "nightly", json!({"paused": true}), "Enabled"),
            ("DownloadRequest", "x", json!({}), "Processed"),
        ] {
            objects.push(Arc::new(json!({
                "kind": kind, "metadata": {"name": name}, "spec": spec, "status": {"phase": phase},
            })));
        }
        Facts::of(objects, counts, true)
    }

    #[test]
    fn each_schedule_has_the_numbers_of_its_newest_backup() {
        let text = render(&facts(Counts::default()));
        for line in [
            "velero_backup_location_status_gauge{backup_location_name=\"a\\\"b\"} 1",
            "velero_backup_total 4",
            "kubectl_backup_backups{schedule=\"nightly\",phase=\"Failed\"} 1",
            "kubectl_backup_waiting_backups 1",
            "velero_backup_last_successful_timestamp{schedule=\"nightly\"} 1795226460",
            "velero_backup_last_status{schedule=\"nightly\"} 0",
            "velero_backup_last_status{schedule=\"\"} 1",
            "velero_backup_items_total{schedule=\"\"} 9",
            "velero_backup_tarball_size_bytes{schedule=\"nightly\"} 1234",
            "kubectl_backup_last_duration_seconds{schedule=\"\"} 180",
            "kubectl_backup_schedule_enabled{schedule=\"nightly\"} 0",
        ] {
            assert!(text.lines().any(|there| there == line), "{line}\n{text}");
        }
    }

    #[test]
    fn every_family_is_described_once_and_its_samples_stand_together() {
        let mut counts = Counts::default();
        for schedule in ["", "nightly"] {
            for metric in ["velero_backup_attempt_total", "velero_backup_success_total"] {
                counts.totals.insert((metric, schedule.to_owned()), 1);
            }
            counts
                .durations
                .insert(schedule.to_owned(), Durations::default());
        }
        let text = render(&facts(counts));
        let mut described = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let name = rest.split(' ').next().unwrap();
                assert!(!described.contains(&name), "{name} twice");
                described.push(name);
            } else if !line.starts_with('#') {
                let end = line.find(['{', ' ']).unwrap();
                let family = described.last().unwrap();
                assert!(line[..end].starts_with(family), "{line} after {family}");
                let value = line.rsplit(' ').next().unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(described.len() > 12);
    }
}
