//! Does what [`step`](super::step) says, one thing after the other, and looks again. Every change goes by the uid and the revision that were seen.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::class::{self, Class};
use super::objects::{self, At, Content, Snapshot};
use super::step::{Action, Awaited, Goal, Live, Step, step};
use crate::cluster::{ApiError, Call, Cluster, page};
use crate::error::{Error, Kind, Result};

/// No such object is larger.
const LARGEST: usize = 4 << 20;
/// Objects of a page, and its size at most.
const ITEMS: usize = 500;
const LARGEST_PAGE: usize = 64 << 20;
/// The pause between two looks.
pub(super) const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 400 });
/// How long objects that were deleted may take to go, and a driver to answer for a handle.
pub(crate) const GOES: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 120 });
/// How long it is waited for a content that is to go before the sidecar is made to look at it, and again. external-snapshotter overlooks one that was deleted while its driver was at the cut
/// (its issue 1388; since 8.7 only where its cache lags behind), until it looks at all of them after a quarter of an hour.
const TOUCHES: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 5_000 });
/// Who changes objects.
const MANAGER: &str = "kubectl-backup";

/// One snapshot in the cluster: where its objects are.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Its VolumeSnapshot; nothing where it has none.
    pub(crate) at: Option<At>,
    /// The uid of that one, once it was seen.
    pub(crate) uid: Option<String>,
    /// Its content, once that is known.
    pub(crate) content: Option<String>,
}

impl Place {
    /// Of a VolumeSnapshot.
    pub(crate) fn of(at: &At) -> Self {
        Self {
            at: Some(at.clone()),
            uid: None,
            content: None,
        }
    }

    /// Of a content alone.
    pub(crate) fn of_content(name: &str) -> Self {
        Self {
            at: None,
            uid: None,
            content: Some(name.to_owned()),
        }
    }
}

/// What is asked of the cluster for snapshots.
#[derive(Clone)]
pub(crate) struct Api {
    cluster: Cluster,
}

fn contents() -> String {
    format!("/apis/{}/volumesnapshotcontents", super::API)
}

fn snapshots(namespace: &str) -> String {
    let api = super::API;
    format!("/apis/{api}/namespaces/{namespace}/volumesnapshots")
}

/// A stop that nobody asks for.
pub(crate) fn never() -> watch::Receiver<bool> {
    watch::Sender::new(false).subscribe()
}

/// Whether the server may have done it all the same.
fn is_unsure(e: &ApiError) -> bool {
    !matches!(e.code, 400..=499) || e.code == 408
}

fn object(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body).map_err(|e| ApiError {
        message: format!("the server's answer is no object: {e}"),
        ..ApiError::default()
    })
}

impl Api {
    pub(crate) fn new(cluster: &Cluster) -> Self {
        Self {
            cluster: cluster.clone(),
        }
    }

