//! Compares two states of clusters object by object and field by field.
//!
//! It reports every difference that no row of the exceptions names, and knows no other mercy.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::exceptions::{
    Change, FIELD_RESETS, Field, ITEM_ACTIONS, MANAGED_FIELDS, NEVER_RESTORED, NO_MANAGED_FIELDS,
    OBJECTS, OWNERS, STATUS,
};
use crate::snapshot::{ObjectId, Snapshot};

/// What of two states is to be equal.
#[derive(Debug, Clone)]
pub struct Options {
    /// Only these namespaces, by the names they had; all when empty.
    pub namespaces: Vec<String>,
    /// Not these namespaces, by either name.
    pub without_namespaces: Vec<String>,
    /// Namespaces that were restored under another name: the old and the new one.
    pub mapping: BTreeMap<String, String>,
    /// Whether what belongs to no namespace counts. Namespaces themselves count where they are included.
    pub cluster_scoped: bool,
    /// Not these resources, as `deployments.apps`.
    pub without_resources: Vec<String>,
    /// Whether objects must have their owners again.
    pub owners: bool,
    /// Whether objects must have their status again.
    pub status: bool,
    /// Whether the record of which person or tool wrote which field must be the same, but for its times.
    pub managed_fields: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            namespaces: Vec::new(),
            without_namespaces: Vec::new(),
            mapping: BTreeMap::new(),
            cluster_scoped: true,
            without_resources: Vec::new(),
            owners: false,
            status: false,
            managed_fields: true,
        }
    }
}

impl Options {
    /// Only these namespaces and what is in them.
    pub fn in_namespaces(names: &[&str]) -> Self {
        Self {
            namespaces: names.iter().map(|&name| name.to_owned()).collect(),
            cluster_scoped: false,
            ..Self::default()
        }
    }

    /// One more namespace that got another name.
    pub fn mapped(mut self, old: &str, new: &str) -> Self {
        self.mapping.insert(old.to_owned(), new.to_owned());
        self
    }

    fn new_name<'a>(&'a self, namespace: &'a str) -> &'a str {
        self.mapping
            .get(namespace)
            .map_or(namespace, String::as_str)
    }

    /// Whether an object counts; `is_after` says by which names its namespace goes.
    fn counts(&self, id: &ObjectId, object: &Value, is_after: bool) -> bool {
        let namespace = if id.resource == "namespaces" {
            &id.name
        } else {
            &id.namespace
        };
        let is_wanted = if namespace.is_empty() {
            self.cluster_scoped
        } else {
            self.namespaces.is_empty()
                || self.namespaces.iter().any(|wanted| {
                    let wanted = if is_after {
                        self.new_name(wanted)
                    } else {
                        wanted
                    };
                    wanted == namespace
                })
        };
        is_wanted
            && !self.without_namespaces.contains(namespace)
            && !self.without_resources.contains(&id.resource)
            && !NEVER_RESTORED
                .iter()
                .any(|(resource, _)| *resource == id.resource)
            && !OBJECTS
                .iter()
                .any(|row| row.resource == id.resource && (row.fits)(object))
    }

    fn fields(&self) -> impl Iterator<Item = &'static Field> {
        let owners = (!self.owners).then_some(&OWNERS);
        let status = (!self.status).then_some(&STATUS);
        let record = if self.managed_fields {
            &MANAGED_FIELDS
        } else {
            &NO_MANAGED_FIELDS
        };
        let on_request = [Some(record), owners, status].into_iter().flatten();
        FIELD_RESETS.iter().chain(ITEM_ACTIONS).chain(on_request)
    }
}

/// A field that is not the same: where, and what it is on both sides.
#[derive(Debug, Clone)]
pub struct Difference {
    pub object: ObjectId,
    /// A JSON path, as `spec.ports[0].nodePort`.
    pub path: String,
    /// Null for what is not there.
    pub left: Value,
    pub right: Value,
}

/// All that is not equal.
#[derive(Debug, Clone, Default)]
pub struct Differences {
    /// What the second state lacks, by the name it had.
    pub missing: Vec<ObjectId>,
    /// What only the second state has.
    pub extra: Vec<ObjectId>,
    pub different: Vec<Difference>,
    /// How many objects were found in both.
    pub compared: usize,
}

