//! An object of a backup becomes the object that is created: what a server sets goes, each kind gets Velero's item action (see
//! [`kinds`]), what was asked for is changed (see [`mapping`] and [`modifiers`]), and namespaces are mapped, in Velero's order. Pure; what
//! is not touched stays byte for byte.

mod kinds;
mod mapping;
pub(super) mod modifiers;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::digest;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::held::OF_ONE_RESTORE;
use super::rewriting::{Prepared, Rewriting};
use super::versions;
use crate::error::Result;
use crate::hooks::Pod;
use crate::hooks::restored::RestoreHooks;
use crate::raw::RawObject;

/// Label with the backup's name; Velero's.
pub(super) const LABEL_BACKUP: &str = "velero.io/backup-name";
/// Label with the restore's name; Velero's.
pub(super) const LABEL_RESTORE: &str = "velero.io/restore-name";
/// Annotation by which an object says whether its status comes back; Velero's.
const ANNOTATION_STATUS: &str = "velero.io/restore-status";
/// Annotation with the uid the object had in the backup; ours.
pub(super) const ANNOTATION_UID: &str = "kubectl-backup/uid";
/// Who we are in managedFields, where the backup does not tell who else.
pub(super) const MANAGER: &str = "kubectl-backup";
/// Who we are from an object's creation until its managers are given back: a run that ends in between leaves this, and the next goes on.
pub(super) const UNFINISHED: &str = "kubectl-backup-unfinished";

/// Metadata that a server sets, and owners, which are known only when everything stands.
const RESET: [&str; 9] = [
    "generateName",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
];

/// Whose object it is: only those of a backup have their namespaces mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// From the archive.
    Backup,
    /// From the target.
    Live,
}

/// What a rewrite needs to know.
#[derive(Clone, Debug, Default)]
pub(super) struct Rewrite {
    /// Value of [`LABEL_BACKUP`].
    pub(super) backup: String,
    /// Value of [`LABEL_RESTORE`].
    pub(super) restore: String,
    /// Old namespace to new.
    pub(super) mappings: BTreeMap<String, String>,
    /// Keep all node ports.
    pub(super) preserve_node_ports: bool,
    /// Volumes that are restored as they are: their claims keep naming them.
    pub(super) kept_volumes: HashSet<String>,
    /// Those among them that are not made now: their claims wait for them.
    pub(super) awaited_volumes: HashSet<String>,
    /// What else is to be changed.
    pub(super) rewriting: Arc<Rewriting>,
    /// What is known for that.
    pub(super) prepared: Arc<Prepared>,
    /// Which hooks are asked for.
    pub(super) hooks: Arc<RestoreHooks>,
    /// New storage classes that will not be there: what would be of one is not made.
    pub(super) missing_classes: BTreeSet<String>,
}

/// An object without what a server sets.
#[derive(Debug)]
pub(super) struct Shaped<'a> {
    /// The object; managedFields, our labels and our annotation are not in it.
    pub(super) object: RawObject<'a>,
    /// The uid it had.
    pub(super) uid: String,
    /// Its namespace, as it was; empty where it has none.
    pub(super) namespace: String,
    /// Its name, as it was.
    pub(super) name: String,
    /// Who managed its fields.
    pub(super) managers: Managers,
    /// Its status, as JSON, where that comes back too.
    pub(super) status: Option<String>,
    /// What was changed because it was asked for, in words.
    pub(super) changes: Vec<String>,
}

/// Who managed an object's fields, the status left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Managers {
    /// One, by updates: a create in its name gives the same entry, in one call.
    One(String),
    /// Several, or server-side apply: a server takes their entries (a JSON list) only by a patch. (Seen on 1.36: a create gives every field
    /// to the creator, whatever managedFields says; a merge patch of managedFields alone is stored as it is, times included.)
    Several(String),
}

impl Managers {
    /// Of an object whose status comes back: all that are noted, so that the object counts as unfinished until the status is written too.
    fn all(object: &RawObject<'_>) -> Result<Self> {
        let metadata = RawObject::parse(object.get("metadata").unwrap_or("{}"))?;
        // An empty entry clears what there is.
        let entries = metadata.get("managedFields");
        let entries = entries.filter(|text| !matches!(*text, "null" | "[]"));
        Ok(Self::Several(entries.unwrap_or("[{}]").to_owned()))
    }
}

impl Rewrite {
    /// Namespace of the target for a namespace of the backup.
    pub(super) fn namespace<'s>(&'s self, old: &'s str) -> &'s str {
        self.mappings.get(old).map_or(old, String::as_str)
    }

