//! What a restore changes in objects on their way into the target: storage classes, images, resource modifiers, and whose status comes back.
//! From flags, from files, and from the ConfigMaps by which Velero is told the same. What is asked for is settled here before anything is
//! restored; the changes themselves are [`rewrite`](super::rewrite)'s.
//!
//! Velero's ConfigMaps stand in its namespace with the label `velero.io/plugin-config` and one of
//! - `velero.io/change-storage-class: RestoreItemAction`: each key of `data` is a class, its value the new one;
//! - `velero.io/change-image-name: RestoreItemAction`: each value of `data` is `old,new`, parts of image names. Velero takes any row that fits, here
//!   the first by key does.
//!
//! Two of a kind are refused, as Velero refuses them. Resource modifiers are in a ConfigMap of any name, the one value of its `data`, and are only
//! taken when they are asked for. A file holds such ConfigMaps, several with `---` between, or the modifiers alone. What flags and files say counts
//! for the name of the restore: one that was begun goes on only when they say the same. The two ConfigMaps are asked once, when a restore begins,
//! for it may bring such ConfigMaps itself; it goes on with the mappings that the journal's header holds.

mod config_maps;
mod prepare;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::RestoreSpec;
use crate::error::{Error, Result};
use crate::filter::Filter;

pub use super::rewrite::modifiers::Modifiers as ResourceModifiers;
pub use config_maps::{Found, modifiers_of_cluster, of_cluster, of_file};
pub(super) use prepare::{Prepared, missing_classes, prepare};

/// No file is larger, bytes: some ConfigMaps.
pub const LARGEST_FILE: usize = 4 << 20;
/// No answer with ConfigMaps or a schema is larger, bytes.
const LARGEST_ANSWER: usize = 64 << 20;

/// What is changed.
#[derive(Clone, Debug, Default)]
pub struct Rewriting {
    /// Old storage class to new.
    pub storage_classes: BTreeMap<String, String>,
    /// Part of an image's name and what stands in its place; the first that fits counts.
    pub images: Vec<(String, String)>,
    /// Rules that change objects.
    pub modifiers: Option<Arc<ResourceModifiers>>,
    /// The ConfigMap these rules are from, for the record.
    pub modifiers_configmap: Option<String>,
    /// Kinds whose status comes back; absent: only of objects whose annotation says so.
    pub status: Option<StatusKinds>,
}

/// Kinds whose status comes back, by names as in other filters.
#[derive(Clone, Debug, Default)]
pub struct StatusKinds {
    /// These; empty is all.
    pub included: Vec<String>,
    /// But not these.
    pub excluded: Vec<String>,
}

impl Rewriting {
    /// With what `weaker` says on top, where this says nothing of the same class or kind of rule.
    #[must_use]
    pub fn over(mut self, weaker: Self) -> Self {
        let mut storage_classes = weaker.storage_classes;
        storage_classes.append(&mut self.storage_classes);
        self.images.extend(weaker.images);
        let (modifiers, modifiers_configmap) = match self.modifiers {
            Some(own) => (Some(own), self.modifiers_configmap),
            None => (weaker.modifiers, weaker.modifiers_configmap),
        };
        Self {
            storage_classes,
            images: self.images,
            modifiers,
            modifiers_configmap,
            status: self.status.or(weaker.status),
        }
    }

    /// With the mappings of classes and images with which a restore began: its spec has them, those of flags and files among them.
    ///
    /// # Errors
    /// `Corrupt`, when they can not be read; `Invalid`, when they can not be meant.
    pub(super) fn begun_with(mut self, spec: &RestoreSpec) -> Result<Self> {
        let bad = |e| {
            Error::corrupt("the mappings with which the restore began can not be read").because(e)
        };
        let of = |key: &str| spec.rest.get(key).cloned();
        let classes = of("storageClassMapping").map(serde_json::from_value);
        self.storage_classes = classes.transpose().map_err(bad)?.unwrap_or_default();
        let images = of("imageMapping").map(serde_json::from_value);
        self.images = images.transpose().map_err(bad)?.unwrap_or_default();
        self.validate()?;
        Ok(self)
    }

    /// `storage classes: a to b; images: c to d`; nothing where none are mapped.
    pub(super) fn mappings(&self) -> Option<String> {
        let images = self.images.iter().map(|(old, new)| (old, new));
        let classes = pairs(self.storage_classes.iter());
        let some = !(self.storage_classes.is_empty() && self.images.is_empty());
        some.then(|| format!("{CLASSES_ARE}{classes}; {IMAGES_ARE}{}", pairs(images)))
    }

