//! Velero's ConfigMaps for restores, of a cluster or of a file, as rewrites: see the page of [`super`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::super::plan;
use super::super::rewrite::modifiers::Modifiers;
use super::{
    CLASSES_ARE, IMAGES_ARE, LARGEST_ANSWER, LARGEST_FILE, Rewriting, is_class, pairs, yaml,
};
use crate::cluster::Cluster;
use crate::discovery::ApiResource;
use crate::error::{Error, Result};

/// Rules of one kind.
const RULES: usize = 10_000;

const STORAGE: &str = "velero.io/change-storage-class";

const IMAGES: &str = "velero.io/change-image-name";

const PLUGIN: &str = "velero.io/plugin-config";

/// The value of the other two labels.
const ACTION: &str = "RestoreItemAction";

/// What a file or a cluster says.
#[derive(Debug, Default)]
pub struct Found {
    /// The rewrites.
    pub rewriting: Rewriting,
    /// Where each is from and what it is, a line each.
    pub told: Vec<String>,
    /// What is meant for restores and is not taken.
    pub warnings: Vec<String>,
}

/// What the target's Velero is told: its ConfigMaps in this namespace. Who may not read them has none, and is warned.
///
/// # Errors
/// `Invalid` for two ConfigMaps of one kind; why they can not be read: claims of a wrong class could not be put right later.
pub async fn of_cluster(cluster: &Cluster, namespace: &str) -> Result<Found> {
    let list = |namespace: Option<&str>| {
        let path = config_maps().path(namespace);
        async move {
            let path = format!("{path}?labelSelector=velero.io%2Fplugin-config&limit=500");
            cluster.get_bounded(&path, LARGEST_ANSWER).await
        }
    };
    let answer = match list(None).await {
        Err(e) if e.is_forbidden() => list(Some(namespace)).await,
        answer => answer,
    };
    let body = match answer {
        Ok(body) => body,
        Err(e) if e.is_forbidden() || e.is_not_found() => {
            return Ok(Found {
                warnings: vec![format!(
                    "ConfigMaps of namespace {namespace} in the target may not be read: what they tell Velero of storage classes and images does not count"
                )],
                ..Found::default()
            });
        }
        Err(e) => {
            return Err(Error::from(e).context(format!(
                "the target's ConfigMaps of namespace {namespace}, which may map storage classes and images, can not be read"
            )));
        }
    };
    #[derive(Default, Deserialize)]
    struct List {
        #[serde(default)]
        items: Option<Vec<ConfigMap>>,
    }
    let list: List = serde_json::from_slice(&body)
        .map_err(|e| Error::other("the target's ConfigMaps can not be read").because(e))?;
    let mut found = Found::default();
    let (mine, others): (Vec<_>, Vec<_>) = list
        .items
        .unwrap_or_default()
        .into_iter()
        .partition(|map| map.metadata.namespace == namespace);
    for map in &others {
        if let Some(what) = plan::asks(map.labels()) {
            found.warnings.push(format!(
                "configmaps {} in the target asks {what}, which is not done: Velero is looked for in namespace {namespace} \
                 (--velero-namespace says otherwise)",
                map.path()
            ));
        }
    }
    for map in mine {
        if map.is_for(STORAGE) || map.is_for(IMAGES) {
            found.take(map)?;
        } else if let Some(what) = plan::asks(map.labels()) {
            found.warnings.push(format!(
                "configmaps {} in the target asks {what}, which is not done",
                map.path()
            ));
        }
    }
    Ok(found)
}

/// The resource modifiers of one ConfigMap of the target.
///
/// # Errors
/// `NotFound`; `Invalid` for what is no set of rules; the server's.
pub async fn modifiers_of_cluster(cluster: &Cluster, namespace: &str, name: &str) -> Result<Found> {
    let path = config_maps().object_path(Some(namespace), name);
    let body = match cluster.get_bounded(&path, LARGEST_ANSWER).await {
        Ok(body) => body,
        Err(e) if e.is_not_found() => {
            return Err(Error::not_found(format!(
                "ConfigMap {namespace}/{name} with resource modifiers is not in the target"
            ))
            .hint("--velero-namespace tells in which namespace it is"));
        }
        Err(e) => {
            return Err(Error::from(e).context(format!(
                "ConfigMap {namespace}/{name} with resource modifiers can not be read"
            )));
        }
    };
    let map: ConfigMap = serde_json::from_slice(&body).map_err(|e| {
        Error::other(format!("ConfigMap {namespace}/{name} can not be read")).because(e)
    })?;
    let mut found = Found::default();
    found.take_modifiers(&map)?;
    found.rewriting.modifiers_configmap = Some(name.to_owned());
    Ok(found)
}

