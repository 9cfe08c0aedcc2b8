//! Strategic merge patches: like merge patches, but lists whose items have a key are merged item by item, and directives (`$patch`,
//! `$retainKeys`, `$setElementOrder/…`, `$deleteFromPrimitiveList/…`) say more. The rules are those of Kubernetes' own library, the order of
//! merged lists included; which lists are merged, and by which key, a server's schema says (see [`schemas`](super::schemas)). Pure.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::schemas::{Field, Node};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

type Fields = Map<String, Value>;

/// The patch over the object.
///
/// # Errors
/// What in the patch, or in the object, can not be merged, in words.
pub(super) fn merge(object: Fields, mut patch: Fields, node: Node<'_>) -> Result<Fields, String> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Fields::new()),
            _ => Err(format!("{DIRECTIVE} can not be {directive} in a map")),
        };
    }
    let mut object = object;
    retain(&mut object, &mut patch)?;
    let orders: Vec<String> = patch
        .keys()
        .filter(|key| key.starts_with(ORDER))
        .cloned()
        .collect();
    for key in orders {
        if let Some(order) = patch.remove(&key) {
            ordered(&mut object, &mut patch, &key[ORDER.len()..], &order, node)?;
        }
    }
    for (key, wanted) in patch {
        let (name, deletes) = match key.strip_prefix(DELETE) {
            Some(name) => (name, true),
            None => (key.as_str(), false),
        };
        if wanted.is_null() {
            object.remove(name);
            continue;
        }
        let merged = match (object.remove(name), wanted) {
            (Some(Value::Object(here)), Value::Object(wanted)) => {
                let field = node.field(name);
                Some(Value::Object(if field.replaces {
                    wanted
                } else {
                    merge(here, wanted, field.inside)?
                }))
            }
            (Some(Value::Array(here)), Value::Array(wanted)) => {
                let field = node.field(name);
                Some(Value::Array(if field.merges || deletes {
                    list(here, wanted, &field, deletes).map_err(|why| format!("{name}: {why}"))?
                } else {
                    wanted
                }))
            }
            (here, _) if deletes => here,
            (_, wanted) => plain(wanted),
        };
        if let Some(merged) = merged {
            object.insert(name.to_owned(), merged);
        }
    }
    Ok(object)
}

/// `$retainKeys`: keys that are not in the list go.
fn retain(object: &mut Fields, patch: &mut Fields) -> Result<(), String> {
    let Some(keys) = patch.remove(RETAIN) else {
        return Ok(());
    };
    let kept: HashSet<&str> = keys
        .as_array()
        .ok_or_else(|| format!("{RETAIN} is no list"))?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let stray = patch.iter().find(|(key, value)| {
        !value.is_null()
            && !key.starts_with(DELETE)
            && !key.starts_with(ORDER)
            && !kept.contains(key.as_str())
    });
    if let Some((key, _)) = stray {
        return Err(format!("{key} is in the patch and not in its {RETAIN}"));
    }
    object.retain(|key, _| kept.contains(key.as_str()));
    Ok(())
}

/// `$setElementOrder/<list>`: the list is merged and its items stand in this order.
fn ordered(
    object: &mut Fields,
    patch: &mut Fields,
    name: &str,
    order: &Value,
    node: Node<'_>,
) -> Result<(), String> {
    let no_list = || format!("{ORDER}{name} is about something that is no list");
    let Value::Array(order) = order else {
        return Err(no_list());
    };
    let field = node.field(name);
    let key = |item: &Value| identity(item, field.merge_key);
    let order: Vec<String> = order.iter().map(key).collect::<Result<_, _>>()?;
    let here = match object.get(name) {
        Some(Value::Array(list)) => Some(list.clone()),
        Some(_) => return Err(no_list()),
        None => None,
    };
    let wanted = match patch.remove(name) {
        Some(Value::Array(list)) => Some(list),
        Some(_) => return Err(no_list()),
        None => None,
    };
    let mut left = order.iter();
    for item in wanted
        .iter()
        .flatten()
        .filter(|i| i.get(DIRECTIVE).is_none())
    {
        let item = key(item)?;
        if !order.is_empty() && !left.any(|next| *next == item) {
            return Err(format!(
                "{ORDER}{name} does not hold the patch's items in their order"
            ));
        }
    }
    let server: Vec<String> = here.iter().flatten().map(key).collect::<Result<_, _>>()?;
    let merged = match (here, wanted) {
        (Some(here), None) => here,
        (None, Some(wanted)) => wanted.into_iter().filter_map(plain).collect(),
        (Some(here), Some(wanted)) if field.merges => list(here, wanted, &field, false)?,
        (Some(_), Some(wanted)) => wanted,
        (None, None) => return Ok(()),
    };
    let merged = arranged(merged, &order, &server, field.merge_key)?;
    object.insert(name.to_owned(), Value::Array(merged));
    Ok(())
}

