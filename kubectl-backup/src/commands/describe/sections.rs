//! The parts of a description, in the order and the words of Velero's where it has them. Pure.

use std::collections::BTreeMap;

use backup_core::api::{Backup, LabelSelector};
use backup_core::archive::row::{Outcome, ResourceRow};
use backup_core::backup::COPY_ALL;
use backup_core::location::Location;
use backup_core::records::copies::{Hooks, Way};
use backup_core::records::{Data, Messages, Ours, Results, Volume};
use jiff::Timestamp;

use super::keys::Key;
use crate::commands::get::selectors;
use backup_cli::locations;
use backup_cli::output::{self, Description, Table, counted, joined};

/// No list of messages is printed longer.
const MOST_MESSAGES: usize = 1000;

/// The phase, and what went wrong.
pub(crate) fn phase(text: &mut Description, backup: &Backup, results: &Results) {
    let status = &backup.status;
    text.field(0, "Phase", status.phase.to_string());
    if let Some(reason) = &status.failure_reason {
        text.field(0, "Failure reason", reason);
    }
    text.gap();
    self::results(text, results);
}

/// Errors, then warnings.
pub(crate) fn results(text: &mut Description, results: &Results) {
    for (title, messages) in [("Errors", &results.errors), ("Warnings", &results.warnings)] {
        messages_of(text, title, messages);
    }
}

fn messages_of(text: &mut Description, title: &str, messages: &Messages) {
    let mut any = false;
    for (place, message) in messages.iter().take(MOST_MESSAGES) {
        if !any {
            text.heading(title);
        }
        any = true;
        let place = if place.is_empty() {
            String::new()
        } else {
            format!("{place}: ")
        };
        text.item(1, &format!("{place}{message}"));
    }
    if any {
        let more = messages.iter().count().saturating_sub(MOST_MESSAGES);
        if more > 0 {
            text.item(1, &format!("and {more} more, see the log"));
        }
        text.gap();
    }
}

/// Scope, selectors, location, ttl.
pub(crate) fn asked(text: &mut Description, backup: &Backup, location: &Location) {
    let spec = &backup.spec;
    scope(
        text,
        "Namespaces",
        &spec.included_namespaces,
        &spec.excluded_namespaces,
        "*",
    );
    text.heading("Resources");
    let scoped = [
        (
            "Included cluster-scoped",
            &spec.included_cluster_scoped_resources,
        ),
        (
            "Excluded cluster-scoped",
            &spec.excluded_cluster_scoped_resources,
        ),
        (
            "Included namespace-scoped",
            &spec.included_namespace_scoped_resources,
        ),
        (
            "Excluded namespace-scoped",
            &spec.excluded_namespace_scoped_resources,
        ),
    ];
    if scoped.iter().any(|(_, list)| !list.is_empty()) {
        for (title, list) in scoped {
            text.field(1, title, joined(list, "<none>"));
        }
    } else {
        text.field(1, "Included", joined(&spec.included_resources, "*"));
        text.field(1, "Excluded", joined(&spec.excluded_resources, "<none>"));
        text.field(
            1,
            "Cluster-scoped",
            included_or_not(spec.include_cluster_resources),
        );
    }
    text.gap();
    labels(text, spec.label_selector.as_ref(), &spec.or_label_selectors);
    if let Some(policy) = spec.rest.get("resourcePolicy") {
        text.heading("Resource policies");
        for (title, key) in [("Type", "kind"), ("Name", "name")] {
            text.field(1, title, policy[key].as_str().unwrap_or_default());
        }
        text.gap();
    }
    if let Some(order) = spec
        .rest
        .get("orderedResources")
        .and_then(|o| o.as_object())
    {
        text.heading("Ordered resources");
        for (kind, names) in order {
            text.field(1, kind, names.as_str().unwrap_or_default());
        }
        text.gap();
    }
    text.field(0, "Storage Location", named_place(location));
    text.field(
        0,
        "Snapshot volumes",
        included_or_not(spec.snapshot_volumes)
            .replace("included", "true")
            .replace("excluded", "false"),
    );
    if let Some(all) = spec.rest.get(COPY_ALL).and_then(serde_json::Value::as_bool) {
        text.field(0, "Copy the files of all volumes", all.to_string());
    }
    text.field(
        0,
        "TTL",
        spec.ttl
            .map_or_else(|| "never ends".to_owned(), |ttl| ttl.to_string()),
    );
    text.gap();
}