impl Differences {
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.extra.is_empty() && self.different.is_empty()
    }

    /// Fails the test, with a list, unless both states are equal and there was something to compare.
    #[track_caller]
    pub fn assert_none(&self) {
        assert!(self.is_empty(), "{self}");
        assert!(self.compared > 0, "nothing was compared");
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (missing, extra, different) =
            (self.missing.len(), self.extra.len(), self.different.len());
        writeln!(
            f,
            "{} compared, {missing} missing, {extra} extra, {different} different fields",
            self.compared
        )?;
        for id in self.missing.iter().take(50) {
            writeln!(f, "  missing    {id}")?;
        }
        for id in self.extra.iter().take(50) {
            writeln!(f, "  extra      {id}")?;
        }
        for difference in self.different.iter().take(50) {
            let Difference {
                object,
                path,
                left,
                right,
            } = difference;
            writeln!(
                f,
                "  different  {object}: {path}: {} -> {}",
                short(left),
                short(right)
            )?;
        }
        Ok(())
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(160) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Compares the state that was backed up with the one that was restored.
pub fn compare(before: &Snapshot, after: &Snapshot, options: &Options) -> Differences {
    let mut differences = Differences::default();
    let mut right: BTreeMap<_, _> = after
        .objects
        .iter()
        .filter(|(id, object)| options.counts(id, object, true))
        .collect();
    for (id, object) in &before.objects {
        if !options.counts(id, object, false) {
            continue;
        }
        let Some(restored) = right.remove(&renamed_id(id, options)) else {
            differences.missing.push(id.clone());
            continue;
        };
        differences.compared += 1;
        let mut left = object.clone();
        rename(&mut left, id, options);
        let mut restored = restored.clone();
        for row in options.fields() {
            if (row.resource == "*" || row.resource == id.resource) && (row.when)(object) {
                apply(row, &mut left);
                apply(row, &mut restored);
            }
        }
        let mut paths = Vec::new();
        differ(String::new(), &left, &restored, &mut paths);
        differences
            .different
            .extend(paths.into_iter().map(|(path, left, right)| Difference {
                object: id.clone(),
                path,
                left,
                right,
            }));
    }
    differences.extra = right.into_keys().cloned().collect();
    differences
}

fn renamed_id(id: &ObjectId, options: &Options) -> ObjectId {
    let mut id = id.clone();
    if id.resource == "namespaces" {
        id.name = options.new_name(&id.name).to_owned();
    }
    id.namespace = options.new_name(&id.namespace).to_owned();
    id
}

/// What a mapping of namespaces changes: the object's own, and those that RBAC and volumes refer to.
fn rename(object: &mut Value, id: &ObjectId, options: &Options) {
    if options.mapping.is_empty() {
        return;
    }
    let map = |field: Option<&mut Value>| {
        if let Some(Value::String(name)) = field {
            *name = options.new_name(name).to_owned();
        }
    };
    map(object.pointer_mut("/metadata/namespace"));
    match id.resource.as_str() {
        "namespaces" => {
            map(object.pointer_mut("/metadata/name"));
            map(object.pointer_mut("/metadata/labels/kubernetes.io~1metadata.name"));
        }
        "rolebindings.rbac.authorization.k8s.io"
        | "clusterrolebindings.rbac.authorization.k8s.io" => {
            let subjects = object.get_mut("subjects").and_then(Value::as_array_mut);
            for subject in subjects.into_iter().flatten() {
                map(subject.get_mut("namespace"));
            }
        }
        "persistentvolumes" => map(object.pointer_mut("/spec/claimRef/namespace")),
        _ => {}
    }
}

fn apply(row: &Field, object: &mut Value) {
    match row.change {
        Change::Remove(path) => remove(object, path),
        Change::With(change) => change(object),
    }
    drop_empty(object, &["metadata", "labels"]);
    drop_empty(object, &["metadata", "annotations"]);
}

fn remove(value: &mut Value, path: &[&str]) {
    let Some((&first, rest)) = path.split_first() else {
        return;
    };
    match value {
        Value::Object(fields) if first == "*" => {
            fields.values_mut().for_each(|value| remove(value, rest));
        }
        Value::Array(items) if first == "*" => {
            items.iter_mut().for_each(|value| remove(value, rest));
        }
        Value::Object(fields) if rest.is_empty() => drop(fields.remove(first)),
        Value::Object(fields) => {
            if let Some(value) = fields.get_mut(first) {
                remove(value, rest);
            }
        }
        _ => {}
    }
}

/// The API server leaves out a map without entries: removing the last one makes such a map.
fn drop_empty(object: &mut Value, path: &[&str]) {
    let pointer = format!("/{}", path.join("/"));
    if object
        .pointer(&pointer)
        .and_then(Value::as_object)
        .is_some_and(serde_json::Map::is_empty)
    {
        remove(object, path);
    }
}

fn differ(path: String, left: &Value, right: &Value, found: &mut Vec<(String, Value, Value)>) {
    match (left, right) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let only_theirs = theirs.keys().filter(|key| !ours.contains_key(*key));
            for key in ours.keys().chain(only_theirs) {
                let dot = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{dot}{key}");
                match (ours.get(key), theirs.get(key)) {
                    (Some(left), Some(right)) => differ(path, left, right, found),
                    // An explicit null is not the same as nothing.
                    (left, right) => found.push((path, or_null(left), or_null(right))),
                }
            }
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            for (index, (left, right)) in ours.iter().zip(theirs).enumerate() {
                differ(format!("{path}[{index}]"), left, right, found);
            }
        }
        _ if left == right => {}
        _ => found.push((path, left.clone(), right.clone())),
    }
}

fn or_null(value: Option<&Value>) -> Value {
    value.cloned().unwrap_or_default()
}
