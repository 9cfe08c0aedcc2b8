//! etcd's HashKV, computed offline: what the HashKV call of a running member answers, of 3.5 and of 3.6.
//!
//! It is a CRC-32C over the name of the bucket, then key and value of every entry up to a revision. Of entries that are compacted, or about to
//! be, only those count that are the newest of their key at that revision; a removal exactly at the compacted revision never counts. Where no
//! key is live, nothing is left out.

use serde::{Deserialize, Serialize};

use super::bolt::Bucket;
use super::bolt::walk::{Order, Problems, Walker};
use super::database::Database;
use super::entry::{KEY_BUCKET, Record, Revision};
use super::newest::{Newest, Sighting};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// etcd's hash over the history of all keys. Two are comparable only where both revisions are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HashKv {
    /// CRC-32C.
    pub hash: u32,
    /// The revision it is at.
    pub revision: i64,
    /// The compacted revision it depends on; -1 where nothing was compacted, as etcd has it.
    pub compact_revision: i64,
}

/// Which compacted entries are the newest of their keys; counted from the newest of them.
#[derive(Default)]
struct Kept {
    /// How many compacted entries there are.
    count: u64,
    /// A bit for each.
    bits: Vec<u64>,
    /// Whether any key is live.
    any: bool,
}

impl Kept {
    fn set(&mut self, index: u64) {
        let word = (index / 64) as usize;
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        self.bits[word] |= 1 << (index % 64);
    }

    fn has(&self, index: u64) -> bool {
        let word = self.bits.get((index / 64) as usize);
        word.is_some_and(|word| word & (1 << (index % 64)) != 0)
    }
}

/// See [`Database::hash_kv`].
pub(super) fn hash_kv(
    database: &Database,
    bucket: &Bucket,
    revision: i64,
    compacted: i64,
    progress: &dyn Progress,
) -> Result<HashKv> {
    let kept = kept(database, bucket, revision, compacted, progress)?;
    let mut hash = crc32c::crc32c(KEY_BUCKET);
    let mut index = kept.count;
    let mut walker = Walker::new(database.pages(), Problems::Fatal, progress);
    walker.bucket("key", bucket, Order::Ascending, &mut |entry| {
        let at = Revision::parse(entry.key).ok_or("is no revision")?;
        if at.main <= compacted {
            index = index.saturating_sub(1);
            if kept.any && !kept.has(index) {
                return Ok(());
            }
        }
        let is_the_last_removal = at.main == compacted && at.is_tombstone;
        if at.main <= revision && !is_the_last_removal {
            hash = crc32c::crc32c_append(hash, entry.key);
            hash = crc32c::crc32c_append(hash, entry.value);
        }
        Ok(())
    })?;
    Ok(HashKv {
        hash,
        revision,
        compact_revision: compacted,
    })
}

fn kept(
    database: &Database,
    bucket: &Bucket,
    revision: i64,
    compacted: i64,
    progress: &dyn Progress,
) -> Result<Kept> {
    let mut kept = Kept::default();
    let mut newest: Newest<()> = Newest::new();
    loop {
        let mut index = 0;
        let mut failed: Option<Error> = None;
        let mut walker = Walker::new(database.pages(), Problems::Fatal, progress);
        walker.bucket("key", bucket, Order::Descending, &mut |entry| {
            let at = Revision::parse(entry.key).ok_or("is no revision")?;
            let this = index;
            index += u64::from(at.main <= compacted);
            if at.main > revision || failed.is_some() {
                return Ok(());
            }
            let record = Record::parse(entry.value).ok_or("holds no record")?;
            match newest.sight(record.key) {
                Ok(Sighting::Newest(_)) if !at.is_tombstone => {
                    kept.any = true;
                    if at.main <= compacted {
                        kept.set(this);
                    }
                }
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
            Ok(())
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        kept.count = index;
        if !newest.next_pass() {
            return Ok(kept);
        }
    }
}
