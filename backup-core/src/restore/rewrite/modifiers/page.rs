//! Reads resource modifiers as Velero's ConfigMaps hold them:
//!
//! ```yaml
//! version: v1
//! resourceModifierRules:
//! - conditions:
//!     groupResource: persistentvolumeclaims   # needed; a pattern: deployments.apps, *.apps, {pods,services}
//!     resourceNameRegex: "^mysql.*$"          # anywhere in the name, unless it says ^ and $
//!     namespaces: [bar, foo]                  # of the backup, patterns; none is all
//!     labelSelector: {matchLabels: {foo: bar}}
//!     matches: [{path: /spec/storageClassName, value: premium}]
//!   patches:                                  # RFC 6902; or mergePatches, or strategicPatches, each with patchData
//!   - {operation: replace, path: /spec/storageClassName, value: standard}
//! ```
//!
//! A value is a text that is read as JSON where it looks like it: true, null, a number, `{…}`, `[…]`; in double quotes of its own (`"\"1\""`) it is a
//! text in any case, and its escapes are JSON's. What Velero would only find out with the first object (a regular expression that is
//! none, an unknown operation, a rule without patches) is refused here. Everything is bounded by [`LARGEST`].

use std::fmt::Write as _;

use regex_lite::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::json_patch::{Operation, Pointer, Verb};
use super::{Change, Modifiers, Pattern, Rule};
use crate::api::LabelSelector;
use crate::error::{Error, Result};
use crate::filter::{Filter, Selector};
use crate::restore::rewrite::sha256;
use crate::restore::rewriting::yaml;

