//! Label selectors in kubectl's syntax.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::api::{LabelSelector, Requirement};
use crate::error::{Error, Result};

/// A label selector, parsed once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(pub LabelSelector);

impl Selector {
    /// Parses kubectl's syntax: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    ///
    /// # Errors
    /// `Invalid`, naming the position.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parser = Parser { text, at: 0 };
        let mut selector = LabelSelector::default();
        loop {
            let requirement = parser.requirement()?;
            let single = requirement.operator == "In" && requirement.values.len() == 1;
            if single && !selector.match_labels.contains_key(&requirement.key) {
                let value = requirement.values.into_iter().next().unwrap_or_default();
                selector.match_labels.insert(requirement.key, value);
            } else {
                selector.match_expressions.push(requirement);
            }
            match parser.token()? {
                Token::End => return Ok(Self(selector)),
                Token::Comma => {}
                other => return Err(parser.unexpected(&other, "',' or the end")),
            }
        }
    }

    /// Velero's `--or-selector`: selectors joined by ` or `.
    ///
    /// # Errors
    /// As [`Selector::parse`].
    pub fn parse_any(text: &str) -> Result<Vec<Self>> {
        text.split(" or ").map(Self::parse).collect()
    }

    /// Whether these labels match.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let equal = self
            .0
            .match_labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value));
        equal
            && self.0.match_expressions.iter().all(|requirement| {
                let value = labels.get(&requirement.key);
                let listed = value.is_some_and(|value| requirement.values.contains(value));
                match requirement.operator.as_str() {
                    "In" => listed,
                    "NotIn" => !listed,
                    "Exists" => value.is_some(),
                    "DoesNotExist" => value.is_none(),
                    // Nothing we can check: nothing is let through by it.
                    _ => false,
                }
            })
    }

    /// As the `labelSelector` parameter of a LIST (not yet percent-encoded).
    pub fn to_query(&self) -> String {
        let mut parts: Vec<String> = self
            .0
            .match_labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        for requirement in &self.0.match_expressions {
            let Requirement {
                key,
                operator,
                values,
            } = requirement;
            let mut part = String::new();
            // Writing to a String can not fail.
            let _ = match operator.as_str() {
                "NotIn" => write!(part, "{key} notin ({})", values.join(",")),
                "Exists" => write!(part, "{key}"),
                "DoesNotExist" => write!(part, "!{key}"),
                _ => write!(part, "{key} in ({})", values.join(",")),
            };
            parts.push(part);
        }
        parts.join(",")
    }
}

