//! The journal of a data dir: lines that are on disk before what they announce is done. Reads and writes them; decides nothing.
//!
//! A line is eight hex digits, CRC-32C of what follows the space, a space, an [`Entry`] as JSON. What a crash tore off at the
//! end is ignored when it is read and cut off when the next line is written; anything else that is damaged is refused.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use backup_core::{Error, Result};

use super::entry::{Attempt, Entry};
use super::files::{Files, Kind};
use super::step::Step;

/// Its name in the data dir.
pub(crate) const NAME: &str = ".restore-journal";

/// Thousands of attempts; more is no journal of ours.
const LONGEST: u64 = 16 << 20;

/// Room for every record that a rollback needs, set aside with each plan.
const RESERVED: u64 = 64 << 10;

/// The lines, and where the next one goes.
pub(crate) struct Journal {
    files: Arc<dyn Files>,
    path: PathBuf,
    end: u64,
    /// Whether this process made sure that the file's name survives.
    is_named: bool,
    attempts: Vec<Attempt>,
    hook: Option<Hook>,
}

/// Called right after a record is durable.
pub(crate) type Hook = Box<dyn Fn(Step) + Send + Sync>;

impl Journal {
    /// Reads it; an absent one is empty.
    ///
    /// # Errors
    /// Kind `Corrupt` for a line that no crash can have left.
    pub(crate) fn read(files: Arc<dyn Files>, path: PathBuf) -> Result<Self> {
        let told = |e: io::Error| {
            Error::other(format!("can not read the journal {}", path.display())).because(e)
        };
        let exists = files.kind(&path).map_err(told)? != Kind::Absent;
        let bytes = if exists {
            files.read(&path, LONGEST + 1).map_err(told)?
        } else {
            Vec::new()
        };
        let damaged = |at: usize| {
            Error::corrupt(format!("line {at} of the journal {} is damaged", path.display())).hint(
                "what lies where can be read without it: `etcd-launcher status`; move the journal away to begin a new one",
            )
        };
        if bytes.len() as u64 > LONGEST {
            return Err(damaged(0));
        }
        let mut attempts: Vec<Attempt> = Vec::new();
        let (mut end, mut torn) = (0, None);
        for (index, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
            let Some(json) = whole(line) else {
                torn.get_or_insert(index + 1);
                continue;
            };
            if let Some(at) = torn {
                return Err(damaged(at));
            }
            let entry: Entry = serde_json::from_slice(json).map_err(|e| {
                damaged(index + 1)
                    .because(e)
                    .hint("a newer etcd-launcher may have written it: use that one")
            })?;
            add(&mut attempts, &entry).ok_or_else(|| damaged(index + 1))?;
            end += line.len() as u64;
        }
        Ok(Self {
            files,
            path,
            end,
            is_named: false,
            attempts,
            hook: None,
        })
    }

    /// Has this called after each record.
    pub(crate) fn set_hook(&mut self, hook: Hook) {
        self.hook = Some(hook);
    }

    /// All attempts, the oldest first.
    pub(crate) fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// Writes a line; when this returns, no crash takes it back.
    ///
    /// # Errors
    /// When it can not be written, or can not follow what was written last of that attempt.
    pub(crate) fn append(&mut self, entry: &Entry) -> Result<()> {
        let mut attempts = self.attempts.clone();
        add(&mut attempts, entry).ok_or_else(|| {
            Error::other(format!(
                "attempt {} can not come to {} now",
                entry.attempt,
                entry.step.name()
            ))
        })?;
        let json = serde_json::to_string(entry)
            .map_err(|e| Error::other("can not write a record as JSON").because(e))?;
        let line = format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()));
        self.write(line.as_bytes(), entry.step == Step::Planned)
            .map_err(|e| {
                Error::other(format!("can not write the journal {}", self.path.display()))
                    .because(e)
            })?;
        self.end += line.len() as u64;
        self.is_named = true;
        self.attempts = attempts;
        if let Some(hook) = &self.hook {
            hook(entry.step);
        }
        Ok(())
    }

    fn write(&self, line: &[u8], reserve: bool) -> io::Result<()> {
        self.files.write_at(&self.path, self.end, line)?;
        if reserve {
            self.files.reserve(&self.path, RESERVED)?;
        }
        self.files.sync(&self.path)?;
        // A crash may have left a name that is not durable yet.
        match self.path.parent() {
            Some(folder) if !self.is_named => self.files.sync(folder),
            _ => Ok(()),
        }
    }
}