    async fn find(&self, path: &str) -> Result<Option<Value>, ApiError> {
        match self.cluster.get_bounded(path, LARGEST).await {
            Ok(body) => object(&body).map(Some),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// A VolumeSnapshotClass, where it exists and is of this driver.
    pub(crate) async fn class(&self, name: &str, driver: &str) -> Result<Option<Value>, ApiError> {
        if name.is_empty() {
            return Ok(None);
        }
        let path = format!("/apis/{}/volumesnapshotclasses/{name}", super::API);
        let found = self.find(&path).await?;
        Ok(found.filter(|class| class["driver"] == driver))
    }

    /// The VolumeSnapshotClass of this name where it exists and is of this driver; else the one that a snapshot of this driver would get now.
    pub(crate) async fn class_or_any(
        &self,
        name: &str,
        driver: &str,
    ) -> Result<Option<Value>, ApiError> {
        if let Some(class) = self.class(name, driver).await? {
            return Ok(Some(class));
        }
        let mut all = Vec::new();
        let path = format!("/apis/{}/volumesnapshotclasses", super::API);
        let listed = self
            .each(&path, None, |class| all.push(class.clone()))
            .await;
        match listed {
            Err(e) if e.is_forbidden() || e.is_not_found() => return Ok(None),
            listed => listed?,
        }
        let classes: Vec<Class> = all.iter().cloned().map(Class::from).collect();
        let chosen = class::choose(&classes, driver, [("", ""); 2]).ok();
        Ok(chosen.and_then(|name| {
            all.into_iter()
                .find(|class| class["metadata"]["name"] == name)
        }))
    }

    /// A claim, where it exists.
    pub(crate) async fn claim(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, ApiError> {
        let path = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}");
        self.find(&path).await
    }

    pub(crate) async fn content(&self, name: &str) -> Result<Option<Content>, ApiError> {
        let found = self.find(&format!("{}/{name}", contents())).await?;
        Ok(found.map(|object| Content::read(&object)))
    }

    pub(crate) async fn snapshot(&self, at: &At) -> Result<Option<Snapshot>, ApiError> {
        let found = self
            .find(&format!("{}/{}", snapshots(&at.namespace), at.name))
            .await?;
        Ok(found.map(|object| Snapshot::read(&object)))
    }

    /// All VolumeSnapshots with this label of ours.
    pub(crate) async fn labelled(&self, key: &str) -> Result<Vec<Value>, ApiError> {
        let mut all = Vec::new();
        let path = format!("/apis/{}/volumesnapshots", super::API);
        let show = |object: &Value| all.push(object.clone());
        self.each(&path, Some(key), show).await?;
        Ok(all)
    }

    /// Those of all VolumeSnapshotContents that are wanted.
    pub(crate) async fn contents(
        &self,
        wanted: impl Fn(&Content) -> bool,
    ) -> Result<Vec<Content>, ApiError> {
        let mut all = Vec::new();
        let show = |object: &Value| all.extend(Some(Content::read(object)).filter(&wanted));
        self.each(&contents(), None, show).await?;
        Ok(all)
    }

    async fn each(
        &self,
        path: &str,
        key: Option<&str>,
        mut show: impl FnMut(&Value),
    ) -> Result<(), ApiError> {
        let mut token = String::new();
        loop {
            let mut path = page(path, ITEMS, &token);
            if let Some(key) = key {
                let selector = objects::selector(key);
                path.push_str("&labelSelector=");
                path.extend(url::form_urlencoded::byte_serialize(selector.as_bytes()));
            }
            let list = object(&self.cluster.get_bounded(&path, LARGEST_PAGE).await?)?;
            let items = list["items"].as_array();
            items.into_iter().flatten().for_each(&mut show);
            match list["metadata"]["continue"].as_str() {
                Some(next) if !next.is_empty() && next != token => next.clone_into(&mut token),
                _ => return Ok(()),
            }
        }
    }

    /// Makes an object; what stands of that name already is left to the next look, and so is what nobody knows.
    async fn create(&self, path: &str, object: &Value) -> Result<(), ApiError> {
        let path = format!("{path}?fieldManager={MANAGER}");
        let call = Call::post(&path, object.to_string().into());
        match self.cluster.send(&call).await {
            Ok(_) => Ok(()),
            Err(e) if e.is_already_exists() || is_unsure(&e) => Ok(()),
            Err(e) => Err(e),
        }
    }

    pub(crate) async fn create_snapshot(&self, object: &Value) -> Result<(), ApiError> {
        let namespace = object["metadata"]["namespace"].as_str();
        let path = snapshots(namespace.unwrap_or_default());
        self.create(&path, object).await
    }

    pub(crate) async fn create_content(&self, object: &Value) -> Result<(), ApiError> {
        self.create(&contents(), object).await
    }

    /// Deletes what was seen, and nothing else.
    async fn delete(&self, path: &str, uid: &str, version: &str) -> Result<(), ApiError> {
        let options = json!({"preconditions": {"uid": uid, "resourceVersion": version}});
        let call = Call::delete(path, options.to_string().into());
        match self.cluster.send(&call).await {
            Ok(_) => Ok(()),
            // Looked at again.
            Err(e) if e.is_not_found() || e.is_conflict() => Ok(()),
            Err(e) => Err(e),
        }
    }

    async fn patch(&self, content: &str, patch: &Value) -> Result<(), ApiError> {
        let path = format!("{}/{content}?fieldManager={MANAGER}", contents());
        let call = Call::merge_patch(&path, patch.to_string().into());
        match self.cluster.send(&call).await {
            Ok(_) => Ok(()),
            Err(e) if e.is_not_found() || e.is_conflict() => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// What stands of it. Of a content no more is believed than it says of itself.
    pub(crate) async fn look(&self, place: &mut Place) -> Result<Live, ApiError> {
        let snapshot = match &place.at {
            Some(at) => self.snapshot(at).await?,
            None => None,
        };
        // One of another uid is another one.
        let is_it = |snapshot: &Snapshot| place.uid.as_ref().is_none_or(|uid| *uid == snapshot.uid);
        let snapshot = snapshot.filter(is_it);
        if let Some(snapshot) = &snapshot {
            place.uid = Some(snapshot.uid.clone());
        }
        let named = place.content.clone().or_else(|| {
            let snapshot = snapshot.as_ref()?;
            let source = snapshot.source.clone();
            // As the snapshot controller calls it.
            Some(source.unwrap_or_else(|| format!("snapcontent-{}", snapshot.uid)))
        });
        let content = match named {
            Some(name) => self.content(&name).await?,
            None => None,
        };
        let is_own = |content: &Content| match (&place.at, &place.uid) {
            (Some(at), Some(uid)) => content.is_of(at, uid),
            (Some(at), None) => content.of.as_ref() == Some(at),
            (None, _) => true,
        };
        let is_there = content.is_some();
        let content = content.filter(is_own);
        let is_foreign = is_there && content.is_none();
        if let Some(content) = &content {
            place.content = Some(content.name.clone());
        }
        Ok(Live {
            snapshot,
            content,
            is_foreign,
        })
    }

    async fn act(&self, place: &Place, goal: &Goal, action: Action) -> Result<(), ApiError> {
        match action {
            Action::Retain { content, version } => {
                let Goal::Retained(whose) = goal else {
                    return Ok(());
                };
                self.patch(&content, &objects::retain(&version, whose))
                    .await
            }
            Action::Discard { content, version } => {
                self.patch(&content, &objects::discard(&version)).await
            }
            Action::Mark { content, version } => {
                self.patch(&content, &objects::mark(&version)).await
            }
            Action::Unwant { uid, version } => {
                let Some(at) = &place.at else { return Ok(()) };
                let path = format!("{}/{}", snapshots(&at.namespace), at.name);
                self.delete(&path, &uid, &version).await
            }
            Action::Drop {
                content,
                uid,
                version,
            } => {
                let path = format!("{}/{content}", contents());
                self.delete(&path, &uid, &version).await
            }
        }
    }

    /// Brings one as far as that, by then. What stands then comes back.
    ///
    /// # Errors
    /// Why it did not come so far; `Interrupted` where it was stopped.
    pub(crate) async fn drive(
        &self,
        place: &mut Place,
        goal: &Goal,
        until: Instant,
        stop: &watch::Receiver<bool>,
    ) -> Result<Live> {
        let mut touched = Instant::now();
        loop {
            if *stop.borrow() {
                return Err(Error::new(Kind::Interrupted, "it was stopped"));
            }
            let mut awaited = None;
            let mut word = None;
            let done = match self.look(place).await {
                Ok(live) => match step(&live, goal) {
                    Step::Done => return Ok(live),
                    Step::Refuse(why) => return Err(Error::other(why)),
                    Step::Wait(what) => {
                        let overdue = live
                            .content
                            .as_ref()
                            .filter(|content| content.is_overdue() && touched.elapsed() >= TOUCHES);
                        let done = match overdue {
                            Some(content) => {
                                touched = Instant::now();
                                let patch = objects::touch(&content.version, Timestamp::now());
                                self.patch(&content.name, &patch).await
                            }
                            None => Ok(()),
                        };
                        let said = live.snapshot.and_then(|snapshot| snapshot.error);
                        word = said.or_else(|| live.content.and_then(|content| content.error));
                        awaited = Some(what);
                        done
                    }
                    Step::Do(action) => self.act(place, goal, action).await,
                },
                Err(e) => Err(e),
            };
            match done {
                Ok(()) => {}
                // A server that is away comes back, or the time is over.
                Err(e) if is_unsure(&e) && Instant::now() < until => {}
                Err(e) => return Err(e.into()),
            }
            if Instant::now() >= until {
                return Err(too_late(awaited, word));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn too_late(awaited: Option<Awaited>, word: Option<String>) -> Error {
    let what = match awaited {
        Some(Awaited::Cut) => "its snapshot was not cut in time",
        Some(Awaited::Ready) => "its snapshot could not be used in time",
        Some(Awaited::Known) => "the driver did not say in time whether it has the snapshot",
        Some(Awaited::Unwanted) => "its VolumeSnapshot does not go",
        Some(Awaited::Dropped) => "its VolumeSnapshotContent does not go",
        None => "somebody changes its objects again and again",
    };
    Error::other(match word {
        Some(word) => format!("{what}: {word}"),
        None => what.to_owned(),
    })
}
