//! Pods with hooks: each is read once more, in the bracket of its hooks, and saved as it is then.

use std::sync::{Arc, PoisonError};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::mpsc;

use super::apply::{Listing, Run, Stop};
use super::page::{self, Hooked, Page, Pick};
use super::page_size::LARGEST_OBJECT;
use super::plan;
use crate::archive::pack::Item;
use crate::archive::row::Outcome;
use crate::discovery::ApiResource;
use crate::error::Result;

/// Brackets that are open at a time.
const AT_A_TIME: usize = 8;

impl Run<'_> {
    /// Runs the hooks of all pods that were kept aside, and saves these.
    ///
    /// # Errors
    /// The sinks'. What goes wrong in a pod is told by the brackets.
    pub(super) async fn hooked_pods(&self) -> Result<()> {
        let pods = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut seen.hooked)
        };
        let all = &self.apply.gathered.served.all;
        let resource = all.iter().find(|one| one.group_resource() == "pods");
        let Some(resource) = resource.filter(|_| !pods.is_empty()) else {
            return Ok(());
        };
        self.apply
            .progress
            .step(&format!("running the hooks of {} pods", pods.len()));
        let brackets = self.apply.brackets;
        brackets.ask_rights(pods.iter().map(|pod| &pod.asked)).await;
        stream::iter(pods)
            .map(|pod| self.hooked_pod(resource, pod))
            .buffer_unordered(AT_A_TIME)
            .try_collect()
            .await
    }

    async fn hooked_pod(&self, resource: &Arc<ApiResource>, pod: Hooked) -> Result<()> {
        let Hooked { asked, item } = pod;
        let path = resource.object_path(Some(&asked.namespace), &asked.name);
        let uid = asked.uid.clone();
        let title = format!("pod {}/{}", asked.namespace, asked.name);
        let brackets = self.apply.brackets;
        let mut bracket = brackets.open(asked);
        bracket.opened().await;
        // Files of its volumes are to be read here, too.
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
        // What waits for a slow store keeps no pod quiet.
        let ((), saved) = futures::join!(bracket.close(), self.save(resource, item));
        saved
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
