//! Versions of etcd and its tools, as far as they decide what can be restored with what. Pure.

use std::fmt;
use std::str::FromStr;

use backup_core::{Error, Result};

/// A version of etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    /// Major and minor: a release line, which shares one format of the database.
    pub(crate) line: Line,
    patch: u32,
}

/// A release line, as 3.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line(u32, u32);

impl Line {
    /// The last one whose databases do not name their version.
    pub(crate) const V3_5: Self = Self(3, 5);
}

impl Version {
    /// Whether etcdutl of this version can raise the revision: since 3.5.10.
    pub(crate) fn can_bump(self) -> bool {
        self >= Self {
            line: Line::V3_5,
            patch: 10,
        }
    }

    /// The version in what a program prints: the first thing that looks like one.
    pub(crate) fn printed(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(|word| word.parse().ok())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.line, self.patch)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl FromStr for Version {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("{text:?} is no version of etcd"));
        let plain = text.strip_prefix('v').unwrap_or(text);
        let plain = plain.split(['-', '+']).next().unwrap_or(plain);
        let mut parts = plain.splitn(3, '.').map(|part| part.parse::<u32>().ok());
        match (parts.next(), parts.next(), parts.next()) {
            (Some(Some(major)), Some(Some(minor)), Some(Some(patch))) => Ok(Self {
                line: Line(major, minor),
                patch,
            }),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_programs_print() {
        let of = |text| Version::printed(text).map(|v| v.to_string());
        assert_eq!(
            of("etcdutl version: 3.6.16\nAPI version: 3.6\n").as_deref(),
            Some("3.6.16")
        );
        assert_eq!(
            of("etcd Version: 3.5.21\nGit SHA: x\n").as_deref(),
            Some("3.5.21")
        );
        assert_eq!(
            of("etcdutl version: 3.6.0-rc.1\n").as_deref(),
            Some("3.6.0")
        );
        assert_eq!(of("API version: 3.6"), None);
    }

    #[test]
    fn a_bump_needs_3_5_10() {
        let can = |text: &str| text.parse::<Version>().unwrap().can_bump();
        assert!(!can("3.5.9"));
        assert!(can("3.5.10"));
        assert!(can("3.6.0"));
        assert!(!can("3.4.33"));
        assert!("3.6".parse::<Version>().is_err());
    }
}
