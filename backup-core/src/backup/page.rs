//! One page of a LIST, cut into objects without decoding them: what the server wrote is what is saved. Pure; runs on a thread for CPU work.
//!
//! On the way it sees, in one borrowed pass over each object, what rules and the second phase need to know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::gather::{EXCLUDE_LABEL, Gathered};
use super::policies::Policies;
use super::volumes::{self, Claim, Uses, Volume};
use crate::archive::object::{Facts, Object};
use crate::archive::pack::Item;
use crate::discovery::ApiResource;
use crate::error::{Error, Result};
use crate::hooks::{self, ask, bracket::Asked};

/// Which objects of a page are kept.
#[derive(Clone, Debug)]
pub(super) struct Keep {
    /// Namespaces and labels.
    pub(super) gathered: Arc<Gathered>,
    /// Whether labels have to be looked at here (the server did it otherwise).
    pub(super) by_labels: bool,
    /// What else.
    pub(super) pick: Pick,
    /// Whether anybody wants to know of objects that are passed over.
    pub(super) tell_passed: bool,
}

/// Which objects of a type are wanted, beyond namespaces and labels.
#[derive(Clone, Debug)]
pub(super) enum Pick {
    /// All.
    All,
    /// Those of these names.
    Named(BTreeSet<String>),
    /// Cluster role bindings that name one of these service accounts.
    Binding(BTreeSet<(String, String)>),
    /// Namespaces: Active ones that are in; all of them, or those of these names and those whose labels match.
    Namespaces(Option<BTreeSet<String>>),
}

/// What a page holds.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Objects to save, in order.
    pub(super) items: Vec<Item>,
    /// How many objects the server sent.
    pub(super) sent: usize,
    /// The next page's token; empty on the last one.
    pub(super) token: String,
    /// The list's revision.
    pub(super) revision: String,
    /// Objects after this page, where the server tells.
    pub(super) remaining: u64,
    /// What was seen.
    pub(super) seen: Seen,
}

/// An object that is there and that no backup takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PassedOver {
    /// Its namespace.
    pub(crate) namespace: Option<String>,
    /// Its name.
    pub(crate) name: String,
    /// Why.
    pub(crate) why: Passed,
}

/// Why an object is passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// It is being deleted since then.
    Terminating(String),
    /// It has [`EXCLUDE_LABEL`].
    Labelled,
    /// Its namespace is left out, by that label.
    InNamespace,
    /// It can not be read or saved: a sentence.
    Unfit(String),
}

/// A pod that is asked to run hooks.
#[derive(Clone, Debug)]
pub(super) struct Hooked {
    /// Which one, and what.
    pub(super) asked: Asked,
    /// As it was listed; nothing where it is on its way into the archive already.
    pub(super) item: Option<Item>,
}

/// What objects say about others, and about what can not be done.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Namespaces of saved objects.
    pub(super) namespaces: BTreeSet<String>,
    /// Saved claims of volumes.
    pub(super) claims: BTreeMap<(String, String), Claim>,
    /// Volumes, saved or not.
    pub(super) volumes: BTreeMap<String, Volume>,
    /// Saved service accounts.
    pub(super) service_accounts: BTreeSet<(String, String)>,
    /// Cluster roles that saved cluster role bindings give.
    pub(super) roles: BTreeSet<String>,
    /// Priority classes of saved pods.
    pub(super) priority_classes: BTreeSet<String>,
    /// Claims that saved pods use.
    pub(super) used_claims: BTreeSet<(String, String)>,
    /// How saved pods use claims, and what they want for them; by namespace and claim.
    pub(super) uses: BTreeMap<(String, String), Uses>,
    /// Volumes of pods whose files are asked for, and that are no claims: namespace, pod, volume, what it is.
    pub(super) in_vain: Vec<(String, String, String, &'static str)>,
    /// Pods of which an old Velero noted where the files of their volumes are.
    pub(super) old_snapshots: BTreeSet<(String, String)>,
    /// Other volumes of pods with files of their own, and that are no claims.
    pub(super) unclaimed: u64,
    /// Pods that are read between their hooks, and are no items of their page.
    pub(super) hooked: Vec<Hooked>,
    /// Objects left out because they are being deleted.
    pub(super) terminating: u64,
    /// Objects left out by [`EXCLUDE_LABEL`].
    pub(super) labelled_out: u64,
    /// Objects that can not be saved: namespace, and a sentence.
    pub(super) unfit: Vec<(String, String)>,
    /// Objects of one page that were passed over; they are not collected over pages.
    pub(super) passed: Vec<PassedOver>,
}

