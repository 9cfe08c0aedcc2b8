//! Copies of volumes' files: looked at without their keys, or read, as a restore reads them.

use backup_core::location::{Location, Store};
use backup_core::name::Name;
use backup_core::progress::Progress;
use backup_core::records::copies;
use backup_core::volume::entry::Entry;
use backup_core::volume::{Bytes, Target, stands};
use backup_core::{Error, Kind, files};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::context::Context;
use backup_cli::error::Result;

/// Snapshots of volumes that are looked at at a time.
const AT_A_TIME: usize = 8;

/// How many bytes came.
#[derive(Default)]
struct Read(u64);

impl Target for Read {
    fn entry(&mut self, _: &Entry) -> backup_core::Result<()> {
        Ok(())
    }

    fn data(&mut self, bytes: Bytes) -> backup_core::Result<()> {
        self.0 += bytes.len() as u64;
        Ok(())
    }

    fn finish(&mut self) -> backup_core::Result<()> {
        Ok(())
    }
}

/// How many copies of volumes' files the backup names, and what is wrong with them, as far as it can be seen without their keys.
pub(super) async fn look(store: &Store, name: &Name) -> Result<(u64, Vec<String>)> {
    let copies = match copies::copies(store, name).await {
        Ok(Some(copies)) => copies,
        Ok(None) => return Ok((0, Vec::new())),
        Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::Invalid) => {
            return Ok((0, vec![e.sentence()]));
        }
        Err(e) => return Err(e.into()),
    };
    let mut places = Vec::new();
    for row in &copies.rows {
        if let Some(saved) = row.saved() {
            places.push((row.name(), copies.place(row)?, saved.copy.snapshot.as_str()));
        }
    }
    let count = places.len() as u64;
    let found: Vec<Vec<String>> = stream::iter(places)
        .map(|(name, keys, snapshot)| async move {
            let found = stands::problems(store, &keys, snapshot).await?;
            let of_claim = |problem| format!("volume {name}: {problem}");
            Ok::<_, Error>(found.into_iter().map(of_claim).collect())
        })
        .buffered(AT_A_TIME)
        .try_collect()
        .await?;
    Ok((count, found.into_iter().flatten().collect()))
}

/// How many bytes the files of all copies have, and what is wrong with them: every tree and every piece of a file is compared with its id.
pub(super) async fn read(
    context: &Context,
    location: &Location,
    backup: &Name,
    progress: &dyn Progress,
) -> Result<(u64, Vec<String>)> {
    let (mut bytes, mut problems) = (0, Vec::new());
    // One that can not be read is told by who looks.
    let Ok(Some(copies)) = copies::copies(&location.store, backup).await else {
        return Ok((bytes, problems));
    };
    let identities = context.identities()?;
    for row in copies.rows.iter().filter(|row| row.saved().is_some()) {
        let name = row.name();
        progress.step(&format!("reading the files of {name}"));
        let read = async {
            let files = files::find(location, backup, &row.namespace, &row.claim).await?;
            files.show(None, &identities, Read::default()).await
        };
        match read.await {
            Ok(Read(read)) => bytes += read,
            // Nothing can be said of any of them any more.
            Err(e) if matches!(e.kind(), Kind::Unreachable | Kind::Interrupted) => {
                let what = format!("can not read the files of {name}");
                return Err(e.context(what).into());
            }
            // One whose key is not opened by these identities hides nothing of the others.
            Err(e) => problems.push(format!("volume {name}: {}", e.sentence())),
        }
    }
    Ok((bytes, problems))
}
