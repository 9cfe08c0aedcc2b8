//! The whole of a write-ahead log: how far it goes, and how much of that its member knows to be committed. Nothing is changed but a copy, by
//! [`Tail::commit_all`].
//!
//! Why that exists: etcd answers a write before it has written down that it is committed; its log says so only with the next one. Started with
//! `--force-new-cluster` a member that was killed drops what its log does not say to be committed, and with it the last write that
//! it acknowledged (seen with etcd 3.6.16, each time).
//!
//! Format, besides that in [`super`]: record type 2 is `raftpb.Entry {1: type, 2: term, 3: index, 4: data}`, an entry taking back all of its
//! index and above that came before; 3 is `raftpb.HardState {1: term, 2: vote, 3: commit}`; 5 is `walpb.Snapshot {1: index, 2: term}`. The
//! checksum goes on from record to record and from segment to segment. The log ends where a frame is zero, at the end of its last
//! segment, or, torn by a crash, at a record of which a whole sector is still zero.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use backup_core::{Error, Result};

use super::{Value, decode, encode, fields, frame, put_varint, sequence};

/// Forty times what etcd takes in one request by default.
const LONGEST: u64 = 64 << 20;

/// What a disk writes at once.
const SECTOR: usize = 512;

/// How far a log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// The last entry, or the snapshot that stands for it and all before.
    pub(crate) last_index: u64,
    /// Its term: of two logs of one cluster, the one with the later term, or else the greater index, has all that was ever acknowledged where
    /// a majority is compared.
    pub(crate) last_term: u64,
    /// The last entry that is known to be committed.
    pub(crate) commit: u64,
    term: u64,
    vote: u64,
    segment: PathBuf,
    end: u64,
    crc: u32,
}

impl Tail {
    /// Reads a folder `wal` from its first segment to its end.
    ///
    /// # Errors
    /// Kind `Corrupt`, where etcd would not read it either.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let failed =
            |e: io::Error| Error::other(format!("can not read {}", folder.display())).because(e);
        let mut segments = Vec::new();
        for entry in folder.read_dir().map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(number) = name.and_then(sequence) {
                segments.push((number, path));
            }
        }
        segments.sort();
        let Some((_, last)) = segments.last() else {
            return Err(Error::corrupt(format!("{} has no log", folder.display())));
        };
        let mut tail = Self {
            last_index: 0,
            last_term: 0,
            commit: 0,
            term: 0,
            vote: 0,
            segment: last.clone(),
            end: 0,
            crc: 0,
        };
        for (_, path) in &segments {
            tail.segment(path, path == last)?;
        }
        Ok(tail)
    }

    fn segment(&mut self, path: &Path, is_last: bool) -> Result<()> {
        let corrupt = |at: u64, why: &str| {
            Error::corrupt(format!("{} is damaged at byte {at}: {why}", path.display()))
        };
        let failed =
            |e: io::Error| Error::other(format!("can not read {}", path.display())).because(e);
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut body = Vec::new();
        self.end = 0;
        while size - self.end >= 8 {
            let mut field = [0; 8];
            reader.read_exact(&mut field).map_err(failed)?;
            let (length, padding) = frame(u64::from_le_bytes(field));
            if length == 0 {
                break;
            }
            let whole = length + padding as u64;
            if whole > size - self.end - 8 {
                if is_last {
                    break;
                }
                return Err(corrupt(self.end, "a record goes beyond the end"));
            }
            if length > LONGEST {
                return Err(corrupt(self.end, "a record is longer than etcd makes one"));
            }
            body.resize(usize::try_from(whole).unwrap_or_default(), 0);
            reader.read_exact(&mut body).map_err(failed)?;
            let record = &body[..body.len() - padding];
            match self.record(record) {
                Ok(()) => self.end += 8 + whole,
                Err(_) if is_last && is_torn(&body, self.end + 8) => break,
                Err(why) => return Err(corrupt(self.end, why)),
            }
        }
        Ok(())
    }

    fn record(&mut self, body: &[u8]) -> Result<(), &'static str> {
        let record = decode(body)?;
        if record.kind == 4 {
            if self.crc != 0 && self.crc != record.crc {
                return Err("the segment does not continue the one before");
            }
            self.crc = record.crc;
            return Ok(());
        }
        let crc = crc32c::crc32c_append(self.crc, record.data);
        if crc != record.crc {
            return Err("a record does not match its checksum");
        }
        let mut numbers = [0; 4];
        // Others carry no numbers that are needed.
        if matches!(record.kind, 2 | 3 | 5) {
            fields(record.data, |field, value| {
                if let (1..=3, Value::Number(number)) = (field, value) {
                    numbers[field as usize] = number;
                }
            })?;
        }
        match record.kind {
            2 => [_, _, self.last_term, self.last_index] = numbers,
            3 => [_, self.term, self.vote, self.commit] = numbers,
            5 if numbers[1] >= self.last_index => [_, self.last_index, self.last_term, _] = numbers,
            _ => {}
        }
        self.crc = crc;
        Ok(())
    }

    /// Writes behind the end that everything before it is committed. For a copy that is to run alone: what a majority had not taken yet
    /// was never refused to anybody either.
    ///
    /// # Errors
    /// When the segment can not be written.
    pub(crate) fn commit_all(&self) -> Result<()> {
        let mut data = Vec::new();
        for (field, value) in [(1, self.term), (2, self.vote), (3, self.last_index)] {
            data.push(field << 3);
            put_varint(&mut data, value);
        }
        let record = encode(3, crc32c::crc32c_append(self.crc, &data), &data);
        let written = OpenOptions::new()
            .write(true)
            .open(&self.segment)
            .and_then(|file| {
                // What was torn is cut off; etcd allocates the rest again.
                file.set_len(self.end)?;
                file.write_all_at(&record, self.end)
            });
        written.map_err(|e| {
            Error::other(format!("can not write {}", self.segment.display())).because(e)
        })
    }
}

