//! What a decision needs done outside of the members: each effect is conditional on what was read before the decision was looked at again, and is
//! done again until it is seen done.

use backup_core::{Error, Result};
use serde_json::{Value, json};

use super::seen::since;
use super::{API_SERVER, Coordinator, WATCHED};
use crate::run::decide::Work;
use crate::run::hosting::{RestoreView, Written};
use crate::run::keeper::sentence;
use crate::run::pause::{self, Still};
use crate::run::records::{
    ACTIVE, Attempt, CLUSTER_ID, EndRecord, FINALIZER, OUTCOME, Outcome, TARGET_REVISION,
};
use crate::run::watch_writers;

impl Coordinator {
    pub(super) async fn work(
        &mut self,
        work: Work,
        restore: &RestoreView,
        attempt: &Attempt,
    ) -> Result<()> {
        let still = Still::While {
            hosting: Box::new(self.hosting.clone()),
            restore: restore.reference(),
            attempt: Box::new(attempt.clone()),
        };
        match work {
            Work::Finalizer => {
                let mut finalizers = restore
                    .object
                    .metadata
                    .finalizers
                    .clone()
                    .unwrap_or_default();
                finalizers.push(FINALIZER.to_owned());
                self.hosting
                    .patch_restore(restore, json!({ "finalizers": finalizers }))
                    .await?;
            }
            Work::Standing => {
                if let Some(set) = self.hosting.set().await?
                    && set.cluster_id().is_empty()
                    && still.stands().await?
                {
                    let annotations = json!({CLUSTER_ID: attempt.old_cluster_id});
                    self.hosting.annotate_set(&set, annotations).await?;
                }
            }
            Work::Pause => pause::pause(&self.hosting, attempt, &still).await?,
            Work::Watch => match watch_writers::watch(&self.args, self.pace.of(WATCHED)).await {
                Ok(watched) => {
                    // What was seen belongs to this decision, and to no later one.
                    if self.seen.sequence == attempt.sequence {
                        self.seen.watched = watched;
                    }
                }
                Err(e) => {
                    self.say(&sentence(&e));
                }
            },
            Work::Commit => {
                if let Some(set) = self.hosting.set().await?
                    && set.end().is_none_or(|end| end.attempt != attempt.id)
                    && still.stands().await?
                {
                    let mark = set.target_revision().max(attempt.target_revision);
                    let annotations = json!({
                        CLUSTER_ID: attempt.new_cluster_id,
                        OUTCOME: record(restore, attempt, Outcome::Committed)?,
                        TARGET_REVISION: mark.to_string(),
                    });
                    self.hosting.annotate_set(&set, annotations).await?;
                }
            }
            Work::RecordBack => {
                if let Some(set) = self.hosting.set().await?
                    && set.end().is_none_or(|end| end.attempt != attempt.id)
                    && still.stands().await?
                {
                    let annotations = json!({
                        OUTCOME: record(restore, attempt, Outcome::RolledBack)?,
                        TARGET_REVISION: set.target_revision().max(attempt.target_revision).to_string(),
                    });
                    self.hosting.annotate_set(&set, annotations).await?;
                }
            }
            Work::Unpause => {
                let former = attempt.former.clone().unwrap_or_default().replicas;
                let ended = since(self.seen.stepped) >= API_SERVER;
                pause::unpause(&self.hosting, &attempt.id, &former, ended, &still).await?;
            }
            Work::Release => self.release(restore).await?,
        }
        Ok(())
    }

    /// The cluster is let go, then the restore; each where it is still held.
    pub(super) async fn release(&self, restore: &RestoreView) -> Result<()> {
        let reference = restore.reference();
        if let Some(cluster) = self.hosting.cluster().await?
            && cluster
                .active
                .as_ref()
                .is_some_and(|active| active.uid == reference.uid)
        {
            let patch = json!({"metadata": {"annotations": {ACTIVE: Value::Null}}});
            if self.hosting.patch_cluster(&cluster, patch).await? == Written::Conflict {
                return Ok(());
            }
        }
        if restore.has_finalizer() {
            let mut finalizers = restore
                .object
                .metadata
                .finalizers
                .clone()
                .unwrap_or_default();
            finalizers.retain(|name| name != FINALIZER);
            self.hosting
                .patch_restore(restore, json!({ "finalizers": finalizers }))
                .await?;
        }
        Ok(())
    }
}

fn record(restore: &RestoreView, attempt: &Attempt, outcome: Outcome) -> Result<String> {
    let record = EndRecord {
        attempt: attempt.id.clone(),
        restore: restore.reference().name,
        uid: restore.reference().uid,
        outcome: Some(outcome),
        cluster_id: match outcome {
            Outcome::Committed => attempt.new_cluster_id.clone(),
            _ => attempt.old_cluster_id.clone(),
        },
    };
    serde_json::to_string(&record).map_err(|e| Error::other("can not write the outcome").because(e))
}
