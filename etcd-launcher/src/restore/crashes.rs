//! The whole restore and the whole rollback over the file system in memory, cut off after every call they make: whatever of the unsynced
//! changes survived, `member` is the old or the new state, whole, nothing that was served is lost, and both ways on are open.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use backup_core::{Error, Kind as ErrorKind, Result};
use futures::executor::block_on;
use jiff::{SignedDuration, Timestamp};

use super::asked::Asked;
use super::dir::DataDir;
use super::entry::{Content, Former, Snapshot};
use super::fence::Stopped;
use super::files::model::Model;
use super::files::{Files, Kind};
use super::ids::Id;
use super::offline::{self, Restored, Wish};
use super::plan::{AttemptId, By, Plan, Purpose};
use super::slots::Truth;
use super::step::Step;
use super::work::Work;
use super::{exchange, wal};

const SEGMENT: &str = "0000000000000000-0000000000000000.wal";

/// What lies in the data dir before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Cluster,
    Nothing,
    Unreadable,
}

/// A snapshot that is fetched, built and proven at once, and syncs nothing itself.
struct Fake(Model);

fn write(files: &Model, member: &Path, log: &[u8], content: &[u8]) {
    for folder in ["", "wal", "snap"] {
        files.create_folder(&member.join(folder)).unwrap();
    }
    let put = |name: &str, bytes: &[u8]| files.write_at(&member.join(name), 0, bytes).unwrap();
    put(&format!("wal/{SEGMENT}"), log);
    put("snap/db", content);
}

impl Work for Fake {
    async fn fetch(&mut self, _plan: &Plan, spool: &Path) -> Result<Snapshot> {
        self.0.write_at(spool, 0, b"new").unwrap();
        Ok(Snapshot {
            sha256: "s".into(),
            bytes: 3,
            trailer: true,
            revision: 7,
            content: content(),
            cluster: None,
            members: vec![Id(1)],
        })
    }

    async fn build(
        &mut self,
        plan: &Plan,
        _snapshot: &Snapshot,
        spool: &Path,
        side: &Path,
    ) -> Result<()> {
        let log = wal::head_of(wal::Owner {
            member: plan.member_id,
            cluster: plan.cluster_id,
        });
        let content = self.0.read(spool, 99).unwrap();
        write(&self.0, &side.join("member"), &log, &content);
        Ok(())
    }

    async fn prove(&mut self, _plan: &Plan, _snapshot: &Snapshot, member: &Path) -> Result<()> {
        assert_eq!(self.0.read(&member.join("snap/db"), 99).unwrap(), b"new");
        Ok(())
    }
}

fn content() -> Content {
    Content {
        keys: 1,
        sha256: "c".into(),
    }
}

/// No etcd anywhere; or one that shows up.
struct Etcd(bool);

impl Stopped for Etcd {
    fn check(&self) -> Result<()> {
        if self.0 {
            return Err(Error::other("etcd waits for the database"));
        }
        Ok(())
    }
}

const NOBODY: &Etcd = &Etcd(false);

fn model(before: Before, exchanges: bool) -> Model {
    let model = Model::new(exchanges);
    model.create_folder(Path::new("/d")).unwrap();
    let old = wal::head_of(wal::Owner {
        member: Id(1),
        cluster: Id(2),
    });
    match before {
        Before::Nothing => {}
        Before::Cluster => write(&model, Path::new("/d/member"), &old, b"old"),
        Before::Unreadable => write(&model, Path::new("/d/member"), b"gone", b"old"),
    }
    model.settled()
}

fn opened(model: &Model) -> DataDir {
    let mut dir = DataDir::with("/d".into(), Arc::new(model.clone()), None).unwrap();
    exchange::recover(&mut dir, NOBODY).unwrap();
    dir
}

fn restore_with(model: &Model, stopped: &Etcd) -> Result<Restored> {
    static TOKENS: AtomicU32 = AtomicU32::new(0);
    let mut dir = opened(model);
    let wish = Wish {
        asked: Asked::example(),
        purpose: Purpose::Restore,
        by: By::Offline,
        token: format!("token {}", TOKENS.fetch_add(1, Ordering::Relaxed)),
        marks: vec![5],
        former: Some(Former {
            revision: 5,
            content: Some(content()),
            members: vec![Id(1)],
        }),
        now_ms: 1_790_000_000_000,
    };
    block_on(offline::restore(
        &mut dir,
        stopped,
        wish,
        &mut Fake(model.clone()),
    ))
}