/// No text of rules is larger, bytes: what a ConfigMap may hold.
const LARGEST: usize = 1 << 20;
/// No pattern or regular expression is longer, bytes.
const LONGEST: usize = 4096;
/// What a compiled expression may take, bytes.
const COMPILED: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Page {
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    resource_modifier_rules: Option<Vec<RuleText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RuleText {
    #[serde(default)]
    conditions: Conditions,
    #[serde(default)]
    patches: Option<Vec<OperationText>>,
    #[serde(default)]
    merge_patches: Option<Vec<PatchText>>,
    #[serde(default)]
    strategic_patches: Option<Vec<PatchText>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Conditions {
    namespaces: Option<Vec<String>>,
    group_resource: Option<String>,
    resource_name_regex: Option<String>,
    label_selector: Option<LabelSelector>,
    matches: Option<Vec<Match>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Match {
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    value: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OperationText {
    #[serde(default)]
    operation: Option<String>,
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    value: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PatchText {
    #[serde(default)]
    patch_data: Option<String>,
}

/// Reads the rules.
///
/// # Errors
/// `Invalid`, naming the rule and what is wrong with it.
pub(super) fn read(text: &str) -> Result<Modifiers> {
    if text.len() > LARGEST {
        return Err(Error::invalid(
            "the resource modifiers are larger than 1 MiB",
        ));
    }
    let page: Page = yaml(text).map_err(|e| e.context("these are no resource modifiers"))?;
    let version = page.version.unwrap_or_default();
    if !version.eq_ignore_ascii_case("v1") {
        return Err(
            Error::invalid(format!("the resource modifiers are of version {version:?}"))
                .hint("write `version: v1`"),
        );
    }
    let rules = page.resource_modifier_rules.unwrap_or_default();
    if rules.is_empty() {
        return Err(Error::invalid("the resource modifiers hold no rule"));
    }
    let rules = (1..)
        .zip(rules)
        .map(|(number, text): (usize, _)| {
            rule(text).map_err(|e| e.context(format!("rule {number} of the resource modifiers")))
        })
        .collect::<Result<_>>()?;
    Ok(Modifiers {
        rules,
        digest: sha256(text.as_bytes()),
    })
}

fn rule(text: RuleText) -> Result<Rule> {
    let conditions = text.conditions;
    let pattern = conditions.group_resource.unwrap_or_default();
    if pattern.is_empty() {
        return Err(Error::invalid("its groupResource is empty")
            .hint("write the kinds it is for, such as deployments.apps"));
    }
    let namespaces = Filter {
        namespaces: conditions
            .namespaces
            .unwrap_or_default()
            .into_iter()
            .filter(|namespace| !namespace.is_empty())
            .collect(),
        ..Filter::default()
    };
    // Velero takes `*` beside others.
    for namespace in &namespaces.namespaces {
        Filter {
            namespaces: vec![namespace.clone()],
            ..Filter::default()
        }
        .validate()?;
    }
    let matches = conditions
        .matches
        .unwrap_or_default()
        .into_iter()
        .map(|condition| {
            let path = condition.path.unwrap_or_default();
            Ok(Operation {
                verb: Verb::Test,
                path: pointer("path", &path)?,
                from: Pointer::default(),
                value: value(&condition.value.unwrap_or_default())?,
            })
        })
        .collect::<Result<_>>()?;
    Ok(Rule {
        resource: if pattern.contains(['*', '?', '[', '{', '\\']) {
            let regex = translated(&pattern)?;
            Pattern::Expression(expression("groupResource", &pattern, &regex)?)
        } else {
            Pattern::Name(pattern)
        },
        namespaces,
        name: conditions
            .resource_name_regex
            .filter(|regex| !regex.is_empty())
            .map(|regex| expression("resourceNameRegex", &regex, &regex))
            .transpose()?,
        labels: conditions.label_selector.map(selector).transpose()?,
        matches,
        change: change(
            text.patches.unwrap_or_default(),
            text.merge_patches.unwrap_or_default(),
            text.strategic_patches.unwrap_or_default(),
        )?,
    })
}

fn change(
    operations: Vec<OperationText>,
    merges: Vec<PatchText>,
    strategic: Vec<PatchText>,
) -> Result<Change> {
    match (
        operations.is_empty(),
        merges.is_empty(),
        strategic.is_empty(),
    ) {
        (false, true, true) => (1..)
            .zip(operations)
            .map(|(number, text): (usize, _)| {
                operation(text).map_err(|e| e.context(format!("its patch {number}")))
            })
            .collect::<Result<_>>()
            .map(Change::Json),
        (true, false, true) => patches(merges).map(Change::Merge),
        (true, true, false) => patches(strategic).map(Change::Strategic),
        (true, true, true) => Err(Error::invalid("it holds no patches")),
        _ => Err(Error::invalid(
            "it holds more than one of patches, mergePatches and strategicPatches",
        )
        .hint("write a rule for each")),
    }
}

fn operation(text: OperationText) -> Result<Operation> {
    let name = text.operation.unwrap_or_default();
    let verb = Verb::named(&name).ok_or_else(|| {
        Error::invalid(format!("{name:?} is no operation"))
            .hint("add, remove, replace, move, copy and test are")
    })?;
    let from = text.from.unwrap_or_default();
    let value = match verb {
        Verb::Add | Verb::Replace | Verb::Test => value(&text.value.unwrap_or_default())?,
        Verb::Remove | Verb::Move | Verb::Copy => Value::Null,
    };
    Ok(Operation {
        verb,
        path: pointer("path", &text.path.unwrap_or_default())?,
        from: match verb {
            Verb::Move | Verb::Copy => pointer("from", &from)?,
            _ => Pointer::default(),
        },
        value,
    })
}

fn pointer(what: &str, text: &str) -> Result<Pointer> {
    if text.is_empty() {
        return Err(Error::invalid(format!("its {what} is empty")));
    }
    Pointer::parse(text).ok_or_else(|| {
        Error::invalid(format!(
            "its {what} {:?} is no path in an object",
            shown(text)
        ))
        .hint("write it as /spec/replicas; in a name ~1 is a slash and ~0 a tilde")
    })
}

/// A value as Velero reads it.
fn value(text: &str) -> Result<Value> {
    let quoted = text.starts_with('"') && text.ends_with('"');
    let is_json = !text.is_empty()
        && !quoted
        && (text == "null"
            || text.eq_ignore_ascii_case("true")
            || text.eq_ignore_ascii_case("false")
            || text.starts_with(['{', '['])
            || text.parse::<f64>().is_ok());
    let inner = if quoted {
        text.strip_prefix('"')
            .map(|rest| rest.strip_suffix('"').unwrap_or(rest))
            .unwrap_or_default()
    } else {
        text
    };
    let read = if is_json {
        serde_json::from_str(text)
    } else {
        serde_json::from_str(&format!("\"{inner}\""))
    };
    read.map_err(|e| {
        Error::invalid(format!("its value {:?} is no JSON", shown(text)))
            .because(e)
            .hint("in a text \\\" stands for a quote and \\n for a line break; a text that looks like a number stands in quotes of its own")
    })
}

fn patches(texts: Vec<PatchText>) -> Result<Vec<Map<String, Value>>> {
    texts
        .into_iter()
        .map(|text| {
            let data = text.patch_data.unwrap_or_default();
            let value: Value = yaml(&data).map_err(|e| e.context("its patchData"))?;
            match value {
                Value::Object(map) if !map.is_empty() => Ok(map),
                _ => Err(Error::invalid("its patchData is no object")
                    .hint("write the fields to change, such as {\"spec\": {\"replicas\": 1}}")),
            }
        })
        .collect()
}

fn selector(selector: LabelSelector) -> Result<Selector> {
    for requirement in &selector.match_expressions {
        let values = !requirement.values.is_empty();
        let fits = match requirement.operator.as_str() {
            "In" | "NotIn" => values,
            "Exists" | "DoesNotExist" => !values,
            _ => false,
        };
        if !fits {
            return Err(Error::invalid(format!(
                "its labelSelector has {:?} with {} values for {:?}",
                requirement.operator,
                requirement.values.len(),
                requirement.key
            ))
            .hint("In and NotIn have values, Exists and DoesNotExist have none"));
        }
    }
    Ok(Selector(selector))
}

fn expression(what: &str, shown_as: &str, text: &str) -> Result<Regex> {
    let refused = |why: Error| {
        Error::invalid(format!(
            "its {what} {:?} is no expression that can be matched",
            shown(shown_as)
        ))
        .because(why)
    };
    if shown_as.len() > LONGEST {
        return Err(refused(Error::invalid(format!(
            "it is longer than {LONGEST} bytes"
        ))));
    }
    RegexBuilder::new(text)
        .size_limit(COMPILED)
        .build()
        .map_err(|e| refused(Error::invalid(e.to_string())))
}

/// A pattern of `groupResource` as a regular expression: `*` and `?` do not mean a dot, `**` does; `[a-z]`, `[!a-z]`, `{a,b}`, `\x`.
fn translated(pattern: &str) -> Result<String> {
    let unfinished = || {
        Error::invalid(format!(
            "its groupResource {:?} is not finished",
            shown(pattern)
        ))
    };
    let mut out = String::from("^(?:");
    let mut depth = 0_u32;
    let mut characters = pattern.chars().peekable();
    let literal = |out: &mut String, c: char| {
        if c.is_ascii_alphanumeric() {
            out.push(c);
        } else {
            // Writing to a String can not fail.
            let _ = write!(out, "\\x{{{:x}}}", u32::from(c));
        }
    };
    while let Some(c) = characters.next() {
        match c {
            '*' if characters.next_if_eq(&'*').is_some() => {
                while characters.next_if_eq(&'*').is_some() {}
                out.push_str(".*");
            }
            '*' => out.push_str("[^.]*"),
            '?' => out.push_str("[^.]"),
            '{' => {
                depth += 1;
                out.push_str("(?:");
            }
            '}' if depth > 0 => {
                depth -= 1;
                out.push(')');
            }
            ',' if depth > 0 => out.push('|'),
            '\\' => literal(&mut out, characters.next().ok_or_else(unfinished)?),
            '[' => {
                out.push('[');
                if characters.next_if_eq(&'!').is_some() {
                    out.push('^');
                }
                let mut any = false;
                loop {
                    match characters.next().ok_or_else(unfinished)? {
                        ']' if any => break,
                        '-' if any && characters.peek().is_some_and(|c| *c != ']') => out.push('-'),
                        c => literal(&mut out, c),
                    }
                    any = true;
                }
                out.push(']');
            }
            c => literal(&mut out, c),
        }
    }
    if depth > 0 {
        return Err(unfinished());
    }
    out.push_str(")$");
    Ok(out)
}

/// The beginning of a text, for a message.
fn shown(text: &str) -> String {
    const MOST: usize = 80;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST).chain(['…']).collect()
}