/// A location's name and where it is; a URL says both.
fn named_place(location: &Location) -> String {
    let place = locations::place(&location.spec);
    if location.name.contains("://") {
        location.name.clone()
    } else {
        format!("{} ({place})", location.name)
    }
}

/// What is in and what is out.
pub(crate) fn scope(
    text: &mut Description,
    title: &str,
    included: &[String],
    excluded: &[String],
    all: &str,
) {
    text.heading(title);
    text.field(1, "Included", joined(included, all));
    text.field(1, "Excluded", joined(excluded, "<none>"));
    text.gap();
}

/// Both kinds of selector.
pub(crate) fn labels(text: &mut Description, one: Option<&LabelSelector>, any: &[LabelSelector]) {
    text.field(0, "Label selector", selectors(one, &[]));
    text.field(0, "Or label selector", selectors(None, any));
    text.gap();
}

/// A choice that may be left to the tool.
pub(crate) fn included_or_not(choice: Option<bool>) -> String {
    match choice {
        Some(true) => "included",
        Some(false) => "excluded",
        None => "auto",
    }
    .to_owned()
}

/// When, until when, how much.
pub(crate) fn times(text: &mut Description, backup: &Backup, now: Timestamp) {
    let status = &backup.status;
    text.field(0, "Backup Format Version", &status.format_version);
    text.field(0, "Started", output::time(status.start_timestamp));
    text.field(0, "Completed", output::time(status.completion_timestamp));
    let expires = backup.expiration().map_or_else(
        || "never".to_owned(),
        |at| format!("{} ({})", output::time(Some(at)), output::until(at, now)),
    );
    text.field(0, "Expiration", expires);
    if let Some(progress) = status.progress {
        text.field(
            0,
            "Total items to be backed up",
            progress.total_items.to_string(),
        );
        text.field(
            0,
            "Items backed up",
            progress.items_backed_up.unwrap_or(0).to_string(),
        );
    }
}

/// What became of each resource type: what failed first, what rules left out last.
pub(crate) fn resources(text: &mut Description, rows: &[ResourceRow], details: bool) {
    if rows.is_empty() {
        return;
    }
    let of = |outcome| rows.iter().filter(move |row| row.outcome == outcome);
    let kinds = |outcome| counted(of(outcome).count() as u64, "kind");
    text.gap();
    text.heading("Kinds of the cluster");
    text.field(1, "Failed", kinds(Outcome::Failed));
    for row in of(Outcome::Failed) {
        text.field(2, &row.resource, &row.why);
    }
    let saved: u64 = of(Outcome::Saved).map(ResourceRow::objects).sum();
    text.field(
        1,
        "Saved",
        format!("{}, {}", kinds(Outcome::Saved), counted(saved, "object")),
    );
    for row in of(Outcome::Saved).filter(|row| details || row.objects() > 0) {
        let when = match (row.exact, row.second_resource_version.is_empty()) {
            (true, true) => String::new(),
            (_, false) => format!(
                ", at revisions {} and {}",
                row.resource_version, row.second_resource_version
            ),
            (false, true) if row.resource_version.is_empty() => String::new(),
            (false, true) => format!(", at its own revision {}", row.resource_version),
        };
        let how = if row.apart > 0 { ", encrypted" } else { "" };
        text.field(2, &row.resource, format!("{}{how}{when}", row.objects()));
    }
    let mut revisions: Vec<_> = rows
        .iter()
        .filter(|row| row.exact)
        .map(|row| &row.resource_version)
        .collect();
    revisions.sort();
    revisions.dedup();
    if let [revision] = revisions[..] {
        text.field(1, "Read at revision", revision);
    }
    text.field(1, "Left out", kinds(Outcome::Excluded));
    for row in of(Outcome::Excluded).filter(|_| details) {
        text.field(2, &row.resource, &row.why);
    }
}

/// Kinds and how many objects each has, of a backup that another tool made.
pub(crate) fn kinds(text: &mut Description, list: &BTreeMap<String, Vec<String>>) {
    text.gap();
    if list.is_empty() {
        text.item(
            0,
            "Another tool made this backup; `contents` reads its archive.",
        );
        return;
    }
    text.heading("Kinds of the backup");
    for (kind, names) in list {
        text.field(1, kind, names.len().to_string());
    }
}

