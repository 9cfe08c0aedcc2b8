//! `doctor --bundle`: one readable file with what helps somebody else to help. Names of objects are in it; credentials, kubeconfigs, bodies of
//! objects, settings of locations and commands of hooks are not.

use std::io::Write;
use std::path::Path;

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
use crate::commands::get::marker;
use crate::context::Context;
use backup_cli::error::Result;
use backup_cli::locations;
use backup_cli::output::Document;

/// The newest backups are in it.
const BACKUPS: usize = 20;
/// Of so many that did not succeed, what they said.
const TROUBLED: usize = 3;
/// The end of a log, in lines.
const LINES: usize = 500;

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

/// Writes it; a file that exists is not replaced.
///
/// # Errors
/// When it can not be written.
pub(super) async fn write(context: &Context, checks: &Checks, path: &Path) -> Result<()> {
    let mut bundle = Bundle {
        created: context.now,
        platform: format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        checks,
        locations: Vec::new(),
        backups: Vec::new(),
        troubled: Vec::new(),
        missing: Vec::new(),
    };
    match context.sources() {
        Ok(sources) => {
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
    create(path, &text).map_err(|e| {
        let error = Error::new(
            match e.kind() {
                std::io::ErrorKind::AlreadyExists => Kind::AlreadyExists,
                _ => Kind::Other,
            },
            format!("can not write {}", path.display()),
        );
        error.because(e).hint("name another file with --bundle")
    })?;
    Ok(())
}

/// For its owner only: names of objects are nobody else's.
fn create(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text)?;
    file.sync_all()
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
            match said(location, entry).await {
                Ok(said) => self.troubled.push(said),
                Err(e) => self
                    .missing
                    .push(format!("backup {}: {}", entry.name, e.error())),
            }
        }
        Ok(())
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

async fn said(location: &Location, entry: &Entry) -> Result<Troubled> {
    let keys = BackupKeys::new(&entry.name);
    let log = match catalog::is_ours(&location.store, entry).await? {
        true => records::text(&location.store, &keys.logs()).await?,
        false => Vec::new(),
    };
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    let end = &lines[lines.len().saturating_sub(LINES)..];
    Ok(Troubled {
        backup: entry.name.to_string(),
        results: records::results(&location.store, &keys.results()).await?,
        log: end.iter().map(|line| (*line).to_owned()).collect(),
    })
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
