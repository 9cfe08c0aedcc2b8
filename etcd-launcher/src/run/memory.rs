//! The last decision a member saw, on its own disk: what it goes by when the hosting API is away, and what keeps it from obeying an older one.
//!
//! `D/.restore-decision` has two slots of [`SLOT`] bytes, written in turns: CRC-32C, length, number of the write, JSON. A torn write leaves
//! the other slot. Both are allocated when the file is made, so that a full disk does not stop what is decided later.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use backup_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::records::Attempt;

/// The file's name in the data dir.
const NAME: &str = ".restore-decision";
/// More than an attempt of 32 members takes.
const SLOT: usize = 128 << 10;
const HEAD: usize = 16;

/// A restore as an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RestoreRef {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Remembered {
    /// Whose data dir this is.
    pub(crate) member: String,
    /// Who asked.
    pub(crate) restore: RestoreRef,
    /// The decision; none where no attempt was ever joined.
    pub(crate) attempt: Option<Attempt>,
    /// Whether nothing is left to do about it.
    pub(crate) closed: bool,
    /// The attempt that the StatefulSet said had ended last when this one was joined.
    pub(crate) end_before: String,
}

impl Remembered {
    /// The attempt that is not closed.
    pub(crate) fn open(&self) -> Option<&Attempt> {
        self.attempt.as_ref().filter(|_| !self.closed)
    }
}

/// The file.
pub(crate) struct Memory {
    path: PathBuf,
    file: Option<File>,
    count: u64,
    now: Remembered,
}

impl Memory {
    /// Reads it; makes nothing.
    ///
    /// # Errors
    /// Kind `Corrupt` where neither slot is whole.
    pub(crate) fn open(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join(NAME);
        let told = |e| Error::other(format!("can not read {}", path.display())).because(e);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self {
                    path,
                    file: None,
                    count: 0,
                    now: Remembered::default(),
                });
            }
            Err(e) => return Err(told(e)),
        };
        let mut best: Option<(u64, Remembered)> = None;
        let mut torn = 0;
        for index in 0..2 {
            let mut slot = vec![0; SLOT];
            let read = read_up_to(&file, &mut slot, index * SLOT as u64).map_err(told)?;
            slot.truncate(read);
            match parse(&slot) {
                Slot::Whole(count, found) => {
                    if best.as_ref().is_none_or(|(other, _)| *other < count) {
                        best = Some((count, *found));
                    }
                }
                Slot::Empty => {}
                Slot::Torn => torn += 1,
            }
        }
        // A first write that was cut off remembers nothing, and nothing was done by it.
        if best.is_none() && torn == 2 {
            return Err(Error::corrupt(format!("{} is damaged", path.display())).hint(
                "what lies where can be read without it: `etcd-launcher status`; move it away to forget the last decision",
            ));
        }
        let (count, now) = best.unwrap_or_default();
        Ok(Self {
            path,
            file: Some(file),
            count,
            now,
        })
    }

    /// What is remembered.
    pub(crate) fn now(&self) -> &Remembered {
        &self.now
    }

    /// Remembers something else, durably; nothing is written where it is the same.
    ///
    /// # Errors
    /// When it can not be written: then the old one is remembered still.
    pub(crate) fn set(&mut self, next: Remembered) -> Result<()> {
        if next == self.now && self.file.is_some() {
            return Ok(());
        }
        let told = |e: std::io::Error| {
            Error::other(format!("can not write {}", self.path.display())).because(e)
        };
        let json = serde_json::to_vec(&next)
            .map_err(|e| Error::other("can not write a decision as JSON").because(e))?;
        if json.len() + HEAD > SLOT {
            return Err(Error::other("the decision is larger than any that can be"));
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => make(&self.path).map_err(told)?,
        };
        let count = self.count + 1;
        let mut slot = Vec::with_capacity(HEAD + json.len());
        let mut covered = count.to_le_bytes().to_vec();
        covered.extend(&json);
        slot.extend(crc32c::crc32c(&covered).to_le_bytes());
        slot.extend((json.len() as u32).to_le_bytes());
        slot.extend(&covered);
        let written = file
            .write_all_at(&slot, count % 2 * SLOT as u64)
            .and_then(|()| file.sync_all());
        self.file = Some(file);
        written.map_err(told)?;
        self.count = count;
        self.now = next;
        Ok(())
    }
}

/// Both slots, allocated: zeros take part in a write of every block.
fn make(path: &Path) -> std::io::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(&vec![0; 2 * SLOT])?;
    file.sync_all()?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(file)
}

fn read_up_to(file: &File, into: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut read = 0;
    while read < into.len() {
        match file.read_at(&mut into[read..], offset + read as u64)? {
            0 => break,
            some => read += some,
        }
    }
    Ok(read)
}

enum Slot {
    Empty,
    Torn,
    Whole(u64, Box<Remembered>),
}

fn parse(slot: &[u8]) -> Slot {
    if slot.iter().all(|byte| *byte == 0) {
        return Slot::Empty;
    }
    let whole = || {
        let (crc, rest) = slot.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let covered = rest.get(..8 + u32::from_le_bytes(*length) as usize)?;
        if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (count, json) = covered.split_first_chunk::<8>()?;
        Some(Slot::Whole(
            u64::from_le_bytes(*count),
            serde_json::from_slice(json).ok()?,
        ))
    };
    whole().unwrap_or(Slot::Torn)
}

#[cfg(test)]
mod tests {
    use super::super::records::Step;
    use super::*;

    fn at(sequence: i64) -> Remembered {
        Remembered {
            attempt: Some(Attempt {
                id: "a".into(),
                sequence,
                step: Some(Step::Swapping),
                ..Attempt::default()
            }),
            ..Remembered::default()
        }
    }

    #[test]
    fn the_last_decision_is_read_back_and_a_torn_write_leaves_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let mut memory = Memory::open(folder.path()).unwrap();
        assert_eq!(memory.now().open(), None);
        for sequence in 1..=5 {
            memory.set(at(sequence)).unwrap();
            assert_eq!(Memory::open(folder.path()).unwrap().now(), &at(sequence));
        }
        let path = folder.path().join(NAME);
        let whole = std::fs::read(&path).unwrap();
        // The fifth write went to the second slot: cut it anywhere, or bend it.
        for cut in [SLOT, SLOT + 1, SLOT + 9, SLOT + 40, SLOT + 100] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(Memory::open(folder.path()).unwrap().now(), &at(4), "{cut}");
        }
        let mut bent = whole.clone();
        bent[SLOT + 30] ^= 1;
        std::fs::write(&path, &bent).unwrap();
        assert_eq!(Memory::open(folder.path()).unwrap().now(), &at(4));
        bent[30] ^= 1;
        std::fs::write(&path, &bent).unwrap();
        assert!(Memory::open(folder.path()).is_err(), "both are damaged");
    }

    #[test]
    fn a_file_that_was_only_begun_remembers_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        for bytes in [Vec::new(), vec![0; 100], vec![0; 2 * SLOT]] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(
                Memory::open(folder.path()).unwrap().now(),
                &Remembered::default()
            );
        }
    }
}
