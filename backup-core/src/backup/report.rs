//! What a backup says of itself: messages, the log, Velero's side files, the digests, and the marker. Builds bytes; writes nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

use bytes::Bytes;
use jiff::{Timestamp, ToSpan, Unit};
use serde::Serialize;
use serde_json::Value;

use super::BackupOptions;
use super::gather::Gathered;
use super::names::GzText;
use super::page::Seen;
use crate::apart::{self, Apart};
use crate::api::{
    API_VERSION, Backup, BackupSpec, BackupStatus, GoDuration, Meta, Phase, Progress,
};
use crate::archive::row::{Outcome, ResourceRow};
use crate::catalog::CLUSTER_UID;
use crate::error::{Error, Result};
use crate::hooks::bracket::Tally;
use crate::records::copies::{Outcome as VolumeOutcome, Row};

/// Messages kept of each sort; what goes beyond is counted.
const MOST_MESSAGES: usize = 10_000;

/// What a message is about: the places in Velero's results.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum About {
    #[default]
    Backup,
    Cluster,
    Namespace(String),
}

/// Messages of one sort.
#[derive(Clone, Debug, Default)]
pub(super) struct Messages {
    kept: Vec<(About, String)>,
    more: u64,
}

impl Messages {
    fn add(&mut self, about: About, text: String) {
        if self.kept.len() < MOST_MESSAGES {
            self.kept.push((about, text));
        } else {
            self.more += 1;
        }
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.kept.len() as u64 + self.more
    }

    fn rest(&self) -> Option<String> {
        (self.more > 0).then(|| format!("and {} more", self.more))
    }

    /// As sentences.
    pub(super) fn sentences(&self) -> Vec<String> {
        let kept = self.kept.iter().map(|(_, text)| text.clone());
        kept.chain(self.rest()).collect()
    }

    fn results(&self) -> Results<'_> {
        let mut results = Results::default();
        for (about, text) in &self.kept {
            match about {
                About::Backup => results.velero.push(text.into()),
                About::Cluster => results.cluster.push(text.into()),
                About::Namespace(namespace) => results
                    .namespaces
                    .entry(namespace)
                    .or_default()
                    .push(text.into()),
            }
        }
        results.velero.extend(self.rest().map(Into::into));
        results
    }
}

/// One half of `<name>-results.gz`.
#[derive(Debug, Default, Serialize)]
struct Results<'a> {
    velero: Vec<std::borrow::Cow<'a, str>>,
    cluster: Vec<std::borrow::Cow<'a, str>>,
    namespaces: BTreeMap<&'a str, Vec<std::borrow::Cow<'a, str>>>,
}

/// The log, as logrus writes it.
#[derive(Debug)]
pub(super) struct Log {
    began: Timestamp,
    clock: Instant,
    text: Mutex<GzText>,
}

impl Log {
    /// An empty log of a backup that begins now.
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            began: now,
            clock: Instant::now(),
            text: Mutex::default(),
        }
    }

    /// The time by the caller's clock.
    pub(super) fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.clock.elapsed().as_millis()).unwrap_or_default();
        self.began
            .checked_add(passed.milliseconds())
            .unwrap_or(self.began)
    }

    /// A line.
    pub(super) fn line(&self, level: &str, message: &str) {
        let time = whole_seconds(self.now());
        let message = Value::from(message).to_string();
        let line =
            format!("time=\"{time}\" level={level} msg={message} logSource=kubectl-backup\n");
        self.text
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line.as_bytes());
    }

    /// All of it, compressed.
    pub(super) fn finish(&self) -> Bytes {
        std::mem::take(&mut *self.text.lock().unwrap_or_else(PoisonError::into_inner)).finish()
    }
}

/// What came of a backup, in words.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// What is missing.
    pub(super) errors: Messages,
    /// What should be known.
    pub(super) warnings: Messages,
    /// Claims whose data is not there, `ns/name`.
    pub(super) not_saved: Vec<String>,
    /// Claims whose data a resource policy leaves out, `ns/name`.
    pub(super) left_out: Vec<String>,
}

