//! Where the stories of hosted restores play: a cluster with a snapshot, and with what was written after it. All keys are compared, with their
//! revisions: a state is the old one or the new one, and nothing in between.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use harness::etcd::KeyValue;
use harness::hosted::{Hosted, HostedBuilder};
use serde_json::Value;

pub(super) use super::steps::STEPS;

pub(super) const SNAPSHOT: &str = "before";

/// Longer than any restore takes on a machine that has other things to do.
pub(super) const LONG: Duration = Duration::from_secs(240);

/// This step and all after it: who looks may be late.
pub(super) fn from(step: &str) -> Vec<&'static str> {
    let steps = STEPS.iter().copied();
    steps.skip_while(|known| *known != step).collect()
}

/// A cluster, and what it holds in its snapshot and after it.
pub(super) struct Place {
    hosted: Hosted,
    earlier: Vec<KeyValue>,
    later: Vec<KeyValue>,
}

impl Deref for Place {
    type Target = Hosted;

    fn deref(&self) -> &Hosted {
        &self.hosted
    }
}

impl DerefMut for Place {
    fn deref_mut(&mut self) -> &mut Hosted {
        &mut self.hosted
    }
}

impl Place {
    /// Some hundred keys, some of them overwritten and deleted, a snapshot, and more of the same.
    pub(super) fn of(members: usize) -> Self {
        Self::with(Hosted::builder().members(members))
    }

    pub(super) fn with(builder: HostedBuilder) -> Self {
        let hosted = builder.start();
        let mut keys = hosted.keys(0);
        for number in 0..100 {
            keys.put(&key(number), format!("{number}").as_bytes());
        }
        for number in 0..20 {
            keys.put(&key(number), b"again");
            keys.delete(&key(number + 20));
        }
        let earlier = keys.list("/");
        hosted.save_snapshot(SNAPSHOT);
        let mut place = Self {
            hosted,
            earlier,
            later: Vec::new(),
        };
        place.write_later();
        place
    }

    /// Writes what the snapshot does not have: new keys, new values, and keys that are gone.
    pub(super) fn write_later(&mut self) {
        let mut keys = self.hosted.keys(0);
        for number in 50..60 {
            keys.put(&key(number), b"later");
            keys.delete(&key(number + 10));
            keys.put(&key(number + 100), b"new");
        }
        self.later = keys.list("/");
    }

    /// What a member holds: true for the snapshot's state, false for what was written later. Anything else fails the test.
    #[track_caller]
    pub(super) fn is_restored_on(&self, index: usize) -> bool {
        let now = self.hosted.keys(index).list("/");
        let is_new = now == self.earlier;
        assert!(
            is_new || now == self.later,
            "etcd-{index} holds neither the old state nor the new one, but {} keys; {} and {} are known:\n{}",
            now.len(),
            self.later.len(),
            self.earlier.len(),
            self.hosted.story()
        );
        is_new
    }

    /// What all members hold, which has to be the same.
    #[track_caller]
    pub(super) fn is_restored(&self) -> bool {
        self.hosted.wait_until_etcd_serves();
        let all: Vec<_> = (0..self.hosted.members.len())
            .map(|index| self.is_restored_on(index))
            .collect();
        assert!(
            all.iter().all(|one| *one == all[0]),
            "{all:?}\n{}",
            self.hosted.story()
        );
        all[0]
    }

    /// Nothing of a restore is left: replicas, pause and claim are put back, and every member holds the id that stands.
    #[track_caller]
    pub(super) fn assert_put_back(&self) {
        self.hosted.wait_until_settled();
        for (name, replicas) in [
            ("apiserver", 2),
            ("controller-manager", 1),
            ("scheduler", 1),
        ] {
            assert_eq!(self.hosted.replicas(name), replicas, "{name}");
        }
        assert_ne!(self.hosted.cluster()["spec"]["pause"], Value::Bool(true));
        let set = self.hosted.stateful_set();
        let stands = &set["metadata"]["annotations"]["etcd-launcher/cluster-id"];
        for member in &self.hosted.members {
            let state = member.state().unwrap();
            assert_eq!(&state["clusterId"], stands, "{}", member.name);
        }
    }

    /// Waits for the end of a restore, whichever it is, starting who has died; says its phase.
    #[track_caller]
    pub(super) fn end_of(&self, name: &str) -> String {
        self.hosted.relaunch_until("an end", LONG, || {
            let restore = self.hosted.restore(name)?;
            let phase = restore["status"]["phase"].as_str()?.to_owned();
            ["Completed", "RolledBack", "Failed"]
                .contains(&phase.as_str())
                .then_some(phase)
        })
    }

    /// Restores, and sees that all went well and nothing is left.
    #[track_caller]
    pub(super) fn restore_well(&self, name: &str) {
        self.hosted.apply_restore(name, SNAPSHOT);
        self.hosted.wait_for_phase(name, "Completed");
        self.assert_put_back();
        assert!(self.is_restored());
    }
}

fn key(number: usize) -> String {
    format!("/registry/things/{number:04}")
}

/// The message of a restore.
pub(super) fn message(restore: &Value) -> &str {
    restore["status"]["message"].as_str().unwrap_or_default()
}

/// The condition of this type.
pub(super) fn condition<'a>(restore: &'a Value, kind: &str) -> Option<&'a Value> {
    restore["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == kind)
}