fn restore(model: &Model) {
    restore_with(model, NOBODY).unwrap();
}

/// Rolls back; that there is nothing to roll back is no failure here.
fn rollback(model: &Model) {
    let mut dir = opened(model);
    match offline::rollback(&mut dir, NOBODY, None, By::Offline) {
        Ok(_) => {}
        Err(e) => assert_eq!(e.kind(), ErrorKind::NotFound, "{e}"),
    }
}

type Tree = BTreeMap<String, Vec<u8>>;

struct Checker {
    before: Before,
    old: Tree,
}

impl Checker {
    fn new(before: Before) -> Self {
        Self {
            before,
            old: model(before, true).tree("/d/member"),
        }
    }

    fn is_new(tree: &Tree) -> bool {
        let db = tree.get("/snap/db").is_some_and(|db| db == b"new");
        let log = tree.get(&format!("/wal/{SEGMENT}"));
        db && tree.len() == 5 && log.is_some_and(|log| wal::owner(log).is_ok())
    }

    /// Every folder that may hold a state.
    fn places(model: &Model) -> Vec<String> {
        let names = model.list(Path::new("/d")).unwrap();
        let sides = names
            .iter()
            .filter_map(|n| n.to_str())
            .flat_map(|name| ["member", "aside"].map(|below| format!("/d/{name}/{below}")));
        sides.chain(["/d/member".to_owned()]).collect()
    }

    /// What holds after any crash, before anybody does anything.
    fn check(&self, model: &Model, when: &str) {
        let member = model.tree("/d/member");
        let is_old = member == self.old;
        assert!(
            is_old || Self::is_new(&member) || member.is_empty(),
            "{when}: neither old nor new: {member:?}"
        );
        let kept = Self::places(model)
            .iter()
            .any(|place| model.tree(place) == self.old);
        assert!(
            kept || self.before == Before::Nothing,
            "{when}: the old state is lost"
        );
    }

    /// What holds after a restore went on to its end.
    fn check_restored(&self, model: &Model, when: &str) {
        assert!(Self::is_new(&model.tree("/d/member")), "{when}: not new");
        self.check(model, when);
        let dir = DataDir::with("/d".into(), Arc::new(model.clone()), None).unwrap();
        let last = dir.attempts().last().unwrap();
        assert_eq!(last.step, Step::Exchanged, "{when}");
        assert_eq!(dir.truth(last).unwrap(), Truth::After, "{when}");
        let mut left = vec![".restore-journal".to_owned(), "member".to_owned()];
        left.insert(0, format!(".restore-{}", last.id()));
        let names: Vec<String> = model
            .list(Path::new("/d"))
            .unwrap()
            .into_iter()
            .map(|name| name.into_string().unwrap())
            .collect();
        assert_eq!(names, left, "{when}");
    }

    /// What holds after a rollback went on to its end.
    fn check_rolled_back(&self, model: &Model, when: &str) {
        assert_eq!(model.tree("/d/member"), self.old, "{when}: not as before");
        for name in model.list(Path::new("/d")).unwrap() {
            let kind = model.kind(&Path::new("/d").join(&name)).unwrap();
            assert!(
                kind == Kind::File && name == ".restore-journal" || name == "member",
                "{when}: {name:?} is left"
            );
        }
    }
}

const ALL: [(Before, bool); 6] = [
    (Before::Cluster, true),
    (Before::Cluster, false),
    (Before::Nothing, true),
    (Before::Nothing, false),
    (Before::Unreadable, true),
    (Before::Unreadable, false),
];

/// The different file systems that a crash of this run may leave; with `few`, of each call only the one where nothing unsynced survived and
/// the one where all did.
fn images(run: &Model, few: bool) -> Vec<(usize, Model)> {
    let mut seen = HashSet::new();
    let mut images = Vec::new();
    for events in 0..=run.events() {
        let mut crashed = run.crashes(events);
        if few && crashed.len() > 2 {
            crashed.drain(1..crashed.len() - 1);
        }
        crashed.retain(|image| seen.insert(image.tree("/")));
        images.extend(crashed.into_iter().map(|image| (events, image)));
    }
    images
}

