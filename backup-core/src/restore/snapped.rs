//! Claims whose data the backup has as a snapshot in its storage: which they are, and whether they can be made of it here. Pure.

use std::collections::{BTreeMap, HashMap};

use crate::records::copies::{Copies, CsiSnapshot};

/// Namespace and name of a claim in the backup.
type Key = (String, String);

/// What becomes of such a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// It is made of the snapshot.
    Make(Box<Data>),
    /// It can not be: why.
    Refuse(String),
}

/// Of what it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Data {
    pub(super) snapshot: CsiSnapshot,
    /// `Filesystem` or `Block`, where that is known.
    pub(super) mode: String,
}

/// All such claims of a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapped {
    pub(super) claims: BTreeMap<Key, Choice>,
}

impl Snapped {
    /// The claims of a backup; `uids` are those that claims have in the archive, `cluster` is the uid of the target's kube-system.
    pub(super) fn of(copies: &Copies, uids: &HashMap<Key, String>, cluster: Option<&str>) -> Self {
        let mut claims = BTreeMap::new();
        for row in &copies.rows {
            let key = (row.namespace.clone(), row.claim.clone());
            // Without a uid it is not restored.
            let (Some(snapshot), Some(uid)) = (row.snapshot(), uids.get(&key)) else {
                continue;
            };
            let of = copies.cluster.as_deref().unwrap_or_default();
            let choice = if row.uid != *uid {
                Choice::Refuse(format!(
                    "volumes.json of the backup tells of a claim of this name with uid {}, and the archive holds one with uid {uid}",
                    row.uid
                ))
            } else if cluster != Some(of) {
                Choice::Refuse(format!(
                    "it is a snapshot in the storage of cluster {of}, and this is {}",
                    cluster.unwrap_or("one whose uid may not be read")
                ))
            } else {
                Choice::Make(Box::new(Data {
                    snapshot: snapshot.clone(),
                    mode: row.volume_mode.clone(),
                }))
            };
            claims.insert(key, choice);
        }
        Self { claims }
    }

    /// The claim of the backup, where its data is a snapshot.
    pub(super) fn choice(&self, namespace: Option<&str>, name: &str) -> Option<&Choice> {
        if self.claims.is_empty() {
            return None;
        }
        let key = (namespace.unwrap_or_default().to_owned(), name.to_owned());
        self.claims.get(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::copies::{Outcome, Row};

    #[test]
    fn a_snapshot_is_brought_back_in_its_own_cluster_and_to_its_own_claim_alone() {
        let now = jiff::Timestamp::now();
        let snapshot = CsiSnapshot {
            hooks: None,
            driver: "d.io".into(),
            handle: "h".into(),
            size: 1,
            class: "c".into(),
            run: "r".into(),
            began: now,
            cut: now,
            ended: now,
        };
        let row = |claim: &str, outcome| Row {
            namespace: "shop".into(),
            claim: claim.into(),
            uid: format!("uid-{claim}"),
            volume: "pv".into(),
            volume_mode: "Block".into(),
            storage_class: String::new(),
            driver: String::new(),
            request: String::new(),
            capacity: String::new(),
            access_modes: Vec::new(),
            outcome,
        };
        let made = || Outcome::Snapshot(Box::new(snapshot.clone()));
        let copies = Copies {
            cluster: Some("here".into()),
            backup_uid: "b".into(),
            run: "r".into(),
            rows: vec![
                row("a", made()),
                row("b", made()),
                row("c", made()),
                row("d", Outcome::Nothing("none".into())),
            ],
        };
        let uid = |claim: &str, uid: &str| (("shop".to_owned(), claim.to_owned()), uid.to_owned());
        let uids = HashMap::from([uid("a", "uid-a"), uid("b", "another"), uid("d", "uid-d")]);
        let found = Snapped::of(&copies, &uids, Some("here"));
        assert_eq!(found.claims.len(), 2);
        match found.choice(Some("shop"), "a") {
            Some(Choice::Make(data)) => {
                assert_eq!((data.mode.as_str(), &data.snapshot), ("Block", &snapshot));
            }
            other => panic!("{other:?}"),
        }
        assert!(
            matches!(found.choice(Some("shop"), "b"), Some(Choice::Refuse(why)) if why.contains("another"))
        );
        for elsewhere in [None, Some("there")] {
            let found = Snapped::of(&copies, &uids, elsewhere);
            let Some(Choice::Refuse(why)) = found.choice(Some("shop"), "a") else {
                panic!("{found:?}");
            };
            assert!(why.contains("in the storage of cluster here"), "{why}");
        }
    }
}
