//! How lists of built-in kinds are merged: the `x-kubernetes-patch-*` extensions of a server's OpenAPI v3 documents. Reads what it is given; knows
//! no server.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::error::{Error, Result};

/// The content type that a server takes for kinds that can be merged so; it does not for those of a CustomResourceDefinition.
const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// References that are followed one after the other.
const HOPS: usize = 16;

/// Documents by `apiVersion`; of those that could not be had, why.
#[derive(Debug, Default)]
pub(in super::super::super) struct Schemas(BTreeMap<String, Result<Document, String>>);

impl Schemas {
    /// Adds the document of one group and version, or why there is none.
    pub(in super::super::super) fn insert(
        &mut self,
        api_version: &str,
        document: Result<Document, String>,
    ) {
        self.0.insert(api_version.to_owned(), document);
    }

    /// The fields of a kind.
    ///
    /// # Errors
    /// Why it can not be merged, in words.
    pub(super) fn kind(&self, api_version: &str, kind: &str) -> Result<Node<'_>, String> {
        let document = match self.0.get(api_version) {
            Some(Ok(document)) => document,
            Some(Err(why)) => {
                return Err(format!(
                    "how {api_version} is merged could not be asked of the target: {why}"
                ));
            }
            None => {
                return Err(format!(
                    "the target does not tell how {api_version} is merged"
                ));
            }
        };
        if !document.mergeable.contains(kind) {
            return Err(format!(
                "the target takes no strategic merge patch for {api_version} {kind}; use mergePatches"
            ));
        }
        let schema = document
            .kinds
            .get(kind)
            .and_then(|name| document.schemas.get(name));
        Ok(Node { document, schema })
    }
}

/// One OpenAPI v3 document, as far as merging needs it.
#[derive(Debug)]
pub(in super::super::super) struct Document {
    schemas: HashMap<String, Schema>,
    /// Kind to the name of its schema.
    kinds: HashMap<String, String>,
    /// Kinds that the server itself merges so.
    mergeable: HashSet<String>,
}

impl Document {
    /// Reads one.
    ///
    /// # Errors
    /// `Corrupt`, when it is none.
    pub(in super::super::super) fn read(body: &[u8]) -> Result<Self> {
        let text: Text = serde_json::from_slice(body)
            .map_err(|e| Error::corrupt("the answer is no OpenAPI v3 document").because(e))?;
        let kinds = text
            .components
            .schemas
            .iter()
            .flat_map(|(name, schema)| schema.kinds.iter().map(move |kind| (&kind.kind, name)))
            .map(|(kind, name)| (kind.clone(), name.clone()))
            .collect();
        let mergeable = text
            .paths
            .into_values()
            .filter_map(|item| item.patch)
            .filter(|patch| patch.body.content.contains_key(STRATEGIC))
            .filter_map(|patch| patch.kind)
            .map(|kind| kind.kind)
            .collect();
        Ok(Self {
            schemas: text.components.schemas,
            kinds,
            mergeable,
        })
    }
}

/// A place in a kind; where nothing is known of it, maps are merged and lists replaced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'d> {
    document: &'d Document,
    schema: Option<&'d Schema>,
}

/// A field of a place.
pub(super) struct Field<'d> {
    /// What is in it, or in each of its items.
    pub(super) inside: Node<'d>,
    /// Whether lists are merged instead of replaced.
    pub(super) merges: bool,
    /// Whether maps are replaced instead of merged.
    pub(super) replaces: bool,
    /// The key by which items are one and the same.
    pub(super) merge_key: Option<&'d str>,
}

impl<'d> Node<'d> {
    /// A field by its name.
    pub(super) fn field(&self, name: &str) -> Field<'d> {
        let schema = self.resolved(self.schema);
        let field = schema.and_then(|schema| {
            let named = schema.properties.get(name);
            named.or(schema.additional.as_deref())
        });
        let strategies = field
            .and_then(|f| f.strategy.as_deref())
            .unwrap_or_default();
        let has = |wanted: &str| strategies.split(',').any(|strategy| strategy == wanted);
        let resolved = self.resolved(field);
        let inside = match resolved.and_then(|schema| schema.items.as_deref()) {
            Some(items) => Some(items),
            None => resolved,
        };
        Field {
            inside: Self {
                document: self.document,
                schema: inside,
            },
            merges: has("merge"),
            replaces: has("replace"),
            merge_key: field.and_then(|f| f.merge_key.as_deref()),
        }
    }

    fn resolved(&self, mut schema: Option<&'d Schema>) -> Option<&'d Schema> {
        for _ in 0..HOPS {
            let here = schema?;
            let inner = here.all_of.first();
            schema = match (&here.reference, inner) {
                (Some(reference), _) => self
                    .document
                    .schemas
                    .get(reference.rsplit('/').next().unwrap_or_default()),
                (None, Some(inner)) => Some(inner),
                (None, None) => return Some(here),
            };
        }
        None
    }
}

#[derive(Deserialize)]
struct Text {
    #[serde(default)]
    paths: HashMap<String, Item>,
    #[serde(default)]
    components: Components,
}

#[derive(Default, Deserialize)]
struct Components {
    #[serde(default)]
    schemas: HashMap<String, Schema>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    patch: Option<Patch>,
}

#[derive(Deserialize)]
struct Patch {
    #[serde(default, rename = "requestBody")]
    body: Body,
    #[serde(default, rename = "x-kubernetes-group-version-kind")]
    kind: Option<Named>,
}

#[derive(Default, Deserialize)]
struct Body {
    #[serde(default)]
    content: HashMap<String, IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Named {
    #[serde(default)]
    kind: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Schema {
    #[serde(rename = "$ref")]
    reference: Option<String>,
    #[serde(rename = "allOf")]
    all_of: Vec<Self>,
    properties: HashMap<String, Self>,
    items: Option<Box<Self>>,
    #[serde(rename = "additionalProperties", deserialize_with = "schema_only")]
    additional: Option<Box<Self>>,
    #[serde(rename = "x-kubernetes-patch-strategy")]
    strategy: Option<String>,
    #[serde(rename = "x-kubernetes-patch-merge-key")]
    merge_key: Option<String>,
    #[serde(rename = "x-kubernetes-group-version-kind")]
    kinds: Vec<Named>,
}

/// `additionalProperties` is a schema or a boolean; the boolean says nothing of merging.
fn schema_only<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Box<Schema>>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    if !value.is_object() {
        return Ok(None);
    }
    serde_json::from_value(value)
        .map(Some)
        .map_err(serde::de::Error::custom)
}