#[derive(Debug, PartialEq)]
enum Token<'a> {
    Word(&'a str),
    Comma,
    Open,
    Close,
    Not,
    Equal,
    NotEqual,
    Order(&'a str),
    End,
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn requirement(&mut self) -> Result<Requirement> {
        let build = |key: &str, operator: &str, values: Vec<String>| Requirement {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values,
        };
        let key = match self.token()? {
            Token::Not => {
                let key = self.key()?;
                return Ok(build(key, "DoesNotExist", Vec::new()));
            }
            Token::Word(key) => {
                self.check_key(key)?;
                key
            }
            other => return Err(self.unexpected(&other, "a label's key")),
        };
        let before = self.at;
        match self.token()? {
            Token::End | Token::Comma => {
                self.at = before;
                Ok(build(key, "Exists", Vec::new()))
            }
            Token::Equal => Ok(build(key, "In", vec![self.value()?])),
            Token::NotEqual => Ok(build(key, "NotIn", vec![self.value()?])),
            Token::Word("in") => Ok(build(key, "In", self.values()?)),
            Token::Word("notin") => Ok(build(key, "NotIn", self.values()?)),
            Token::Order(sign) => Err(self.error(
                self.at - sign.len(),
                "'<' and '>' can not be kept in a backup; use 'in' with the values",
            )),
            other => Err(self.unexpected(&other, "'=', '!=', 'in', 'notin' or ','")),
        }
    }

    fn key(&mut self) -> Result<&'a str> {
        match self.token()? {
            Token::Word(key) => {
                self.check_key(key)?;
                Ok(key)
            }
            other => Err(self.unexpected(&other, "a label's key")),
        }
    }

    /// The value after `=`; it may be empty.
    fn value(&mut self) -> Result<String> {
        let before = self.at;
        match self.token()? {
            Token::Word(value) => {
                self.check_value(value)?;
                Ok(value.to_owned())
            }
            Token::End | Token::Comma => {
                self.at = before;
                Ok(String::new())
            }
            other => Err(self.unexpected(&other, "a label's value")),
        }
    }

    /// `(a,b)`; an empty place is the empty value, as kubectl has it.
    fn values(&mut self) -> Result<Vec<String>> {
        match self.token()? {
            Token::Open => {}
            other => return Err(self.unexpected(&other, "'('")),
        }
        let mut values = Vec::new();
        let mut pending: Option<&str> = None;
        loop {
            match self.token()? {
                Token::Word(value) if pending.is_none() => {
                    self.check_value(value)?;
                    pending = Some(value);
                }
                Token::Comma => values.push(pending.take().unwrap_or_default().to_owned()),
                Token::Close => {
                    values.push(pending.take().unwrap_or_default().to_owned());
                    values.sort();
                    values.dedup();
                    return Ok(values);
                }
                other => return Err(self.unexpected(&other, "',' or ')'")),
            }
        }
    }

    fn token(&mut self) -> Result<Token<'a>> {
        let rest = &self.text[self.at..];
        let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        self.at += rest.len() - trimmed.len();
        let rest = trimmed;
        let (token, length) = match rest.as_bytes() {
            [] => (Token::End, 0),
            [b',', ..] => (Token::Comma, 1),
            [b'(', ..] => (Token::Open, 1),
            [b')', ..] => (Token::Close, 1),
            [b'!', b'=', ..] => (Token::NotEqual, 2),
            [b'!', ..] => (Token::Not, 1),
            [b'=', b'=', ..] => (Token::Equal, 2),
            [b'=', ..] => (Token::Equal, 1),
            [b'<' | b'>', ..] => (Token::Order(&rest[..1]), 1),
            _ => {
                let end = rest
                    .find([' ', '\t', '\r', '\n', ',', '(', ')', '!', '=', '<', '>'])
                    .unwrap_or(rest.len());
                (Token::Word(&rest[..end]), end)
            }
        };
        self.at += length;
        Ok(token)
    }

    fn check_key(&self, key: &str) -> Result<()> {
        let (prefix, name) = match key.split_once('/') {
            Some((prefix, name)) => (Some(prefix), name),
            None => (None, key),
        };
        let prefix_fits = prefix.is_none_or(|prefix| {
            prefix.len() <= 253
                && prefix.split('.').all(|label| {
                    !label.is_empty()
                        && !label.starts_with('-')
                        && !label.ends_with('-')
                        && label
                            .bytes()
                            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                })
        });
        if prefix_fits && !name.is_empty() && is_label_text(name) {
            Ok(())
        } else {
            Err(self.error(
                self.at - key.len(),
                &format!("{key:?} can not be a label's key"),
            ))
        }
    }

    fn check_value(&self, value: &str) -> Result<()> {
        if is_label_text(value) {
            Ok(())
        } else {
            Err(self.error(
                self.at - value.len(),
                &format!("{value:?} can not be a label's value"),
            ))
        }
    }

    fn unexpected(&self, token: &Token<'_>, wanted: &str) -> Error {
        let (seen, length) = match token {
            Token::Word(word) => (format!("{word:?}"), word.len()),
            Token::Comma => ("','".to_owned(), 1),
            Token::Open => ("'('".to_owned(), 1),
            Token::Close => ("')'".to_owned(), 1),
            Token::Not => ("'!'".to_owned(), 1),
            Token::Equal => ("'='".to_owned(), 1),
            Token::NotEqual => ("'!='".to_owned(), 2),
            Token::Order(sign) => (format!("'{sign}'"), 1),
            Token::End => ("the end".to_owned(), 0),
        };
        self.error(
            self.at.saturating_sub(length),
            &format!("{wanted} was expected, not {seen}"),
        )
    }

    fn error(&self, at: usize, why: &str) -> Error {
        let position = self.text[..at].chars().count() + 1;
        Error::invalid(format!(
            "the selector {:?} can not be understood at position {position}: {why}",
            self.text
        ))
        .hint("the syntax is kubectl's, for example app=web,tier!=cache,env in (dev,test),!canary")
    }
}

/// The alphabet of label names and values.
fn is_label_text(text: &str) -> bool {
    let end = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && end(bytes.first())
        && end(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
