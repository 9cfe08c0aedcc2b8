//! The restore of one member's data dir: from a snapshot to the exchange of `member`, and back. Knows nothing of clusters, API servers
//! or the terminal; `restore`, `node` and `run` decide, this does. It never deletes a state that a member has served.
//!
//! # Names
//! `D` is the data dir; `D/member` is etcd's. An attempt A (a uuid) has `D/.restore-A/member`, the *side*: before the exchange the new
//! state, after it the old one. `D/.restore-A/aside` exists only in the middle of an exchange of two renames. `D/.restore-A.db` is the
//! spool. `D/.restore-journal` holds decisions and acts of all attempts. "Old" and "new" are the cluster ids of the plan: the new one
//! comes from a random token, so no other state carries it; the old one is what `D/member` carried when the plan was made (or that it
//! was absent, or that its write-ahead log could not be read).
//!
//! # Rules
//! 1. A record is on disk (bytes synced, and the folder when the file is new) before the act that it announces. Its torn tail is
//!    cut off before the next one is written; a damaged line with a whole one behind it is refused, for nothing writes that.
//! 2. *Where* the states are is read from the folders, by the first record of each write-ahead log, never from the journal:
//!    the exchange done twice undoes itself. Each move is made only where the folders ask for it ([`slots::next`], a total
//!    function of three slots and a goal), so it can be repeated after any crash.
//! 3. What the journal may say without a look at folders: an attempt without an `Exchanging` record was never exchanged, for that
//!    record is durable first. Only then, or when it carries the new id, may a side be removed.
//! 4. Everything of the side is synced, deepest first, then the side's folders, then `D`, before `Proven`. After each rename both
//!    parents are synced before the next record.
//! 5. One process at a time: an exclusive flock on `D` itself, inherited by the programs that work below it, so that
//!    an orphan of a killed launcher is waited for.
//! 6. etcd is stopped: an exclusive flock on `D/member/snap/db` (etcd holds it while it runs) from the first look until after the
//!    exchange. An etcd that started in between has opened the old file and waits for the lock: after the exchange every open
//!    file is looked at, and if somebody has the old one the exchange is undone, before that etcd could touch anything.
//!
//! # States
//! The last record of an attempt; what the folders may hold when the process or the machine died right there or anywhere in the act;
//! and what the next start does. "Again" is the same command (or decision), "back" is a rollback.
//!
//! | record | the act that follows | `member` / side after a crash in it | again | back |
//! |---|---|---|---|---|
//! | (none) | | old / absent | plans | nothing to do |
//! | `Planned` | spool is filled | old / absent; spool in part | starts over from the fetch; another plan where the mark reached T | `Abandoned` |
//! | `Fetched` | etcdutl writes the side | old / absent or in part | the same; the part is removed first | `Abandoned` |
//! | `Built` | side is proven, owned, synced | old / new, perhaps not durable | the same | `Abandoned` |
//! | `Proven` | spool removed; etcd stopped (or was); old state noted, its keys as well where no control plane waits | old / new, durable | its print compared, then on; differs: starts over | `Abandoned` |
//! | `Exchanging` | exchange, parents synced | old / new, or new / old, whichever the folders say; with two renames also absent / new + aside old, or new / absent + aside old | moves on to the goal new from where it is | old: `Abandoned`; else `RollingBack` |
//! | `Exchanged` | offline: none. Else etcd starts, fenced | new / old | done | as below |
//! | `Starting` | etcd runs fenced on the new state | new / old | starts again, fenced | stop, `RollingBack` |
//! | `Verified` | waits for the commit | new / old | waits | stop, `RollingBack` |
//! | `Committed` | restart with its usual listeners; the old state's keys noted by a second such record | new / old | never exchanged back | a new attempt, forward |
//! | `RollingBack` | exchange back, parents synced | as `Exchanging`, mirrored | moves on to the goal old | the same |
//! | `RolledBack` | the side (the new state) is removed | old / new, in part or absent | removes what is left; plans | nothing to do |
//! | `Abandoned` | side and spool are removed | old / new, in part or absent | removes what is left; plans | nothing to do |
//!
//! With no old state (an empty data dir) "old" reads "absent", and the exchange is one rename to a name that does not exist.
//! Where `D/member` carries neither id (somebody made a third state), nothing is moved and the message says what lies where.
//! In the middle of two renames `D/member` is absent for a moment; an etcd started then would make an empty cluster, which is
//! such a third state: both ours are still whole. That is why two renames are made only where the file system refuses the exchange.
//!
//! # Rollback
//! While the new state was never started (its print is the one of `Proven`: names of its files, heads of its logs and of its database), it
//! is exchanged back: no client has seen its revisions. Afterwards, and after `Committed`, it is a new attempt, forward: a
//! copy of the kept state is started alone on a unix socket so that its log is applied, stopped, compared with what was noted
//! of it (its keys only where they were read), and restored with a target revision above all that was seen. The kept state itself is only read.

pub(crate) mod asked;
pub(crate) mod decide;
pub(crate) mod dir;
pub(crate) mod entry;
pub(crate) mod etcdutl;
pub(crate) mod exchange;
pub(crate) mod fence;
pub(crate) mod files;
pub(crate) mod fit;
pub(crate) mod ids;
pub(crate) mod job;
mod journal;
pub(crate) mod offline;
pub(crate) mod plan;
pub(crate) mod prepare;
pub(crate) mod proof;
pub(crate) mod replay;
pub(crate) mod revision;
pub(crate) mod slots;
pub(crate) mod step;
pub(crate) mod version;
mod wal;
pub(crate) mod work;

#[cfg(test)]
mod crashes;