/// Whether the journal says that the exchange may have been begun.
fn is_exchanging(tree: &Tree) -> bool {
    tree.get("/d/.restore-journal")
        .is_some_and(|journal| String::from_utf8_lossy(journal).contains("\"step\":\"Exchanging\""))
}

fn every_crash_of(run: fn(&Model), start: impl Fn(Before, bool) -> Model) {
    for (before, exchanges) in ALL {
        let checker = Checker::new(before);
        let model = start(before, exchanges);
        run(&model);
        let crashed = images(&model, false);
        assert!(crashed.len() > 10, "{} images", crashed.len());
        let twice: HashSet<Tree> = images(&model, true)
            .iter()
            .map(|(_, image)| image.tree("/"))
            .filter(|tree| before == Before::Cluster && is_exchanging(tree))
            .collect();
        for (events, image) in crashed {
            let when = format!("{before:?}, exchange {exchanges}, after {events} calls");
            checker.check(&image, &when);
            let again = image.settled();
            restore(&again);
            checker.check_restored(&again, &format!("{when}, again"));
            let back = image.settled();
            rollback(&back);
            checker.check_rolled_back(&back, &format!("{when}, back"));
            // And each way on is cut off once more, for the plainest crashes around the exchange.
            if !twice.contains(&image.tree("/")) {
                continue;
            }
            for (way, run) in [("again", &again), ("back", &back)] {
                for (events, second) in images(run, true) {
                    let when = format!("{when}, {way}, after {events} calls more");
                    checker.check(&second, &when);
                    rollback(&second);
                    checker.check_rolled_back(&second, &when);
                    restore(&second);
                    checker.check_restored(&second, &when);
                }
            }
        }
    }
}

#[test]
fn a_restore_that_is_cut_off_anywhere_leaves_one_state_whole_and_both_ways_open() {
    every_crash_of(restore, model);
}

#[test]
fn a_rollback_that_is_cut_off_anywhere_leaves_one_state_whole_and_both_ways_open() {
    every_crash_of(rollback, |before, exchanges| {
        let model = model(before, exchanges);
        restore(&model);
        model.settled()
    });
}

#[test]
fn an_etcd_that_starts_in_the_middle_of_the_exchange_gets_the_old_state() {
    for (before, exchanges) in ALL {
        let checker = Checker::new(before);
        let model = model(before, exchanges);
        assert!(restore_with(&model, &Etcd(true)).is_err());
        checker.check_rolled_back(&model, "etcd came");
        restore(&model);
        checker.check_restored(&model, "and went");
    }
}

#[test]
fn a_full_disk_stops_no_rollback_and_no_restore_that_is_not_recorded() {
    for (before, exchanges) in ALL {
        let checker = Checker::new(before);
        let model = model(before, exchanges);
        restore(&model);
        model.set_full(true);
        let mut dir = opened(&model);
        assert!(offline::rollback(&mut dir, NOBODY, None, By::Offline).is_err());
        assert_eq!(model.tree("/d/member"), checker.old, "{before:?}");
        model.set_full(false);
        rollback(&model);
        checker.check_rolled_back(&model, "with space again");
        // The other way nothing is done that could not be recorded.
        model.set_full(true);
        assert!(restore_with(&model, NOBODY).is_err());
        checker.check_rolled_back(&model, "no space for the plan");
        model.set_full(false);
        restore(&model);
        checker.check_restored(&model, "with space again");
    }
}

/// Restores four times, and commits each of them; the attempts.
fn restored_often(model: &Model) -> Vec<AttemptId> {
    for _ in 0..4 {
        restore(model);
        let mut dir = opened(model);
        let id = dir.attempts().last().unwrap().id().clone();
        dir.record(&id, Step::Committed).unwrap();
    }
    let dir = opened(model);
    dir.attempts().iter().map(|a| a.id().clone()).collect()
}

fn forget(model: &Model, keep: usize, named: &[AttemptId]) -> Vec<AttemptId> {
    let now = Timestamp::now();
    exchange::forget(&opened(model), By::Offline, keep, now, named).unwrap()
}

