//! Resource modifiers: rules that change objects on their way into the target, in Velero's format (version v1; [`page`] reads it).
//!
//! A rule looks at the object as the other rewrites left it, still in the namespace of the backup: `conditions` are all to hold, and a rule
//! that several objects or other rules share sees what the object was before the first rule changed it. `groupResource` is a pattern in
//! which `*` does not reach over a dot; `namespaces` do not count for what has none. Namespaces themselves are only changed by a rule that names
//! them, for Velero's rules never reach them. A JSON patch whose `test` finds something else does nothing, and that is no error.
//!
//! Unlike Velero, which creates an object without the rule that failed, an object is not created at all when one of its rules can not be
//! applied: half rewritten it may do harm. Nor may a rule make another object of it: apiVersion, kind and name stay. The namespace is the
//! mapping's business, whatever a rule says. Pure.

mod json_patch;
mod page;
mod schemas;
mod strategic;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use regex_lite::Regex;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::filter::{Filter, Selector};
use crate::raw::RawObject;
use crate::restore::order;

use json_patch::{Operation, Refusal};
pub(in super::super) use schemas::{Document, Schemas};

/// No object may become larger, bytes: twice what etcd takes.
const LARGEST: usize = 3 << 20;
/// So many rules that can not be applied to an object are told; the others are not tried.
const TOLD: usize = 4;
/// Nor nested deeper: JSON readers give up at 128.
const DEEPEST: usize = 100;

/// The rules of one file or ConfigMap.
#[derive(Debug)]
pub struct Modifiers {
    rules: Vec<Rule>,
    /// SHA-256 of the text they were read from.
    pub(in super::super) digest: String,
}

#[derive(Debug)]
struct Rule {
    resource: Pattern,
    /// Only its namespaces count.
    namespaces: Filter,
    name: Option<Regex>,
    labels: Option<Selector>,
    matches: Vec<Operation>,
    change: Change,
}

/// A `groupResource`.
#[derive(Debug)]
enum Pattern {
    Name(String),
    Expression(Regex),
}

#[derive(Debug)]
enum Change {
    Json(Vec<Operation>),
    Merge(Vec<Map<String, Value>>),
    Strategic(Vec<Map<String, Value>>),
}

impl Modifiers {
    /// Reads rules: the text of a ConfigMap's one value.
    ///
    /// # Errors
    /// `Invalid`, naming the rule and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self> {
        page::read(text)
    }

    /// How many rules they are.
    pub fn count(&self) -> usize {
        self.rules.len()
    }

    /// Whether objects of this resource may need a schema to be merged by.
    pub(in super::super) fn needs_schema(&self, resource: &str) -> bool {
        self.rules
            .iter()
            .any(|rule| matches!(rule.change, Change::Strategic(_)) && rule.reaches(resource))
    }

    /// Changes an object of this resource; gives the numbers of the rules that did.
    ///
    /// # Errors
    /// `Invalid`, when a rule can not be applied: the object is then as it was.
    pub(in super::super) fn apply(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        object: &mut RawObject<'_>,
        schemas: &Schemas,
    ) -> Result<Vec<usize>> {
        let rules: Vec<(usize, &Rule)> = (1..)
            .zip(&self.rules)
            .filter(|(_, rule)| rule.may_mean(resource, namespace, name))
            .collect();
        if rules.is_empty() {
            return Ok(Vec::new());
        }
        let origin: Value = serde_json::from_slice(&object.to_vec()).map_err(|e| {
            Error::invalid("the object can not be read for resource modifiers").because(e)
        })?;
        let mut now = origin.clone();
        let (mut applied, mut wrong) = (Vec::new(), Vec::new());
        for (number, rule) in rules {
            if !rule.matches(&origin) {
                continue;
            }
            let mut next = now.clone();
            match rule.change.apply(&mut next, schemas).and_then(|changed| {
                check(&origin, &next)?;
                Ok(changed)
            }) {
                Ok(true) => {
                    now = next;
                    applied.push(number);
                }
                Ok(false) => {}
                Err(why) => wrong.push(format!("rule {number}: {why}")),
            }
            if wrong.len() == TOLD {
                break;
            }
        }
        if !wrong.is_empty() {
            return Err(Error::invalid(format!(
                "resource modifiers can not be applied: {}",
                wrong.join("; ")
            )));
        }
        give_back(&origin, now, object)?;
        Ok(applied)
    }
}