    /// Refuses what can not be meant.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn validate(&self) -> Result<()> {
        for (old, new) in &self.storage_classes {
            for name in [old, new] {
                if !is_class(name) {
                    return Err(Error::invalid(format!(
                        "{name:?} can not be the name of a storage class"
                    ))
                    .hint("write the mapping as OLD:NEW"));
                }
            }
        }
        if self.images.iter().any(|(part, _)| part.is_empty()) {
            return Err(Error::invalid("an image mapping has no old name").hint("write OLD=NEW"));
        }
        match &self.status {
            Some(status) => status.filter().validate(),
            None => Ok(()),
        }
    }

    /// What of it a Restore has no field of its own for, and its digest: part of the name's hash and of the record.
    pub(super) fn record(&self) -> serde_json::Map<String, Value> {
        let mut record = serde_json::Map::new();
        if !self.storage_classes.is_empty() {
            record.insert("storageClassMapping".into(), json!(self.storage_classes));
        }
        if !self.images.is_empty() {
            record.insert("imageMapping".into(), json!(self.images));
        }
        if let Some(modifiers) = &self.modifiers {
            record.insert("resourceModifierDigest".into(), json!(modifiers.digest));
        }
        if let Some(name) = &self.modifiers_configmap {
            // As Velero's command writes it.
            let reference = json!({"apiGroup": "", "kind": "configmap", "name": name});
            record.insert("resourceModifier".into(), reference);
        }
        if let Some(status) = &self.status {
            let mut lists = serde_json::Map::new();
            for (key, list) in [
                ("includedResources", &status.included),
                ("excludedResources", &status.excluded),
            ] {
                if !list.is_empty() {
                    lists.insert(key.into(), json!(list));
                }
            }
            record.insert("restoreStatus".into(), Value::Object(lists));
        }
        record
    }
}

/// What the record of a restore says of its rewrites.
#[derive(Debug, Default)]
pub struct Recorded {
    /// Old storage class to new.
    pub storage_classes: BTreeMap<String, String>,
    /// Part of an image's name, and what stood in its place.
    pub images: Vec<(String, String)>,
    /// The ConfigMap of the resource modifiers; empty for those of a file.
    pub modifiers: Option<String>,
    /// Kinds whose status came back, and kinds whose did not.
    pub status: Option<[Vec<String>; 2]>,
}

/// Reads what a restore's spec says of rewrites. A record is anybody's who may write the bucket: what is not as it should be is passed over.
pub fn recorded(spec: &RestoreSpec) -> Recorded {
    fn read<T: DeserializeOwned + Default>(value: Option<&Value>) -> T {
        value
            .and_then(|value| serde_json::from_value(value.clone()).ok())
            .unwrap_or_default()
    }
    let of = |key: &str| spec.rest.get(key);
    let by_digest = of("resourceModifierDigest").is_some();
    let modifiers = of("resourceModifier").map(|reference| read(reference.get("name")));
    Recorded {
        storage_classes: read(of("storageClassMapping")),
        images: read(of("imageMapping")),
        modifiers: modifiers.or(by_digest.then(String::new)),
        status: of("restoreStatus").map(|status| {
            ["includedResources", "excludedResources"].map(|key| read(status.get(key)))
        }),
    }
}

impl StatusKinds {
    fn filter(&self) -> Filter {
        Filter {
            resources: self.included.clone(),
            not_resources: self.excluded.clone(),
            ..Filter::default()
        }
    }
}

const CLASSES_ARE: &str = "storage classes: ";
const IMAGES_ARE: &str = "images: ";

fn pairs<'p>(pairs: impl Iterator<Item = (&'p String, &'p String)>) -> String {
    const MOST: usize = 8;
    let texts: Vec<String> = pairs.map(|(old, new)| format!("{old} to {new}")).collect();
    match texts.len() {
        0 => "none".to_owned(),
        n if n > MOST => format!("{} and {} more", texts[..MOST].join(", "), n - MOST),
        _ => texts.join(", "),
    }
}

/// The name of a storage class: a DNS subdomain.
fn is_class(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !name.is_empty()
        && name.len() <= 253
        && name
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(good))
}

/// One YAML document as Velero's reader has it: numbers like 0644 are octal, yes and no are booleans. Aliases, depth and size are bounded.
///
/// # Errors
/// `Invalid`, when it is not what it should be.
pub(crate) fn yaml<T: DeserializeOwned>(text: &str) -> Result<T> {
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        with_snippet: false,
        budget: serde_saphyr::budget! { max_depth: 64 },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| {
        Error::invalid("it is not the YAML it should be").because(Error::invalid(e.to_string()))
    })
}
