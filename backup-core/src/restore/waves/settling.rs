//! Takes note of what became of each object: for those that come after it, for another try, for the record and the journal.

use super::super::apply::Done;
use super::super::{Action, Step, order};
use super::{Failure, Ticket, Waves};
use crate::archive::read::Source;
use crate::error::Result;

/// Kinds without which a server refuses others.
const AWAITED: [&str; 5] = [
    "serviceaccounts",
    "priorityclasses.scheduling.k8s.io",
    "runtimeclasses.node.k8s.io",
    "roles.rbac.authorization.k8s.io",
    "clusterroles.rbac.authorization.k8s.io",
];
/// Failures kept for another try.
const FAILURES: usize = 100_000;

impl<S: Source> Waves<'_, S> {
    /// Takes note of what became of an object.
    pub(super) async fn settle(&mut self, ticket: &Ticket, mut done: Done) -> Result<()> {
        if let Some(journal) = &mut self.journal {
            for key in self.applier.deletions.take_settled() {
                journal.settle(key)?;
            }
        }
        if self.applier.tries() {
            self.tried(ticket, &mut done);
        }
        if let (Some(old), Some(new)) = (ticket.owner, done.uid) {
            self.state.owners.insert(old, new);
        }
        if ticket.resource.name == order::NAMESPACES {
            match done.action {
                Action::Created => {
                    self.state.lost.remove(&ticket.name);
                    self.state.fresh.insert(ticket.name.clone());
                }
                Action::Failed => {
                    self.state
                        .lost
                        .insert(ticket.name.clone(), done.reason.clone());
                }
                Action::Updated | Action::Recreated | Action::Skipped | Action::Untried => {
                    drop(self.state.lost.remove(&ticket.name));
                }
            }
        }
        let changed = done.mine || (self.applier.is_dry() && done.action == Action::Updated);
        if ticket.resource.name == order::CRDS && changed {
            self.state.definitions.insert(ticket.name.clone());
        }
        if done.again
            && !self.applier.is_dry()
            && ticket.position.is_some()
            && self.state.failures.len() < FAILURES
        {
            self.state.failures.push(Failure {
                ticket: ticket.clone(),
                reason: done.reason,
            });
            return Ok(());
        }
        self.note(ticket, done).await
    }

    /// What was refused only for an object that this restore would bring before it could not be tried.
    fn tried(&mut self, ticket: &Ticket, done: &mut Done) {
        let resource = &ticket.resource.name;
        if done.action == Action::Created && AWAITED.contains(&resource.as_str()) {
            let named = (
                format!("{resource} {}", ticket.name),
                ticket.namespace.clone(),
            );
            self.state.planned.insert(named);
        }
        if let Some(awaited) = done.awaits.take() {
            let own = (awaited.clone(), ticket.namespace.clone());
            let planned = &self.state.planned;
            if planned.contains(&own) || planned.contains(&(awaited.clone(), None)) {
                done.action = Action::Untried;
                done.reason = format!("{awaited} does not exist yet");
            }
        }
    }

    /// What became of an object for good: for the record, the journal, and who looks on.
    pub(super) async fn note(&mut self, ticket: &Ticket, mut done: Done) -> Result<()> {
        // What stands and was left alone has its own data.
        let made = matches!(done.action, Action::Created | Action::Recreated)
            || (done.mine && done.action == Action::Skipped);
        // A claim that does not name the volume it had gets another one, which is empty.
        let is_empty = made && !done.names_volume;
        let old_disk = ticket.old_disk(is_empty).filter(|_| made);
        let lost = ticket.lost(is_empty).filter(|_| made);
        done.warning |= old_disk.is_some();
        done.tell(old_disk.or_else(|| lost.clone()).as_deref());
        done.tell(ticket.comes(done.action));
        let row = &ticket.resource.row;
        let moved = self.applier.rewrite.prepared.moved.get(&row.resource);
        let version = moved.cloned().unwrap_or_else(|| row.api_version());
        let step = Step {
            kind: format!("{version}/{}", row.kind),
            namespace: ticket.namespace.clone(),
            name: ticket.name.clone(),
            action: done.action,
            reason: done.reason,
        };
        self.record.step(&step, done.mine, done.warning)?;
        if is_empty && ticket.is_unsaved {
            self.state.empty_claims.push(step.path());
        }
        if let Some(lost) = lost.filter(|_| self.data_wanted) {
            let text = format!("{} {}: {lost}", step.kind, step.path());
            self.record.fail(step.namespace.as_deref(), text)?;
        }
        if let Some(journal) = &mut self.journal {
            if step.action != Action::Skipped {
                journal.note(&step)?;
            }
            journal.flush(false).await;
        }
        self.progress.done(1, ticket.bytes);
        if let Some(show) = &mut self.show {
            show(step);
        }
        Ok(())
    }
}

impl Ticket {
    /// Of a claim that is made with the disk that it had, and whose data does not come back: that.
    fn old_disk(&self, is_empty: bool) -> Option<String> {
        let what = self.failed.as_ref().filter(|_| !is_empty)?;
        Some(format!(
            "its data {what}: it has the disk that it had, as that is now"
        ))
    }

    /// What of its data an object that is made does not have.
    fn lost(&self, is_empty: bool) -> Option<String> {
        match &self.failed {
            Some(what) if is_empty => Some(format!(
                "its data {what}: the volume is provisioned anew and empty"
            )),
            _ => self.lost.clone(),
        }
    }

    /// What becomes of data that was to come.
    fn comes(&self, action: Action) -> Option<&str> {
        let comes = self.comes.as_deref()?;
        match action {
            Action::Created => Some(comes),
            Action::Failed => None,
            _ => Some("its data is not restored, for it stands"),
        }
    }
}

impl Done {
    /// Says this besides, where there is something to say.
    fn tell(&mut self, text: Option<&str>) {
        let Some(text) = text else { return };
        if !self.reason.is_empty() {
            self.reason.push_str("; ");
        }
        self.reason.push_str(text);
    }
}
