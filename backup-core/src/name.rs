//! Names that were checked once and are trusted afterwards. Nothing here does I/O.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// A backup's or restore's name: a DNS-1123 subdomain of at most 63 characters, so that it fits a label value, a
/// Kubernetes object name and one path segment of a bucket. (Velero allows 253; longer names of foreign backups are
/// read through [`Name::foreign`].)
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// The name of something another tool wrote: up to 253 characters, the same alphabet.
    ///
    /// # Errors
    /// `Invalid`, when it can not be a Kubernetes object name.
    pub fn foreign(text: &str) -> Result<Self, Error> {
        check(text, 253).map(|()| Self(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(text: &str, longest: usize) -> Result<(), Error> {
    let bad = |why: &str| {
        Err(Error::invalid(format!("name {text:?} is not allowed: {why}"))
            .hint("use lower-case letters, digits, '-' and '.', starting and ending with a letter or digit"))
    };
    if text.is_empty() {
        return bad("it is empty");
    }
    if text.len() > longest {
        return bad(&format!("it is longer than {longest} characters"));
    }
    for label in text.split('.') {
        if label.is_empty() || label.starts_with('-') || label.ends_with('-') {
            return bad("each part between dots starts and ends with a letter or digit");
        }
        if !label
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        {
            return bad("it has characters other than lower-case letters, digits, '-' and '.'");
        }
    }
    Ok(())
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        check(text, 63).map(|()| Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name as a label's value: Velero's way with those over 63 characters, their first 57 and 6 of their digest.
pub fn label_value(name: &str) -> String {
    if name.len() <= 63 {
        return name.to_owned();
    }
    let mut value = name.chars().take(57).collect::<String>();
    value.extend(crate::location::sha256(name.as_bytes()).chars().take(6));
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_folder_or_break_a_label_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "../a",
            "A",
            "a_b",
            "-a",
            "a-",
            "a..b",
            "a.",
            "ä",
            " a",
            &"a".repeat(64),
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        for good in ["a", "nightly-20261121020000", "a.b", "0", &"a".repeat(63)] {
            assert!(good.parse::<Name>().is_ok(), "{good:?}");
        }
        assert!(Name::foreign(&"a".repeat(253)).is_ok());
    }
}
