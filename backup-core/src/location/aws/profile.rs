//! The files of AWS's tools, `credentials` and `config`: sections of `key = value`
//! (<https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>). Pure; no value of a file gets into a message.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// The lines of a section, keys in lower case.
pub(super) type Profile = BTreeMap<String, String>;

/// All sections of a file, in its order.
pub(super) struct Profiles<'a> {
    /// The file, for messages.
    pub(super) path: &'a str,
    sections: Vec<(String, Profile)>,
}

impl<'a> Profiles<'a> {
    /// Reads a file. A section that comes twice is one, and what comes later counts.
    ///
    /// # Errors
    /// A file that is no text.
    pub(super) fn read(file: &[u8], path: &'a str) -> Result<Self> {
        let text = std::str::from_utf8(file)
            .map_err(|e| Error::invalid(format!("{path} is not text")).because(e))?;
        let mut sections: Vec<(String, Profile)> = Vec::new();
        let mut current = None;
        let mut nests = false;
        for line in text.trim_start_matches('\u{feff}').lines() {
            let indented = line.starts_with([' ', '\t']);
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some((name, _)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                let name = name.trim();
                let name = name.strip_prefix("profile ").map_or(name, str::trim);
                let known = sections.iter().position(|(known, _)| known == name);
                current = Some(known.unwrap_or_else(|| {
                    sections.push((name.to_owned(), Profile::new()));
                    sections.len() - 1
                }));
                nests = false;
            } else if let (Some(at), Some((key, value))) = (current, line.split_once('=')) {
                // What is indented below a key without a value belongs to that key.
                if indented && nests {
                    continue;
                }
                nests = value.trim().is_empty();
                let (key, value) = (key.trim().to_ascii_lowercase(), value.trim().to_owned());
                sections[at].1.insert(key, value);
            }
        }
        Ok(Self { path, sections })
    }

    /// A section, where there is one of this name.
    pub(super) fn find(&self, name: &str) -> Option<&Profile> {
        let mut all = self.sections.iter();
        all.find(|(known, _)| known == name)
            .map(|(_, profile)| profile)
    }

    /// The section of this name; `named_by` says who names it, for the message.
    ///
    /// # Errors
    /// A file without it, with the names there are.
    pub(super) fn get(&self, name: &str, named_by: &str) -> Result<&Profile> {
        self.find(name).ok_or_else(|| {
            let names = self.sections.iter().take(20);
            let names: Vec<_> = names.map(|(name, _)| name.as_str()).collect();
            let names = if names.is_empty() {
                "it has none; the file begins with [default]".to_owned()
            } else {
                format!("it has: {}", names.join(", "))
            };
            Error::invalid(format!("{} has no profile [{name}]", self.path))
                .hint(format!("{names}; {named_by} chooses one"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_of_both_files_are_read_and_what_is_nested_is_passed_over() {
        let text = "\u{feff}# comment\nstray = x\n[default]\nregion = eu-1\ns3 =\n  endpoint_url = https://elsewhere\n  region=x\nOutput=json\n[ profile work ]\n role_arn=a=b\n; no\n[default]\nregion=eu-2\n[empty]\n";
        let profiles = Profiles::read(text.as_bytes(), "/f").unwrap();
        let default = profiles.find("default").unwrap();
        assert_eq!(default["region"], "eu-2");
        assert_eq!(default["output"], "json");
        assert!(!default.contains_key("endpoint_url"));
        assert_eq!(profiles.find("work").unwrap()["role_arn"], "a=b");
        assert!(profiles.find("empty").unwrap().is_empty());
        let error = profiles.get("x", "config.profile").unwrap_err();
        assert_eq!(error.to_string(), "/f has no profile [x]");
        assert_eq!(
            error.hint_text(),
            Some("it has: default, work, empty; config.profile chooses one")
        );
        assert!(Profiles::read(b"\xff", "/f").is_err());
    }
}
