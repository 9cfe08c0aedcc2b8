//! One claim from its mover to its snapshot.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::super::report::Log;
use super::CopyOptions;
use super::plan::{self, Job};
use super::users::Users;
use crate::cluster::Cluster;
use crate::error::{Error, Kind, Result};
use crate::location::Store;
use crate::mover::{Mover, Movers};
use crate::records::copies::{FileCopy, Hooks, Saved};
use crate::volume::VolumeStore;
use crate::volume::key::Keyring;
use crate::volume::source::{Entries, Source};
use crate::volume::store::{Base, Of};

/// Who uses a claim was asked so long ago at most when its mover is made.
const FRESH: Duration = Duration::from_secs(5);

/// So often it is asked whether somebody wants the volume elsewhere.
const LOOKS: Duration = Duration::from_secs(30);

/// A claim is not larger than etcd takes.
const LARGEST: usize = 4 << 20;

/// What all copies of a run have in common.
pub(super) struct Inner {
    pub(super) movers: Movers,
    pub(super) users: Users,
    pub(super) cluster: Cluster,
    pub(super) store: Store,
    pub(super) options: CopyOptions,
    pub(super) of: Of,
    pub(super) log: Arc<Log>,
}

/// A volume that is only good when its claim still is the one that was meant, when all was read.
struct Guarded {
    source: Arc<dyn Source>,
    inner: Arc<Inner>,
    job: Job,
    handle: Handle,
}

impl Source for Guarded {
    fn entries(&self) -> Result<Entries> {
        self.source.entries()
    }

    fn ended(&self) -> Result<()> {
        self.source.ended()?;
        // A thread for what waits.
        self.handle.block_on(self.inner.is_same(&self.job))
    }
}

impl Inner {
    /// Brings up the mover of a claim.
    pub(super) async fn start(&self, job: &Job) -> Result<Mover> {
        let users = self.users.of(&job.namespace, FRESH).await;
        let beside = plan::place(job, &users).map_err(Error::other)?;
        let started = self
            .movers
            .start(&job.namespace, &job.claim, beside.as_ref());
        let mover = started.await?;
        // It may have waited for long.
        if let Err(e) = self.is_same(job).await {
            self.remove(mover, job).await;
            return Err(e);
        }
        Ok(mover)
    }

    /// Errors where the claim is not the one that the backup has.
    async fn is_same(&self, job: &Job) -> Result<()> {
        let path = format!(
            "/api/v1/namespaces/{}/persistentvolumeclaims/{}",
            job.namespace, job.claim
        );
        let body = self.cluster.get_bounded(&path, LARGEST).await;
        let body = body.map_err(|e| Error::from(e).context("the claim can not be read again"))?;
        let claim: Value = serde_json::from_slice(&body).unwrap_or_default();
        if claim["metadata"]["uid"] != job.uid.as_str() {
            return Err(Error::other(
                "the claim was deleted meanwhile, and another one has its name",
            ));
        }
        if claim["spec"]["volumeName"] != job.volume.as_str() {
            return Err(Error::other("the claim is of another volume meanwhile"));
        }
        Ok(())
    }

    async fn remove(&self, mover: Mover, job: &Job) {
        if let Err(e) = mover.remove().await {
            let text = format!(
                "the mover of volume {} could not be removed yet: {}",
                job.name(),
                e.sentence()
            );
            self.log.line("warning", &text);
        }
    }

    /// Copies one, and takes its mover away; with why another repository was begun, where one was.
    pub(super) async fn copy(
        self: Arc<Self>,
        job: Job,
        mover: Mover,
        hooks: Hooks,
        came: Arc<AtomicU64>,
    ) -> Result<(Saved, Option<String>)> {
        let node = mover.node().to_owned();
        let made = Arc::clone(&self).make(&job, &mover, &came).await;
        let made = match (made, mover.broke()) {
            // What failed of that next says less.
            (Err(e), Some(why)) if e.kind() != Kind::Interrupted => {
                Err(Error::other(why).because(e))
            }
            (made, _) => made,
        };
        // No pod waits for its post hook until another one is gone.
        let (inner, of) = (Arc::clone(&self), job.clone());
        self.movers
            .spawn(async move { inner.remove(mover, &of).await });
        let name = job.name();
        let saved = made.inspect_err(|e| {
            let text = format!("volume {name}: no copy was made: {}", e.sentence());
            self.log.line("error", &text);
        })?;
        let counted = &saved.counted;
        let text = format!(
            "volume {name}: snapshot {} in repository {}, read on node {node}: {} entries, {} bytes, {} bytes added",
            saved.snapshot, saved.repository, counted.entries, counted.bytes, saved.added_bytes
        );
        self.log.line("info", &text);
        let because = saved.begun_because.as_ref();
        let because = because.map(|why| {
            format!("another repository was begun, and everything copied into it: {why}")
        });
        Ok((
            Saved {
                hooks: Some(hooks),
                pod: job.pod,
                node: Some(node),
                copy: FileCopy {
                    repository: saved.repository,
                    base: saved.base,
                    run: saved.run,
                    began: saved.began,
                    ended: Timestamp::now(),
                    entries: counted.entries,
                    files: counted.files,
                    bytes: counted.bytes,
                    allocated: None,
                    added: saved.added_bytes,
                    changed: counted.changed_count,
                    vanished: counted.vanished_count,
                    snapshot: saved.snapshot,
                },
            },
            because,
        ))
    }

    async fn make(
        self: Arc<Self>,
        job: &Job,
        mover: &Mover,
        came: &Arc<AtomicU64>,
    ) -> Result<crate::volume::store::Saved> {
        let source = Arc::new(Guarded {
            source: mover.source(came).await?,
            inner: Arc::clone(&self),
            job: job.clone(),
            handle: Handle::current(),
        });
        let options = &self.options;
        let ring = Keyring {
            recipients: &options.recipients,
            passphrase: options.passphrase.as_ref(),
            identities: &options.identities,
            cache: &*options.cache,
        };
        let store = VolumeStore::new(&self.store, &job.keys);
        let (end, ended) = watch::channel(false);
        let backup = store.backup(source, &ring, &self.of, &Base::Newest, ended);
        tokio::pin!(backup);
        let mut stop = self.movers.stop();
        let wanted = self.wanted_elsewhere(job, mover.node());
        tokio::pin!(wanted);
        let gave_way = tokio::select! {
            made = &mut backup => return made,
            _ = stop.wait_for(|stop| *stop) => None,
            why = &mut wanted => {
                mover.end(why.clone());
                Some(why)
            }
        };
        // Not dropped: it takes its claim in the location along.
        end.send_replace(true);
        match (backup.await, gave_way) {
            // The backup itself goes on.
            (Err(e), Some(why)) => Err(Error::other(why).because(e)),
            (made, _) => made,
        }
    }

    /// Ends when a pod wants the volume on another node, and says so. Who can not be asked wants nothing.
    async fn wanted_elsewhere(&self, job: &Job, node: &str) -> String {
        loop {
            tokio::time::sleep(LOOKS).await;
            if let Ok(users) = self.users.of(&job.namespace, LOOKS / 2).await
                && let Some(why) = plan::gives_way(job, node, &users)
            {
                return why;
            }
        }
    }
}
