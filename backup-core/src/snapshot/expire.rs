//! Removes a snapshot that is known by its handle alone: through a content that is made for this, keeps it until nothing speaks against it, and takes it along then.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::drive::{Api, GOES, Place, never};
use super::inventory::Entry;
use super::objects::{self, Content, Known};
use super::step::Goal;
use crate::cluster::Cluster;
use crate::error::{Error, Kind, Result};

/// How long a driver may take to delete one; the next attempt goes on.
pub(super) const DELETES: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 30 });

/// What is withdrawn once somebody stopped it may take so long: a controller that is told to end has half a minute.
const SOON: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });

/// A content that stands for the same snapshot and is none of an expiry, in words.
pub(super) fn named(content: &Content) -> String {
    match &content.of {
        Some(of) => format!(
            "{} of VolumeSnapshot {}/{}",
            content.name, of.namespace, of.name
        ),
        None => content.name.clone(),
    }
}

/// The name of the content with which a snapshot goes.
pub(super) fn name(driver: &str, handle: &str) -> String {
    objects::name("expire", &[driver, handle])
}

/// One that is to go.
pub(crate) struct Expiry {
    api: Api,
    name: String,
    place: Place,
    driver: String,
    handle: String,
}

/// What the driver says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// It has it, and nothing speaks against its end.
    Has,
    /// It has none such.
    HasNot,
}

impl Expiry {
    /// Makes the content, which keeps the snapshot, and asks whether it is the one that is meant and nothing else uses it. Only in the cluster that it is of.
    ///
    /// # Errors
    /// Why it must not go; nothing was changed then.
    pub(crate) async fn begin(
        cluster: &Cluster,
        of: &Entry,
        stop: &watch::Receiver<bool>,
    ) -> Result<(Self, Says)> {
        let (driver, handle) = (of.driver.as_str(), of.handle.as_str());
        let name = name(driver, handle);
        let mut expiry = Self {
            api: Api::new(cluster),
            place: Place::of_content(&name),
            name,
            driver: driver.to_owned(),
            handle: handle.to_owned(),
        };
        match expiry.ask(of, stop).await {
            Ok(says) => Ok((expiry, says)),
            Err(e) => {
                // It keeps the snapshot; what stays of it is used by the next attempt.
                let _ = expiry.withdraw(stop).await;
                Err(e)
            }
        }
    }

    async fn ask(&mut self, of: &Entry, stop: &watch::Receiver<bool>) -> Result<Says> {
        let class = self.api.class_or_any(&of.class, &self.driver).await?;
        let chosen = class.as_ref();
        let known = Known {
            driver: &self.driver,
            handle: &self.handle,
            class: chosen.and_then(|class| class["metadata"]["name"].as_str()),
            mode: "",
        };
        let mut content = objects::expiring(&self.name, &known);
        if let Some(secret) = class.as_ref().and_then(secret) {
            content["metadata"]["annotations"] = secret;
        }
        let refused =
            |e| Error::from(e).context("no VolumeSnapshotContent can be made with which it goes");
        self.api.create_content(&content).await.map_err(refused)?;
        // After that was made: whoever makes another one for it looks for this one.
        let others = self
            .api
            .contents(|content| {
                content.name != self.name && content.is_for(&self.driver, &self.handle)
            })
            .await?;
        if let Some(other) = others.first() {
            return Err(Error::other(format!(
                "VolumeSnapshotContent {} is of the same snapshot",
                named(other)
            ))
            .hint("it has to go first: where a restore made it, when its claim is bound"));
        }
        let until = Instant::now() + GOES;
        let live = loop {
            let made = self.api.content(&self.name).await?;
            let made = made.ok_or_else(|| {
                Error::other("the VolumeSnapshotContent with which it goes is not there")
            })?;
            let is_it = made.is_static()
                && made.is_for(&self.driver, &self.handle)
                && made.of_uid.is_none();
            if !is_it {
                return Err(Error::other(format!(
                    "VolumeSnapshotContent {} is not what it was made to be",
                    self.name
                )));
            }
            // A killed attempt had begun already.
            if made.handle.is_some() || made.is_unknown() || made.is_going {
                break made;
            }
            self.pause(made.error, until, stop).await?;
        };
        if live.is_another(of.cut) {
            return Err(Error::other(format!(
                "the driver has another snapshot under its handle now, of {:.0}",
                live.cut.unwrap_or(Timestamp::UNIX_EPOCH)
            )));
        }
        Ok(match live.is_unknown() {
            true => Says::HasNot,
            false => Says::Has,
        })
    }

    async fn pause(
        &self,
        word: Option<String>,
        until: Instant,
        stop: &watch::Receiver<bool>,
    ) -> Result<()> {
        if *stop.borrow() {
            return Err(Error::new(Kind::Interrupted, "it was stopped"));
        }
        if Instant::now() >= until {
            let what = "the driver did not say in time whether it has the snapshot";
            return Err(Error::other(match word {
                Some(word) => format!("{what}: {word}"),
                None => what.to_owned(),
            }));
        }
        tokio::time::sleep(super::drive::PAUSE).await;
        Ok(())
    }

    /// Has the driver delete it, and waits until that is done.
    ///
    /// # Errors
    /// Why it may be there still; asked again, it goes on from there.
    pub(crate) async fn remove(mut self, stop: &watch::Receiver<bool>) -> Result<()> {
        let until = Instant::now() + DELETES;
        let gone = self
            .api
            .drive(&mut self.place, &Goal::Removed, until, stop)
            .await;
        match gone {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == Kind::Other && Instant::now() >= until => {
                // What the driver says is on no object.
                let text = format!("its driver has not deleted it in {} s", DELETES.as_secs());
                let hint = format!(
                    "see the events of VolumeSnapshotContent {} and the log of the driver's csi-snapshotter",
                    self.name
                );
                Err(Error::other(text).hint(hint).because(e))
            }
            Err(e) => Err(e),
        }
    }

    /// Takes the content away, and leaves the snapshot. Once it is stopped that may take a few seconds more: a content that stays keeps the snapshot, and is the next attempt's.
    ///
    /// # Errors
    /// The server's, and `Interrupted`.
    pub(crate) async fn withdraw(mut self, stop: &watch::Receiver<bool>) -> Result<()> {
        let until = Instant::now() + GOES;
        let mut stop = stop.clone();
        let soon = async {
            // Nobody stops it where nobody is left who could.
            if stop.wait_for(|is_stopped| *is_stopped).await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(SOON).await;
        };
        let never = never();
        tokio::select! {
            gone = self.api.drive(&mut self.place, &Goal::Left, until, &never) => gone.map(drop),
            () = soon => Err(Error::new(Kind::Interrupted, "it was stopped")),
        }
    }
}

/// What tells the driver with which Secret, where the class says so for all snapshots alike. Nothing of it is taken from a bucket.
fn secret(class: &Value) -> Option<Value> {
    let said = |key: &str| {
        let key = format!("csi.storage.k8s.io/snapshotter-secret-{key}");
        let text = class["parameters"][key].as_str();
        text.filter(|text| !text.contains("${"))
    };
    let (name, namespace) = (said("name")?, said("namespace")?);
    Some(json!({
        "snapshot.storage.kubernetes.io/deletion-secret-name": name,
        "snapshot.storage.kubernetes.io/deletion-secret-namespace": namespace,
    }))
}