/// Judges what was seen: what is missing is an error, what should be known a warning.
pub(super) fn judge(
    options: &BackupOptions,
    gathered: &Gathered,
    rows: &[ResourceRow],
    revision: Option<u64>,
    seen: &Seen,
    claims: &[Row],
    hooks: &Tally,
) -> Findings {
    let mut findings = Findings::default();
    let Findings {
        errors, warnings, ..
    } = &mut findings;
    for row in rows.iter().filter(|row| row.outcome == Outcome::Failed) {
        let how = if row.count > 0 {
            "could be read only in part"
        } else {
            "could not be read"
        };
        errors.add(
            About::Cluster,
            format!("{} {how}: {}", row.resource, row.why),
        );
    }
    for namespace in &gathered.missing_namespaces {
        errors.add(
            About::Namespace(namespace.clone()),
            format!("namespace {namespace} was asked for and does not exist"),
        );
    }
    for kind in &gathered.unknown_kinds {
        warnings.add(
            About::Backup,
            format!("this cluster serves no resource type {kind:?}, which a filter names"),
        );
    }
    for (namespace, text) in &seen.unfit {
        let about = if namespace.is_empty() {
            About::Cluster
        } else {
            About::Namespace(namespace.clone())
        };
        errors.add(about, text.clone());
    }
    judge_volumes(&mut findings, options, seen, claims);
    let Findings {
        errors, warnings, ..
    } = &mut findings;
    for told in &hooks.told {
        let about = About::Namespace(told.namespace.clone());
        match told.is_error {
            true => errors.add(about, told.text.clone()),
            false => warnings.add(about, told.text.clone()),
        }
    }
    if rows.iter().all(|row| row.count == 0) {
        warnings.add(
            About::Backup,
            "nothing is what was asked for: the backup holds no object".to_owned(),
        );
    }
    if seen.terminating > 0 {
        warnings.add(
            About::Backup,
            format!(
                "{} objects that are being deleted were left out",
                seen.terminating
            ),
        );
    }
    warn_of_revisions(warnings, options, rows, revision);
    findings
}

/// What became of the data of volumes.
fn judge_volumes(findings: &mut Findings, options: &BackupOptions, seen: &Seen, claims: &[Row]) {
    for row in claims {
        let name = row.name();
        let about = About::Namespace(row.namespace.clone());
        let text = format!("the data of PersistentVolumeClaim {name} is not saved");
        match &row.outcome {
            VolumeOutcome::Saved(_) | VolumeOutcome::Snapshot(_) | VolumeOutcome::Nothing(_) => {}
            VolumeOutcome::LeftOut(_) => findings.left_out.push(name),
            VolumeOutcome::Failed(why) | VolumeOutcome::NotUnderstood(why) => {
                findings.errors.add(about, format!("{text}: {why}"));
                findings.not_saved.push(name);
            }
            VolumeOutcome::NotAsked(why) => {
                if options.wants_snapshots() != Some(false) {
                    findings.warnings.add(about, format!("{text}: {why}"));
                }
                findings.not_saved.push(name);
            }
        }
    }
    for (namespace, pod, volume, kind) in &seen.in_vain {
        let is = match *kind {
            "" => "it has no volume of that name".to_owned(),
            kind => format!(
                "only files of PersistentVolumeClaims are copied, and this is of type {kind}"
            ),
        };
        findings.errors.add(
            About::Namespace(namespace.clone()),
            format!("pod {namespace}/{pod} asks for the files of its volume {volume:?}, which are not saved: {is}"),
        );
    }
    if options.copies_by_default() && seen.unclaimed > 0 {
        findings.warnings.add(
            About::Backup,
            format!(
                "the files of {} volumes of pods are not saved, for these are no PersistentVolumeClaims (emptyDir and the like)",
                seen.unclaimed
            ),
        );
    }
    for (namespace, pod) in &seen.old_snapshots {
        findings.warnings.add(
            About::Namespace(namespace.clone()),
            format!(
                "pod {namespace}/{pod} has an annotation snapshot.velero.io/ of an old Velero: a restore by Velero would wait in it for files that are not in this backup; remove the annotation"
            ),
        );
    }
}

