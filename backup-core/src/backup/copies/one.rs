//! One claim from its mover to its snapshot.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::super::report::Log;
use super::CopyOptions;
use super::plan::{self, Job, Place};
use super::users::Users;
use super::way::{self, Chosen};
use crate::cluster::Cluster;
use crate::error::{Error, Kind, Result};
use crate::location::{Lending, Store};
use crate::mover::{Mover, Movers};
use crate::records::copies::{FileCopy, Hooks, Saved, Way};
use crate::volume::VolumeStore;
use crate::volume::key::Keyring;
use crate::volume::source::{Entries, Source};
use crate::volume::store::{Base, Of};
use crate::volume::straight::run::{Archiving, Ended, serve};

/// Who uses a claim was asked so long ago at most when its mover is made.
const FRESH: Duration = Duration::from_secs(5);

/// So often it is asked whether somebody wants the volume elsewhere.
pub(super) const LOOKS: Duration = Duration::from_secs(30);

/// A claim is not larger than etcd takes.
const LARGEST: usize = 4 << 20;

/// What all copies of a run have in common.
pub(super) struct Inner {
    pub(super) movers: Movers,
    pub(super) users: Users,
    pub(super) cluster: Cluster,
    pub(super) store: Store,
    /// What the location says of credentials for movers.
    pub(super) mover_credentials: Option<String>,
    /// Whether movers may be ephemeral containers of pods that do not say it themselves.
    pub(super) ephemeral: bool,
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
        let place = plan::place(job, &users, self.ephemeral).map_err(Error::other)?;
        let mover = match place {
            Place::Inside(host) => self.movers.start_inside(&job.namespace, &host).await?,
            Place::Beside(beside) => {
                let started = self.movers.start(&job.namespace, &job.claim, Some(&beside));
                started.await?
            }
            Place::Anywhere => self.movers.start(&job.namespace, &job.claim, None).await?,
        };
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

    pub(super) async fn remove(&self, mover: Mover, job: &Job) {
        if let Err(e) = mover.remove().await {
            let text = format!(
                "the mover of volume {} could not be removed yet: {}",
                job.name(),
                e.sentence()
            );
            self.log.line("warning", &text);
        }
    }

    /// Says of a mover in somebody's pod that it is there for good.
    pub(super) fn tell_of(&self, job: &Job, mover: &Mover) -> Option<String> {
        let (container, pod) = mover.inside()?;
        let text = format!(
            "volume {}: pod {pod} got the ephemeral container {container}, which ends with the copy and stays in the pod's object",
            job.name()
        );
        self.log.line("info", &text);
        Some(text)
    }

