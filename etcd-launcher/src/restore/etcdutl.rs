//! etcdutl: which one fits, and running it. It writes the side; nothing here looks at what it wrote.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use backup_core::etcd::Database;
use backup_core::{Error, Result};
use tokio::process::Command;

use super::entry::Snapshot;
use super::plan::Plan;
use super::version::{Line, Version};
use super::{ids, revision};

/// A program that prints its version takes no longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// As much of what a program printed as stands in an error.
const SHOWN: usize = 2000;

/// A program and its version.
#[derive(Clone, Debug)]
pub(crate) struct Tool {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What it says it is.
    pub(crate) version: Version,
}

impl Tool {
    /// Asks a program for its version.
    ///
    /// # Errors
    /// Kind `Invalid`: it does not run, or prints none.
    pub(crate) async fn ask(path: &Path, argument: &str) -> Result<Self> {
        let failed = || Error::invalid(format!("{} does not tell its version", path.display()));
        let output = Command::new(path)
            .arg(argument)
            .env_clear()
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(PATIENCE, output)
            .await
            .map_err(|e| failed().because(e))?
            .map_err(|e| failed().because(e))?;
        let version =
            Version::printed(&String::from_utf8_lossy(&output.stdout)).ok_or_else(failed)?;
        Ok(Self {
            path: path.to_owned(),
            version,
        })
    }
}

/// The etcdutl for this release line: the one that was named; else the first in these folders, as `etcdutl-3.6` or `etcdutl`.
/// Without a line any that can raise the revision.
///
/// # Errors
/// Kind `Invalid` where none fits, saying which were found.
pub(crate) async fn choose(
    named: Option<&Path>,
    search: &[PathBuf],
    line: Option<Line>,
) -> Result<Tool> {
    let fits =
        |version: Version| version.can_bump() && line.is_none_or(|line| version.line == line);
    let wanted = line.map_or_else(
        || "3.5.10 or later".to_owned(),
        |line| format!("{line}, as etcd is"),
    );
    if let Some(path) = named {
        let tool = Tool::ask(path, "version").await?;
        if !fits(tool.version) {
            return Err(Error::invalid(format!(
                "{} is etcdutl {}, and {wanted} is needed",
                path.display(),
                tool.version
            ))
            .hint("an etcdutl of another release line writes a data dir that etcd may not open"));
        }
        return Ok(tool);
    }
    let mut seen = Vec::new();
    for path in candidates(search, line) {
        if let Ok(tool) = Tool::ask(&path, "version").await {
            if fits(tool.version) {
                return Ok(tool);
            }
            seen.push(format!("{} is {}", path.display(), tool.version));
        }
    }
    let seen = if seen.is_empty() {
        "none was found".to_owned()
    } else {
        seen.join(", ")
    };
    Err(Error::invalid(format!("no etcdutl {wanted}: {seen}"))
        .hint("name one with --etcdutl PATH; etcd's own release and image have it beside etcd"))
}

fn candidates(search: &[PathBuf], line: Option<Line>) -> Vec<PathBuf> {
    let mut names = match line {
        Some(line) => vec![format!("etcdutl-{line}")],
        None => vec!["etcdutl-3.6".to_owned(), "etcdutl-3.5".to_owned()],
    };
    names.push("etcdutl".to_owned());
    let all = search
        .iter()
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    all.filter(|path| path.is_file()).collect()
}

/// Writes the member of a plan into the folder `side`, which is empty. `lock` is inherited: an etcdutl whose launcher was killed keeps the
/// data dir locked until it ends.
///
/// # Errors
/// What etcdutl says.
pub(crate) async fn restore(
    tool: &Tool,
    plan: &Plan,
    snapshot: &Snapshot,
    spool: &Path,
    side: &Path,
    lock: Option<OwnedFd>,
) -> Result<()> {
    let last = Database::open(spool)?.last_revision()?;
    let bump = revision::bump(plan.target_revision, last)?;
    let mut command = Command::new(&tool.path);
    command
        .args(["snapshot", "restore"])
        .arg(spool)
        .arg("--data-dir")
        .arg(side)
        .args(["--name", &plan.name])
        .args(["--initial-cluster", &ids::written(&plan.members)])
        .args(["--initial-cluster-token", &plan.token])
        .args([
            "--initial-advertise-peer-urls",
            &plan.asked.peer_urls.join(","),
        ])
        .args(["--bump-revision", &bump.to_string()])
        .arg("--mark-compacted");
    if !snapshot.trailer {
        // There is no hash to check: the database was walked and hashed by us.
        command.arg("--skip-hash-check");
    }
    let output = command
        .env_clear()
        .stdin(lock.map_or_else(Stdio::null, Stdio::from))
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|e| Error::other(format!("can not run {}", tool.path.display())).because(e))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::other(format!(
        "{} ended with {}",
        tool.path.display(),
        output.status
    ))
    .because(tail(&output.stderr)))
}

/// The last lines of what a program printed.
pub(super) fn tail(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let text = text.trim();
    let mut from = text.len().saturating_sub(SHOWN);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text[from..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_much_output_is_shown() {
        assert_eq!(tail("ä".repeat(5000).as_bytes()).chars().count(), SHOWN / 2);
        assert_eq!(tail(b" x\n"), "x");
    }
}