impl Seen {
    /// Adds what another page saw.
    pub(super) fn merge(&mut self, other: Self) {
        let Self {
            namespaces,
            claims,
            volumes,
            service_accounts,
            roles,
            priority_classes,
            used_claims,
            uses,
            in_vain,
            old_snapshots,
            unclaimed,
            hooked,
            terminating,
            labelled_out,
            unfit,
            passed: _,
        } = other;
        self.namespaces.extend(namespaces);
        self.claims.extend(claims);
        self.volumes.extend(volumes);
        self.service_accounts.extend(service_accounts);
        self.roles.extend(roles);
        self.priority_classes.extend(priority_classes);
        self.used_claims.extend(used_claims);
        for (claim, uses) in uses {
            self.uses.entry(claim).or_default().merge(uses);
        }
        self.in_vain.extend(in_vain);
        self.old_snapshots.extend(old_snapshots);
        self.unclaimed += unclaimed;
        self.hooked.extend(hooked);
        self.terminating += terminating;
        self.labelled_out += labelled_out;
        self.unfit.extend(unfit);
    }

    /// Gives out what of the pods from this one on is more than so many bytes in all.
    pub(super) fn release_beyond(&mut self, from: usize, most: usize) -> Vec<Item> {
        if from >= self.hooked.len() {
            return Vec::new();
        }
        let size = |one: &Hooked| one.item.as_ref().map_or(0, |item| item.body.len());
        let mut held: usize = self.hooked[..from].iter().map(size).sum();
        let mut released = Vec::new();
        for one in &mut self.hooked[from..] {
            held += size(one);
            if held > most {
                released.extend(one.item.take());
            }
        }
        released
    }
}

#[derive(Deserialize)]
struct ListPage<'a> {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(borrow, default, deserialize_with = "raw_items")]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ListMeta {
    #[serde(rename = "continue")]
    token: Option<String>,
    resource_version: Option<String>,
    remaining_item_count: Option<i64>,
}

/// `"items": null` is an empty list; no `items` at all is no list.
fn raw_items<'de: 'a, 'a, D: Deserializer<'de>>(
    d: D,
) -> std::result::Result<Option<Vec<&'a RawValue>>, D::Error> {
    Ok(Some(
        Option::<Vec<&'a RawValue>>::deserialize(d)?.unwrap_or_default(),
    ))
}

/// Cuts a LIST's answer into what is kept of it.
///
/// # Errors
/// When it is no list.
pub(super) fn split(page: &Bytes, resource: &ApiResource, keep: &Keep) -> Result<Page> {
    let list: ListPage<'_> =
        serde_json::from_slice(page).map_err(|e| no_list(resource).because(e))?;
    let items = list.items.ok_or_else(|| no_list(resource))?;
    let mut out = Page {
        sent: items.len(),
        token: list.metadata.token.unwrap_or_default(),
        revision: list.metadata.resource_version.unwrap_or_default(),
        remaining: list
            .metadata
            .remaining_item_count
            .and_then(|count| u64::try_from(count).ok())
            .unwrap_or_default(),
        ..Page::default()
    };
    out.items.reserve(items.len());
    let cut = Cut::new(page, resource, keep)?;
    for item in items {
        cut.take(item.get(), &mut out);
    }
    Ok(out)
}

/// The same for the answer to a GET of one object.
///
/// # Errors
/// As [`split`].
pub(super) fn single(object: &Bytes, resource: &ApiResource, keep: &Keep) -> Result<Page> {
    let mut out = Page {
        sent: 1,
        ..Page::default()
    };
    match std::str::from_utf8(object) {
        Ok(text) => Cut::new(object, resource, keep)?.take(text.trim(), &mut out),
        Err(_) => out.seen.unfit.push((
            String::new(),
            format!("{}: an object is not UTF-8", resource.group_resource()),
        )),
    }
    Ok(out)
}

fn no_list(resource: &ApiResource) -> Error {
    Error::other(format!(
        "the server's answer is no list of {}",
        resource.group_resource()
    ))
}

/// A page on its way to being objects.
struct Cut<'a> {
    page: &'a Bytes,
    resource: &'a ApiResource,
    keep: &'a Keep,
    what: String,
    /// What discovery says, as JSON; as such it can not break out of its place.
    api_version: Box<RawValue>,
    kind: Box<RawValue>,
}

impl<'a> Cut<'a> {
    fn new(page: &'a Bytes, resource: &'a ApiResource, keep: &'a Keep) -> Result<Self> {
        let json = |text: &str| {
            serde_json::value::to_raw_value(text)
                .map_err(|e| Error::other(format!("{text:?} can not be JSON")).because(e))
        };
        Ok(Self {
            page,
            resource,
            keep,
            what: resource.group_resource(),
            api_version: json(&resource.api_version())?,
            kind: json(&resource.kind)?,
        })
    }

