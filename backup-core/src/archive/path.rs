//! The paths of objects in an archive: written and read here only. Names from outside are checked before they become part of a path.

use crate::error::{Error, Result};

/// The path of the format's version.
pub(super) const VERSION_PATH: &str = "metadata/version";

/// What stands in it.
pub(super) const VERSION_BODY: &[u8] = b"1.1.0\n";

/// Longest path taken from an archive.
const LONGEST_PATH: usize = 4096;

/// Which copy of an object a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copy<'a> {
    /// `resources/<resource>/namespaces/..`
    Plain,
    /// `resources/<resource>/<version>-preferredversion/..`
    Preferred(&'a str),
    /// `resources/<resource>/<version>/..`
    Other(&'a str),
}

/// A path of an object, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ObjectPath<'a> {
    pub(super) resource: &'a str,
    pub(super) copy: Copy<'a>,
    pub(super) namespace: Option<&'a str>,
    pub(super) name: &'a str,
}

impl<'a> ObjectPath<'a> {
    /// Takes a path apart; nothing where it is none of an object.
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let mut parts = [""; 5];
        let mut count = 0;
        for part in path.strip_prefix("resources/")?.split('/') {
            *parts.get_mut(count)? = part;
            count += 1;
        }
        let (copy, namespace, file) = match parts[1..count] {
            ["cluster", file] => (Copy::Plain, None, file),
            ["namespaces", namespace, file] => (Copy::Plain, Some(namespace), file),
            [version, "cluster", file] => (version_copy(version), None, file),
            [version, "namespaces", namespace, file] => {
                (version_copy(version), Some(namespace), file)
            }
            _ => return None,
        };
        let name = file.strip_suffix(".json")?;
        let full = |text: &str| !text.is_empty();
        (full(parts[0]) && full(name) && namespace.is_none_or(full)).then_some(Self {
            resource: parts[0],
            copy,
            namespace,
            name,
        })
    }
}

fn version_copy(version: &str) -> Copy<'_> {
    version
        .strip_suffix("-preferredversion")
        .map_or(Copy::Other(version), Copy::Preferred)
}

/// `ns/name`, or `name`: the key of an object within its resource.
pub(super) fn key(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

/// The path of an object's copy; `folder` is empty or ends in a slash.
pub(super) fn object(resource: &str, folder: &str, namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => {
            format!("resources/{resource}/{folder}namespaces/{namespace}/{name}.json")
        }
        None => format!("resources/{resource}/{folder}cluster/{name}.json"),
    }
}

/// Checks a name that becomes one segment of a path. Kubernetes itself allows all but `.`, `..`, `/` and `%` (RBAC names hold `:`).
pub(super) fn check_segment(what: &str, text: &str) -> Result<()> {
    let why = if text.is_empty() {
        "it is empty"
    } else if text == "." || text == ".." {
        "it would leave its folder"
    } else if text.contains('/') {
        "it has a slash"
    } else if text.contains('\0') {
        "it has a NUL"
    } else if text.len() > LONGEST_PATH / 4 {
        "it is too long"
    } else {
        return Ok(());
    };
    let shown: String = text.chars().take(300).collect();
    Err(Error::invalid(format!(
        "{what} {shown:?} can not stand in an archive: {why}"
    )))
}

/// Whether it can be the name of a namespace.
pub(crate) fn is_dns_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Checks a namespace read from an archive: it becomes a part of a URL.
pub(super) fn check_namespace(text: &str) -> Result<()> {
    if is_dns_label(text) {
        return Ok(());
    }
    let shown: String = text.chars().take(300).collect();
    Err(Error::invalid(format!(
        "{shown:?} can not be the name of a namespace"
    )))
}

/// Checks a path read from an archive and takes a leading `./` off.
pub(super) fn check_path(path: &[u8]) -> Result<&str> {
    let shown = String::from_utf8_lossy(&path[..path.len().min(300)]).into_owned();
    let bad = |why: &str| Error::corrupt(format!("archive entry {shown:?} {why}"));
    if path.len() > LONGEST_PATH {
        return Err(bad("has too long a name"));
    }
    let path = std::str::from_utf8(path).map_err(|_| bad("has a name that is not UTF-8"))?;
    if path.contains('\0') {
        return Err(bad("has a NUL in its name"));
    }
    if path.starts_with('/') {
        return Err(bad("has an absolute name"));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(bad("has a name that leaves its folder"));
    }
    Ok(path.strip_prefix("./").unwrap_or(path))
}
