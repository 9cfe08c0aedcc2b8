//! Which rights this user lacks of those that a restore takes: asked of the server, everywhere first, then namespace by namespace.

use futures::{StreamExt, stream};
use serde_json::{Value, json};

use super::super::gather::{self, Resource};
use super::super::target::{self, Seens};
use super::super::{ExistingPolicy, apply, order};
use super::look::{Look, nothing};
use super::{Found, Lack};
use crate::archive::read::Source;
use crate::cluster::{ApiError, Call};
use crate::discovery::ApiResource;
use crate::error::Result;

/// Questions about rights that are under way at a time, and at most.
const AT_A_TIME: usize = 8;
const QUESTIONS: usize = 2000;

impl<S: Source> Look<'_, S> {
    /// What this user may not do in the target and the restore would.
    pub(super) async fn rights(&self, found: &mut Found) -> Result<()> {
        match self.may("*", None, "*", "*").await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(e) => {
                found.notes.push(format!(
                    "whether this user may restore can not be told: {e}"
                ));
                return nothing::<()>(e).map(drop);
            }
        }
        let mut asked = Vec::new();
        for resource in &self.survey.resources {
            // Controllers make nearly all of them, and these are not restored.
            if resource.name == "endpointslices.discovery.k8s.io" {
                continue;
            }
            let Some(api) = self.target(resource) else {
                continue;
            };
            for verb in verbs(&resource.name, self.existing) {
                asked.push((resource, api, verb, None::<String>));
            }
        }
        let denied = self.denied(asked, found).await?;
        // Who may not everywhere may in a namespace.
        let mut asked = Vec::new();
        for (resource, api, verb, _) in denied {
            if resource.namespaces.is_empty() {
                self.lacking(resource, api, verb, None, found).await?;
                continue;
            }
            for namespace in &resource.namespaces {
                let namespace = self.rewrite.namespace(namespace).to_owned();
                asked.push((resource, api, verb, Some(namespace)));
            }
        }
        for (resource, api, verb, namespace) in self.denied(asked, found).await? {
            self.lacking(resource, api, verb, namespace.as_deref(), found)
                .await?;
        }
        Ok(())
    }

    /// Those of the questions to which the answer is no.
    async fn denied<'q>(
        &self,
        mut asked: Vec<Question<'q>>,
        found: &mut Found,
    ) -> Result<Vec<Question<'q>>> {
        if asked.len() > QUESTIONS {
            let more = asked.len() - QUESTIONS;
            found
                .notes
                .push(format!("{more} more rights were not asked about"));
            asked.truncate(QUESTIONS);
        }
        let asking: Vec<_> = asked
            .iter()
            .map(|(_, api, verb, namespace)| {
                self.may(verb, namespace.as_deref(), &api.group, &api.plural)
            })
            .collect();
        let answers: Vec<Result<bool, ApiError>> =
            stream::iter(asking).buffered(AT_A_TIME).collect().await;
        let mut denied = Vec::new();
        for (question, answer) in asked.into_iter().zip(answers) {
            match answer {
                Ok(true) => {}
                Ok(false) => denied.push(question),
                Err(e) => {
                    nothing::<()>(e)?;
                }
            }
        }
        Ok(denied)
    }

    async fn may(
        &self,
        verb: &str,
        namespace: Option<&str>,
        group: &str,
        resource: &str,
    ) -> Result<bool, ApiError> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": verb, "group": group, "resource": resource, "namespace": namespace}},
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let answer = self
            .cluster
            .send(&Call::post(path, review.to_string().into()))
            .await?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        Ok(answer["status"]["allowed"] == true)
    }

    /// Tells of a right that is not there, unless nothing has to be created: everything of the kind stands.
    async fn lacking(
        &self,
        resource: &Resource,
        api: &ApiResource,
        verb: &str,
        namespace: Option<&str>,
        found: &mut Found,
    ) -> Result<()> {
        if verb == "create" && self.all_stand(resource, api, namespace).await? {
            return Ok(());
        }
        let place = namespace.map_or_else(String::new, |namespace| format!(" in {namespace}"));
        found.lacks.push(Lack {
            kind: "Permission".to_owned(),
            name: format!("{verb} {}{place}", resource.name),
            reason: "this user may not, and the restore has to".to_owned(),
        });
        Ok(())
    }

    async fn all_stand(
        &self,
        resource: &Resource,
        api: &ApiResource,
        namespace: Option<&str>,
    ) -> Result<bool> {
        let mut seens = Seens::default();
        match target::look(self.cluster, api, namespace, "", &mut seens).await {
            Ok(()) => {}
            // Who may work in one namespace only: its objects will tell.
            Err(_) if resource.name == order::NAMESPACES => return Ok(true),
            Err(e) => return nothing::<()>(e).map(|_| false),
        }
        for frame in &resource.frames {
            for row in gather::rows(self.archive, self.filter, resource, *frame).await? {
                let here = row.namespace.as_deref().map(|n| self.rewrite.namespace(n));
                let name = match resource.name.as_str() {
                    order::NAMESPACES => self.rewrite.namespace(&row.name),
                    _ => &row.name,
                };
                if here == namespace && seens.get(here, name).is_none_or(|seen| seen.going) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// A right: of which resource, which verb, where.
type Question<'q> = (
    &'q std::sync::Arc<Resource>,
    &'q ApiResource,
    &'static str,
    Option<String>,
);

/// What a restore does with objects of a resource.
fn verbs(resource: &str, existing: ExistingPolicy) -> Vec<&'static str> {
    let mut verbs = vec!["create"];
    if existing != ExistingPolicy::None {
        verbs.push("patch");
    }
    if existing == ExistingPolicy::Recreate && apply::is_recreated(resource) {
        verbs.push("delete");
    }
    verbs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_recreated_needs_the_right_to_delete() {
        let of = |resource| verbs(resource, ExistingPolicy::Recreate);
        assert_eq!(of("configmaps"), ["create", "patch", "delete"]);
        assert_eq!(of("namespaces"), ["create", "patch"]);
        assert_eq!(verbs("pods", ExistingPolicy::None), ["create"]);
        let apply = ExistingPolicy::Apply { force: false };
        assert_eq!(verbs("pods", apply), ["create", "patch"]);
    }
}
