//! Puts packed pages into the archive or, where Secrets stand apart, theirs into one of their own, in the order in which they arrive.

use tokio::sync::mpsc;

use super::budget::Reserved;
use crate::archive::SECRETS;
use crate::archive::pack::Packed;
use crate::archive::row::{Outcome, ResourceRow};
use crate::archive::write::{ArchiveWriter, Sink, Totals};
use crate::error::Result;

/// The Secrets, in files of their own.
#[derive(Debug)]
pub(super) struct Secrets<A, I> {
    /// Their archive's bytes went here.
    pub(super) archive: A,
    /// Their index's went here.
    pub(super) index: I,
    /// What they came to.
    pub(super) totals: Totals,
}

/// Where pages go.
pub(super) struct Writers<A, I> {
    main: ArchiveWriter<A, I>,
    /// Where Secrets go, if not there.
    apart: Option<ArchiveWriter<A, I>>,
}

/// A whole archive: where it and its index went, and what it came to.
pub(super) type Whole<A, I> = (A, I, Totals);

impl<A: Sink, I: Sink> Writers<A, I> {
    /// Starts an archive, and where there is something for it one of Secrets.
    ///
    /// # Errors
    /// The sinks'.
    pub(super) async fn start(
        (archive, index): (A, I),
        apart: Option<(A, I)>,
        backup: &str,
        mtime: u64,
    ) -> Result<Self> {
        Ok(match apart {
            Some((secrets, secrets_index)) => Self {
                main: ArchiveWriter::start_rest(archive, index, backup, mtime).await?,
                apart: Some(
                    ArchiveWriter::start_sealed(secrets, secrets_index, backup, mtime).await?,
                ),
            },
            None => Self {
                main: ArchiveWriter::start(archive, index, backup, mtime).await?,
                apart: None,
            },
        })
    }

    async fn append(&mut self, page: Packed) -> Result<()> {
        match &mut self.apart {
            Some(apart) if page.resource.group_resource() == SECRETS => apart.append(page).await,
            _ => self.main.append(page).await,
        }
    }

    /// Ends both, with what became of each API resource.
    ///
    /// # Errors
    /// The sinks'.
    pub(super) async fn finish(
        self,
        rows: &[ResourceRow],
    ) -> Result<(Whole<A, I>, Option<Secrets<A, I>>)> {
        let Some(mut apart) = self.apart else {
            return Ok((self.main.finish(rows).await?, None));
        };
        let mut rows = rows.to_vec();
        let mut secrets = Vec::new();
        for row in rows.iter_mut().filter(|row| row.resource == SECRETS) {
            secrets.push(row.clone());
            row.apart = row.count;
            if row.outcome == Outcome::Saved {
                row.why = "encrypted apart".to_owned();
            }
        }
        // The rest first: what is sealed tells beside what it stands.
        let main = self.main.finish(&rows).await?;
        let (_, _, rest) = &main;
        apart.stands_beside(&rest.seal);
        let (archive, index, totals) = apart.finish(&secrets).await?;
        let apart = Secrets {
            archive,
            index,
            totals,
        };
        Ok((main, Some(apart)))
    }
}

/// Appends pages in the order of arrival; gives their share of memory back when they are handed over.
pub(super) async fn write<A: Sink, I: Sink>(
    mut writer: Writers<A, I>,
    mut arriving: mpsc::Receiver<(Packed, Reserved)>,
) -> Result<Writers<A, I>> {
    while let Some((packed, _share)) = arriving.recv().await {
        writer.append(packed).await?;
    }
    Ok(writer)
}
