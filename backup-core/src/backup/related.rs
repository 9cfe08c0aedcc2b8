//! The second phase: namespaces, and cluster-scoped objects that saved ones refer to. What may not be read here is said in the row, but is
//! no failure: nobody asked for it by name.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use super::apply::Run;
use super::page::{Pick, Seen};
use super::plan::{self, List, Scope};
use super::point_in_time::Glance;
use crate::archive::row::{Outcome, ResourceRow};
use crate::discovery::ApiResource;
use crate::error::Result;
use crate::filter::Verdict;

/// Up to so many objects are fetched one by one; for more, the type is listed and the names are picked out.
const FEW_OBJECTS: usize = 50;

/// What may be known of the objects that are wanted.
enum Wanted {
    /// Their names.
    Named(BTreeSet<String>),
    /// How to recognise them.
    Found(Pick),
}

impl Run<'_> {
    /// Saves what saved objects refer to, then namespaces.
    ///
    /// # Errors
    /// The sinks', and the cluster's where it went away as a whole.
    pub(super) async fn second_phase(
        &self,
        related: Vec<(Arc<ApiResource>, &'static str)>,
        namespaces: Option<(Arc<ApiResource>, bool)>,
    ) -> Result<()> {
        self.claims_of_pods().await?;
        // Bindings come first in the alphabet, and before the roles they name.
        for (resource, rule) in related {
            let wanted = self.wanted(&resource);
            self.related(&resource, wanted, rule).await?;
        }
        if let Some((resource, every)) = namespaces {
            self.namespaces(&resource, every).await?;
        }
        Ok(())
    }

    fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn wanted(&self, resource: &ApiResource) -> Wanted {
        self.look(|seen| match resource.plural.as_str() {
            "clusterrolebindings" => Wanted::Found(Pick::Binding(seen.service_accounts.clone())),
            "clusterroles" => Wanted::Named(seen.roles.clone()),
            "priorityclasses" => Wanted::Named(seen.priority_classes.clone()),
            "persistentvolumes" => Wanted::Named(
                seen.claims
                    .values()
                    .map(|claim| claim.volume.clone())
                    .filter(|volume| !volume.is_empty())
                    .collect(),
            ),
            // Only groups with a dot can be of a custom resource; whether one is, the answer tells.
            _ => Wanted::Named(self.saved_types(|group| group.contains('.'))),
        })
    }

    async fn related(
        &self,
        resource: &Arc<ApiResource>,
        wanted: Wanted,
        rule: &'static str,
    ) -> Result<()> {
        let mut row = plan::row(resource);
        let failures = match wanted {
            Wanted::Named(names) if names.is_empty() => Vec::new(),
            Wanted::Found(Pick::Binding(accounts)) if accounts.is_empty() => Vec::new(),
            Wanted::Named(names) if names.len() <= FEW_OBJECTS => {
                let objects = names.into_iter().map(|name| (None, name)).collect();
                self.get(resource, objects, &mut row).await?
            }
            Wanted::Named(names) => self.pick(resource, Pick::Named(names), &mut row).await?,
            Wanted::Found(pick) => self.pick(resource, pick, &mut row).await?,
        };
        let forbidden = failures.iter().all(|(forbidden, _)| *forbidden);
        if !failures.is_empty() && !forbidden {
            row.outcome = Outcome::Failed;
            row.why = sentence(failures);
        } else if row.count == 0 {
            row.outcome = Outcome::Excluded;
            row.why = if failures.is_empty() {
                rule.to_owned()
            } else {
                format!("{rule} (related: not readable)")
            };
        } else {
            row.why = if failures.is_empty() {
                format!("{rule}: what saved objects refer to")
            } else {
                format!("{rule}: what saved objects refer to, as far as it is readable")
            };
        }
        self.leave(row);
        Ok(())
    }

    /// Claims that saved pods use come along, whatever their labels: a selector that finds a pod means its data too.
    async fn claims_of_pods(&self) -> Result<()> {
        let gathered = &self.apply.gathered;
        if gathered.filter.selectors.is_empty() {
            return Ok(());
        }
        let claims = gathered.served.all.iter().find(|resource| {
            resource.group.is_empty() && resource.plural == "persistentvolumeclaims"
        });
        let Some(resource) = claims.filter(|r| gathered.filter.resource(r) == Verdict::In) else {
            return Ok(());
        };
        let missing: Vec<(Option<String>, String)> = self.look(|seen| {
            seen.used_claims
                .iter()
                .filter(|claim| !seen.claims.contains_key(*claim))
                .map(|(namespace, name)| (Some(namespace.clone()), name.clone()))
                .collect()
        });
        if missing.is_empty() {
            return Ok(());
        }
        let mut row = plan::row(resource);
        let failures = self.get(resource, missing, &mut row).await?;
        if !failures.is_empty() {
            row.outcome = Outcome::Failed;
            row.why = sentence(failures);
        }
        self.leave(row);
        Ok(())
    }

    async fn namespaces(&self, resource: &Arc<ApiResource>, every: bool) -> Result<()> {
        let gathered = &self.apply.gathered;
        let content = (!every).then(|| self.look(|seen| seen.namespaces.clone()));
        let mut row = plan::row(resource);
        // Who named namespaces one by one may have rights in these only.
        let named = gathered
            .wanted_namespaces()
            .filter(|names| gathered.namespaces.is_none() || (every && names.len() <= FEW_OBJECTS));
        let failures = match named {
            Some(names) => {
                let wanted = |name: &String| content.as_ref().is_none_or(|c| c.contains(name));
                let objects = names
                    .into_iter()
                    .filter(wanted)
                    .map(|name| (None, name))
                    .collect();
                self.get(resource, objects, &mut row).await?
            }
            None => {
                self.pick(resource, Pick::Namespaces(content), &mut row)
                    .await?
            }
        };
        let forbidden = failures.iter().all(|(forbidden, _)| *forbidden);
        if !failures.is_empty() {
            if forbidden && row.count == 0 && gathered.namespaces.is_none() {
                row.outcome = Outcome::Excluded;
                row.why = "scope (related: not readable)".to_owned();
            } else {
                row.outcome = Outcome::Failed;
                row.why = sentence(failures);
            }
        }
        self.leave(row);
        Ok(())
    }

    /// Lists a cluster-scoped type at the common revision and keeps what is picked.
    async fn pick(
        &self,
        resource: &Arc<ApiResource>,
        pick: Pick,
        row: &mut ResourceRow,
    ) -> Result<Vec<(bool, String)>> {
        let list = List {
            resource: Arc::clone(resource),
            scope: Scope::Everywhere { otherwise: None },
            apart: false,
        };
        let keep = self.keep(pick);
        self.read(&list, &Glance::default(), true, &keep, row).await
    }
}

fn sentence(failures: Vec<(bool, String)>) -> String {
    let mut reasons: Vec<String> = failures.into_iter().map(|(_, why)| why).collect();
    reasons.sort();
    reasons.dedup();
    reasons.truncate(10);
    reasons.join("; ")
}
