//! Names of snapshots: how they are made, and which one somebody means. Pure: what there is, is an argument.
//!
//! A snapshot is called `<config>-YYYY-MM-DDthh-mm-ss`, by its slot in UTC. KKP's documentation, its status and its bucket write the
//! same name in other ways: with the cluster before it, with `T` and `:` in the time, with `.db` or `.db.gz` at the end. All of them are
//! understood. What no snapshot or more than one answers to is an error: a restore never guesses.

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::name::Name;

/// No name of an EtcdBackupConfig is longer: with the time behind it, it is still the name of an object.
pub const LONGEST_CONFIG: usize = 232;

/// No name that is asked for is longer: cluster, config, time and ending.
const LONGEST_ASKED: usize = 512;

/// More candidates than that are not listed in a message.
const MOST_LISTED: usize = 10;

/// Endings of files that are no part of a name.
const ENDINGS: [&str; 5] = [".db.gz", ".db.gzip", ".db.zst", ".db", ".gz"];

/// `YYYY-MM-DDthh-mm-ss`, a digit for each 0.
const TIME: &[u8; 19] = b"0000-00-00t00-00-00";

/// The name of the snapshot of this config that was due at `slot`.
///
/// # Errors
/// `Invalid`: a config whose name is none of an object, or longer than [`LONGEST_CONFIG`].
pub fn of(config: &str, slot: Timestamp) -> Result<Name> {
    if config.len() > LONGEST_CONFIG {
        return Err(Error::invalid(format!(
            "the name of EtcdBackupConfig {config:?} is longer than {LONGEST_CONFIG} characters"
        ))
        .hint("its snapshots are named after it and the time: choose a shorter one"));
    }
    Name::foreign(&format!("{config}-{}", slot.strftime("%Y-%m-%dt%H-%M-%S")))
}

/// A name as somebody wrote it, of a snapshot of one cluster.
#[derive(Clone, Debug)]
pub struct Asked {
    text: String,
    cluster: String,
    key: String,
}

impl Asked {
    /// Reads a name that is asked for; `cluster` is the one whose snapshot it is.
    ///
    /// # Errors
    /// `Invalid`: what can not be a name, such as one with `/` or `..`.
    pub fn parse(text: &str, cluster: &str) -> Result<Self> {
        check(text)?;
        Ok(Self {
            text: text.to_owned(),
            cluster: format!("{cluster}-"),
            key: key(text),
        })
    }

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a snapshot that is called so may be meant.
    pub fn means(&self, known: &str) -> bool {
        let known = key(known);
        let bare = |name: &'_ str| name.strip_prefix(&self.cluster).map(str::to_owned);
        known == self.key
            || bare(&self.key).is_some_and(|asked| asked == known)
            || bare(&known).is_some_and(|known| known == self.key)
    }

    /// The one of these snapshots that is meant; one that is listed twice under one name is one.
    ///
    /// # Errors
    /// `NotFound` where none is, `Invalid` where several are; the hint lists what there is.
    pub fn choose<'a, T>(&self, known: &'a [T], name: impl Fn(&T) -> &str) -> Result<&'a T> {
        let mut found: Vec<&T> = Vec::new();
        for one in known.iter().filter(|one| self.means(name(one))) {
            if found.iter().all(|other| name(other) != name(one)) {
                found.push(one);
            }
        }
        match found[..] {
            [one] => Ok(one),
            [] => {
                let error = Error::not_found(format!("snapshot {:?} is not there", self.text));
                let mut names: Vec<&str> = Vec::new();
                for one in known {
                    if !names.contains(&name(one)) {
                        names.push(name(one));
                    }
                }
                Err(if names.is_empty() {
                    error.hint("there is none at all")
                } else {
                    error.hint(format!("there are: {}", listed(&names)))
                })
            }
            _ => {
                let names: Vec<_> = found.iter().map(|one| name(one)).collect();
                Err(Error::invalid(format!(
                    "snapshot {:?} may be {} of them",
                    self.text,
                    names.len()
                ))
                .hint(format!(
                    "give one of these with {:?} before it: {}",
                    self.cluster,
                    listed(&names)
                )))
            }
        }
    }
}