    /// Copies one to this store, and takes its mover away; with why another repository was begun, where one was.
    pub(super) async fn copy(
        self: Arc<Self>,
        job: Job,
        mover: Mover,
        (hooks, store): (Hooks, Store),
        came: Arc<AtomicU64>,
    ) -> Result<(Saved, Option<String>)> {
        let node = mover.node().to_owned();
        let store = VolumeStore::new(&store, &job.keys).quiet(hooks != Hooks::None);
        let made = Arc::clone(&self).make(&job, &mover, &came, &store).await;
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
        let (saved, way, exec_because) = made.inspect_err(|e| {
            let text = format!("volume {name}: no copy was made: {}", e.sentence());
            self.log.line("error", &text);
        })?;
        let counted = &saved.counted;
        let text = format!(
            "volume {name}: snapshot {} in repository {}, read on node {node}, {}: {} entries, {} bytes, {} bytes added",
            saved.snapshot,
            saved.repository,
            way.word(),
            counted.entries,
            counted.bytes,
            saved.added_bytes
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
                    way: Some(way),
                    exec_because,
                    snapshot: saved.snapshot,
                },
            },
            because,
        ))
    }

    /// Copies it the way that the location has, and says which that was.
    async fn make(
        self: Arc<Self>,
        job: &Job,
        mover: &Mover,
        came: &Arc<AtomicU64>,
        store: &VolumeStore,
    ) -> Result<(crate::volume::store::Saved, Way, Option<String>)> {
        let lending = || match mover.inside() {
            None => store.lending(),
            Some(_) => Err("nothing is lent to a container in somebody's pod".to_owned()),
        };
        let why = match way::choose(self.mover_credentials.as_deref(), lending) {
            Chosen::Straight(lending) => {
                match self.straight(job, mover, came, store, &lending).await? {
                    Ended::Saved(saved) => return Ok((*saved, Way::Straight, None)),
                    Ended::NotReached(why) => Some(why),
                }
            }
            Chosen::Exec(why) => why,
        };
        let saved = Arc::clone(&self).over_exec(job, mover, came, store).await?;
        Ok((saved, Way::Exec, why))
    }

    fn ring(&self) -> Keyring<'_> {
        let options = &self.options;
        Keyring {
            recipients: &options.recipients,
            passphrase: options.passphrase.as_ref(),
            identities: &options.identities,
            cache: &*options.cache,
        }
    }

    /// The mover writes to the store.
    async fn straight(
        &self,
        job: &Job,
        mover: &Mover,
        came: &Arc<AtomicU64>,
        store: &VolumeStore,
        lending: &Lending,
    ) -> Result<Ended> {
        let (archiver, streams) = mover.archive().await?;
        let ring = self.ring();
        let same = || self.is_same(job).boxed();
        let archiving = Archiving {
            volume: store,
            lending,
            ring: &ring,
            of: &self.of,
            same: &same,
            came,
        };
        let (end, ended) = watch::channel(false);
        let served = serve(&archiving, streams, ended);
        // It is told to stop, and not cut off: so it takes its claim in the location along.
        let made = self.until_wanted(job, mover, &end, served, false).await;
        match made {
            Ok(Ended::NotReached(why)) => {
                let image = &self.options.movers.image;
                let said = mover.forget(archiver).await;
                Ok(Ended::NotReached(way::not_reached(
                    why,
                    said.as_deref(),
                    image,
                )))
            }
            made => made,
        }
    }

    /// What the mover reads is archived here.
    async fn over_exec(
        self: Arc<Self>,
        job: &Job,
        mover: &Mover,
        came: &Arc<AtomicU64>,
        store: &VolumeStore,
    ) -> Result<crate::volume::store::Saved> {
        let source = Arc::new(Guarded {
            source: mover.source(came).await?,
            inner: Arc::clone(&self),
            job: job.clone(),
            handle: Handle::current(),
        });
        let ring = self.ring();
        let (end, ended) = watch::channel(false);
        let backup = store.backup(source, &ring, &self.of, &Base::Newest, ended);
        self.until_wanted(job, mover, &end, backup, true).await
    }

    /// Does this until the run is stopped, or somebody wants the volume elsewhere: then its streams may be cut, and it is told to end.
    async fn until_wanted<T>(
        &self,
        job: &Job,
        mover: &Mover,
        end: &watch::Sender<bool>,
        work: impl Future<Output = Result<T>>,
        is_cut: bool,
    ) -> Result<T> {
        tokio::pin!(work);
        let mut stop = self.movers.stop();
        let wanted = async {
            match mover.inside() {
                None => self.wanted_elsewhere(job, mover.node()).await,
                // It goes with the pod that has the volume, and stands in nobody's way.
                Some(_) => std::future::pending().await,
            }
        };
        tokio::pin!(wanted);
        let gave_way = tokio::select! {
            made = &mut work => return made,
            _ = stop.wait_for(|stop| *stop) => None,
            why = &mut wanted => {
                if is_cut {
                    mover.end(why.clone());
                }
                Some(why)
            }
        };
        // Not dropped: it takes its claim in the location along.
        end.send_replace(true);
        match (work.await, gave_way) {
            // The backup itself goes on.
            (Err(e), Some(why)) => Err(Error::other(why).because(e)),
            (made, _) => made,
        }
    }

    /// Ends when a pod wants the volume on another node, or alone, and says so.
    async fn wanted_elsewhere(&self, job: &Job, node: &str) -> String {
        loop {
            tokio::time::sleep(LOOKS).await;
            if let Some(why) = self.wanted(job, node).await {
                return why;
            }
        }
    }

    /// Why a mover on this node stands in somebody's way, where it does. Who can not be asked wants nothing.
    pub(super) async fn wanted(&self, job: &Job, node: &str) -> Option<String> {
        let users = self.users.of(&job.namespace, LOOKS / 2).await.ok()?;
        plan::gives_way(job, node, &users)
    }
}
