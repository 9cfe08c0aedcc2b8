//! What came of a restore: counted and kept within bounds while it works, then Velero's side files.

use std::collections::BTreeMap;
use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Action, Step};
use crate::error::{Error, Result};
use crate::hooks::restored::Word;

/// Errors and warnings kept word for word.
const KEPT: usize = 10_000;

/// Sentences about objects, by namespace.
#[derive(Debug, Default)]
struct Sentences {
    count: u64,
    kept: Vec<(Option<String>, String)>,
}

impl Sentences {
    fn add(&mut self, namespace: Option<&str>, text: String) {
        self.count += 1;
        if self.kept.len() < KEPT {
            self.kept.push((namespace.map(str::to_owned), text));
        }
    }

    fn texts(&self) -> Vec<String> {
        self.kept.iter().map(|(_, text)| text.clone()).collect()
    }

    /// Velero's shape.
    fn to_json(&self) -> Value {
        let mut cluster = Vec::new();
        let mut namespaces: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (namespace, text) in &self.kept {
            match namespace {
                Some(namespace) => namespaces.entry(namespace).or_default().push(text),
                None => cluster.push(text.as_str()),
            }
        }
        json!({"velero": [], "cluster": cluster, "namespaces": namespaces})
    }
}

/// Everything that is told afterwards.
pub(super) struct Record {
    counts: [u64; 4],
    errors: Sentences,
    warnings: Sentences,
    /// By kind, `ns/name(created)` in JSON with commas: one text each, so that 260,000 entries are a few megabytes.
    lists: BTreeMap<String, Vec<u8>>,
    log: GzEncoder<Vec<u8>>,
    /// Hooks that were to run, and how many of them failed.
    hooks: (u64, u64),
}

impl Record {
    pub(super) fn new() -> Self {
        Self {
            counts: [0; 4],
            errors: Sentences::default(),
            warnings: Sentences::default(),
            lists: BTreeMap::new(),
            log: GzEncoder::new(Vec::new(), Compression::fast()),
            hooks: (0, 0),
        }
    }

    /// Counts a step; `mine` is whether this restore made the object, now or earlier.
    ///
    /// # Errors
    /// Never in practice.
    pub(super) fn step(&mut self, step: &Step, mine: bool, warn: bool) -> Result<()> {
        // Velero knows four words.
        let (slot, mut word) = match step.action {
            Action::Created => (0, "created"),
            Action::Updated | Action::Recreated => (1, "updated"),
            Action::Skipped | Action::Untried => (2, "skipped"),
            Action::Failed => (3, "failed"),
        };
        self.counts[slot] += 1;
        let path = step.path();
        let text = format!("{} {path}: {}", step.kind, step.reason);
        let level = if step.action == Action::Failed {
            self.errors.add(step.namespace.as_deref(), text);
            "error"
        } else if warn {
            self.warnings.add(step.namespace.as_deref(), text);
            "warning"
        } else {
            "info"
        };
        self.log(level, &format!("{} {path} {word}", step.kind), &step.reason)?;
        if mine && step.action == Action::Skipped {
            word = "created";
        }
        let list = self.lists.entry(step.kind.clone()).or_default();
        if !list.is_empty() {
            list.push(b',');
        }
        serde_json::to_writer(list, &format!("{path}({word})"))
            .map_err(|e| Error::other("a line of the report can not be written").because(e))
    }

    /// Notes in the log what went well.
    ///
    /// # Errors
    /// Never in practice.
    pub(super) fn tell(&mut self, text: &str) -> Result<()> {
        self.log("info", text, "")
    }

    /// Notes a warning that is about no single object of the backup.
    ///
    /// # Errors
    /// Never in practice.
    pub(super) fn warn(&mut self, namespace: Option<&str>, text: String) -> Result<()> {
        self.log("warning", &text, "")?;
        self.warnings.add(namespace, text);
        Ok(())
    }

    /// Notes an error that is about no single object of the backup.
    ///
    /// # Errors
    /// Never in practice.
    pub(super) fn fail(&mut self, namespace: Option<&str>, text: String) -> Result<()> {
        self.log("error", &text, "")?;
        self.errors.add(namespace, text);
        Ok(())
    }

