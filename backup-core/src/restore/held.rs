//! Claims whose data the backup holds: each is made so that nothing can be bound to it before its data is there. The volume is provisioned and filled under a claim of
//! another name; the claim itself stands from the beginning, names that volume and waits. See docs/volumes.md for what is promised.
//!
//! [`choose`] and [`users`] say which claims these are and which go together, [`before`] looks everything up before anything is made, [`step`] decides what is next for one
//! claim, [`until`] when it is far enough, [`objects`], [`note`] and [`api`] are how that is written down, [`group`] does it, [`fill`] brings the data.
//! [`left`] finds what a restore left that does not go on, and [`clear`] clears it.

mod api;
mod before;
mod choose;
mod clear;
mod compare;
mod fill;
mod group;
mod left;
mod note;
mod objects;
mod step;
mod until;
mod users;
mod why;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::patience::patiently;
use crate::cluster::Cluster;
use crate::crypt::Identities;
use crate::error::{Error, Result};
use crate::location::Store;
use crate::mover::{MoverOptions, Movers};

pub(super) use before::{Found, find};
pub(super) use choose::{Choice, Data};
pub use clear::Cleared;
use group::{Group, Shared};
pub(super) use group::{Item, Word};
pub(super) use left::{Kept, each, kept};
pub use left::{Left, left};
pub(super) use objects::{Aim, OF_ONE_RESTORE};
use step::Real;
use users::{Filled, User, groups};

/// How the data of volumes is brought back.
#[derive(Clone, Debug)]
pub struct VolumeOptions {
    /// The pods through which it goes.
    pub mover: MoverOptions,
    /// Who opens the keys of repositories, where those are encrypted.
    pub identities: Identities,
}

/// Claims that could not be made: by namespace and name in the target, and why. What uses one is not made either.
#[derive(Debug, Default)]
pub(super) struct Unheld(Mutex<HashMap<String, BTreeMap<String, String>>>);

impl Unheld {
    fn all(&self) -> MutexGuard<'_, HashMap<String, BTreeMap<String, String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes one.
    pub(super) fn note(&self, namespace: &str, claim: &str, why: &str) {
        let mut all = self.all();
        let of_namespace = all.entry(namespace.to_owned()).or_default();
        of_namespace.insert(claim.to_owned(), why.to_owned());
    }

    /// Whether there are any: else nobody needs to be looked at.
    pub(super) fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    /// Why an object, as it would be created, is not made: it uses one of these claims, or makes what does.
    pub(super) fn keeps(&self, object: &Value) -> Option<String> {
        let user = User::read(object)?;
        let all = self.all();
        let of_namespace = all.get(&user.namespace)?;
        let (claim, why) = user.first_of(of_namespace)?;
        let namespace = &user.namespace;
        Some(format!(
            "it uses claim {namespace}/{claim}, which could not be made with its data: {why}"
        ))
    }
}

/// How a claim stands before it is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// It is not there, or an earlier run of this restore began with it.
    Ours,
    /// It is being deleted.
    Going,
    /// It is somebody's.
    Standing,
}

/// How the claim stands.
///
/// # Errors
/// The server's.
pub(super) async fn before(cluster: &Cluster, aim: &Aim) -> Result<Before> {
    let asking = api::Asking { cluster, aim };
    let live = asking.claim(&aim.claim).await?;
    Ok(match live.map(|live| Real::read(&live, aim)) {
        Some(real) if real.is_ours => Before::Ours,
        Some(real) if real.is_going => Before::Going,
        Some(_) => Before::Standing,
        None => Before::Ours,
    })
}

/// How a claim stands of which the data was not restored, half a sentence.
pub(super) async fn without_data(cluster: &Cluster, namespace: &str, claim: &str) -> String {
    let path = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}");
    let stands = patiently(|| cluster.get_bounded(&path, LARGEST_CLAIM)).await;
    let read = stands.map(|body| serde_json::from_slice::<Value>(&body).unwrap_or_default());
    match read {
        Ok(claim) if claim["status"]["phase"] == "Bound" => format!(
            "is bound to volume {}, and whether its data is there is not known",
            claim["spec"]["volumeName"].as_str().unwrap_or_default()
        ),
        Err(e) if e.is_not_found() => "is gone, and its data was not restored".to_owned(),
        _ => "stays Pending, for its data was not restored".to_owned(),
    }
}