/// Two lists as one.
fn list(
    here: Vec<Value>,
    wanted: Vec<Value>,
    field: &Field<'_>,
    deletes: bool,
) -> Result<Vec<Value>, String> {
    let Some(first) = here.first().or(wanted.first()) else {
        return Ok(here);
    };
    let maps = first.is_object();
    let fits = |item: &Value| item.is_object() == maps && !item.is_array() && !item.is_null();
    if !here.iter().chain(&wanted).all(fits) {
        return Err("its items are not of one kind".to_owned());
    }
    if maps {
        return items(here, wanted, field);
    }
    let texts = |list: &[Value]| list.iter().map(Value::to_string).collect::<Vec<_>>();
    let (server, patch) = (texts(&here), texts(&wanted));
    if deletes {
        let gone: HashSet<&String> = patch.iter().collect();
        let kept = here.into_iter().zip(&server);
        return Ok(kept
            .filter(|(_, text)| !gone.contains(text))
            .map(|(item, _)| item)
            .collect());
    }
    let mut seen = HashSet::new();
    let mut both = here;
    both.extend(wanted);
    both.retain(|item| seen.insert(item.to_string()));
    arranged(both, &patch, &server, None)
}

/// Lists of maps with a key.
fn items(here: Vec<Value>, wanted: Vec<Value>, field: &Field<'_>) -> Result<Vec<Value>, String> {
    let Some(key) = field.merge_key.filter(|key| !key.is_empty()) else {
        return Err("its items have no key by which they are merged".to_owned());
    };
    let name = |item: &Value| identity(item, Some(key));
    let (mut here, mut plain_items) = (here, Vec::new());
    let (mut gone, mut replaces) = (HashSet::new(), false);
    for item in wanted {
        match item.get(DIRECTIVE).map(|directive| directive.as_str()) {
            None => plain_items.push(item),
            Some(Some("delete")) => drop(gone.insert(name(&item)?)),
            Some(Some("replace")) => replaces = true,
            Some(_) => {
                return Err(format!(
                    "{DIRECTIVE} can only be delete or replace in a list"
                ));
            }
        }
    }
    if replaces {
        return Ok(plain_items);
    }
    if !gone.is_empty() {
        here.retain(|item| name(item).is_ok_and(|name| !gone.contains(&name)));
    }
    let server: Vec<String> = here.iter().map(name).collect::<Result<_, _>>()?;
    let patch: Vec<String> = plain_items.iter().map(name).collect::<Result<_, _>>()?;
    let mut places = HashMap::new();
    for (place, name) in server.iter().enumerate() {
        places.entry(name.clone()).or_insert(place);
    }
    for (item, name) in plain_items.into_iter().zip(&patch) {
        match places.get(name) {
            Some(&place) => {
                if let (Value::Object(old), Value::Object(new)) = (here[place].take(), item) {
                    here[place] = Value::Object(merge(old, new, field.inside)?);
                }
            }
            None => {
                places.insert(name.clone(), here.len());
                here.extend(plain(item));
            }
        }
    }
    arranged(here, &patch, &server, Some(key))
}

/// What an item is known by: the value of its key, or, without one, itself.
fn identity(item: &Value, key: Option<&str>) -> Result<String, String> {
    match key {
        None => Ok(item.to_string()),
        Some(key) => item
            .get(key)
            .map(Value::to_string)
            .ok_or_else(|| format!("an item of a list lacks its key {key:?}")),
    }
}

/// Items in `order` stand in it, the others as on the server; where both were on the server, its order decides who is first, and else what is in
/// `order`.
fn arranged(
    merged: Vec<Value>,
    order: &[String],
    server: &[String],
    key: Option<&str>,
) -> Result<Vec<Value>, String> {
    let places = |list: &[String]| {
        let mut places = HashMap::new();
        for (place, name) in list.iter().enumerate() {
            places.entry(name.clone()).or_insert(place);
        }
        places
    };
    let (order, server) = (places(order), places(server));
    let (mut asked, mut others) = (Vec::new(), Vec::new());
    for item in merged {
        let name = identity(&item, key)?;
        let on_server = server.get(&name).copied();
        match order.get(&name) {
            Some(place) => asked.push((*place, on_server, item)),
            None => others.push((on_server.unwrap_or(usize::MAX), on_server, item)),
        }
    }
    asked.sort_by_key(|(place, ..)| *place);
    others.sort_by_key(|(place, ..)| *place);
    let mut out = Vec::with_capacity(asked.len() + others.len());
    let (mut asked, mut others) = (asked.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let other_first = match (asked.peek(), others.peek()) {
            (Some((_, Some(a), _)), Some((_, Some(o), _))) => o < a,
            (Some(_), _) => false,
            (None, Some(_)) => true,
            (None, None) => return Ok(out),
        };
        let next = if other_first {
            others.next()
        } else {
            asked.next()
        };
        out.extend(next.map(|(.., item)| item));
    }
}