#[test]
fn of_the_states_that_were_replaced_the_newest_are_kept_and_who_is_named() {
    let model = model(Before::Cluster, true);
    let ids = restored_often(&model);
    let member = model.tree("/d/member");
    let none: [AttemptId; 0] = [];
    assert_eq!(
        exchange::forget(&opened(&model), By::Run, 1, Timestamp::now(), &none).unwrap(),
        none,
        "another's"
    );
    let earlier = Timestamp::now() - SignedDuration::from_hours(1);
    assert_eq!(
        exchange::forget(&opened(&model), By::Offline, 1, earlier, &none).unwrap(),
        none,
        "too young"
    );
    assert_eq!(forget(&model, 4, &none), none);
    assert_eq!(forget(&model, 2, &ids[..1]), ids[1..2]);
    assert_eq!(forget(&model, 2, &none), ids[..1]);
    assert_eq!(forget(&model, 0, &none), ids[2..3], "never the newest");
    assert_eq!(forget(&model, 0, &none), none);
    let mut left = Checker::places(&model);
    left.retain(|place| !model.tree(place).is_empty());
    let newest = format!("/d/.restore-{}/member", ids[3]);
    assert_eq!(left, [newest.as_str(), "/d/member"]);
    assert_eq!(model.tree("/d/member"), member);
    // Where nobody can tell what is in place, all is kept.
    let unreadable = model.settled();
    for _ in 0..2 {
        restore(&unreadable);
        let mut dir = opened(&unreadable);
        let id = dir.attempts().last().unwrap().id().clone();
        dir.record(&id, Step::Committed).unwrap();
    }
    unreadable.remove_tree(Path::new("/d/member/wal")).unwrap();
    assert_eq!(forget(&unreadable, 1, &none), none);
    // What is not committed may have to go back; what was put in its place by somebody is theirs.
    restore(&model);
    assert_eq!(forget(&model, 1, &none), none);
    let mut dir = opened(&model);
    let last = dir.attempts().last().unwrap().id().clone();
    dir.record(&last, Step::Committed).unwrap();
    model
        .rename(&dir.side(&ids[3]), Path::new("/d/theirs"))
        .unwrap();
    write(&model, &dir.side(&ids[3]), b"gone", b"theirs");
    assert_eq!(forget(&model, 1, &none), none);
}

#[test]
fn a_removal_that_is_cut_off_anywhere_is_finished_and_takes_nothing_else() {
    let model = model(Before::Cluster, true);
    let ids = restored_often(&model);
    let places = |model: &Model| {
        let sides = ids
            .iter()
            .map(|id| model.tree(&format!("/d/.restore-{id}")));
        sides.chain([model.tree("/d/member")]).collect::<Vec<_>>()
    };
    let run = model.settled();
    let before = places(&run);
    forget(&run, 2, &[]);
    for (events, image) in images(&run, false) {
        assert_eq!(places(&image)[2..], before[2..], "after {events} calls");
        forget(&image, 2, &[]);
        let names = image.list(Path::new("/d")).unwrap();
        assert_eq!(names.len(), 4, "after {events} calls: {names:?}");
    }
}

#[test]
fn a_third_state_is_not_touched() {
    for exchanges in [true, false] {
        let model = model(Before::Cluster, exchanges);
        restore(&model);
        model
            .rename(Path::new("/d/member"), Path::new("/d/theirs"))
            .unwrap();
        let third = wal::head_of(wal::Owner {
            member: Id(3),
            cluster: Id(4),
        });
        write(&model, Path::new("/d/member"), &third, b"third");
        let before = model.tree("/d");
        let mut dir = opened(&model);
        assert!(offline::rollback(&mut dir, NOBODY, None, By::Offline).is_err());
        assert_eq!(model.tree("/d"), before);
        // A new restore replaces it, and keeps it as it keeps any old state.
        restore(&model);
        let kept = Checker::places(&model);
        let kept: Vec<Tree> = kept.iter().map(|place| model.tree(place)).collect();
        let db = |tree: &Tree| tree.get("/snap/db").cloned().unwrap_or_default();
        for content in [b"old".as_slice(), b"third"] {
            assert!(kept.iter().any(|tree| db(tree) == content));
        }
    }
}