/// Refuses what can not be a name of a snapshot: it becomes part of a key in a bucket.
///
/// # Errors
/// `Invalid`.
pub fn check(text: &str) -> Result<()> {
    let bad = |why: &str| {
        Err(
            Error::invalid(format!("snapshot name {text:?} is not allowed: {why}")).hint(
                "give the name alone, as `kubectl backup etcd get` lists it: no folder, no bucket, no URL",
            ),
        )
    };
    if text.is_empty() {
        return bad("it is empty");
    }
    if text.len() > LONGEST_ASKED {
        return Err(Error::invalid(format!(
            "a snapshot name of {} characters is not allowed",
            text.len()
        ))
        .hint(format!("a name has at most {LONGEST_ASKED}")));
    }
    if text.contains('/') || text.contains('\\') {
        return bad("it has a slash");
    }
    if text.contains("..") {
        return bad("it has two dots in a row");
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
    if !text.bytes().all(plain) {
        return bad("it has characters other than letters, digits, '-', '.', '_' and ':'");
    }
    let ends = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    if !ends(text.bytes().next()) || !ends(text.bytes().last()) {
        return bad("it starts and ends with a letter or digit");
    }
    Ok(())
}

/// What two writings of one name have in common.
fn key(text: &str) -> String {
    let stem = ENDINGS
        .iter()
        .find_map(|ending| text.strip_suffix(ending))
        .filter(|stem| !stem.is_empty())
        .unwrap_or(text);
    let Some(start) = stem.len().checked_sub(TIME.len()) else {
        return stem.to_owned();
    };
    let (Some(before), Some(time)) = (stem.get(..start), stem.get(start..)) else {
        return stem.to_owned();
    };
    let is_time = time.bytes().zip(TIME).all(|(b, want)| match want {
        b'0' => b.is_ascii_digit(),
        b't' => matches!(b, b'T' | b't'),
        _ => matches!(b, b'-' | b':'),
    });
    // `:` stands in the time of day only.
    if !is_time || time.as_bytes().iter().take(10).any(|b| *b == b':') {
        return stem.to_owned();
    }
    format!("{before}{}", time.replace(':', "-").replace('T', "t"))
}

fn listed(names: &[&str]) -> String {
    let more = names.len().saturating_sub(MOST_LISTED);
    let shown = names[..names.len() - more].join(", ");
    match more {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Kind;

    const KNOWN: [&str; 3] = [
        "daily-backup-2021-03-02t15-24-00",
        "daily-backup-2021-03-03t15-24-00",
        "weekly-2021-03-02t15-24-00",
    ];

    fn find<'a>(asked: &str, known: &'a [&'a str]) -> Result<&'a str> {
        let asked = Asked::parse(asked, "zvc78xnnz7")?;
        asked.choose(known, |name| name).copied()
    }

    #[test]
    fn a_snapshot_is_named_by_its_slot_in_utc() {
        let slot = "2021-03-02T16:24:00+01:00".parse().unwrap();
        let name = of("daily-backup", slot).unwrap();
        assert_eq!(name.as_str(), KNOWN[0]);
        assert!(of(&"a".repeat(LONGEST_CONFIG), slot).is_ok());
        assert!(of(&"a".repeat(LONGEST_CONFIG + 1), slot).is_err());
        assert!(of("../a", slot).is_err());
    }

    #[test]
    fn every_writing_of_kkp_finds_the_snapshot() {
        for asked in [
            "daily-backup-2021-03-02t15-24-00",
            "daily-backup-2021-03-02T15:24:00",
            "daily-backup-2021-03-02T15-24-00",
            "daily-backup-2021-03-02t15-24-00.db.gz",
            "daily-backup-2021-03-02t15-24-00.db",
            "daily-backup-2021-03-02t15-24-00.db.zst",
            "zvc78xnnz7-daily-backup-2021-03-02T15:24:00",
            "zvc78xnnz7-daily-backup-2021-03-02t15-24-00.db.gz",
        ] {
            assert_eq!(find(asked, &KNOWN).unwrap(), KNOWN[0], "{asked}");
        }
        // KKP's own list has the cluster before the name.
        let theirs = ["zvc78xnnz7-jobtest1-2021-03-16T03:48:00"];
        assert_eq!(
            find("jobtest1-2021-03-16t03-48-00.db.gz", &theirs).unwrap(),
            theirs[0]
        );
        // A one-shot of KKP's has no time.
        assert_eq!(find("once.db.gz", &["once", "twice"]).unwrap(), "once");
    }

    #[test]
    fn no_match_lists_what_there_is() {
        let refused = find("daily-backup", &KNOWN).unwrap_err();
        assert_eq!(refused.kind(), Kind::NotFound);
        assert!(refused.hint_text().unwrap().contains(KNOWN[2]));
        let other_cluster = find("abc-daily-backup-2021-03-02t15-24-00", &KNOWN).unwrap_err();
        assert_eq!(other_cluster.kind(), Kind::NotFound);
        let many: Vec<_> = (0..30).map(|n| format!("s-{n}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let refused = find("x", &many).unwrap_err();
        assert!(refused.hint_text().unwrap().ends_with("and 20 more"));
        assert_eq!(
            find("x", &[]).unwrap_err().hint_text(),
            Some("there is none at all")
        );
    }

    #[test]
    fn two_matches_are_an_error_and_each_can_still_be_named() {
        // Two configs, one named after the cluster: the same words mean both.
        let known = ["x-2021-03-02t15-24-00", "zvc78xnnz7-x-2021-03-02t15-24-00"];
        for asked in [known[0], known[1], "zvc78xnnz7-x-2021-03-02T15:24:00.db"] {
            let refused = find(asked, &known).unwrap_err();
            assert_eq!(refused.kind(), Kind::Invalid, "{asked}");
            let hint = refused.hint_text().unwrap();
            assert!(hint.contains(known[0]) && hint.contains(known[1]), "{hint}");
        }
        assert_eq!(
            find("zvc78xnnz7-zvc78xnnz7-x-2021-03-02t15-24-00", &known).unwrap(),
            known[1]
        );
        // A row that is listed twice is one snapshot.
        assert_eq!(find(KNOWN[0], &[KNOWN[0], KNOWN[0]]).unwrap(), KNOWN[0]);
    }

    #[test]
    fn what_could_leave_its_folder_is_refused() {
        for bad in [
            "",
            "/",
            "a/b",
            "../a",
            "a..b",
            "..",
            ".",
            "-a",
            "a-",
            "a b",
            "a\0",
            "a\n",
            "\u{e4}",
            "a\\b",
            "s3://b/k",
            &"a".repeat(LONGEST_ASKED + 1),
        ] {
            assert_eq!(
                find(bad, &KNOWN).unwrap_err().kind(),
                Kind::Invalid,
                "{bad:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,60}", known in ".{0,60}") {
            let _ = find(&text, &[&known]);
        }

        #[test]
        fn a_name_finds_itself_and_nothing_of_another_second(config in "[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", second in 0_i64..4_000_000_000, later in 1_i64..100_000) {
            let at = |second| Timestamp::from_second(second).unwrap();
            let one = of(&config, at(second)).unwrap();
            let other = of(&config, at(second + later)).unwrap();
            let names = [one.as_str(), other.as_str()];
            prop_assert_eq!(find(one.as_str(), &names).unwrap(), one.as_str());
            let kkp = one.as_str().replace('t', "T");
            let written = format!("{}{}.db.gz", &one.as_str()[..config.len()], &kkp[config.len()..]);
            prop_assert_eq!(find(&written, &names).unwrap(), one.as_str());
        }
    }
}
