//! A snapshot of one claim for a backup: asked for, cut, ready and kept; or removed again.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::drive::{Api, GOES, PAUSE, Place, never};
use super::objects::{self, At, Whose};
use super::step::Goal;
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::records::copies::{CsiSnapshot, Hooks};

/// A claim of which one is made.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) namespace: String,
    pub(crate) claim: String,
    /// The claim's uid.
    pub(crate) uid: String,
    pub(crate) class: String,
    pub(crate) driver: String,
    /// The driver's name for the volume.
    pub(crate) volume: String,
    /// Somebody asks for it; else it is no fault where none can be made.
    pub(crate) is_asked: bool,
}

/// How long a snapshot may take until it is cut: hooks of pods wait for it.
const CUTS: Duration = Duration::from_secs(300);

/// How long it may take until anybody begins with one that is made unasked.
const BEGINS: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 60_000 });

/// One that was asked for.
pub(crate) struct Cut {
    api: Api,
    whose: Whose,
    wanted: Wanted,
    place: Place,
    began: Timestamp,
    until: Instant,
    stop: watch::Receiver<bool>,
}

impl Cut {
    /// Not asked for yet; it is to be ready `timeout` after that.
    pub(crate) fn new(
        cluster: &Cluster,
        whose: &Whose,
        wanted: Wanted,
        timeout: Duration,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let of = [wanted.namespace.as_str(), &wanted.uid];
        let at = At {
            namespace: wanted.namespace.clone(),
            name: objects::name(whose.prefix().trim_end_matches('-'), &of),
        };
        Self {
            api: Api::new(cluster),
            whose: whose.clone(),
            wanted,
            place: Place::of(&at),
            began: Timestamp::now(),
            until: Instant::now() + timeout,
            stop,
        }
    }

    /// Of which claim: `shop/data`.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.wanted.namespace, self.wanted.claim)
    }

    /// Its VolumeSnapshot, in words; it may be gone.
    pub(crate) fn object(&self) -> String {
        let at = self.place.at.as_ref();
        at.map_or_else(
            || "its VolumeSnapshotContent".to_owned(),
            |at| format!("VolumeSnapshot {}/{}", at.namespace, at.name),
        )
    }

    /// What it is made of.
    pub(crate) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// The same in its parts.
    pub(crate) fn claim(&self) -> (String, String) {
        (self.wanted.namespace.clone(), self.wanted.claim.clone())
    }

    /// Asks for it.
    ///
    /// # Errors
    /// Why that was refused.
    pub(crate) async fn ask(&mut self) -> Result<()> {
        let Some(at) = &self.place.at else {
            return Ok(());
        };
        let Wanted { claim, class, .. } = &self.wanted;
        let wanted = objects::wanted(at, &self.whose, claim, class);
        self.api
            .create_snapshot(&wanted)
            .await
            .map_err(|e| Error::from(e).context("no VolumeSnapshot can be made"))
    }

    /// Whether anybody begins with it soon: a cluster may serve the API without the controller, or without the driver's part of it.
    pub(crate) async fn is_begun(&mut self) -> bool {
        let until = self.until.min(Instant::now() + BEGINS);
        while Instant::now() < until && !*self.stop.borrow() {
            let live = self.api.look(&mut self.place).await;
            let is_begun = live.is_ok_and(|live| match (live.snapshot, live.content) {
                (Some(snapshot), content) => {
                    let is_begun = content.is_some_and(|content| content.is_begun);
                    is_begun || snapshot.cut.is_some() || snapshot.error.is_some()
                }
                // What became of it is seen by whoever waits for it.
                (None, _) => true,
            });
            if is_begun {
                return true;
            }
            tokio::time::sleep(PAUSE).await;
        }
        false
    }

    /// Waits until it is cut: what is written to the volume afterwards is not in it.
    ///
    /// # Errors
    /// Why it is not; then [`Cut::remove`] is due.
    pub(crate) async fn cut(&mut self) -> Result<()> {
        let until = self.until.min(Instant::now() + CUTS);
        let goal = Goal::Cut;
        self.api
            .drive(&mut self.place, &goal, until, &self.stop)
            .await?;
        Ok(())
    }

    /// Waits until it can be used, and has it kept whatever becomes of its objects.
    ///
    /// # Errors
    /// Why it is not; then [`Cut::remove`] is due.
    pub(crate) async fn keep(&mut self, hooks: Hooks) -> Result<CsiSnapshot> {
        let (until, goal) = (self.until, Goal::Retained(self.whose.clone()));
        let live = self
            .api
            .drive(&mut self.place, &goal, until, &self.stop)
            .await?;
        let unsaid = || Error::other("its objects do not say what it is");
        let (snapshot, content) = live.snapshot.zip(live.content).ok_or_else(unsaid)?;
        if content.driver != self.wanted.driver {
            return Err(Error::other(format!(
                "it was made by driver {} and not by {}",
                crate::pod::short(&content.driver),
                self.wanted.driver
            )));
        }
        if content.volume.as_ref() != Some(&self.wanted.volume) {
            return Err(Error::other(
                "it is of another volume: the claim was made anew meanwhile",
            ));
        }
        Ok(CsiSnapshot {
            hooks: Some(hooks),
            driver: content.driver,
            handle: content.handle.ok_or_else(unsaid)?,
            size: snapshot.size,
            class: self.wanted.class.clone(),
            run: self.whose.run.clone(),
            began: self.began,
            cut: snapshot.cut.ok_or_else(unsaid)?,
            ended: Timestamp::now(),
        })
    }

    /// Looks once more whether it is kept, with this handle: hours may have gone by.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) async fn confirm(&mut self, handle: &str) -> Result<()> {
        let goal = Goal::Retained(self.whose.clone());
        let until = Instant::now() + GOES;
        let live = self
            .api
            .drive(&mut self.place, &goal, until, &self.stop)
            .await?;
        match live.content.and_then(|content| content.handle) {
            Some(its) if its == handle => Ok(()),
            _ => Err(Error::other(
                "its VolumeSnapshotContent names another snapshot now",
            )),
        }
    }

    /// Takes its objects away and leaves it where it is.
    ///
    /// # Errors
    /// What is left to the next run.
    pub(crate) async fn leave(&mut self) -> Result<()> {
        self.end(&Goal::Left).await
    }

    /// Takes it away.
    ///
    /// # Errors
    /// What is left to the next run.
    pub(crate) async fn remove(&mut self) -> Result<()> {
        self.end(&Goal::Removed).await
    }

    async fn end(&mut self, goal: &Goal) -> Result<()> {
        let until = Instant::now() + GOES;
        self.api
            .drive(&mut self.place, goal, until, &never())
            .await?;
        Ok(())
    }
}
