//! Whether what stands in a volume is what was sent there: entry by entry, in the order of a listing, at the cost of a few bytes an entry. Pure.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::location::Sha256;
use crate::volume::entry::Entry;

/// So many entries are remembered at most, at 16 bytes each, and some more for those with several names.
const MOST: u64 = 50_000_000;

/// So many are named.
const NAMED: usize = 10;

/// What kernels keep for themselves: neither restored everywhere nor the same there.
const LABEL: &str = "security.selinux";

/// Of one entry: what of it is its content, and all of it that a restore brings back.
type Prints = (u64, u64);

/// What was sent, in its order.
#[derive(Debug)]
pub(in super::super) struct Sent {
    prints: Vec<Prints>,
    names: Names,
    /// No more is sent: each is kept in memory.
    most: u64,
}

/// The first place of each file that has several names, by its number on its device.
#[derive(Debug, Default)]
struct Names(HashMap<(u64, u64), u64>);

impl Names {
    /// Where the first name of this file is; nothing for what has one.
    fn first(&mut self, entry: &Entry, place: u64) -> u64 {
        if !entry.is_file() || entry.links < 2 {
            return u64::MAX;
        }
        *self.0.entry((entry.device, entry.inode)).or_insert(place)
    }
}

fn print(entry: &Entry, first: u64) -> Prints {
    let mut content = Sha256::default();
    let mut field = |bytes: &[u8]| {
        content.update(&(bytes.len() as u64).to_be_bytes());
        content.update(bytes);
    };
    field(entry.path.as_bytes());
    let (kind, target, device) = entry.what.parts();
    field(&[kind]);
    field(target);
    field(&device.to_be_bytes());
    field(&(if entry.is_file() { entry.size } else { 0 }).to_be_bytes());
    let mut all = content.clone();
    let mut field = |bytes: &[u8]| {
        all.update(&(bytes.len() as u64).to_be_bytes());
        all.update(bytes);
    };
    for number in [entry.mode, entry.uid, entry.gid, entry.mtime.1] {
        field(&number.to_be_bytes());
    }
    field(&entry.mtime.0.to_be_bytes());
    field(&first.to_be_bytes());
    for one in entry.attributes.iter().filter(|one| one.name != LABEL) {
        field(one.name.as_bytes());
        field(&one.value);
    }
    (short(content), short(all))
}

/// Enough of a digest to tell two entries apart.
fn short(digest: Sha256) -> u64 {
    let digest = digest.finish();
    digest
        .get(..16)
        .and_then(|text| u64::from_str_radix(text, 16).ok())
        .unwrap_or_default()
}

impl Sent {
    /// Nothing yet, of a snapshot that has so many entries by what its backup says.
    pub(in super::super) fn of(entries: u64) -> Self {
        Self {
            prints: Vec::new(),
            names: Names::default(),
            most: entries.min(MOST),
        }
    }

    /// Notes the next entry that is sent.
    ///
    /// # Errors
    /// The snapshot has more than its backup says, or than is restored.
    pub(in super::super) fn note(&mut self, entry: &Entry) -> Result<()> {
        let place = self.count();
        if place >= self.most {
            return Err(Error::corrupt(format!(
                "the snapshot has more entries than the {} that it may have: {} is one more",
                self.most, entry.path
            ))
            .hint(format!("the backup says how many there are, and no more than {MOST} are restored into a claim; restic restores any")));
        }
        let first = self.names.first(entry, place);
        self.prints.push(print(entry, first));
        Ok(())
    }

    /// How many there were.
    pub(in super::super) fn count(&self) -> u64 {
        self.prints.len() as u64
    }
}

/// What stands, as it is listed.
#[derive(Debug)]
pub(in super::super) struct Standing<'s> {
    sent: &'s Sent,
    names: Names,
    place: usize,
    differ: Vec<String>,
    differ_count: u64,
}

impl<'s> Standing<'s> {
    pub(in super::super) fn new(sent: &'s Sent) -> Self {
        Self {
            sent,
            names: Names::default(),
            place: 0,
            differ: Vec::new(),
            differ_count: 0,
        }
    }

    /// Takes the next entry that is listed.
    ///
    /// # Errors
    /// It is not the one that was sent, but for who owns it and the like.
    pub(in super::super) fn take(&mut self, entry: &Entry) -> Result<()> {
        let first = self.names.first(entry, self.place as u64);
        let (content, all) = print(entry, first);
        let Some((sent, whole)) = self.sent.prints.get(self.place) else {
            return Err(other(format!("{} was not sent", entry.path)));
        };
        if *sent != content {
            return Err(other(format!(
                "{} is not what was sent in its place",
                entry.path
            )));
        }
        if *whole != all {
            self.differ_count += 1;
            if self.differ.len() < NAMED {
                self.differ.push(entry.path.to_string());
            }
        }
        self.place += 1;
        Ok(())
    }