    /// Notes what came of a hook.
    ///
    /// # Errors
    /// Never in practice.
    pub(super) fn hook(&mut self, word: Word) -> Result<()> {
        let Word {
            namespace,
            line,
            failure,
        } = word;
        self.hooks.0 += 1;
        self.hooks.1 += u64::from(failure.is_some());
        let namespace = Some(namespace.as_str());
        let level = match &failure {
            None => "info",
            Some((false, _)) => "warning",
            Some((true, _)) => "error",
        };
        self.log(level, &line, "")?;
        match failure {
            None => {}
            Some((false, text)) => self.warnings.add(namespace, text),
            Some((true, text)) => self.errors.add(namespace, text),
        }
        Ok(())
    }

    /// `hookStatus`, as Velero counts, where there were any.
    pub(super) fn hook_status(&self) -> Option<Value> {
        let (attempted, failed) = self.hooks;
        (attempted > 0).then(|| json!({"hooksAttempted": attempted, "hooksFailed": failed}))
    }

    fn log(&mut self, level: &str, text: &str, reason: &str) -> Result<()> {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        let text = if reason.is_empty() {
            json!(text)
        } else {
            json!(format!("{text}: {reason}"))
        };
        writeln!(self.log, "time=\"{now}\" level={level} msg={text}")
            .map_err(|e| Error::other("the log can not be written").because(e))
    }

    pub(super) fn counts(&self) -> [u64; 4] {
        self.counts
    }

    pub(super) fn errors(&self) -> (u64, Vec<String>) {
        (self.errors.count, self.errors.texts())
    }

    pub(super) fn warnings(&self) -> (u64, Vec<String>) {
        (self.warnings.count, self.warnings.texts())
    }

    /// `{"errors":R,"warnings":R}`, gzip.
    ///
    /// # Errors
    /// Never in practice.
    pub(super) fn results(&self) -> Result<Bytes> {
        gzip(
            json!({"errors": self.errors.to_json(), "warnings": self.warnings.to_json()})
                .to_string()
                .as_bytes(),
        )
    }

    /// `{"<apiVersion>/<Kind>": ["ns/name(created)"]}`, gzip.
    ///
    /// # Errors
    /// Never in practice.
    pub(super) fn resource_list(&self) -> Result<Bytes> {
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        let write = |gz: &mut GzEncoder<Vec<u8>>| {
            gz.write_all(b"{")?;
            for (position, (kind, list)) in self.lists.iter().enumerate() {
                let comma = if position > 0 { "," } else { "" };
                write!(gz, "{comma}{}:[", Value::from(kind.as_str()))?;
                gz.write_all(list)?;
                gz.write_all(b"]")?;
            }
            gz.write_all(b"}")
        };
        write(&mut gz)
            .and_then(|()| gz.finish())
            .map(Bytes::from)
            .map_err(|e| Error::other("the list of objects can not be packed").because(e))
    }

    /// The log, gzip.
    ///
    /// # Errors
    /// Never in practice.
    pub(super) fn into_log(self) -> Result<Bytes> {
        self.log
            .finish()
            .map(Bytes::from)
            .map_err(|e| Error::other("the log can not be packed").because(e))
    }
}

/// Gzip of a small text.
///
/// # Errors
/// Never in practice.
pub(super) fn gzip(text: &[u8]) -> Result<Bytes> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::default());
    gz.write_all(text)
        .and_then(|()| gz.finish())
        .map(Bytes::from)
        .map_err(|e| Error::other("a file of the report can not be packed").because(e))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn the_list_of_objects_has_veleros_suffixes() {
        let mut record = Record::new();
        for (name, action, mine) in [
            ("a", Action::Created, true),
            ("b", Action::Skipped, true),
            ("c", Action::Failed, false),
        ] {
            let step = Step {
                kind: "v1/Pod".into(),
                namespace: Some("n".into()),
                name: name.into(),
                action,
                reason: "because".into(),
            };
            record.step(&step, mine, false).unwrap();
        }
        let mut text = String::new();
        flate2::read::GzDecoder::new(&record.resource_list().unwrap()[..])
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(
            text,
            r#"{"v1/Pod":["n/a(created)","n/b(created)","n/c(failed)"]}"#
        );
        assert_eq!(record.counts(), [1, 0, 1, 1]);
        assert_eq!(record.errors().1, ["v1/Pod n/c: because"]);
    }
}