/// A backup that is not of one moment says so. Events and other servers' types never are.
fn warn_of_revisions(
    warnings: &mut Messages,
    options: &BackupOptions,
    rows: &[ResourceRow],
    revision: Option<u64>,
) {
    if !options.exact {
        return;
    }
    if revision.is_none() {
        // One list is of one moment by itself.
        let lists = rows.iter().filter(|row| row.count > 0).count();
        if lists < 2 {
            return;
        }
        warnings.add(
            About::Backup,
            "no common revision was found: the types were read one after the other".to_owned(),
        );
        return;
    }
    let twice: Vec<&str> = rows
        .iter()
        .filter(|row| !row.second_resource_version.is_empty())
        .map(|row| row.resource.as_str())
        .collect();
    if !twice.is_empty() {
        warnings.add(
            About::Backup,
            format!(
                "the list expired half-way, so that these were read at two revisions: {}",
                twice.join(", ")
            ),
        );
    }
    let mut apart: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in rows.iter().filter(|row| {
        row.outcome == Outcome::Saved
            && row.count > 0
            && !row.exact
            && !row.resource_version.is_empty()
            && row.second_resource_version.is_empty()
            && !matches!(row.resource.as_str(), "events" | "events.events.k8s.io")
    }) {
        apart
            .entry(&row.resource_version)
            .or_default()
            .push(&row.resource);
    }
    for (revision, types) in apart {
        warnings.add(
            About::Backup,
            format!(
                "read at revision {revision}, not at the backup's: {}",
                types.join(", ")
            ),
        );
    }
}

impl Findings {
    /// `Completed`, or `PartiallyFailed` where something is missing.
    pub(super) fn phase(&self) -> Phase {
        if self.errors.count() == 0 {
            Phase::Completed
        } else {
            Phase::PartiallyFailed
        }
    }

    /// `{"errors":..,"warnings":..}`
    pub(super) fn results(&self) -> Result<Vec<u8>> {
        #[derive(Serialize)]
        struct Both<'a> {
            errors: Results<'a>,
            warnings: Results<'a>,
        }
        json(&Both {
            errors: self.errors.results(),
            warnings: self.warnings.results(),
        })
    }

    /// Into the log.
    pub(super) fn log(&self, log: &Log) {
        for text in self.warnings.sentences() {
            log.line("warning", &text);
        }
        for text in self.errors.sentences() {
            log.line("error", &text);
        }
    }
}

/// A side file's text.
pub(super) fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|e| Error::other("a side file can not be written as JSON").because(e))
}

/// What the marker tells besides what was asked for and found.
pub(super) struct Facts<'a> {
    /// The location's name.
    pub(super) location: &'a str,
    /// The kubeconfig context's name.
    pub(super) context: &'a str,
    /// The common revision.
    pub(super) revision: Option<u64>,
    /// Objects saved.
    pub(super) objects: u64,
    /// Secrets that stand apart.
    pub(super) apart: Option<&'a Apart>,
    /// What came of hooks.
    pub(super) hooks: &'a Tally,
    /// When it ended.
    pub(super) completed: Timestamp,
}

/// The Backup object.
pub(super) fn marker(
    options: &BackupOptions,
    gathered: &Gathered,
    findings: &Findings,
    facts: &Facts<'_>,
) -> Backup {
    let Facts {
        location,
        context,
        revision,
        objects,
        apart,
        hooks,
        completed,
    } = *facts;
    let began = whole_seconds(options.now);
    let location = label_value(location);
    let mut labels = options.labels.clone();
    labels.insert("velero.io/storage-location".to_owned(), location.clone());
    let mut annotations = options.annotations.clone();
    // What a reader goes by is said by nobody else.
    annotations.retain(|key, _| !apart::ANNOTATIONS.contains(&key.as_str()));
    annotations.extend(apart.map(Apart::annotations).unwrap_or_default());
    let version = &gathered.version;
    for (key, value) in [
        (
            "velero.io/source-cluster-k8s-gitversion",
            version.git_version.clone(),
        ),
        (
            "velero.io/source-cluster-k8s-major-version",
            version.major.clone(),
        ),
        (
            "velero.io/source-cluster-k8s-minor-version",
            version.minor.clone(),
        ),
        (CLUSTER_UID, gathered.identity.clone().unwrap_or_default()),
        ("kubectl-backup/context", context.to_owned()),
        (
            "kubectl-backup/revision",
            revision.map(|r| r.to_string()).unwrap_or_default(),
        ),
    ] {
        if !value.is_empty() {
            annotations.insert(key.to_owned(), value);
        }
    }
    Backup {
        api_version: API_VERSION.to_owned(),
        kind: "Backup".to_owned(),
        metadata: Meta {
            name: options.name.to_string(),
            namespace: Some("velero".to_owned()),
            creation_timestamp: Some(began),
            labels,
            annotations,
            ..Meta::default()
        },
        spec: spec(options, location),
        status: BackupStatus {
            version: 1,
            format_version: "1.1.0".to_owned(),
            phase: findings.phase(),
            start_timestamp: Some(began),
            completion_timestamp: Some(whole_seconds(completed)),
            expiration: options.expires.map(whole_seconds),
            progress: Some(Progress {
                total_items: objects,
                items_backed_up: Some(objects),
                items_restored: None,
            }),
            warnings: findings.warnings.count(),
            errors: findings.errors.count(),
            rest: hook_status(hooks),
            ..BackupStatus::default()
        },
    }
}

