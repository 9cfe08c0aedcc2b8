//! `mover backup --straight`: a program of its own archives the folder with credentials that it is lent, as one in a pod does.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::AtomicU64;

use backup_core::Error;
use backup_core::volume::key::Keyring;
use backup_core::volume::store::{Of, Saved};
use backup_core::volume::straight::run::{Archiving, Ended, Streams, serve};
use backup_core::volume::{Bytes, VolumeStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};

/// Pieces of bytes that wait.
const WAITING: usize = 64;

/// Archives a folder so.
///
/// # Errors
/// A location that lends nothing, a store that is not reached, and whatever keeps a snapshot from appearing.
pub(super) async fn archive(
    folder: &Path,
    volume: &VolumeStore,
    ring: &Keyring<'_>,
    of: &Of,
    stop: watch::Receiver<bool>,
) -> Result<Saved, Error> {
    let lending = volume
        .lending()
        .map_err(|why| Error::invalid(format!("nothing is lent for the volume: {why}")))?;
    let archiving = Archiving {
        volume,
        lending: &lending,
        ring,
        of,
        same: &|| Box::pin(async { Ok(()) }),
        came: &AtomicU64::new(0),
    };
    match serve(&archiving, start(folder)?, stop).await? {
        Ended::Saved(saved) => Ok(*saved),
        Ended::NotReached(why) => Err(Error::other(format!(
            "the mover does not reach the store: {why}"
        ))),
    }
}

/// The program, and what it says and hears.
fn start(folder: &Path) -> Result<Streams, Error> {
    let failed = |e: std::io::Error| Error::other("the mover can not be started").because(e);
    let missing = || Error::other("the mover has no streams");
    let mut child = tokio::process::Command::new(std::env::current_exe().map_err(failed)?)
        .args(["mover", "archive"])
        .arg(folder)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut stdin = child.stdin.take().ok_or_else(missing)?;
    let mut stdout = child.stdout.take().ok_or_else(missing)?;
    let (to, mut going) = mpsc::channel::<Bytes>(WAITING);
    let (coming, from) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        while let Some(bytes) = going.recv().await {
            if stdin.write_all(&bytes).await.is_err() {
                break;
            }
        }
        drop(stdin);
        // Its exit says nothing that its last line did not.
        let _ = child.wait().await;
    });
    tokio::spawn(async move {
        let mut piece = vec![0; 64 << 10];
        while let Ok(length @ 1..) = stdout.read(&mut piece).await {
            let bytes = Bytes::copy_from_slice(&piece[..length]);
            if coming.send(bytes).await.is_err() {
                break;
            }
        }
    });
    Ok(Streams { to, from })
}
