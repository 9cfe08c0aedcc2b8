//! Gives the restored objects their owners back, when all of them stand.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::bodies::Bodies;
use super::super::gather;
use super::super::owners::{Child, Owners, Rewired};
use super::{Task, Ticket, Waves};
use crate::archive::read::Source;
use crate::error::{Error, Kind, Result};
use crate::raw::RawObject;

impl<S: Source> Waves<'_, S> {
    /// Gives the restored objects their owners back.
    pub(super) async fn owners(&mut self) -> Result<()> {
        let survey = self.survey;
        if survey.resources.iter().all(|r| r.children.is_empty()) {
            return Ok(());
        }
        self.progress.step("giving objects their owners back");
        let owners = Arc::new(Owners::new(
            self.applier.cluster.clone(),
            self.served.clone(),
            self.applier.rewrite.restore.clone(),
            std::mem::take(&mut self.state.owners),
        ));
        let mut flight: VecDeque<(Ticket, Task<Result<Rewired>>)> = VecDeque::new();
        for resource in &survey.resources {
            let Some(target) = self
                .target(resource)
                .filter(|_| !resource.children.is_empty())
            else {
                continue;
            };
            for frame in &resource.children {
                let mut rows = gather::rows(self.archive, self.filter, resource, *frame).await?;
                rows.retain(|row| !row.owners.is_empty());
                let mut bodies = Bodies::new(self.archive, rows);
                while let Some((row, object)) = bodies.next().await {
                    let ticket = self.ticket(resource, *frame, None, &row);
                    let read = object.and_then(|object| references(&object.body));
                    let references = match read {
                        Ok(Some(references)) => references,
                        Ok(None) => continue,
                        Err(e) if e.kind() == Kind::Corrupt => {
                            self.rewired(&ticket, Err(e))?;
                            continue;
                        }
                        Err(e) => return Err(e),
                    };
                    if self.cancel.as_ref().is_some_and(|stop| *stop.borrow()) {
                        return Err(Error::new(Kind::Interrupted, "the restore was stopped")
                            .hint("the same command goes on with it"));
                    }
                    let child = Child {
                        target: target.clone(),
                        namespace: ticket.namespace.clone(),
                        name: ticket.name.clone(),
                        uid: row.uid,
                        references,
                    };
                    if flight.len() >= self.concurrency.max(1)
                        && let Some((ticket, task)) = flight.pop_front()
                    {
                        self.rewired(&ticket, task.wait().await?)?;
                    }
                    let owners = owners.clone();
                    let task = tokio::spawn(async move { owners.rewire(&child).await });
                    flight.push_back((ticket, Task(task)));
                }
            }
        }
        for (ticket, task) in flight {
            self.rewired(&ticket, task.wait().await?)?;
        }
        Ok(())
    }

    fn rewired(&mut self, ticket: &Ticket, result: Result<Rewired>) -> Result<()> {
        let object = format!(
            "{}/{} {}{}",
            ticket.resource.row.api_version(),
            ticket.resource.row.kind,
            ticket
                .namespace
                .as_ref()
                .map(|n| format!("{n}/"))
                .unwrap_or_default(),
            ticket.name
        );
        let namespace = ticket.namespace.as_deref();
        match result {
            Ok(rewired) => rewired.dropped.iter().try_for_each(|owner| {
                self.record.warn(
                    namespace,
                    format!("{object}: its owner {owner} is not in the target, so it has that owner no more"),
                )
            }),
            Err(e) if matches!(e.kind(), Kind::Unreachable | Kind::Unauthorized) => Err(e),
            Err(e) => self
                .record
                .fail(namespace, format!("{object}: its owners were not restored: {e}")),
        }
    }
}

fn references(body: &[u8]) -> Result<Option<String>> {
    let object = RawObject::from_slice(body)?;
    let Some(metadata) = object.get("metadata") else {
        return Ok(None);
    };
    Ok(RawObject::parse(metadata)?
        .get("ownerReferences")
        .filter(|text| text.starts_with('['))
        .map(str::to_owned))
}