fn add(attempts: &mut Vec<Attempt>, entry: &Entry) -> Option<()> {
    if let Some(attempt) = attempts.iter_mut().find(|a| *a.id() == entry.attempt) {
        return attempt.go_on(entry).then_some(());
    }
    attempts.push(Attempt::begin(entry)?);
    Some(())
}

/// The JSON of a line that was written to its end.
fn whole(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\n")?;
    let (sum, rest) = line.split_at_checked(8)?;
    let json = rest.strip_prefix(b" ")?;
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    (crc32c::crc32c(json) == sum).then_some(json)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::files::model::Model;
    use super::super::plan::{self, AttemptId, Plan};
    use super::*;

    const PATH: &str = "/d/.restore-journal";

    fn files() -> Arc<Model> {
        let model = Model::new(true);
        model.create_folder(Path::new("/d")).unwrap();
        Arc::new(model.settled())
    }

    fn journal(files: &Arc<Model>) -> Result<Journal> {
        Journal::read(Arc::clone(files) as Arc<dyn Files>, PATH.into())
    }

    fn planned() -> (Plan, Entry) {
        let plan = plan::plan(plan::tests::inputs()).unwrap();
        let mut entry = Entry::new(&plan.attempt, Step::Planned);
        entry.plan = Some(Box::new(plan.clone()));
        (plan, entry)
    }

    #[test]
    fn lines_are_read_back_and_a_torn_one_is_cut_off() {
        let files = files();
        let (plan, entry) = planned();
        journal(&files).unwrap().append(&entry).unwrap();
        let whole = files.read(Path::new(PATH), LONGEST).unwrap();
        for torn in [
            b"0".as_slice(),
            b"\0\0\0\0",
            b"12345678 {\"at\":\n",
            b"x\ny\n",
        ] {
            files
                .write_at(Path::new(PATH), whole.len() as u64, torn)
                .unwrap();
            let mut read = journal(&files).unwrap();
            assert_eq!(read.attempts()[0].plan, plan);
            read.append(&Entry::new(&plan.attempt, Step::Abandoned))
                .unwrap();
            let again = journal(&files).unwrap();
            assert_eq!(again.attempts()[0].step, Step::Abandoned);
            files.write_at(Path::new(PATH), 0, &whole).unwrap();
        }
    }

    #[test]
    fn damage_before_a_whole_line_is_refused() {
        let files = files();
        let (plan, entry) = planned();
        let mut journal = journal(&files).unwrap();
        journal.append(&entry).unwrap();
        journal
            .append(&Entry::new(&plan.attempt, Step::Abandoned))
            .unwrap();
        let mut bytes = files.read(Path::new(PATH), LONGEST).unwrap();
        bytes[20] ^= 1;
        files.write_at(Path::new(PATH), 0, &bytes).unwrap();
        assert!(
            super::Journal::read(Arc::clone(&files) as Arc<dyn Files>, PATH.into())
                .is_err_and(|e| e.to_string().contains("line 1"))
        );
    }

    #[test]
    fn a_whole_line_of_a_newer_version_is_refused_and_not_cut_off() {
        let files = files();
        let line = r#"{"step":"Teleported"}"#;
        let line = format!("{:08x} {line}\n", crc32c::crc32c(line.as_bytes()));
        files.write_at(Path::new(PATH), 0, line.as_bytes()).unwrap();
        assert!(journal(&files).is_err());
    }

    #[test]
    fn a_record_that_can_not_follow_is_not_written() {
        let files = files();
        let (plan, entry) = planned();
        let mut journal = journal(&files).unwrap();
        let stray = Entry::new(&AttemptId::random(), Step::Fetched);
        assert!(journal.append(&stray).is_err());
        journal.append(&entry).unwrap();
        let skipped = Entry::new(&plan.attempt, Step::Exchanging);
        assert!(journal.append(&skipped).is_err());
        assert_eq!(journal.attempts()[0].step, Step::Planned);
    }

    #[test]
    fn a_line_that_was_written_survives_every_crash() {
        let files = files();
        let (plan, entry) = planned();
        let mut journal = journal(&files).unwrap();
        journal.append(&entry).unwrap();
        let first = files.events();
        journal
            .append(&Entry::new(&plan.attempt, Step::Abandoned))
            .unwrap();
        for events in 0..=files.events() {
            for image in files.crashes(events) {
                let image = Arc::new(image);
                let read = super::Journal::read(image, PATH.into()).unwrap();
                let steps: Vec<Step> = read.attempts().iter().map(|a| a.step).collect();
                if events == files.events() {
                    assert_eq!(steps, [Step::Abandoned]);
                } else if events >= first {
                    assert!(steps == [Step::Planned] || steps == [Step::Abandoned]);
                }
            }
        }
    }
}