/// A claim is not larger.
const LARGEST_CLAIM: usize = 4 << 20;

/// All claims that are held by one run.
pub(super) struct Holding {
    shared: Arc<Shared>,
    words: mpsc::UnboundedReceiver<Word>,
    tasks: Vec<JoinHandle<()>>,
    /// How many claims were begun.
    count: usize,
    /// The places of those that have not come to an end.
    under_way: BTreeSet<usize>,
}

impl Holding {
    /// None yet.
    pub(super) fn new(
        cluster: &Cluster,
        store: &Store,
        options: &VolumeOptions,
        run: &str,
    ) -> Self {
        let (tell, words) = mpsc::unbounded_channel();
        let at_a_time = options.mover.parallel.max(1);
        let shared = Shared {
            cluster: cluster.clone(),
            store: store.clone(),
            identities: options.identities.clone(),
            movers: Movers::new(cluster, &options.mover, run),
            run: run.to_owned(),
            making: Semaphore::new(at_a_time),
            filling: Semaphore::new(at_a_time),
            words: tell,
        };
        Self {
            shared: Arc::new(shared),
            words,
            tasks: Vec::new(),
            count: 0,
            under_way: BTreeSet::new(),
        }
    }

    /// Begins with these claims, which are known from here on by their places among all that were begun.
    pub(super) fn begin(&mut self, items: Vec<Item>, users: &[User]) {
        let filled: Vec<Filled> = items
            .iter()
            .map(|item| Filled {
                namespace: item.aim.namespace.clone(),
                name: item.aim.claim.clone(),
                is_shared: item.data.is_shared,
            })
            .collect();
        let first = self.count;
        self.count += items.len();
        let mut items: Vec<Option<Item>> = items.into_iter().map(Some).collect();
        for users::Group { claims, placement } in groups(&filled, users) {
            let mut own = Vec::new();
            for place in claims {
                if let Some(item) = items.get_mut(place).and_then(Option::take) {
                    self.under_way.insert(first + place);
                    own.push((first + place, item));
                }
            }
            let group = Group::new(Arc::clone(&self.shared), own, placement);
            self.tasks.push(tokio::spawn(group.run()));
        }
    }

    /// Whether anything is to be heard yet.
    pub(super) fn is_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    fn heard(&mut self, word: &Word) {
        match word {
            Word::Stands(place, Err(_)) | Word::Ended(place, _) => {
                self.under_way.remove(place);
            }
            _ => {}
        }
    }

    /// What was told by now.
    pub(super) fn now(&mut self) -> Option<Word> {
        let word = self.words.try_recv().ok()?;
        self.heard(&word);
        Some(word)
    }

    /// What is told next; a defect where nobody is left to tell it.
    pub(super) async fn next(&mut self) -> Result<Word> {
        // Who broke off tells nothing any more.
        let looks = async {
            loop {
                tokio::time::sleep(group::OFTEN).await;
                if self.tasks.iter().all(JoinHandle::is_finished) {
                    return;
                }
            }
        };
        let word = tokio::select! {
            biased;
            word = self.words.recv() => word,
            () = looks => self.words.try_recv().ok(),
        };
        let word = word.ok_or_else(|| Error::other("the work on a volume broke off"))?;
        self.heard(&word);
        Ok(word)
    }

    /// Ends what is under way and removes all movers. What could not be removed comes back, a sentence each.
    pub(super) async fn settle(&mut self) -> Vec<String> {
        // Streams end, and nothing new is begun.
        let _ = self.shared.movers.settle().await;
        for task in self.tasks.drain(..) {
            let _ = task.await;
        }
        self.shared.movers.settle().await
    }
}