    /// Takes from an object what a server sets and does what its kind needs; in one of a backup it changes what was asked for. Of two objects
    /// that differ only in what a restore does not bring back, the results are the same.
    ///
    /// # Errors
    /// `Corrupt`, when the body is no Kubernetes object; `Invalid`, when what was asked for can not be done with it.
    pub(super) fn shape<'a>(
        &self,
        resource: &str,
        body: &'a [u8],
        side: Side,
    ) -> Result<Shaped<'a>> {
        let mut object = RawObject::from_slice(body)?;
        kinds::act(self, resource, &mut object, side)?;
        object.remove("status");
        // Modifiers look at it by the namespace it had.
        let late = side == Side::Backup && self.rewriting.modifiers.is_some();
        let (mut uid, mut namespace, mut name) = (String::new(), String::new(), String::new());
        let mut managers = Managers::One(MANAGER.to_owned());
        edit(&mut object, "metadata", |metadata| {
            uid = metadata.read("uid")?.unwrap_or_default();
            namespace = metadata.read("namespace")?.unwrap_or_default();
            name = metadata.read("name")?.unwrap_or_default();
            managers = read_managers(metadata)?;
            for key in RESET {
                metadata.remove(key);
            }
            metadata.remove("managedFields");
            drop_keys(metadata, "labels", &[LABEL_BACKUP, LABEL_RESTORE])?;
            drop_keys(metadata, "annotations", &[ANNOTATION_UID])?;
            drop_keys(metadata, "annotations", &OF_ONE_RESTORE)?;
            if late {
                return Ok(());
            }
            self.map(metadata, "namespace", side)
        })?;
        let mut changes = Vec::new();
        if side == Side::Backup {
            if let Some(version) = self.prepared.moved.get(resource) {
                changes.extend(versions::send_as(resource, &mut object, version)?);
            }
            changes.extend(self.change(resource, &namespace, &name, &mut object)?);
            if resource == "pods" {
                changes.extend(self.add_init_containers(&namespace, &mut object)?);
            }
        }
        if late && !namespace.is_empty() {
            edit(&mut object, "metadata", |metadata| {
                // Wherever a modifier would have it.
                metadata.set("namespace", &self.namespace(&namespace))
            })?;
        }
        let mut status = None;
        if side == Side::Backup && self.wants_status(resource, &object)? {
            let whole = RawObject::from_slice(body)?;
            if let Some(text) = whole.get("status").filter(|text| *text != "null") {
                status = Some(text.to_owned());
                managers = Managers::all(&whole)?;
            }
        }
        if resource == super::order::NAMESPACES {
            edit(&mut object, "metadata", |metadata| {
                // The server sets it.
                drop_keys(metadata, "labels", &["kubernetes.io/metadata.name"])?;
                self.map(metadata, "name", side)
            })?;
        }
        Ok(Shaped {
            object,
            uid,
            namespace,
            name,
            managers,
            status,
            changes,
        })
    }

    /// Puts the init containers of hooks before those that a pod has; tells it.
    fn add_init_containers(
        &self,
        namespace: &str,
        object: &mut RawObject<'_>,
    ) -> Result<Option<String>> {
        let hooks = &self.hooks;
        if !hooks.may_ask(object.get("metadata").unwrap_or("{}")) {
            return Ok(None);
        }
        let Some(mut pod) = Pod::read(&object.to_vec()) else {
            return Ok(None);
        };
        self.namespace(namespace)
            .clone_into(&mut pod.metadata.namespace);
        let mut inits = hooks.inits(&pod);
        if inits.is_empty() {
            return Ok(None);
        }
        let names: Vec<String> = inits
            .iter()
            .filter_map(|init| init["name"].as_str().map(str::to_owned))
            .collect();
        edit(object, "spec", |spec| {
            let there: Vec<serde_json::Value> = spec.read("initContainers")?.unwrap_or_default();
            inits.extend(there);
            spec.set("initContainers", &inits)
        })?;
        Ok(Some(format!("init container {}", names.join(", "))))
    }

    /// Changes what was asked for; tells what it was.
    fn change(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        object: &mut RawObject<'_>,
    ) -> Result<Vec<String>> {
        let Rewriting {
            storage_classes,
            images,
            modifiers,
            ..
        } = &*self.rewriting;
        let missing = &self.missing_classes;
        let mut changes = Vec::new();
        changes.extend(mapping::classes(
            resource,
            object,
            storage_classes,
            missing,
        )?);
        changes.extend(mapping::images(resource, object, images)?);
        if let Some(modifiers) = modifiers {
            let schemas = &self.prepared.schemas;
            let rules = modifiers.apply(resource, namespace, name, object, schemas)?;
            if !rules.is_empty() {
                let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
                let rule = if rules.len() == 1 { "rule" } else { "rules" };
                changes.push(format!("resource modifier {rule} {}", rules.join(", ")));
            }
        }
        Ok(changes)
    }

    /// Whether an object's status comes back: its annotation says so, else what was asked for its kind. Namespaces are made anew.
    fn wants_status(&self, resource: &str, object: &RawObject<'_>) -> Result<bool> {
        if resource == super::order::NAMESPACES {
            return Ok(false);
        }
        let asked = self.prepared.status.contains(resource);
        let metadata = object.get("metadata").unwrap_or("{}");
        if !metadata.contains(ANNOTATION_STATUS) {
            return Ok(asked);
        }
        let annotations: Option<BTreeMap<String, String>> =
            RawObject::parse(metadata)?.read("annotations")?;
        let said = annotations.unwrap_or_default();
        let said = said
            .get(ANNOTATION_STATUS)
            .map(|said| said.trim().to_lowercase());
        Ok(match said.as_deref() {
            Some("true") => true,
            Some("false") => false,
            _ => asked,
        })
    }

    /// Marks an object as one of this restore.
    ///
    /// # Errors
    /// `Corrupt`, when labels or annotations are no objects.
    pub(super) fn stamp(&self, shaped: &mut Shaped<'_>) -> Result<()> {
        let uid = shaped.uid.clone();
        edit(&mut shaped.object, "metadata", |metadata| {
            edit_or_make(metadata, "labels", |labels| {
                labels.set(LABEL_BACKUP, &self.backup)?;
                labels.set(LABEL_RESTORE, &self.restore)
            })?;
            edit_or_make(metadata, "annotations", |annotations| {
                annotations.set(ANNOTATION_UID, &uid)
            })
        })
    }

    fn map(&self, object: &mut RawObject<'_>, key: &str, side: Side) -> Result<()> {
        if side == Side::Backup
            && let Some(old) = object.read::<Cow<'_, str>>(key)?
            && let Some(new) = self.mappings.get(old.as_ref())
        {
            object.set(key, new)?;
        }
        Ok(())
    }
}

