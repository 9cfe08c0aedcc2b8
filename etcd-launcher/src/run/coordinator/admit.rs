//! Which restore gets the cluster: what can be said against one before anybody looks at its snapshot, and the end of one that is gone.

use std::collections::BTreeMap;
use std::time::Duration;

use backup_core::{Kind, Result};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Coordinator, SELDOM};
use crate::run::condition;
use crate::run::decide::Unpaused;
use crate::run::door;
use crate::run::fitness;
use crate::run::hosting::{RestoreView, Written};
use crate::run::keeper::{crash_at, sentence};
use crate::run::kept;
use crate::run::lease;
use crate::run::pace::OFTEN;
use crate::run::pause::{self, Still};
use crate::run::probes;
use crate::run::records::{ACTIVE, Active, Attempt, Outcome, Step};
use crate::run::rehearsal;

impl Coordinator {
    /// Looks for a restore that waits, and takes the cluster for it.
    pub(super) async fn admit(&mut self) -> Result<Duration> {
        for restore in self.hosting.all_restores().await? {
            let at_end = restore
                .attempt
                .as_ref()
                .is_some_and(|attempt| attempt.step().is_end());
            if at_end && restore.has_finalizer() {
                self.release(&restore).await?;
            }
            let phase = restore.phase();
            if at_end
                || restore.is_deleting()
                || matches!(phase, "Completed" | "Failed" | "RolledBack")
            {
                continue;
            }
            let of = restore.cluster();
            if of != self.hosting.names.cluster {
                // Its launchers may come yet: it is told, and not refused.
                if restore.attempt.is_none() && !lease::is_there(&self.hosting, of).await? {
                    let why = format!(
                        "no launcher of cluster {of:?} is here, but one of {:?}: nobody will carry this out; name the cluster of this namespace in spec.cluster.name",
                        self.hosting.names.cluster
                    );
                    self.tell(&restore, &why).await?;
                }
                continue;
            }
            if restore.attempt.is_some() {
                // Its claim was taken away by somebody: it is taken again.
                let id = restore
                    .attempt
                    .as_ref()
                    .map(|a| a.id.clone())
                    .unwrap_or_default();
                self.take(&restore, &id).await?;
                return Ok(OFTEN);
            }
            // A member that has not put the last attempt away yet would obey two. Asked first: what is looked at then may take a while, and be in vain.
            let answers = self.peers.ask().await;
            if let Some(peer) = answers.values().find(|peer| peer.attempt.is_some()) {
                self.tell(
                    &restore,
                    &format!("waiting for member {} to end another restore", peer.name),
                )
                .await?;
                return Ok(SELDOM);
            }
            if self.health.report().attempt.is_some() {
                return Ok(SELDOM);
            }
            match self.refused(&restore).await {
                Ok(None) => {}
                Ok(Some(why)) => {
                    self.refuse(&restore, &why).await?;
                    continue;
                }
                // A store that does not answer now may later; others need not wait for it.
                Err(e) => {
                    let why = sentence(&e);
                    self.say(&format!("restore {}: {why}", restore.reference().name));
                    self.tell(&restore, &format!("{why}; it is tried again"))
                        .await?;
                    continue;
                }
            }
            self.take(&restore, &uuid::Uuid::new_v4().to_string())
                .await?;
            return Ok(OFTEN);
        }
        Ok(SELDOM)
    }

    async fn take(&mut self, restore: &RestoreView, attempt: &str) -> Result<()> {
        let Some(cluster) = self.hosting.cluster().await? else {
            return Ok(());
        };
        if cluster.active.is_some() {
            return Ok(());
        }
        let wanted = restore.reference();
        let active = Active {
            namespace: wanted.namespace,
            name: wanted.name,
            uid: wanted.uid,
            attempt: attempt.to_owned(),
        };
        let patch = json!({"metadata": {"annotations": {ACTIVE: active.to_string()}}});
        self.hosting.patch_cluster(&cluster, patch).await?;
        Ok(())
    }

