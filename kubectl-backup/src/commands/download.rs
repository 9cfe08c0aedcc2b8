//! `download`: the archive of a backup, as a file.

use std::path::{Path, PathBuf};

use backup_core::layout::BackupKeys;
use backup_core::location::Sha256;
use backup_core::progress::Progress;
use backup_core::{Error, Kind, signature};
use clap::Args;
use futures::StreamExt;
use tokio::io::AsyncWriteExt;

use crate::context::Context;
use crate::flags;
use backup_cli::error::{Exit, Result};
use backup_cli::interrupt::interrupted;
use backup_cli::locations::file;
use backup_cli::output;

const EXAMPLES: &str = "\
Examples:
  kubectl backup download nightly
  kubectl backup download nightly --output /tmp/nightly.tar.gz --force";

/// Download the archive of a backup
///
/// The file is a tar.gz in Velero's format with every object as JSON, Secrets among them: only its owner may read it. Of a backup whose Secrets alone are
/// encrypted it is the archive without them.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DownloadArgs {
    /// Name of the backup
    name: String,
    /// File to write [default: NAME-data.tar.gz]
    #[arg(
        short,
        long = "output",
        visible_alias = "output-file",
        value_name = "FILE"
    )]
    output: Option<PathBuf>,
    /// Replace the file where it exists
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: DownloadArgs) -> Result<Exit> {
    let (place, entry) = context.find_backup(&flags::known_name(&args.name)?).await?;
    let vouched = signature::check(&place.location, &entry.name).await?;
    let target = args
        .output
        .unwrap_or_else(|| PathBuf::from(format!("{}-data.tar.gz", entry.name)));
    if !args.force && target.exists() {
        return Err(exists(&target).into());
    }
    let mut part = target.clone().into_os_string();
    part.push(format!(".{}.part", std::process::id()));
    let part = PathBuf::from(part);
    let key = BackupKeys::new(&entry.name).archive();
    let bar = context.ui.progress();
    bar.step(&format!("downloading {}", target.display()));
    let written = tokio::select! {
        written = write(&place.location.store, &key, &part, &bar) => written,
        true = interrupted() => Err(Error::new(Kind::Interrupted, "interrupted; nothing was written").into()),
    };
    drop(bar);
    let written = written.and_then(|(bytes, sha256)| {
        if let Some(vouched) = &vouched {
            vouched.read(&key, &sha256)?;
        }
        publish(&part, &target, args.force)?;
        Ok(bytes)
    });
    if written.is_err() {
        // The error says what went wrong.
        let _ = std::fs::remove_file(&part);
    }
    let bytes = written?;
    context.ui.line(&format!(
        "backup/{} downloaded to {} ({})",
        entry.name,
        target.display(),
        output::size(bytes)
    ))?;
    if let Some(apart) = entry.apart()? {
        context.ui.note(&format!(
            "{} of it are encrypted and not in that file: `{} contents {} secrets -o yaml --identity FILE` shows them",
            output::counted(apart.count, "Secret"),
            context.program,
            entry.name
        ));
    }
    Ok(Exit::Done)
}

async fn write(
    store: &backup_core::location::Store,
    key: &str,
    part: &Path,
    progress: &dyn Progress,
) -> Result<(u64, String)> {
    let refused =
        |e: std::io::Error| Error::other(format!("can not write {}", part.display())).because(e);
    let mut chunks = store.stream(key).await?;
    let mut file = tokio::fs::File::from_std(file::create_private(part).map_err(refused)?);
    let mut bytes = 0;
    let mut digest = Sha256::default();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        digest.update(&chunk);
        file.write_all(&chunk).await.map_err(refused)?;
        bytes += chunk.len() as u64;
        progress.done(0, chunk.len() as u64);
    }
    file.flush().await.map_err(refused)?;
    file.sync_all().await.map_err(refused)?;
    Ok((bytes, digest.finish()))
}

/// Gives the file its name; without `--force` never over another, not even one that came in between.
pub(crate) fn publish(part: &Path, target: &Path, force: bool) -> Result<(), Error> {
    let named = if force {
        std::fs::rename(part, target)
    } else {
        std::fs::hard_link(part, target).and_then(|()| std::fs::remove_file(part))
    };
    match named {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(exists(target)),
        // A file system without hard links.
        Err(_) if !force && !target.exists() => std::fs::rename(part, target)
            .map_err(|e| Error::other(format!("can not write {}", target.display())).because(e)),
        Err(e) => Err(Error::other(format!("can not write {}", target.display())).because(e)),
    }
}

pub(crate) fn exists(target: &Path) -> Error {
    Error::new(
        Kind::AlreadyExists,
        format!("{} exists already", target.display()),
    )
    .hint("add --force to replace it, or name another file with --output-file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_exists_is_only_replaced_by_force() {
        let folder = tempfile::tempdir().unwrap();
        let (part, target) = (folder.path().join("p"), folder.path().join("t"));
        std::fs::write(&part, "new").unwrap();
        std::fs::write(&target, "old").unwrap();
        assert_eq!(
            publish(&part, &target, false).unwrap_err().kind(),
            Kind::AlreadyExists
        );
        assert_eq!(std::fs::read(&target).unwrap(), b"old");
        publish(&part, &target, true).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"new");
        std::fs::write(&part, "x").unwrap();
        std::fs::remove_file(&target).unwrap();
        publish(&part, &target, false).unwrap();
        assert!(!part.exists());
    }
}