    /// All was listed. Gives back how many entries have another owner, mode, time, attribute or link than they had, and the first of them.
    ///
    /// # Errors
    /// Some are missing.
    pub(in super::super) fn end(self) -> Result<(u64, Vec<String>)> {
        let missing = self.sent.prints.len() - self.place;
        if missing > 0 {
            return Err(other(format!("{missing} entries are missing at its end")));
        }
        Ok((self.differ_count, self.differ))
    }
}

fn other(what: String) -> Error {
    Error::other(format!(
        "what stands in the volume is not what the snapshot holds: {what}"
    ))
    .hint("somebody else writes to it, or it takes not everything; the volume was not handed over")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::entry::tests::entry;
    use crate::volume::entry::{Attribute, Moment, What};

    fn tree() -> Vec<Entry> {
        let link = What::Link {
            target: b"a".to_vec(),
        };
        let mut all = vec![
            entry("", What::Folder, 0),
            entry("a", What::File, 3),
            entry("b", What::File, 3),
            entry("c", What::File, 3),
            entry("l", link, 0),
        ];
        for place in [1, 2] {
            (all[place].links, all[place].inode) = (2, 20);
        }
        all
    }

    fn compare(stands: &[Entry]) -> Result<(u64, Vec<String>)> {
        let mut sent = Sent::of(5);
        tree().iter().try_for_each(|entry| sent.note(entry))?;
        let mut standing = Standing::new(&sent);
        for entry in stands {
            standing.take(entry)?;
        }
        standing.end()
    }

    #[test]
    fn the_same_tree_on_another_device_is_the_same() {
        let mut stands = tree();
        for entry in &mut stands {
            (entry.device, entry.inode, entry.ctime) = (99, entry.inode + 50, Moment(0, 0));
            entry.attributes.push(Attribute {
                name: LABEL.into(),
                value: vec![1],
            });
        }
        assert_eq!(compare(&stands).unwrap(), (0, Vec::new()));
    }

    #[test]
    fn a_snapshot_of_more_entries_than_its_backup_says_is_refused_before_they_fill_the_memory() {
        let mut sent = Sent::of(4);
        let all = tree();
        all[..4]
            .iter()
            .try_for_each(|entry| sent.note(entry))
            .unwrap();
        let error = sent.note(&all[4]).unwrap_err();
        assert!(
            error.to_string().contains("more entries than the 4"),
            "{error}"
        );
        assert_eq!(Sent::of(u64::MAX).most, MOST);
    }

    #[test]
    fn content_that_is_missing_or_other_is_refused() {
        let refused = |change: &dyn Fn(&mut Vec<Entry>)| {
            let mut stands = tree();
            change(&mut stands);
            compare(&stands).unwrap_err()
        };
        for error in [
            refused(&|all| drop(all.pop())),
            refused(&|all| drop(all.remove(1))),
            refused(&|all| all.push(entry("z", What::File, 0))),
            refused(&|all| all[3].size = 2),
            refused(&|all| all[3].what = What::Fifo),
            refused(&|all| {
                all[4].what = What::Link {
                    target: b"b".to_vec(),
                }
            }),
            refused(&|all| all.clear()),
        ] {
            assert!(
                error.to_string().contains("not what the snapshot holds"),
                "{error}"
            );
        }
    }

    #[test]
    fn owners_and_the_like_that_differ_are_named() {
        type Change = fn(&mut Entry);
        let changes: [Change; 4] = [
            |entry| entry.uid += 1,
            |entry| entry.mode = 0o600,
            |entry| entry.mtime = Moment(3, 0),
            |entry| {
                entry.attributes.push(Attribute {
                    name: "user.a".into(),
                    value: vec![1],
                });
            },
        ];
        for change in changes {
            let mut stands = tree();
            change(&mut stands[3]);
            assert_eq!(compare(&stands).unwrap(), (1, vec!["c".to_owned()]));
        }
        let mut apart = tree();
        (apart[2].links, apart[2].inode) = (1, 21);
        assert_eq!(
            compare(&apart).unwrap().1,
            ["b"],
            "a link that became a file"
        );
    }
}