/// SHA-256 in lower-case hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes)
        .as_ref()
        .iter()
        .fold(String::new(), |mut hex, byte| {
            // Writing to a String can not fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

fn read_managers(metadata: &RawObject<'_>) -> Result<Managers> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Entry {
        manager: String,
        operation: String,
        subresource: String,
        #[serde(rename = "fieldsV1")]
        fields: BTreeMap<String, IgnoredAny>,
    }
    let entries: Vec<&RawValue> = metadata.read("managedFields")?.unwrap_or_default();
    let mut kept = Vec::new();
    // A controller that writes an annotation with the status: nobody owns it anew, and a creator must not.
    let mut shared = false;
    for text in entries {
        let entry: Entry = serde_json::from_str(text.get())
            .map_err(|e| crate::Error::corrupt("managedFields can not be read").because(e))?;
        if entry.subresource == "status" {
            shared |= entry.fields.keys().any(|field| field != "f:status");
        } else {
            kept.push((entry, text));
        }
    }
    Ok(match kept.as_slice() {
        [] => Managers::One(MANAGER.to_owned()),
        [(only, _)]
            if !shared
                && only.operation == "Update"
                && only.subresource.is_empty()
                && !only.manager.is_empty() =>
        {
            Managers::One(only.manager.clone())
        }
        several => {
            let texts: Vec<&str> = several.iter().map(|(_, text)| text.get()).collect();
            Managers::Several(format!("[{}]", texts.join(",")))
        }
    })
}

/// Changes a nested object, where there is one.
fn edit(
    object: &mut RawObject<'_>,
    key: &str,
    change: impl FnOnce(&mut RawObject<'_>) -> Result<()>,
) -> Result<()> {
    let Some(text) = object
        .get(key)
        .filter(|text| text.starts_with('{'))
        .map(str::to_owned)
    else {
        return Ok(());
    };
    let mut inner = RawObject::parse(&text)?;
    change(&mut inner)?;
    object.set(key, &inner)
}

/// The same, with an empty one where there is none.
fn edit_or_make(
    object: &mut RawObject<'_>,
    key: &str,
    change: impl FnOnce(&mut RawObject<'_>) -> Result<()>,
) -> Result<()> {
    if matches!(object.get(key), None | Some("null")) {
        object.set(key, &RawObject::default())?;
    }
    edit(object, key, change)
}

/// Changes each object of a list; those for which `change` says false go.
fn edit_each(
    object: &mut RawObject<'_>,
    key: &str,
    mut change: impl FnMut(&mut RawObject<'_>) -> Result<bool>,
) -> Result<()> {
    let Some(text) = object
        .get(key)
        .filter(|text| text.starts_with('['))
        .map(str::to_owned)
    else {
        return Ok(());
    };
    let items: Vec<RawObject<'_>> = serde_json::from_str(&text).map_err(|e| {
        crate::Error::corrupt(format!("field {key:?} is no list of objects")).because(e)
    })?;
    let mut kept = Vec::with_capacity(items.len());
    for mut item in items {
        if change(&mut item)? {
            kept.push(item);
        }
    }
    object.set(key, &kept)
}

/// Drops keys of a nested object, and the object with the last of them.
fn drop_keys(object: &mut RawObject<'_>, key: &str, keys: &[&str]) -> Result<()> {
    let mut emptied = false;
    edit(object, key, |inner| {
        let mut dropped = false;
        for key in keys {
            dropped |= inner.remove(key);
        }
        emptied = dropped && inner.is_empty();
        Ok(())
    })?;
    if emptied {
        object.remove(key);
    }
    Ok(())
}
