//! Break glass on one control-plane node as kubeadm sets it up: its etcd restored with no API server alive. Decides what is moved when, and
//! what is done next; the data dir itself is `restore`'s, and the terminal is the commands'. Talks to nobody but this machine.
//!
//! # Names
//! `N` is the folder of static pods, `staticPodPath` of the kubelet's configuration. `F` is the *fence*, a folder beside it on the same
//! file system (`N` + `.etcd-launcher`), which the kubelet does not read. Moved are the manifests of etcd, API server, controller manager
//! and scheduler and nothing else, each under its own name, by one rename that can not replace anything. They are known by the command
//! they start, not by their file's name. `F/fence.json` says for which attempt the fence stands; for none, it was asked for by itself.
//! `D` is the data dir that etcd's manifest names, with the journal that `restore.rs` describes.
//!
//! # Rules
//! 1. *Where* the manifests are is read from the folders, never from a record: what lies in `F` is out, what lies in `N` may run. A
//!    move is made only where a manifest is not yet where it has to be, so it can be repeated after any crash.
//! 2. `F` and its record are on disk before the first manifest leaves `N`; `F` goes away as the last act, after `/readyz`. While there is an
//!    `F`, a command of this node is unfinished. Both folders are synced after each move.
//! 3. Everything that can fail without stopping anything comes first: the snapshot is fetched, checked, built and proven (up to `Proven`)
//!    while whatever still runs goes on.
//! 4. Out come the API server, the controller manager and the scheduler; when their processes are gone, etcd. Gone is proven three ways: no
//!    process in this network namespace has such a command, nobody listens on their ports, and etcd's lock on `D/member/snap/db` is
//!    ours until the exchange is made. It has to last, for the kubelet may start what it read just before it was moved out, and it is asked
//!    again right before the exchange. Nothing is killed here: the kubelet ends what it has started.
//! 5. Back go etcd, and when it is proven to serve the restored cluster (cluster id, revision at T or above, HashKV as computed
//!    offline) and that is committed, the rest. No API server sees a state that is not committed.
//! 6. An error before the exchange leaves the node as this command found it: what it moved out goes back. Not where `D` is
//!    empty, for an etcd would begin an empty cluster there; that is done only with `--empty-cluster`.
//! 7. One process at a time: the lock on `D` is held from the first look to the end.
//!
//! # States
//! What a crash leaves is told by three things: whether `F` is there, where the manifests are, and the last record of the attempt.
//! "Again" is the same `node restore`, "back" is `node rollback`; `node start` puts the manifests back where no attempt is on its way. The names are those that `node status` prints.
//!
//! | state | `F` | manifests | `D` | again | back |
//! |---|---|---|---|---|---|
//! | `Idle` | none | in `N` | nothing of a node's is under way | plans | rolls back the last restore, forward |
//! | `Prepared` | none | in `N` | `Planned` .. `Proven`: the old state, its side in part or whole | goes on from there | `Abandoned`; nothing was moved |
//! | `Fenced` | for none | out, or some of them | whatever it held, or what was done to it by hand | restores | refused: `node start` |
//! | `Stopping` | for A | out, or some of them | `Proven`, the old state | moves the rest, proves, exchanges | `Abandoned`, all back |
//! | `Exchanging` | for A | out | as the table in `restore.rs` says: the old or the new state, or between two renames | finishes the exchange | exchanges back, all back |
//! | `Exchanged` | for A | out | the new state, nobody has seen it | starts etcd | exchanges back, all back |
//! | `Starting` | for A | etcd's in `N` or about to be | `Starting`, `Verified`: the new state, etcd may run on it | verifies, commits | out again; where etcd ran, the kept state is restored above all revisions |
//! | `Committed` | for A | etcd's in `N`, the others out or in part | the new state | the others back, `/readyz`, `F` removed | as `Starting` |
//! | `GivenUp` | for A | out, or some of them | `Abandoned`, `RolledBack`: the old state | begins anew | all back |
//! | `RollingBack` | for A | out | on the way back to the old state | rolled back first, then begins anew | goes on |
//! | `Elsewhere` | any | any | a third state that nobody here made | refused; says what lies where | refused |
//!
//! A rollback that goes forward is an attempt of its own, and comes through the same states from `Exchanging` on; "again" is `node rollback`.

pub(crate) mod folders;
pub(crate) mod gone;
pub(crate) mod kubelet;
pub(crate) mod manifest;
pub(crate) mod point;
pub(crate) mod serves;
pub(crate) mod stand;
