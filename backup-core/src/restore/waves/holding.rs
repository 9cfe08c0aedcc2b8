//! Claims whose data comes back: they are made in their wave like others, and what is restored after them goes on while their data flows.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::super::Action;
use super::super::apply::{Done, Known};
use super::super::bodies::Bodies;
use super::super::gather::{CLAIMS, Resource};
use super::super::held::{self, Aim, Before, Choice, Data, Item, Kept, Word};
use super::super::rewrite::Side;
use super::{Ticket, Waves};
use crate::archive::read::{Object, Source};
use crate::archive::row::Row;
use crate::error::{Error, Kind, Result};

/// How long a claim that is being deleted is awaited.
const GOING: Duration = Duration::from_secs(60);

/// A claim that waits for its turn, with its place in the list of those that are begun.
pub(super) struct Begun {
    ticket: Ticket,
    /// How far it came is known: it stands.
    stands: bool,
}

impl<S: Source> Waves<'_, S> {
    /// What is to become of a claim's data; nothing where it is none, or its data does not come back.
    fn choice(&self, resource: &str, row: &Row) -> Option<&Choice> {
        if resource != CLAIMS {
            return None;
        }
        self.held.choice(row.namespace.as_deref(), &row.name)
    }

    /// What of a claim's data would come back, in a plan.
    pub(super) fn comes(&self, resource: &Resource, row: &Row) -> Option<String> {
        match self.choice(&resource.name, row) {
            Some(Choice::Hold(data)) if self.holding.is_none() => Some(format!(
                "its data comes back ({} files, {} bytes)",
                data.copy.files, data.copy.bytes
            )),
            _ => None,
        }
    }

    /// An object, unless it is a claim that waits until the rest of its wave stands, or can not be made.
    pub(super) async fn or_held(
        &mut self,
        ticket: Ticket,
        row: Row,
    ) -> Result<Option<(Ticket, Row)>> {
        let why = match self.choice(&ticket.resource.name, &row) {
            None => return Ok(Some((ticket, row))),
            Some(_) if self.holding.is_some() => {
                self.state.waiting.push((ticket, row));
                return Ok(None);
            }
            Some(Choice::Hold(_)) => return Ok(Some((ticket, row))),
            Some(Choice::Refuse(why)) => why.clone(),
        };
        // Exclusive, so that the future may move between threads though the plan's receiver may not be shared.
        if self.stands(&ticket).await? {
            return Ok(Some((ticket, row)));
        }
        self.not_held(&ticket, &Error::corrupt(why)).await?;
        Ok(None)
    }

    /// Makes the claims of this wave whose data comes back, and begins to fill their volumes. When this returns, each of them stands or is named.
    pub(super) async fn hold(&mut self) -> Result<()> {
        let waiting = std::mem::take(&mut self.state.waiting);
        if waiting.is_empty() {
            return Ok(());
        }
        let count = waiting.len();
        self.progress
            .step(&format!("making {count} claims whose data comes back"));
        let (tickets, rows): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        let choices: Vec<Option<Choice>> = tickets
            .iter()
            .zip(&rows)
            .map(|(ticket, row)| self.choice(&ticket.resource.name, row).cloned())
            .collect();
        // A restore that begins has left nothing.
        let kept = match self.resumed {
            true => held::kept(&self.applier.cluster, self.name).await?,
            false => Kept::default(),
        };
        let mut bodies = Bodies::new(self.archive, rows);
        let mut items = Vec::new();
        let mut standing = Vec::new();
        for (ticket, choice) in tickets.into_iter().zip(choices) {
            let Some((_, object)) = bodies.next().await else {
                return Err(Error::other("the restore lost count of its objects"));
            };
            let looked = match (object, choice) {
                (Err(e), _) => Err(e),
                (Ok(object), Some(Choice::Hold(data))) => {
                    self.look_before(&ticket, &object, *data, &kept).await
                }
                (Ok(object), refused) => {
                    let why = match refused {
                        Some(Choice::Refuse(why)) => why,
                        _ => "its data is not there".to_owned(),
                    };
                    // What stands keeps its own data, and is in nobody's way.
                    match self.stands(&ticket).await {
                        Ok(true) => Ok(Looked::Standing(Box::new(object))),
                        Ok(false) => Err(Error::new(Kind::Corrupt, why)),
                        Err(e) => Err(e),
                    }
                }
            };
            match looked {
                Ok(Looked::Item(item)) => {
                    items.push(*item);
                    self.state.begun.push(Begun {
                        ticket,
                        stands: false,
                    });
                }
                Ok(Looked::Standing(object)) => standing.push((ticket, *object)),
                Err(e)
                    if matches!(
                        e.kind(),
                        Kind::Unreachable | Kind::Unauthorized | Kind::Interrupted
                    ) =>
                {
                    return Err(e);
                }
                Err(e) => self.not_held(&ticket, &e).await?,
            }
        }
        drop(bodies);
        for (ticket, object) in standing {
            self.start_standing(ticket, object).await?;
        }
        self.drain().await?;
        for warning in self.held.hurried(&items) {
            self.record.warn(None, warning)?;
        }
        let bytes = items.iter().map(|item| item.data.copy.bytes).sum();
        self.progress.expect_bytes(bytes);
        let held = Arc::clone(&self.held);
        let Some(holding) = &mut self.holding else {
            return Err(Error::other("the restore has nobody to fill volumes"));
        };
        holding.begin(items, &held.users);
        while self.state.begun.iter().any(|begun| !begun.stands) {
            self.hear().await?;
        }
        Ok(())
    }

    /// Waits until all data that is on its way has come, or failed.
    pub(in super::super) async fn filled(&mut self) -> Result<()> {
        while self
            .holding
            .as_ref()
            .is_some_and(held::Holding::is_under_way)
        {
            self.hear().await?;
        }
        Ok(())
    }

    /// Takes note of what is told, without waiting for it.
    pub(super) async fn heed(&mut self) -> Result<()> {
        while let Some(word) = self.holding.as_mut().and_then(held::Holding::now) {
            self.take(word).await?;
        }
        Ok(())
    }

    /// Ends what is under way, whatever came of the rest.
    pub(in super::super) async fn settle_held(&mut self) -> Result<()> {
        let Some(mut holding) = self.holding.take() else {
            return Ok(());
        };
        for left in holding.settle().await {
            self.record.warn(None, left)?;
        }
        while let Some(word) = holding.now() {
            self.take(word).await?;
        }
        Ok(())
    }

    async fn hear(&mut self) -> Result<()> {
        let Some(holding) = &mut self.holding else {
            return Err(Error::other("the restore has nobody to fill volumes"));
        };
        let word = match self.cancel.clone() {
            None => holding.next().await?,
            Some(mut cancel) => tokio::select! {
                word = holding.next() => word?,
                _ = cancel.wait_for(|stop| *stop) => {
                    return Err(Error::new(Kind::Interrupted, "the restore was stopped")
                        .hint("the same command goes on with it"));
                }
            },
        };
        self.take(word).await
    }

    async fn take(&mut self, word: Word) -> Result<()> {
        match word {
            Word::Step(text) => self.progress.step(&text),
            Word::Bytes(bytes) => self.progress.done(0, bytes),
            Word::Stands(place, came) => {
                let Some(begun) = self.state.begun.get_mut(place) else {
                    return Ok(());
                };
                begun.stands = true;
                let ticket = begun.ticket.clone();
                match came {
                    Ok(true) => {
                        let done = Done::new(Action::Created, "it is bound when its data is there");
                        self.note(&ticket, done).await?;
                    }
                    Ok(false) => {
                        let mut done = Done::new(
                            Action::Skipped,
                            "this restore made it in an earlier run; it is bound when its data is there",
                        );
                        done.mine = true;
                        self.note(&ticket, done).await?;
                    }
                    Err(e) if e.kind() == Kind::Interrupted => {}
                    Err(e) => self.not_held(&ticket, &e).await?,
                }
            }
            Word::Ended(place, came) => {
                let Some(begun) = self.state.begun.get(place) else {
                    return Ok(());
                };
                let ticket = begun.ticket.clone();
                let namespace = ticket.namespace.as_deref();
                let path = format!("{}/{}", namespace.unwrap_or_default(), ticket.name);
                match came {
                    Ok(None) => self
                        .record
                        .tell(&format!("claim {path} is bound to its data"))?,
                    Ok(Some(said)) => self.record.fail(
                        namespace,
                        format!("claim {path} is bound to its data, but not all of it is as it was: {said}"),
                    )?,
                    Err(e) if e.kind() == Kind::Interrupted => self.record.tell(&format!(
                        "claim {path} stays, and not all of its data is there: the restore was stopped, and the same command goes on with it"
                    ))?,
                    Err(e) => {
                        let cluster = &self.applier.cluster;
                        let stands =
                            held::without_data(cluster, namespace.unwrap_or_default(), &ticket.name);
                        let text = format!("claim {path} {}: {}", stands.await, e.sentence());
                        self.record.fail(namespace, text)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A claim that could not be made: what uses it is not made either.
    async fn not_held(&mut self, ticket: &Ticket, why: &Error) -> Result<()> {
        let why = why.sentence();
        let namespace = ticket.namespace.as_deref().unwrap_or_default();
        self.applier.unheld.note(namespace, &ticket.name, &why);
        let reason = format!(
            "it was not made, for its data can not come back: {why}; the same command tries again, and --restore-volumes=false in a restore of another name makes it empty"
        );
        self.note(ticket, Done::new(Action::Failed, reason)).await
    }

    /// What stands where the claim of this ticket would be, and is not ours.
    async fn stands(&mut self, ticket: &Ticket) -> Result<bool> {
        let aim = self.aim(ticket, String::new(), String::new());
        match held::before(&self.applier.cluster, &aim).await {
            Ok(before) => Ok(before == Before::Standing),
            Err(e) if e.kind() == Kind::Forbidden => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn aim(&self, ticket: &Ticket, snapshot: String, backup_uid: String) -> Aim {
        Aim {
            restore: self.name.to_owned(),
            label: self.applier.rewrite.restore.clone(),
            backup_uid,
            snapshot,
            namespace: ticket.namespace.clone().unwrap_or_default(),
            claim: ticket.name.clone(),
        }
    }

    async fn look_before(
        &mut self,
        ticket: &Ticket,
        object: &Object,
        data: Data,
        kept: &Kept,
    ) -> Result<Looked> {
        let aim = self.aim(ticket, data.copy.snapshot.clone(), data.backup_uid.clone());
        let until = Instant::now() + GOING;
        loop {
            match held::before(&self.applier.cluster, &aim).await? {
                Before::Standing => return Ok(Looked::Standing(Box::new(object.clone()))),
                Before::Ours => break,
                Before::Going if Instant::now() >= until => {
                    return Err(Error::new(
                        Kind::AlreadyExists,
                        "a claim of that name is being deleted",
                    ));
                }
                Before::Going => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
        let rewrite = &self.applier.rewrite;
        let mut shaped = rewrite.shape(&ticket.resource.name, &object.body, Side::Backup)?;
        if shaped.name != object.row.name
            || shaped.namespace != object.row.namespace.as_deref().unwrap_or("")
        {
            return Err(Error::corrupt(
                "the archive holds another object under this name",
            ));
        }
        rewrite.stamp(&mut shaped)?;
        let body: Value = serde_json::from_slice(&shaped.object.to_vec())
            .map_err(|e| Error::corrupt("not a Kubernetes object").because(e))?;
        let kept = kept.of(&aim);
        Ok(Looked::Item(Box::new(Item {
            aim,
            data,
            body,
            kept,
        })))
    }

    /// A claim that stands goes the way of all objects that stand; its data is its own.
    async fn start_standing(&mut self, ticket: Ticket, object: Object) -> Result<()> {
        let namespace = ticket.namespace.clone();
        let text = format!(
            "claim {}/{} stands, so its data was not restored: data is never written into a claim that is not this restore's; delete the claim, or restore with --namespace-mappings",
            namespace.as_deref().unwrap_or_default(),
            ticket.name
        );
        self.record.fail(namespace.as_deref(), text)?;
        let Some(target) = self.target(&ticket.resource) else {
            return Ok(());
        };
        self.start(ticket, target, Known::Unasked, object).await
    }
}

/// What was found before a claim is made.
enum Looked {
    Item(Box<Item>),
    /// It stands, and is not this restore's.
    Standing(Box<Object>),
}
