//! `doctor --bundle`: one readable file with what helps somebody else to help. Names of objects are in it; credentials, kubeconfigs, bodies of
//! objects, settings of locations and commands of hooks are not.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use backup_core::api::Phase;
use backup_core::catalog::{self, Entry};
use backup_core::layout::BackupKeys;
use backup_core::location::Location;
use backup_core::records::{self, Results};
use backup_core::{Error, Kind};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::Checks;
use crate::commands::download::publish;
use crate::commands::get::marker;
use crate::context::Context;
use backup_cli::error::Result;
use backup_cli::locations::{self, file};
use backup_cli::output::Document;

/// The newest backups are in it.
const BACKUPS: usize = 20;
/// Of so many that did not succeed, what they said.
const TROUBLED: usize = 3;
/// Of each of them, the end of its log, in bytes.
const LOG: usize = 128 << 10;
/// And so many errors and warnings of so many characters.
const MESSAGES: usize = 500;
const LONGEST: usize = 2000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bundle<'b> {
    created: Timestamp,
    platform: String,
    #[serde(flatten)]
    checks: &'b Checks,
    /// Names and places, without their settings.
    locations: Vec<String>,
    /// The markers of the newest backups, oldest first.
    backups: Vec<Value>,
    /// What those said that did not succeed.
    troubled: Vec<Troubled>,
    /// Why something of this is not in it.
    missing: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Troubled {
    backup: String,
    results: Results,
    /// The end of its log, where this tool wrote it: Velero's tells what hooks were given and what they said.
    log: Vec<String>,
}

/// The file that is to be: it gets its name when it is whole, and goes where it does not become that.
pub(super) struct Target {
    path: PathBuf,
    part: PathBuf,
    file: File,
}

impl Target {
    /// For its owner only: names of objects are nobody else's.
    ///
    /// # Errors
    /// A file that exists, for none is replaced; a folder that can not be written to.
    pub(super) fn new(path: &Path) -> Result<Self> {
        if path.exists() {
            return Err(exists(path).into());
        }
        let mut part = path.to_owned().into_os_string();
        part.push(format!(".{}.part", std::process::id()));
        let part = PathBuf::from(part);
        let file = file::create_private(&part).map_err(|e| unwritten(path, e))?;
        let path = path.to_owned();
        Ok(Self { path, part, file })
    }

    fn publish(mut self, text: &[u8]) -> Result<()> {
        let written = self.file.write_all(text);
        written
            .and_then(|()| self.file.sync_all())
            .map_err(|e| unwritten(&self.path, e))?;
        publish(&self.part, &self.path, false).map_err(|e| match e.kind() {
            Kind::AlreadyExists => exists(&self.path),
            _ => e,
        })?;
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Where it has its name there is nothing left to remove.
        let _ = std::fs::remove_file(&self.part);
    }
}

fn exists(path: &Path) -> Error {
    Error::new(
        Kind::AlreadyExists,
        format!("{} exists already", path.display()),
    )
    .hint("name another file with --bundle")
}

fn unwritten(path: &Path, e: std::io::Error) -> Error {
    Error::other(format!("can not write {}", path.display()))
        .because(e)
        .hint("name another file with --bundle")
}

/// Writes it.
///
/// # Errors
/// When it can not be written.
pub(super) async fn write(context: &Context, checks: &Checks, target: Target) -> Result<()> {
    let mut bundle = Bundle {
        created: context.now,
        platform: format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        checks,
        locations: Vec::new(),
        backups: Vec::new(),
        troubled: Vec::new(),
        missing: Vec::new(),
    };
    match context.sources().await {
        Ok((sources, away)) => {
            let away = away.map(|e| format!("locations of the cluster: {}", e.error()));
            bundle.missing.extend(away);
            let all = sources.iter().flat_map(|source| &source.locations);
            bundle
                .locations
                .extend(all.map(|one| format!("{}: {}", one.metadata.name, locations::place(one))));
        }
        Err(e) => bundle.missing.push(format!("locations: {}", e.error())),
    }
    let filled = match context.location_to_check().await {
        Ok(location) => bundle.fill(&location).await,
        Err(e) => Err(e),
    };
    if let Err(e) = filled {
        bundle.missing.push(format!("backups: {}", e.error()));
    }
    let text = serde_json::to_vec_pretty(&Document::new("SupportBundle", &bundle))
        .map_err(|e| Error::other("the bundle can not be written as JSON").because(e))?;
    target.publish(&text)
}

impl Bundle<'_> {
    async fn fill(&mut self, location: &Location) -> Result<()> {
        let (entries, warnings) = catalog::list(&location.store).await?;
        self.missing.extend(warnings);
        for entry in &entries[entries.len().saturating_sub(BACKUPS)..] {
            self.backups.push(without_hooks(marker(entry)?));
        }
        let troubled = |entry: &&Entry| entry.backup.status.phase != Phase::Completed;
        for entry in entries.iter().rev().filter(troubled).take(TROUBLED) {
            self.said(location, entry).await;
        }
        Ok(())
    }

    /// What one of them said; of what can not be read the other half is told all the same.
    async fn said(&mut self, location: &Location, entry: &Entry) {
        let store = &entry.store(&location.store);
        let keys = BackupKeys::new(&entry.name);
        let mut missing = |what: &str, why: &dyn std::fmt::Display| {
            let line = format!("backup {}: {what}: {why}", entry.name);
            self.missing.push(line);
        };
        let mut results = records::results(store, &keys.results()).await;
        if let Err(e) = &results {
            missing("results", e);
        }
        if let Ok(results) = &mut results {
            let errors = results.errors.cut(MESSAGES, LONGEST);
            let warnings = results.warnings.cut(MESSAGES, LONGEST);
            if errors + warnings > 0 {
                let more = format!("{errors} more errors, {warnings} more warnings");
                missing("results", &more);
            }
        }
        let log = match catalog::is_ours(store, entry).await {
            Ok(true) => records::end(store, &keys.logs(), LOG).await,
            Ok(false) => Ok(Vec::new()),
            Err(e) => Err(e),
        };
        if let Err(e) = &log {
            missing("log", e);
        }
        let log = log.unwrap_or_default();
        self.troubled.push(Troubled {
            backup: entry.name.to_string(),
            results: results.unwrap_or_default(),
            log: String::from_utf8_lossy(&log)
                .lines()
                .map(str::to_owned)
                .collect(),
        });
    }
}

/// Hooks are commands of users, passwords in them, and so is the object as it was applied.
fn without_hooks(mut marker: Value) -> Value {
    let part = |marker: &mut Value, path: &str, key: &str| {
        if let Some(object) = marker.pointer_mut(path).and_then(Value::as_object_mut) {
            object.remove(key);
        }
    };
    let applied = "kubectl.kubernetes.io/last-applied-configuration";
    part(&mut marker, "/spec", "hooks");
    part(&mut marker, "/metadata/annotations", applied);
    marker
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn commands_of_hooks_and_the_object_as_it_was_applied_stay_out() {
        let secret = "-pS3CRET";
        let applied = "kubectl.kubernetes.io/last-applied-configuration";
        let marker = json!({
            "metadata": {"name": "b", "annotations": {applied: secret, "kept": "yes"}},
            "spec": {"hooks": {"resources": [{"pre": [{"exec": {"command": [secret]}}]}]}, "ttl": "1h"},
        });
        let left = without_hooks(marker);
        assert!(!left.to_string().contains(secret), "{left}");
        assert_eq!(left["spec"], json!({"ttl": "1h"}));
        assert_eq!(left["metadata"]["annotations"], json!({"kept": "yes"}));
    }
}