    /// What can be said before anybody looks at a snapshot.
    async fn refused(&self, restore: &RestoreView) -> Result<Option<String>> {
        let names = &self.hosting.names;
        let Some(cluster) = self.hosting.cluster().await? else {
            return Ok(Some(format!("Cluster {} is not there", names.cluster)));
        };
        let namespace = restore.reference().namespace;
        if cluster.namespace != namespace {
            return Ok(Some(format!(
                "cluster {} lives in namespace {}, and this restore in {namespace}: apply it there",
                names.cluster, cluster.namespace
            )));
        }
        if let Err(e) = backup_core::etcd::names::check(restore.text("backupName")) {
            return Ok(Some(sentence(&e)));
        }
        if let Some(first) = names.control_plane.first()
            && self.hosting.deployment(first).await?.is_none()
        {
            return Ok(Some(format!(
                "Deployment {first} is not there: nobody could be paused"
            )));
        }
        let Some(set) = self.hosting.set().await? else {
            return Ok(Some(format!("StatefulSet {} is not there", names.set)));
        };
        if set.deleting {
            return Ok(Some(format!("StatefulSet {} is being deleted", names.set)));
        }
        let pod = set.pod.as_ref();
        if let Some(probe) = pod.and_then(|pod| probes::that_look_at_etcd(pod, &self.args.ports()))
        {
            return Ok(Some(format!(
                "{probe}: the kubelet would end the launcher in the middle of a restore (let it look at /livez of the launcher)"
            )));
        }
        let reference = restore.reference();
        let key = format!(
            "/registry/kubermatic.k8c.io/etcdrestores/{}/{}",
            reference.namespace, reference.name
        );
        // One that does not answer serves no API, and what is asked with is one.
        if matches!(
            door::usual_holds(&self.args, &key, &reference.uid).await,
            Ok(true)
        ) {
            return Ok(Some(
                "this restore lies in the very etcd that it would replace: nobody could follow it (on a control-plane node that hosts itself, use `etcd-launcher restore` with etcd stopped)".to_owned(),
            ));
        }
        let backup = restore.text("backupName");
        let found = async {
            let location = fitness::location(&self.hosting, restore).await?;
            // What the members keep is no snapshot yet.
            match kept::named(backup) {
                None => fitness::find(&location, &self.hosting, restore)
                    .await
                    .map(|_| ()),
                Some(_) => kept::encryption(&location, &self.hosting, restore)
                    .await
                    .map(|_| ()),
            }
        };
        let found = match found.await {
            Ok(()) => rehearsal::rehearse(&self.hosting, restore).await,
            Err(e) => Err(e),
        };
        match found {
            Ok(()) => Ok(None),
            Err(e) if e.kind() == Kind::Unreachable => Err(e),
            Err(e) => Ok(Some(sentence(&e))),
        }
    }

    async fn refuse(&mut self, restore: &RestoreView, why: &str) -> Result<()> {
        self.say(&format!("restore {}: {why}", restore.reference().name));
        let attempt = Attempt {
            id: uuid::Uuid::new_v4().to_string(),
            sequence: 1,
            step: Some(Step::Failed),
            outcome: Some(Outcome::Failed),
            message: why.to_owned(),
            decided_by: self.me.clone(),
            decided_at: Timestamp::now().to_string(),
            ..Attempt::default()
        };
        self.write(restore, &attempt).await.map(|_| ())
    }

    pub(super) async fn tell(&mut self, restore: &RestoreView, message: &str) -> Result<()> {
        let old = restore
            .object
            .data
            .pointer("/status/message")
            .and_then(Value::as_str);
        if old == Some(message) {
            return Ok(());
        }
        let message = message.to_owned();
        self.hosting
            .write_status(restore, |status| {
                status.insert("message".to_owned(), message.into());
            })
            .await
            .map(|_| ())
    }

    pub(super) async fn begin(
        &mut self,
        restore: &RestoreView,
        active: &Active,
    ) -> Result<Duration> {
        if restore.is_deleting() {
            return self.forget(active).await;
        }
        let attempt = Attempt {
            id: active.attempt.clone(),
            sequence: 1,
            step: Some(Step::Preflight),
            message: "every member looks whether it can be restored".to_owned(),
            decided_by: self.me.clone(),
            decided_at: Timestamp::now().to_string(),
            ..Attempt::default()
        };
        crash_at("Preflight:undecided");
        if self.write(restore, &attempt).await? == Written::Yes {
            crash_at("Preflight:decided");
        }
        self.tell_who_waits(&restore.reference().name).await;
        Ok(OFTEN)
    }

    /// Others that are asked for meanwhile say in a condition that they wait. That they can not be written changes nothing.
    async fn tell_who_waits(&self, active: &str) {
        let Ok(all) = self.hosting.all_restores().await else {
            return;
        };
        let waiting = all.iter().filter(|restore| {
            restore.attempt.is_none()
                && restore.phase().is_empty()
                && restore.cluster() == self.hosting.names.cluster
                && restore.reference().name != active
        });
        for restore in waiting {
            let message = format!("restore {active} is at work on the cluster");
            let _: Result<Written> = self
                .hosting
                .write_status(restore, |status| {
                    condition::set(status, condition::WAITING, true, "ActiveRestore", &message);
                })
                .await;
        }
    }

    /// The cluster is taken by a restore that is gone: the members settle how it ended, then all is put back.
    pub(super) async fn forget(&mut self, active: &Active) -> Result<Duration> {
        let answers = self.peers.ask().await;
        let busy = |attempt: &Option<String>| attempt.as_deref() == Some(active.attempt.as_str());
        if busy(&self.health.report().attempt) || answers.values().any(|peer| busy(&peer.attempt)) {
            return Ok(OFTEN);
        }
        let former = BTreeMap::new();
        let unpaused = pause::unpause(
            &self.hosting,
            &active.attempt,
            &former,
            true,
            &Still::Always,
        )
        .await?;
        if unpaused == Unpaused::No {
            return Ok(OFTEN);
        }
        if let Some(cluster) = self.hosting.cluster().await?
            && cluster.active.as_ref() == Some(active)
        {
            let patch = json!({"metadata": {"annotations": {ACTIVE: Value::Null}}});
            self.hosting.patch_cluster(&cluster, patch).await?;
            self.say(&format!(
                "restore {} is gone: the cluster is free again",
                active.name
            ));
        }
        Ok(OFTEN)
    }
}