/// What a file says: ConfigMaps, or resource modifiers alone.
///
/// # Errors
/// `Invalid`, naming what is wrong.
pub fn of_file(text: &str) -> Result<Found> {
    if text.len() > LARGEST_FILE {
        return Err(Error::invalid(format!(
            "it is larger than {} MiB",
            LARGEST_FILE >> 20
        )));
    }
    let mut found = Found::default();
    let mut any = false;
    for document in text.split("\n---") {
        let value: Value = yaml(document.strip_prefix("---").unwrap_or(document))?;
        if value.is_null() {
            continue;
        }
        any = true;
        if value["kind"].is_null() {
            let modifiers = Modifiers::parse(document.strip_prefix("---").unwrap_or(document))?;
            found.modify("the file", modifiers)?;
            continue;
        }
        if value["kind"] != "ConfigMap" {
            return Err(Error::invalid(format!(
                "it holds a {}",
                value["kind"].as_str().unwrap_or("thing of no kind")
            ))
            .hint("it is to hold ConfigMaps as Velero has them, or resource modifiers alone"));
        }
        let map: ConfigMap = serde_json::from_value(value)
            .map_err(|e| Error::invalid("it holds a ConfigMap that can not be read").because(e))?;
        let labels = map.labels();
        if labels.contains_key(STORAGE) || labels.contains_key(IMAGES) {
            found.take(map)?;
        } else {
            found.take_modifiers(&map)?;
        }
    }
    if any {
        Ok(found)
    } else {
        Err(Error::invalid("it is empty"))
    }
}

impl Found {
    /// With what `weaker` found on top.
    #[must_use]
    pub fn over(mut self, mut weaker: Self) -> Self {
        self.told.append(&mut weaker.told);
        self.warnings.append(&mut weaker.warnings);
        Self {
            rewriting: self.rewriting.over(weaker.rewriting),
            ..self
        }
    }

    /// Takes a ConfigMap of classes or images.
    fn take(&mut self, map: ConfigMap) -> Result<()> {
        let labels = map.labels();
        let path = map.path();
        if labels.contains_key(STORAGE) && labels.contains_key(IMAGES) {
            return Err(Error::invalid(format!(
                "ConfigMap {path} is for storage classes and for images at once"
            ))
            .hint("make one of each"));
        }
        let data = map.data.clone().unwrap_or_default();
        if data.len() > RULES {
            return Err(Error::invalid(format!(
                "ConfigMap {path} has more than {RULES} entries"
            )));
        }
        let twice = |what: &str| {
            Error::invalid(format!("ConfigMap {path} is the second one for {what}"))
                .hint("Velero does not choose among them either: keep one")
        };
        if labels.contains_key(STORAGE) {
            if self.told.iter().any(|told| told.starts_with(CLASSES_ARE)) {
                return Err(twice("storage classes"));
            }
            let (good, bad): (BTreeMap<_, _>, BTreeMap<_, _>) = data
                .into_iter()
                .partition(|(old, new)| is_class(old) && is_class(new));
            for (old, new) in bad {
                self.warnings.push(format!(
                    "ConfigMap {path}: {old:?} to {new:?} names no storage classes, and is not done"
                ));
            }
            self.told.push(format!(
                "{CLASSES_ARE}{} (ConfigMap {path})",
                pairs(good.iter())
            ));
            self.rewriting.storage_classes = good;
            return Ok(());
        }
        if self.told.iter().any(|told| told.starts_with(IMAGES_ARE)) {
            return Err(twice("images"));
        }
        for (key, row) in data {
            match row.split_once(',') {
                Some((old, new)) if !old.trim().is_empty() && !new.is_empty() => {
                    let rule = (old.trim().to_owned(), new.trim().to_owned());
                    self.rewriting.images.push(rule);
                }
                _ => self.warnings.push(format!(
                    "ConfigMap {path}: {key:?} is not of the form old,new, and is not done"
                )),
            }
        }
        let images = self.rewriting.images.iter().map(|(old, new)| (old, new));
        let told = format!("{IMAGES_ARE}{} (ConfigMap {path})", pairs(images));
        self.told.push(told);
        Ok(())
    }

    fn take_modifiers(&mut self, map: &ConfigMap) -> Result<()> {
        let path = map.path();
        let data = map.data.clone().unwrap_or_default();
        let (Some(text), 1) = (data.values().next(), data.len()) else {
            return Err(Error::invalid(format!(
                "ConfigMap {path} has {} entries where resource modifiers are one",
                data.len()
            )));
        };
        let modifiers =
            Modifiers::parse(text).map_err(|e| e.context(format!("ConfigMap {path}")))?;
        self.modify(&format!("ConfigMap {path}"), modifiers)
    }

    fn modify(&mut self, from: &str, modifiers: Modifiers) -> Result<()> {
        if self.rewriting.modifiers.is_some() {
            return Err(Error::invalid("there are two sets of resource modifiers")
                .hint("put their rules into one"));
        }
        self.told.push(match modifiers.count() {
            1 => format!("resource modifiers: one rule ({from})"),
            count => format!("resource modifiers: {count} rules ({from})"),
        });
        self.rewriting.modifiers = Some(Arc::new(modifiers));
        Ok(())
    }
}

fn config_maps() -> ApiResource {
    ApiResource {
        version: "v1".into(),
        plural: "configmaps".into(),
        namespaced: true,
        ..ApiResource::default()
    }
}

/// A ConfigMap, as far as rewrites look at it.
#[derive(Debug, Deserialize)]
struct ConfigMap {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    data: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

impl ConfigMap {
    fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.metadata.labels.as_ref().unwrap_or(&NONE)
    }

    fn is_for(&self, label: &str) -> bool {
        let labels = self.labels();
        labels.contains_key(PLUGIN) && labels.get(label).is_some_and(|value| value == ACTION)
    }

    fn path(&self) -> String {
        let Metadata {
            name, namespace, ..
        } = &self.metadata;
        if namespace.is_empty() {
            name.clone()
        } else {
            format!("{namespace}/{name}")
        }
    }
}