impl Rule {
    fn reaches(&self, resource: &str) -> bool {
        match &self.resource {
            Pattern::Name(name) => name == resource,
            Pattern::Expression(regex) => resource != order::NAMESPACES && regex.is_match(resource),
        }
    }

    fn may_mean(&self, resource: &str, namespace: &str, name: &str) -> bool {
        self.reaches(resource)
            && (namespace.is_empty() || self.namespaces.namespace(namespace))
            && self.name.as_ref().is_none_or(|regex| regex.is_match(name))
    }

    fn matches(&self, object: &Value) -> bool {
        let fits = |selector: &Selector| {
            let labels: BTreeMap<String, String> = object["metadata"]["labels"]
                .as_object()
                .into_iter()
                .flatten()
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect();
            selector.matches(&labels)
        };
        if !self.labels.as_ref().is_none_or(fits) {
            return false;
        }
        // What is not there does not match.
        self.matches.is_empty() || json_patch::apply(&mut object.clone(), &self.matches).is_ok()
    }
}

impl Change {
    /// Whether it changed anything, or why it can not.
    fn apply(&self, object: &mut Value, schemas: &Schemas) -> Result<bool, String> {
        match self {
            Self::Json(operations) => match json_patch::apply(object, operations) {
                Ok(()) => {}
                Err(Refusal::Different) => return Ok(false),
                Err(Refusal::Impossible(why)) => return Err(why),
            },
            Self::Merge(patches) => {
                for patch in patches {
                    merge(object, &Value::Object(patch.clone()));
                }
            }
            Self::Strategic(patches) => {
                let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
                let node = schemas.kind(&text("apiVersion"), &text("kind"))?;
                for patch in patches {
                    if let Value::Object(map) = object.take() {
                        *object = Value::Object(strategic::merge(map, patch.clone(), node)?);
                    }
                }
            }
        }
        Ok(true)
    }
}

/// A merge patch (RFC 7396).
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.as_str()).or_insert(Value::Null), value);
        }
    }
}

/// Whether what a rule made is still the same object, and one that can be sent.
fn check(origin: &Value, object: &Value) -> Result<(), String> {
    for (what, pointer) in [
        ("apiVersion", "/apiVersion"),
        ("kind", "/kind"),
        ("name", "/metadata/name"),
    ] {
        if origin.pointer(pointer) != object.pointer(pointer) {
            return Err(format!("it would change the object's {what}"));
        }
    }
    if !fits(object, DEEPEST) {
        return Err(format!("it nests the object deeper than {DEEPEST}"));
    }
    if object.to_string().len() > LARGEST {
        return Err(format!(
            "it makes the object larger than {} MiB",
            LARGEST >> 20
        ));
    }
    Ok(())
}

fn fits(value: &Value, depth: usize) -> bool {
    match value {
        Value::Object(map) => depth > 0 && map.values().all(|value| fits(value, depth - 1)),
        Value::Array(list) => depth > 0 && list.iter().all(|value| fits(value, depth - 1)),
        _ => true,
    }
}

/// Puts into the raw object what is not as it was: what no rule touched stays byte for byte.
fn give_back(origin: &Value, now: Value, object: &mut RawObject<'_>) -> Result<()> {
    let (Value::Object(origin), Value::Object(now)) = (origin, now) else {
        return Ok(());
    };
    for key in origin.keys().filter(|key| !now.contains_key(*key)) {
        object.remove(key);
    }
    for (key, value) in &now {
        if origin.get(key) != Some(value) {
            object.set(key, value)?;
        }
    }
    Ok(())
}