/// Each claim, whether its data is in the backup, and how; then what could not be read of that.
pub(crate) fn volumes(
    text: &mut Description,
    volumes: &[Volume],
    unread: &[String],
    keys: Option<&BTreeMap<String, Key>>,
) {
    if volumes.is_empty() && unread.is_empty() {
        return;
    }
    text.gap();
    text.heading("Volumes");
    let mut copies = Table::new(&["CLAIM", "HOW", "FILES", "SIZE", "ADDED", "TOOK"], false);
    for (volume, ours) in ours(volumes) {
        let copy = &ours.copy;
        copies.row([
            volume.name(),
            match ours.hooks {
                Some(Hooks::Failed) => "copied, a hook failed".to_owned(),
                _ => "copied".to_owned(),
            },
            output::count(copy.files),
            output::size(copy.bytes),
            output::size(copy.added),
            took(copy.began, copy.ended),
        ]);
    }
    if !copies.is_empty() {
        for line in copies.render(false).lines() {
            text.item(1, line);
        }
    }
    if let Some(keys) = keys {
        for (volume, ours) in ours(volumes) {
            copy(text, volume, ours, keys.get(&volume.saved_in));
        }
    }
    for volume in volumes.iter().filter(|volume| volume.copy.is_none()) {
        text.field(1, &volume.name(), saved(volume));
        if let Some(snapshot) = volume.snapshot.as_deref().filter(|_| keys.is_some()) {
            text.field(2, "Class", &snapshot.class);
            text.field(2, "Cut", output::time(Some(snapshot.cut)));
            text.field(2, "Needs", output::size(snapshot.size));
        }
    }
    for unread in unread {
        text.item(1, unread);
    }
}

fn ours(volumes: &[Volume]) -> impl Iterator<Item = (&Volume, &Ours)> {
    volumes
        .iter()
        .filter_map(|volume| Some((volume, volume.copy.as_deref()?)))
}

fn took(began: Timestamp, ended: Timestamp) -> String {
    output::took(ended.duration_since(began).try_into().unwrap_or_default())
}

/// Where a copy is, and what it was made of.
fn copy(text: &mut Description, volume: &Volume, ours: &Ours, key: Option<&Key>) {
    let copy = &ours.copy;
    text.item(1, &format!("{}:", volume.name()));
    text.field(2, "Repository", &volume.saved_in);
    if let Some(key) = key {
        text.field(2, "Key", key.words());
    }
    text.field(2, "Snapshot", &copy.snapshot);
    if let Some(base) = &copy.base {
        text.field(2, "Builds upon", base);
    }
    if !volume.pod_name.is_empty() {
        let pod = format!("{}/{}", volume.pod_namespace, volume.pod_name);
        text.field(2, "Pod", format!("{pod}, volume {}", volume.volume_name));
    }
    if let Some(node) = &ours.node {
        text.field(2, "Node", node);
    }
    match (copy.way, &copy.exec_because) {
        (Some(Way::Straight), _) => text.field(2, "Way", "straight to the store"),
        (Some(Way::Exec), None) => text.field(2, "Way", "over exec"),
        (Some(Way::Exec), Some(why)) => text.field(2, "Way", format!("over exec: {why}")),
        (None, _) => {}
    }
    text.field(2, "Began", output::time(Some(copy.began)));
    text.field(2, "Entries", output::count(copy.entries));
    if copy.changed > 0 {
        let files = counted(copy.changed, "file");
        text.field(2, "Changed while read", files);
    }
    if copy.vanished > 0 {
        text.field(2, "Gone before read", counted(copy.vanished, "file"));
    }
}

fn saved(volume: &Volume) -> String {
    match (volume.data(), volume.skipped_reason.as_str()) {
        (Data::Saved, _) => format!("saved {}", volume.how()),
        (Data::Failed, "") => format!(
            "data not saved: was to be saved {}, which failed",
            volume.how()
        ),
        (Data::Failed, why) => format!("data not saved: failed: {why}"),
        (Data::Empty, _) => format!("nothing to save: looked at {}", volume.how()),
        (Data::LeftOut, why) if volume.result == "nothing" => format!("nothing saved ({why})"),
        (Data::LeftOut, why) if why.starts_with("data not saved") => why.to_owned(),
        (Data::LeftOut, why) => {
            let method = match volume.backup_method.as_str() {
                "" => "",
                method => &format!("{method}: "),
            };
            match format!("{method}{why}").as_str() {
                "" => "data not saved".to_owned(),
                why => format!("data not saved ({why})"),
            }
        }
    }
}