/// Whether a crash cut a record off: a sector of it was never written. `at` is where it begins in its segment.
fn is_torn(record: &[u8], at: u64) -> bool {
    let first = SECTOR - (at % SECTOR as u64) as usize;
    let (head, rest) = record.split_at(first.min(record.len()));
    std::iter::once(head)
        .chain(rest.chunks(SECTOR))
        .any(|sector| sector.iter().all(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use super::super::super::ids::Id;
    use super::super::{Owner, head_of};
    use super::*;

    /// A log under construction, as etcd writes one.
    struct Log {
        bytes: Vec<u8>,
        crc: u32,
    }

    impl Log {
        fn new() -> Self {
            let bytes = head_of(Owner {
                member: Id(1),
                cluster: Id(2),
            });
            let mut data = vec![0x08];
            put_varint(&mut data, 1);
            data.push(0x10);
            put_varint(&mut data, 2);
            Self {
                bytes,
                crc: crc32c::crc32c(&data),
            }
        }

        fn put(&mut self, kind: u64, numbers: &[u64], rest: &[u8]) {
            let mut data = Vec::new();
            for (at, number) in numbers.iter().enumerate() {
                data.push((at as u8 + 1) << 3);
                put_varint(&mut data, *number);
            }
            if !rest.is_empty() {
                data.push(0x22);
                put_varint(&mut data, rest.len() as u64);
                data.extend(rest);
            }
            self.crc = crc32c::crc32c_append(self.crc, &data);
            self.bytes.extend(encode(kind, self.crc, &data));
        }

        fn entry(&mut self, index: u64) {
            self.put(2, &[0, 3, index], &vec![b'x'; 1500]);
        }
    }

    fn folder(segments: &[&[u8]]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (number, bytes) in segments.iter().enumerate() {
            let name = format!("{number:016x}-{number:016x}.wal");
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    fn log() -> Log {
        let mut log = Log::new();
        log.put(5, &[0, 0], &[]);
        for index in 1..=5 {
            log.entry(index);
        }
        log.put(3, &[3, 1, 4], &[]);
        log
    }

    #[test]
    fn the_last_entry_and_what_is_committed_are_read_and_all_of_it_can_be_committed() {
        let log = log();
        let mut allocated = log.bytes.clone();
        allocated.resize(100_000, 0);
        let folder = folder(&[&allocated]);
        let tail = Tail::read(folder.path()).unwrap();
        assert_eq!((tail.last_index, tail.commit), (5, 4));
        assert_eq!(tail.end, log.bytes.len() as u64);
        tail.commit_all().unwrap();
        let tail = Tail::read(folder.path()).unwrap();
        assert_eq!((tail.last_index, tail.commit), (5, 5));
        assert_eq!((tail.term, tail.vote), (3, 1));
    }

    #[test]
    fn an_entry_takes_back_those_after_it_and_a_snapshot_stands_for_those_before() {
        let mut log = log();
        log.entry(3);
        let tail = Tail::read(folder(&[&log.bytes]).path()).unwrap();
        assert_eq!(tail.last_index, 3);
        log.put(5, &[90, 3], &[]);
        let tail = Tail::read(folder(&[&log.bytes]).path()).unwrap();
        assert_eq!(tail.last_index, 90);
    }

    #[test]
    fn segments_continue_each_other() {
        let first = log();
        let mut second = Log {
            bytes: encode(4, first.crc, &[]),
            crc: first.crc,
        };
        second.entry(6);
        let both = folder(&[&first.bytes, &second.bytes]);
        assert_eq!(Tail::read(both.path()).unwrap().last_index, 6);
        let alone = folder(&[&second.bytes]);
        assert_eq!(Tail::read(alone.path()).unwrap().last_index, 6);
        let mut stranger = Log {
            bytes: encode(4, 7, &[]),
            crc: 7,
        };
        stranger.entry(6);
        let mixed = folder(&[&first.bytes, &stranger.bytes]);
        assert!(Tail::read(mixed.path()).is_err());
        let cut = folder(&[&first.bytes[..first.bytes.len() - 9], &second.bytes]);
        assert!(Tail::read(cut.path()).is_err());
    }

    #[test]
    fn what_a_crash_tore_is_cut_off_and_what_was_altered_is_refused() {
        let mut whole = log();
        let before = whole.bytes.len();
        whole.entry(6);
        for cut in (before..whole.bytes.len()).step_by(61) {
            let mut torn = whole.bytes[..cut].to_vec();
            let folder_cut = folder(&[&torn]);
            assert_eq!(Tail::read(folder_cut.path()).unwrap().last_index, 5);
            // Sectors that were not written are zero.
            torn.truncate(cut - cut % SECTOR);
            if torn.len() <= before + 8 {
                continue;
            }
            torn.resize(whole.bytes.len() + 5000, 0);
            let folder = folder(&[&torn]);
            let tail = Tail::read(folder.path()).unwrap();
            assert_eq!(tail.last_index, 5, "cut at {cut}");
            tail.commit_all().unwrap();
            assert_eq!(Tail::read(folder.path()).unwrap().commit, 5);
        }
        let mut altered = whole.bytes.clone();
        altered[before + 700] ^= 1;
        let refused = Tail::read(folder(&[&altered]).path()).unwrap_err();
        assert!(refused.to_string().contains("damaged"), "{refused}");
    }
}