    /// Keeps one object, or notes why not.
    fn take(&self, text: &str, out: &mut Page) {
        let Self {
            resource,
            keep,
            what,
            ..
        } = self;
        let read = Object::read(text.as_bytes()).and_then(|object| Ok((object.facts()?, object)));
        let (facts, mut object) = match read {
            Ok(read) => read,
            Err(e) => {
                out.seen.unfit.push((
                    String::new(),
                    format!(
                        "{what}: an object without readable metadata was not saved: {}",
                        e.sentence()
                    ),
                ));
                return;
            }
        };
        let name = facts.name.as_str();
        let namespace = Some(facts.namespace.as_str()).filter(|text| !text.is_empty());
        if what == "persistentvolumes" {
            let policies = keep.gathered.policies.is_some();
            out.seen
                .volumes
                .extend(volumes::volume(name, text, policies));
        }
        let pass = |out: &mut Page, why| {
            if !keep.tell_passed {
                return;
            }
            out.seen.passed.push(PassedOver {
                namespace: namespace.map(str::to_owned),
                name: name.to_owned(),
                why,
            });
        };
        // Everything in a namespace that is left out is nothing to anybody, however odd it is.
        if namespace.is_some_and(|namespace| !keep.gathered.wants_namespace(namespace)) {
            pass(out, Passed::InNamespace);
            return;
        }
        if let Some(why) = unfit(name, namespace, resource) {
            pass(out, Passed::Unfit(why.to_string()));
            out.seen.unfit.push((
                namespace.unwrap_or_default().to_owned(),
                format!("{what} {name:?} was not saved: {why}"),
            ));
            return;
        }
        if object.is_terminating() {
            let since = object.deletion_timestamp().unwrap_or("true");
            pass(out, Passed::Terminating(since.to_owned()));
            out.seen.terminating += 1;
            return;
        }
        let labels = &facts.labels;
        if labels
            .get(EXCLUDE_LABEL)
            .is_some_and(|value| value == "true")
        {
            pass(out, Passed::Labelled);
            out.seen.labelled_out += 1;
            return;
        }
        if keep.by_labels && !keep.gathered.filter.labels(labels) {
            return;
        }
        if !picked(name, text, labels, keep) {
            return;
        }
        let policies = keep.gathered.policies.as_deref();
        look_closer(&mut out.seen, namespace, name, text, resource, policies);
        let body = self.body(text, &facts, &mut object);
        let sha256 = match object.digest() {
            Ok(sha256) => sha256,
            Err(e) => {
                pass(out, Passed::Unfit(e.sentence()));
                out.seen.unfit.push((
                    namespace.unwrap_or_default().to_owned(),
                    format!("{what} {name:?} was not saved: {}", e.sentence()),
                ));
                return;
            }
        };
        let item = Item {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            body,
            facts: Facts { sha256, ..facts },
        };
        match self.hooked(text, &item) {
            // It is held for longer than its page, whose memory it would keep.
            Some(asked) => out.seen.hooked.push(Hooked {
                asked,
                item: Some(Item {
                    body: Bytes::copy_from_slice(&item.body),
                    ..item
                }),
            }),
            None => out.items.push(item),
        }
    }

    /// The hooks of a pod that has any, where hooks are run.
    fn hooked(&self, text: &str, item: &Item) -> Option<Asked> {
        let hooks = self.keep.gathered.hooks.as_deref()?;
        let is_pod = self.what == "pods" && matches!(self.keep.pick, Pick::All);
        if !is_pod || !ask::may_ask(text, hooks) {
            return None;
        }
        let mut pod = hooks::Pod::read(text.as_bytes())?;
        pod.metadata.namespace = item.namespace.clone().unwrap_or_default();
        let asked = Asked {
            hooks: ask::of_backup(&pod, hooks, self.resource),
            namespace: pod.metadata.namespace,
            name: item.name.clone(),
            uid: item.facts.uid.clone(),
        };
        (!asked.hooks.is_empty()).then_some(asked)
    }

    /// The object's bytes as the server wrote them, sharing the page's memory. Lists of built-in types leave out
    /// `apiVersion` and `kind`: they are put first.
    fn body<'t>(&'t self, text: &str, facts: &Facts, object: &mut Object<'t>) -> Bytes {
        let missing: Vec<_> = [
            ("apiVersion", &facts.api_version, &self.api_version),
            ("kind", &facts.kind, &self.kind),
        ]
        .into_iter()
        .filter(|(_, given, _)| given.is_empty())
        .map(|(key, _, value)| (key, value))
        .collect();
        if missing.is_empty() {
            return self.page.slice_ref(text.as_bytes());
        }
        let mut out = Vec::with_capacity(text.len() + 96);
        out.push(b'{');
        // Keys that stand there empty come later and would win: then they have to go, which is rare enough to be slow.
        let rebuilt;
        let rest = if missing.iter().any(|(key, _)| object.has(key)) {
            rebuilt = without(text, missing.iter().map(|(key, _)| *key));
            rebuilt.as_str()
        } else {
            text
        };
        let rest = rest.trim_start().strip_prefix('{').unwrap_or_default();
        for (key, value) in missing {
            out.extend_from_slice(format!("\"{key}\":{},", value.get()).as_bytes());
            object.set(key, value);
        }
        if rest.trim_start().starts_with('}') {
            out.pop();
        }
        out.extend_from_slice(rest.as_bytes());
        out.into()
    }
}