/// How many hooks were to run, and how many of them failed; Velero's counts.
pub(crate) fn hooks(text: &mut Description, status: &serde_json::Map<String, serde_json::Value>) {
    let count = |key: &str| status.get("hookStatus")?.get(key)?.as_u64();
    if let Some(attempted) = count("hooksAttempted") {
        text.gap();
        text.field(0, "Hooks attempted", attempted.to_string());
        let failed = count("hooksFailed").unwrap_or_default();
        text.field(0, "Hooks failed", failed.to_string());
    }
}

/// Every object by kind.
pub(crate) fn objects(text: &mut Description, title: &str, list: &BTreeMap<String, Vec<String>>) {
    text.gap();
    text.heading(title);
    for (kind, names) in list {
        text.item(1, &format!("{kind}:"));
        for name in names {
            text.item(2, &format!("- {name}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use backup_core::records::copies::FileCopy;

    use super::*;

    #[test]
    fn what_failed_stands_above_what_was_saved() {
        let row = |resource: &str, outcome, why: &str, count| ResourceRow {
            resource: resource.into(),
            outcome,
            why: why.into(),
            count,
            exact: outcome == Outcome::Saved,
            resource_version: "7".into(),
            ..ResourceRow::default()
        };
        let rows = [
            row("configmaps", Outcome::Saved, "", 3),
            row("events", Outcome::Excluded, "noise", 0),
            row("widgets.example.com", Outcome::Failed, "the API is dead", 0),
        ];
        let mut text = Description::default();
        resources(&mut text, &rows, true);
        let text = text.render();
        let at = |what: &str| {
            text.find(what)
                .unwrap_or_else(|| panic!("{what} is not in {text}"))
        };
        assert!(at("the API is dead") < at("configmaps"), "{text}");
        assert!(at("configmaps") < at("noise"), "{text}");
        assert!(text.contains("Read at revision:"), "{text}");
    }

    #[test]
    fn a_volume_without_a_method_is_data_not_saved() {
        let mut text = Description::default();
        let volume = Volume {
            pvc_name: "db".into(),
            pvc_namespace: "shop".into(),
            ..Volume::default()
        };
        volumes(&mut text, &[volume], &[], None);
        assert!(
            text.render().contains("shop/db:  data not saved"),
            "{}",
            text.render()
        );
    }

    #[test]
    fn copies_stand_in_a_table_and_what_was_not_saved_says_why() {
        let all = {
            let copy = FileCopy {
                repository: 1,
                snapshot: "a".repeat(64),
                base: None,
                run: "r".into(),
                began: "2026-11-30T10:00:00Z".parse().unwrap(),
                ended: "2026-11-30T10:00:12.5Z".parse().unwrap(),
                entries: 3001,
                files: 3000,
                bytes: 1 << 20,
                allocated: None,
                added: 512,
                changed: 2,
                vanished: 0,
                way: Some(Way::Exec),
                exec_because: Some("nobody is there".into()),
            };
            let ours = Ours {
                hooks: Some(Hooks::Failed),
                node: Some("n1".into()),
                copy,
            };
            [
                Volume {
                    pvc_name: "data".into(),
                    pvc_namespace: "shop".into(),
                    backup_method: "PodVolumeBackup".into(),
                    result: "succeeded".into(),
                    saved_in: "restic/c/shop/u/".into(),
                    copy: Some(Box::new(ours)),
                    ..Volume::default()
                },
                Volume {
                    pvc_name: "old".into(),
                    pvc_namespace: "shop".into(),
                    result: "failed".into(),
                    skipped_reason: "no node".into(),
                    ..Volume::default()
                },
            ]
        };
        let shown = |details| {
            let mut text = Description::default();
            let keys = BTreeMap::from([("restic/c/shop/u/".to_owned(), Key::Encrypted)]);
            volumes(&mut text, &all, &[], Some(&keys).filter(|_| details));
            text.render()
        };
        let text = shown(false);
        let line = |what: &str| {
            let found = text.lines().find(|line| line.contains(what));
            found.unwrap_or_else(|| panic!("{text}")).to_owned()
        };
        let words: Vec<_> = line("shop/data")
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        assert_eq!(
            words.join(" "),
            "shop/data copied, a hook failed 3,000 1.0 MiB 512 B 12.5s"
        );
        assert!(line("shop/old").contains("data not saved: failed: no node"));
        assert!(!text.contains("restic/"));
        let details = shown(true);
        assert!(details.contains("restic/c/shop/u/") && details.contains(&"a".repeat(64)));
        assert!(details.contains("over exec: nobody is there"), "{details}");
        assert!(details.contains("an identity of"), "{details}");
    }
}