/// `hookStatus`, as Velero counts.
fn hook_status(hooks: &Tally) -> serde_json::Map<String, Value> {
    let mut rest = serde_json::Map::new();
    if hooks.attempted > 0 {
        let counts =
            serde_json::json!({"hooksAttempted": hooks.attempted, "hooksFailed": hooks.failed});
        rest.insert("hookStatus".to_owned(), counts);
    }
    rest
}

/// The Backup object of these options before anything was read.
pub(super) fn planned(options: &BackupOptions, location: &str) -> Backup {
    Backup {
        api_version: API_VERSION.to_owned(),
        kind: "Backup".to_owned(),
        metadata: Meta {
            name: options.name.to_string(),
            labels: options.labels.clone(),
            annotations: options.annotations.clone(),
            ..Meta::default()
        },
        spec: spec(options, label_value(location)),
        ..Backup::default()
    }
}

fn spec(options: &BackupOptions, location: String) -> BackupSpec {
    let template = &options.template;
    let mut rest = template.rest.clone();
    let policies = options.policies.as_ref();
    if let Some(name) = policies.and_then(|policies| policies.config_map()) {
        rest.insert(
            "resourcePolicy".to_owned(),
            serde_json::json!({"kind": "configmap", "name": name}),
        );
    }
    BackupSpec {
        snapshot_volumes: options.snapshot_volumes,
        ttl: options
            .expires
            .map(|expires| {
                let left = expires.duration_since(options.now);
                GoDuration(left.try_into().unwrap_or_default())
            })
            .or(template.ttl),
        storage_location: Some(location),
        hooks: match &template.hooks {
            Value::Null => Value::Object(serde_json::Map::new()),
            hooks => hooks.clone(),
        },
        rest,
        ..options.filter.spec()
    }
}

/// A location's name as a label's value; a URL can not be one.
fn label_value(location: &str) -> String {
    let fits = !location.is_empty()
        && location.len() <= 63
        && location
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
        && location.starts_with(|c: char| c.is_ascii_alphanumeric())
        && location.ends_with(|c: char| c.is_ascii_alphanumeric());
    if fits { location } else { "default" }.to_owned()
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    time.round(
        jiff::TimestampRound::new()
            .smallest(Unit::Second)
            .mode(jiff::RoundMode::Trunc),
    )
    .unwrap_or(time)
}

/// A sentence for the log about what became of a type.
pub(super) fn describe(row: &ResourceRow) -> String {
    let ResourceRow {
        resource,
        outcome,
        why,
        count,
        resource_version,
        second_resource_version,
        exact,
        ..
    } = row;
    let mut text = match outcome {
        Outcome::Saved => format!("saved {count} {resource}"),
        Outcome::Excluded => format!("left out {resource} by rule {why}"),
        Outcome::Failed => format!("failed {resource} after {count} objects: {why}"),
    };
    if !resource_version.is_empty() {
        let own = if *exact { "" } else { ", its own" };
        // Writing to a String can not fail.
        let _ = write!(text, " at revision {resource_version}{own}");
    }
    if !second_resource_version.is_empty() {
        let _ = write!(text, ", then at {second_resource_version}");
    }
    text
}

#[cfg(test)]
mod tests;
