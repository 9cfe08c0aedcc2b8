//! The work of a restore from a snapshot: fetched by its source, checked, built by etcdutl, proven.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_cli::error::CommandError;
use backup_core::etcd::{Database, Facts};
use backup_core::progress::Progress;
use backup_core::{Error, Result};

use super::entry::Snapshot;
use super::etcdutl::{self, Tool};
use super::fit::{self, Target};
use super::ids::Id;
use super::plan::Plan;
use super::work::Work;
use super::{fence, proof};
use crate::source::{At, Expected, Limits, Source};

/// No byte for so long ends a download.
pub(crate) const STALL: Duration = Duration::from_secs(60);

/// What both kinds of work need: a tool, and what the result has to fit.
pub(crate) struct Builder<'a> {
    /// `--etcdutl`
    pub(crate) etcdutl: Option<PathBuf>,
    /// Where else it is looked for.
    pub(crate) search: Vec<PathBuf>,
    /// What a snapshot has to fit.
    pub(crate) target: Target,
    /// The data dir, for its free space.
    pub(crate) data_dir: PathBuf,
    /// The data dir's lock, for the programs that work below it.
    pub(crate) lock: Option<OwnedFd>,
    /// No byte for so long ends a download: [`STALL`] at the usual pace.
    pub(crate) stall: Duration,
    /// How its user makes room.
    pub(crate) more_room: &'static str,
    /// Told how far it is.
    pub(crate) progress: &'a dyn Progress,
    /// What its user should know.
    pub(crate) notes: Vec<String>,
}

impl Builder<'_> {
    async fn tool(&self, facts: &Facts) -> Result<Tool> {
        let line = self.target.line.unwrap_or_else(|| fit::line_of(facts));
        etcdutl::choose(self.etcdutl.as_deref(), &self.search, Some(line)).await
    }

    /// The lock, for a child.
    pub(super) fn lock(&self) -> Result<Option<OwnedFd>> {
        let duplicate = self.lock.as_ref().map(OwnedFd::try_clone).transpose();
        duplicate.map_err(|e| Error::other("can not hand on the lock").because(e))
    }

    /// Has etcdutl write the side.
    pub(super) async fn build(
        &mut self,
        plan: &Plan,
        snapshot: &Snapshot,
        facts: &Facts,
        spool: &Path,
        side: &Path,
    ) -> Result<()> {
        let tool = self.tool(facts).await?;
        self.progress.step(&format!(
            "restoring with {} {}",
            tool.path.display(),
            tool.version
        ));
        etcdutl::restore(&tool, plan, snapshot, spool, side, self.lock()?).await
    }

    /// Looks into the side.
    pub(super) fn prove(&self, plan: &Plan, snapshot: &Snapshot, member: &Path) -> Result<()> {
        self.progress.step("comparing with the snapshot");
        proof::built(plan, snapshot, member, self.progress)
    }

    /// Checks that a snapshot fits here, that etcdutl is there, and that there is room.
    ///
    /// # Errors
    /// What does not fit.
    pub(super) async fn fits(&mut self, facts: &Facts, cluster: Option<Id>) -> Result<()> {
        self.notes = fit::check(facts, cluster, &self.target)?;
        self.tool(facts).await?;
        let free = fence::free_space(&self.data_dir)?;
        fit::check_space(facts.bytes, free, &self.data_dir, self.more_room)
    }
}

/// A restore from a snapshot.
pub(crate) struct FromSnapshot<'a> {
    /// What is the same whatever is restored.
    pub(crate) builder: Builder<'a>,
    /// Where the snapshot is.
    pub(crate) source: Source,
    /// What is promised about it.
    pub(crate) expected: Expected,
    /// Its cluster, as its manifest says.
    pub(crate) cluster: Option<Id>,
    /// What was fetched last, and where it lies.
    pub(crate) fetched: Option<Fetched>,
}

/// A snapshot that was fetched and fits.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    spool: PathBuf,
    /// The spool, or the file itself where it can be used as it is.
    file: PathBuf,
    /// What it is.
    pub(crate) snapshot: Snapshot,
    /// What it says of itself.
    pub(crate) facts: Facts,
}

impl FromSnapshot<'_> {
    /// Fetches and checks, with no plan yet; what is there already is not fetched again.
    ///
    /// # Errors
    /// What is wrong with the snapshot, or with restoring it here.
    pub(crate) async fn look(&mut self, spool: &Path) -> Result<Fetched> {
        if let Some(fetched) = &self.fetched
            && fetched.spool == spool
        {
            return Ok(fetched.clone());
        }
        let mut fetched = match self.source.in_place().map_err(CommandError::into_error)? {
            // etcdutl copies it; a second copy would only cost time and space. What it wrote is compared with what was read here.
            Some(database) => self.read(&database, spool)?,
            None => self.fetch_to(spool).await?,
        };
        fetched.snapshot.cluster = self.cluster;
        self.builder.fits(&fetched.facts, self.cluster).await?;
        self.fetched = Some(fetched.clone());
        Ok(fetched)
    }

    fn read(&self, database: &Database, spool: &Path) -> Result<Fetched> {
        let name = self.source.to_string();
        self.builder.progress.step(&format!("checking {name}"));
        let (snapshot, facts, digest) = proof::snapshot(database, &name, self.builder.progress)?;
        let promised = |promised: Option<&String>| promised.is_none_or(|p| *p == snapshot.sha256);
        let is_promised = promised(self.expected.sha256.as_ref())
            && self
                .expected
                .digest
                .as_ref()
                .is_none_or(|d| d.same_keys(&digest));
        if !is_promised {
            return Err(
                Error::corrupt(format!("{name} is not what its manifest promises"))
                    .hint("use another snapshot"),
            );
        }
        Ok(Fetched {
            spool: spool.to_owned(),
            file: match &self.source.at {
                At::File(path) => path.clone(),
                At::Object { .. } => spool.to_owned(),
            },
            snapshot,
            facts,
        })
    }

    async fn fetch_to(&self, spool: &Path) -> Result<Fetched> {
        let limits = Limits {
            most: self.builder.target.quota,
            keep_free: fit::needed(0),
            stall: self.builder.stall,
            more_room: self.builder.more_room,
        };
        let fetched = self
            .source
            .fetch(spool, &self.expected, &limits, self.builder.progress)
            .await
            .map_err(CommandError::into_error)?;
        Ok(Fetched {
            spool: spool.to_owned(),
            file: fetched.path,
            snapshot: Snapshot {
                sha256: fetched.sha256,
                bytes: fetched.facts.bytes,
                trailer: fetched.has_trailer,
                revision: fetched.facts.revision,
                content: fetched.digest.into(),
                cluster: None,
                members: fit::member_ids(&fetched.facts).collect(),
            },
            facts: fetched.facts,
        })
    }
}

impl Work for FromSnapshot<'_> {
    async fn fetch(&mut self, _plan: &Plan, spool: &Path) -> Result<Snapshot> {
        Ok(self.look(spool).await?.snapshot)
    }

    async fn build(
        &mut self,
        plan: &Plan,
        snapshot: &Snapshot,
        spool: &Path,
        side: &Path,
    ) -> Result<()> {
        let Fetched { file, facts, .. } = self.look(spool).await?;
        self.builder
            .build(plan, snapshot, &facts, &file, side)
            .await
    }

    async fn prove(&mut self, plan: &Plan, snapshot: &Snapshot, member: &Path) -> Result<()> {
        self.builder.prove(plan, snapshot, member)
    }
}