/// Names become entries of an archive: one that could leave its folder is refused, whatever the server thinks of it.
fn unfit(name: &str, namespace: Option<&str>, resource: &ApiResource) -> Option<&'static str> {
    let bad = |text: &str| {
        text.is_empty()
            || text == "."
            || text == ".."
            || text.contains(['/', '\\'])
            || text.chars().any(char::is_control)
    };
    if bad(name) || namespace.is_some_and(bad) {
        Some("its name can not be a file's name")
    } else if name.len() + namespace.map_or(0, str::len) > 1024 {
        Some("its name is too long")
    } else if resource.namespaced != namespace.is_some() {
        Some("its scope is not that of its type")
    } else {
        None
    }
}

fn picked(name: &str, text: &str, labels: &BTreeMap<String, String>, keep: &Keep) -> bool {
    match &keep.pick {
        Pick::All => true,
        Pick::Named(names) => names.contains(name),
        Pick::Binding(accounts) => binding(text).is_some_and(|binding| {
            let mut subjects = binding.subjects.unwrap_or_default().into_iter();
            subjects.any(|subject| {
                subject.kind == "ServiceAccount"
                    && accounts.contains(&(subject.namespace, subject.name))
            })
        }),
        Pick::Namespaces(content) => {
            let filter = &keep.gathered.filter;
            let wanted = content.as_ref().is_none_or(|content| {
                content.contains(name) || (!filter.selectors.is_empty() && filter.labels(labels))
            });
            wanted && keep.gathered.wants_namespace(name) && is_active(text)
        }
    }
}

#[derive(Deserialize)]
struct Binding {
    #[serde(default)]
    subjects: Option<Vec<Subject>>,
    #[serde(default, rename = "roleRef")]
    role: Subject,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

fn binding(text: &str) -> Option<Binding> {
    serde_json::from_str(text).ok()
}

fn is_active(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Object {
        #[serde(default)]
        status: Status,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Status {
        phase: String,
    }
    serde_json::from_str::<Object>(text)
        .is_ok_and(|object| object.status.phase.is_empty() || object.status.phase == "Active")
}

/// Notes what this saved object says of others.
fn look_closer(
    seen: &mut Seen,
    namespace: Option<&str>,
    name: &str,
    text: &str,
    resource: &ApiResource,
    policies: Option<&Policies>,
) {
    if let Some(namespace) = namespace
        && !seen.namespaces.contains(namespace)
    {
        seen.namespaces.insert(namespace.to_owned());
    }
    let key = || (namespace.unwrap_or_default().to_owned(), name.to_owned());
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "serviceaccounts") => {
            seen.service_accounts.insert(key());
        }
        ("", "persistentvolumeclaims") => {
            seen.claims
                .insert(key(), volumes::claim(text, policies.is_some()));
        }
        ("", "pods") => {
            let key = key();
            let namespace = key.0.as_str();
            let pod = volumes::pod(namespace, text, policies);
            seen.priority_classes.extend(pod.priority_class);
            let of = |claim| (namespace.to_owned(), claim);
            seen.used_claims.extend(pod.claims.into_iter().map(of));
            for (claim, uses) in pod.uses {
                seen.uses.entry(of(claim)).or_default().merge(uses);
            }
            let in_vain = pod.in_vain.into_iter();
            seen.in_vain.extend(
                in_vain.map(|(volume, kind)| (namespace.to_owned(), name.to_owned(), volume, kind)),
            );
            if pod.has_old_snapshots {
                seen.old_snapshots.insert(key.clone());
            }
            seen.unclaimed += pod.unclaimed;
        }
        ("rbac.authorization.k8s.io", "clusterrolebindings") => {
            seen.roles.extend(
                binding(text)
                    .filter(|binding| binding.role.kind == "ClusterRole")
                    .map(|binding| binding.role.name),
            );
        }
        _ => {}
    }
}

fn without(text: &str, keys: impl Iterator<Item = &'static str>) -> String {
    let Ok(mut object) = crate::raw::RawObject::parse(text) else {
        return text.to_owned();
    };
    for key in keys {
        object.remove(key);
    }
    String::from_utf8(object.to_vec()).expect("JSON text made of text is text")
}

#[cfg(test)]
mod tests;
