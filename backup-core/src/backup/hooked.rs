//! Pods with hooks: each is read once more, in the bracket of its hooks, and saved as it is then; so are the files of its claims.

use std::sync::{Arc, PoisonError};

use futures::future::join_all;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::mpsc;

use super::apply::{Listing, Run, Stop};
use super::copies::Group;
use super::page::{self, Hooked, Page, Pick};
use super::page_size::LARGEST_OBJECT;
use super::plan;
use crate::archive::pack::Item;
use crate::archive::row::Outcome;
use crate::discovery::ApiResource;
use crate::error::Result;
use crate::hooks::bracket::Bracket;
use crate::records::copies::Hooks;

/// Groups of pods whose brackets are open at a time.
const AT_A_TIME: usize = 8;

/// A pod between its hooks.
struct Opened {
    /// Its namespace and name.
    place: (String, String),
    bracket: Bracket,
    is_quiet: bool,
    item: Option<Item>,
}

impl Run<'_> {
    /// Runs the hooks of all pods that were kept aside, saves these, and copies the claims that they use meanwhile.
    ///
    /// # Errors
    /// The sinks'. What goes wrong in a pod is told by the brackets, and what does with a claim by its row.
    pub(super) async fn hooked_pods(&self) -> Result<()> {
        let copying = self.apply.copying;
        let (pods, choices) = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let choices = copying.map(|copying| copying.choices(&seen, &self.apply.gathered));
            (std::mem::take(&mut seen.hooked), choices)
        };
        let all = &self.apply.gathered.served.all;
        let resource = all.iter().find(|one| one.group_resource() == "pods");
        let many = pods.len();
        let pods = if resource.is_some() { pods } else { Vec::new() };
        let groups = match (copying, choices) {
            (Some(copying), Some(choices)) => {
                let progress = self.apply.progress;
                copying.plan(&choices, pods, progress).await
            }
            _ => pods.into_iter().map(Group::of).collect(),
        };
        let Some(resource) = resource.filter(|_| !groups.is_empty()) else {
            return Ok(());
        };
        self.apply
            .progress
            .step(&format!("running the hooks of {many} pods"));
        let brackets = self.apply.brackets;
        let pods = groups.iter().flat_map(|group| &group.pods);
        brackets.ask_rights(pods.map(|pod| &pod.asked)).await;
        stream::iter(groups)
            .map(|group| self.group(resource, group))
            .buffer_unordered(AT_A_TIME)
            .try_collect()
            .await
    }

    /// Movers first, then all pre hooks, the pods as they are then and their claims, at last all post hooks.
    async fn group(&self, resource: &Arc<ApiResource>, group: Group) -> Result<()> {
        let Group { pods, claims } = group;
        let progress = self.apply.progress;
        let copying = self.apply.copying.filter(|_| !claims.is_empty());
        let ready = match copying {
            Some(copying) => Some((copying, copying.ready(claims, progress).await)),
            None => None,
        };
        let opened = pods.into_iter().map(|pod| self.opened(resource, pod));
        let opened = join_all(opened).await;
        let is_quiet = opened.iter().all(|pod| pod.is_quiet);
        let (brackets, items): (Vec<_>, Vec<_>) = opened
            .into_iter()
            .map(|pod| ((pod.place, pod.bracket), pod.item))
            .unzip();
        let closing = async {
            let mut copied = None;
            if let Some((copying, ready)) = ready {
                let hooks = if is_quiet { Hooks::Done } else { Hooks::Failed };
                let claims = ready.names();
                copying.copy(ready, hooks, progress).await;
                copied = Some((copying, claims));
            }
            let closed = brackets.into_iter().map(|(place, bracket)| async {
                let broken = bracket.close().await;
                (place, broken)
            });
            for ((namespace, pod), broken) in join_all(closed).await {
                if let (Some((copying, claims)), Some(why)) = (&copied, broken) {
                    self.tell_of_noise(&namespace, &pod, &why, &copying.were_not_quiet(claims));
                }
            }
        };
        // What waits for a slow store keeps no pod quiet.
        let saving = async {
            for item in items {
                self.save(resource, item).await?;
            }
            Ok(())
        };
        let ((), saved) = futures::join!(closing, saving);
        saved
    }

    /// What was copied is of no quiet moment, for the pod did not stay.
    fn tell_of_noise(&self, namespace: &str, pod: &str, why: &str, copied: &[String]) {
        if copied.is_empty() {
            return;
        }
        let text = format!(
            "pod {namespace}/{pod} did not stay quiet until the files of {} were copied: {why}",
            copied.join(", ")
        );
        self.apply.brackets.tell(namespace, text);
    }

    /// Opens a pod's bracket, and reads it as it is then.
    async fn opened(&self, resource: &Arc<ApiResource>, pod: Hooked) -> Opened {
        let Hooked { asked, item } = pod;
        let path = resource.object_path(Some(&asked.namespace), &asked.name);
        let uid = asked.uid.clone();
        let title = format!("pod {}/{}", asked.namespace, asked.name);
        let place = (asked.namespace.clone(), asked.name.clone());
        let brackets = self.apply.brackets;
        let mut bracket = brackets.open(asked);
        let is_quiet = bracket.opened().await;
        let item = match item {
            Some(listed) => match self.read_again(resource, &path, &uid, &listed.name).await {
                Some(now) => {
                    let version = &now.facts.resource_version;
                    let text =
                        format!("{title} was read at its hooks, at its own version {version}");
                    brackets.log("info", &text);
                    Some(now)
                }
                None => {
                    let text = format!("{title} is gone, and was saved as it was listed before");
                    brackets.log("info", &text);
                    Some(listed)
                }
            },
            None => {
                let text = format!(
                    "{title} was saved as it was listed, before its hooks: too many pods have some"
                );
                brackets.log("info", &text);
                None
            }
        };
        Opened {
            place,
            bracket,
            is_quiet,
            item,
        }
    }

    /// The pod as it is now; nothing where it is not to be had any more.
    async fn read_again(
        &self,
        resource: &Arc<ApiResource>,
        path: &str,
        uid: &str,
        name: &str,
    ) -> Option<Item> {
        let body = self.ask(path, LARGEST_OBJECT).await.ok()?;
        let keep = self.keep(Pick::Named([name.to_owned()].into()));
        let page = page::single(&body, resource, &keep).ok()?;
        let now = page.items.into_iter().next();
        now.filter(|now| now.facts.uid == uid)
    }

    async fn save(&self, resource: &Arc<ApiResource>, item: Option<Item>) -> Result<()> {
        let Some(item) = item else { return Ok(()) };
        let mut row = plan::row(resource);
        let length = item.body.len();
        let share = self.budget.reserve(length).await;
        let page = Page {
            items: vec![item],
            ..Page::default()
        };
        let keep = self.keep(Pick::All);
        let (packing, packed) = mpsc::channel(1);
        let handing = async {
            let listing = Listing {
                resource,
                place: None,
                keep: &keep,
                packing: &packing,
            };
            let handed = self.hand_on(&listing, page, share, length, &mut row).await;
            drop(packing);
            handed
        };
        let (handed, sent) = futures::join!(handing, self.send(packed));
        sent?;
        match handed {
            Ok(()) => {}
            Err(Stop::All(e)) => return Err(e),
            Err(Stop::Type(why) | Stop::Forbidden(why)) => {
                row.outcome = Outcome::Failed;
                row.why = why;
            }
        }
        self.leave(row);
        Ok(())
    }
}
