//! The files of a volume in a backup: listed as they come, or one of them on standard output.

use backup_core::volume::entry::{Entry, EntryPath, What};
use backup_core::volume::{Bytes, Part, Target};
use backup_core::{Error, files};

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::ContentsArgs;
use crate::context::Context;
use crate::context::Place;
use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::output::{Format, time};
use backup_core::catalog;

/// Pieces that wait to be printed.
const WAITING: usize = 64;

/// What is printed next.
enum Piece {
    Entry(Box<Entry>),
    Bytes(Bytes),
}

/// Hands on what comes to whoever prints it.
struct Shown(mpsc::Sender<Piece>);

impl Shown {
    fn hand_on(&self, piece: Piece) -> backup_core::Result<()> {
        let sent = self.0.blocking_send(piece);
        sent.map_err(|_| Error::other("nobody reads it any more"))
    }
}

impl Target for Shown {
    fn entry(&mut self, entry: &Entry) -> backup_core::Result<()> {
        self.hand_on(Piece::Entry(Box::new(entry.clone())))
    }

    fn data(&mut self, bytes: Bytes) -> backup_core::Result<()> {
        self.hand_on(Piece::Bytes(bytes))
    }

    fn finish(&mut self) -> backup_core::Result<()> {
        Ok(())
    }
}

/// Prints the files of a volume, or one of them.
pub(super) async fn show(
    context: &Context,
    args: &ContentsArgs,
    volume: &str,
    place: &Place,
    entry: &catalog::Entry,
) -> Result<Exit> {
    let Some((namespace, claim)) = volume.split_once('/') else {
        return Err(CommandError::usage(
            Error::invalid(format!("--volume {volume:?} names no claim"))
                .hint("a claim is named as NAMESPACE/NAME: --volume shop/data"),
        ));
    };
    if matches!(args.output.output, Format::Json | Format::Yaml) {
        return Err(CommandError::usage(Error::invalid(
            "the files of a volume are listed as lines, or with -o name as their paths",
        )));
    }
    let files = files::find(&place.location, &entry.name, namespace, claim).await?;
    let part = match &args.kind {
        None => Part::Listing,
        Some(path) => Part::File(EntryPath::new(path.trim_matches('/'))),
    };
    let is_listing = part == Part::Listing;
    let identities = context.identities()?;
    let (tell, mut told) = mpsc::channel(WAITING);
    // What hands on is dropped when all was handed on: who prints waits for that.
    let showing = async {
        files
            .show(Some(part), &identities, Shown(tell))
            .await
            .map(drop)
    };
    let printing = async {
        while let Some(piece) = told.recv().await {
            match piece {
                Piece::Entry(entry) if is_listing => context.ui.line(&line(args, &entry))?,
                Piece::Entry(_) => {}
                Piece::Bytes(bytes) => context.ui.data(&bytes)?,
            }
        }
        Ok::<_, CommandError>(())
    };
    let (shown, printed) = futures::join!(showing, printing);
    printed?;
    shown?;
    Ok(Exit::Done)
}

/// `-rw-r--r--  1000  1000  1234  2026-11-30T10:00:00Z  data/a`
fn line(args: &ContentsArgs, entry: &Entry) -> String {
    let path = entry.path.to_string();
    if args.output.output == Format::Name {
        return path;
    }
    let (letter, more) = match &entry.what {
        What::Folder => ('d', String::new()),
        What::File => ('-', String::new()),
        What::Link { target } => ('l', format!(" -> {}", EntryPath::new(target.as_slice()))),
        What::Fifo => ('p', String::new()),
        What::Socket => ('s', String::new()),
        What::Block { .. } => ('b', String::new()),
        What::Character { .. } => ('c', String::new()),
    };
    let moment = Timestamp::from_second(entry.mtime.0).ok();
    format!(
        "{letter}{} {:>6} {:>6} {:>12} {} {path}{more}",
        mode(entry.mode),
        entry.uid,
        entry.gid,
        entry.size,
        time(moment),
    )
}

/// `rwxr-x--t`
fn mode(mode: u32) -> String {
    let special = [(0o4000, 's', 'S'), (0o2000, 's', 'S'), (0o1000, 't', 'T')];
    let mut text = String::new();
    for (place, (bit, with, without)) in special.into_iter().enumerate() {
        let part = mode >> (6 - 3 * place);
        text.push(if part & 4 == 0 { '-' } else { 'r' });
        text.push(if part & 2 == 0 { '-' } else { 'w' });
        text.push(match (part & 1 != 0, mode & bit != 0) {
            (true, true) => with,
            (false, true) => without,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_written_as_ls_writes_it() {
        for (number, text) in [
            (0o755, "rwxr-xr-x"),
            (0o4711, "rws--x--x"),
            (0o1777, "rwxrwxrwt"),
            (0o2640, "rw-r-S---"),
        ] {
            assert_eq!(mode(number), text);
        }
    }
}