/// A value of the patch that meets nothing: without nulls, and without what a directive takes away; nothing where it is a directive itself.
fn plain(value: Value) -> Option<Value> {
    Some(match value {
        Value::Object(map) => {
            if map.contains_key(DIRECTIVE) {
                return None;
            }
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(
                kept.filter_map(|(key, value)| Some((key, plain(value)?)))
                    .collect(),
            )
        }
        Value::Array(list) => Value::Array(list.into_iter().filter_map(plain).collect()),
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::schemas::{Document, Schemas};
    use super::*;

    /// The shape of a server's document, of a kind with a list by name, a list of texts, and a map that is replaced.
    const OPENAPI: &str = r##"{"paths":{"/api/v1/ws/{name}":{"parameters":[],"get":{},"patch":{"requestBody":{"content":{"application/strategic-merge-patch+json":{}}},"x-kubernetes-group-version-kind":{"group":"","kind":"W","version":"v1"}}}},
        "components":{"schemas":{
        "a.W":{"properties":{"spec":{"allOf":[{"$ref":"#/components/schemas/a.S"}],"default":{}}},"x-kubernetes-group-version-kind":[{"group":"","kind":"W","version":"v1"}]},
        "a.S":{"properties":{
          "containers":{"type":"array","items":{"allOf":[{"$ref":"#/components/schemas/a.C"}]},"x-kubernetes-patch-merge-key":"name","x-kubernetes-patch-strategy":"merge"},
          "finalizers":{"type":"array","items":{"type":"string"},"x-kubernetes-patch-strategy":"merge"},
          "args":{"type":"array","items":{"type":"string"}},
          "labels":{"type":"object","additionalProperties":{"type":"string"}},
          "free":{"type":"object","additionalProperties":true},
          "whole":{"type":"object","additionalProperties":{"type":"string"},"x-kubernetes-patch-strategy":"replace"},
          "strategy":{"allOf":[{"$ref":"#/components/schemas/a.C"}],"x-kubernetes-patch-strategy":"retainKeys"}}},
        "a.C":{"properties":{"name":{"type":"string"},"env":{"type":"array","items":{"$ref":"#/components/schemas/a.C"},"x-kubernetes-patch-merge-key":"name","x-kubernetes-patch-strategy":"merge"}}},
        "a.L":{"$ref":"#/components/schemas/a.L"}}}}"##;

    fn merged(spec: Value, patch: Value) -> Result<Value, String> {
        let mut schemas = Schemas::default();
        schemas.insert(
            "v1",
            Document::read(OPENAPI.as_bytes()).map_err(|e| e.to_string()),
        );
        let (Value::Object(object), Value::Object(patch)) =
            (json!({"spec": spec}), json!({"spec": patch}))
        else {
            unreachable!()
        };
        merge(object, patch, schemas.kind("v1", "W")?).map(|mut done| done["spec"].take())
    }

    #[test]
    fn maps_lists_and_directives_are_merged_as_kubernetes_does() {
        let two =
            || json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]});
        for (spec, patch, want) in [
            // By key: in place, and what is new comes first.
            (
                two(),
                json!({"containers": [{"name": "b", "image": "3"}]}),
                json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "3"}]}),
            ),
            (
                two(),
                json!({"containers": [{"name": "c", "x": null}]}),
                json!({"containers": [{"name": "c"}, {"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}),
            ),
            (
                two(),
                json!({"containers": [{"name": "a", "$patch": "delete"}]}),
                json!({"containers": [{"name": "b", "image": "2"}]}),
            ),
            (
                two(),
                json!({"containers": [{"$patch": "replace"}, {"name": "z"}]}),
                json!({"containers": [{"name": "z"}]}),
            ),
            (
                two(),
                json!({"containers": [{"name": "a", "env": [{"name": "E", "value": "1"}]}]}),
                json!({"containers": [{"name": "a", "image": "1", "env": [{"name": "E", "value": "1"}]}, {"name": "b", "image": "2"}]}),
            ),
            (
                two(),
                json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
                json!({"containers": [{"name": "b", "image": "2"}, {"name": "a", "image": "1"}]}),
            ),
            (
                two(),
                json!({"containers": [{"name": "c"}], "$setElementOrder/containers": [{"name": "a"}, {"name": "c"}, {"name": "b"}]}),
                json!({"containers": [{"name": "a", "image": "1"}, {"name": "c"}, {"name": "b", "image": "2"}]}),
            ),
            (
                json!({}),
                json!({"containers": [{"name": "c"}, {"name": "d", "$patch": "delete"}]}),
                json!({"containers": [{"name": "c"}]}),
            ),
            // Lists of texts.
            (
                json!({"finalizers": ["a", "b"]}),
                json!({"finalizers": ["c", "b"]}),
                json!({"finalizers": ["c", "a", "b"]}),
            ),
            (
                json!({"finalizers": ["a", "b"]}),
                json!({"$deleteFromPrimitiveList/finalizers": ["a"]}),
                json!({"finalizers": ["b"]}),
            ),
            (
                json!({"x": 1}),
                json!({"$deleteFromPrimitiveList/finalizers": ["a"]}),
                json!({"x": 1}),
            ),
            (
                json!({"args": ["a"]}),
                json!({"args": ["b"]}),
                json!({"args": ["b"]}),
            ),
            // Maps.
            (
                json!({"labels": {"a": "1", "b": "2"}}),
                json!({"labels": {"a": null, "c": "3"}}),
                json!({"labels": {"b": "2", "c": "3"}}),
            ),
            (
                json!({"labels": {"a": "1"}}),
                json!({"labels": {"$patch": "replace", "c": "3"}}),
                json!({"labels": {"c": "3"}}),
            ),
            (
                json!({"labels": {"a": "1"}}),
                json!({"labels": {"$patch": "delete"}}),
                json!({"labels": {}}),
            ),
            (
                json!({"whole": {"a": "1"}}),
                json!({"whole": {"b": "2"}}),
                json!({"whole": {"b": "2"}}),
            ),
            (
                json!({"free": {"a": [1], "m": {"x": 1}}}),
                json!({"free": {"a": [2], "m": {"y": 2}}}),
                json!({"free": {"a": [2], "m": {"x": 1, "y": 2}}}),
            ),
            (
                json!({"strategy": {"name": "a", "old": 1}}),
                json!({"strategy": {"$retainKeys": ["name"], "name": "b"}}),
                json!({"strategy": {"name": "b"}}),
            ),
            (
                json!({"labels": {"a": "1"}}),
                json!({"labels": null}),
                json!({}),
            ),
            (
                json!({"labels": {"a": "1"}}),
                json!({"labels": 7}),
                json!({"labels": 7}),
            ),
        ] {
            assert_eq!(merged(spec, patch.clone()).unwrap(), want, "{patch}");
        }
    }

    #[test]
    fn what_can_not_be_merged_says_why() {
        for (spec, patch) in [
            (
                json!({"containers": [{"name": "a"}]}),
                json!({"containers": [{"image": "1"}]}),
            ),
            (
                json!({"containers": [{"image": "1"}]}),
                json!({"containers": [{"name": "a"}]}),
            ),
            (
                json!({"containers": [{"name": "a"}]}),
                json!({"containers": [1]}),
            ),
            (json!({"containers": [[]]}), json!({"containers": [[]]})),
            (
                json!({"containers": [{"name": "a"}]}),
                json!({"containers": [{"name": "a", "$patch": "merge"}]}),
            ),
            (
                json!({"labels": {"a": "1"}}),
                json!({"labels": {"$patch": "other"}}),
            ),
            (
                json!({"strategy": {"name": "a"}}),
                json!({"strategy": {"$retainKeys": ["x"], "name": "b"}}),
            ),
            (
                json!({"strategy": {"name": "a"}}),
                json!({"strategy": {"$retainKeys": 1}}),
            ),
            (
                json!({"containers": [{"name": "a"}]}),
                json!({"containers": [{"name": "b"}], "$setElementOrder/containers": [{"name": "a"}]}),
            ),
            (
                json!({"containers": 1}),
                json!({"$setElementOrder/containers": []}),
            ),
        ] {
            assert!(merged(spec, patch.clone()).is_err(), "{patch}");
        }
        let mut schemas = Schemas::default();
        let document = || Document::read(OPENAPI.as_bytes()).map_err(|e| e.to_string());
        schemas.insert("v1", document());
        schemas.insert("gone/v1", Err("refused".into()));
        assert!(
            schemas
                .kind("v1", "Other")
                .unwrap_err()
                .contains("mergePatches")
        );
        assert!(
            schemas
                .kind("gone/v1", "W")
                .unwrap_err()
                .contains("refused")
        );
        assert!(schemas.kind("none/v1", "W").is_err());
        assert!(Document::read(b"{\"paths\": 1}").is_err());
    }
}
