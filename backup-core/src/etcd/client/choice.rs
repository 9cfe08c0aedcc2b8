//! Which member to take a snapshot from: healthy, caught up, a follower rather than the leader. Pure: statuses in, an order out.

use std::collections::BTreeSet;

use super::Status;
use crate::error::{Error, Result};

/// Members in the order in which they should be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Indices of the statuses: followers first, the one that is least behind before the others, the leader last.
    pub order: Vec<usize>,
    /// The greatest log entry that any of them knows to be committed: a member that has applied it misses nothing that a client had been
    /// told before.
    pub committed: u64,
    /// What the user should know: members passed over and why, alarms.
    pub notes: Vec<String>,
}

/// Puts members into the order in which they should be asked. With `without_quorum` members that see no leader are taken too, the one that
/// has most first.
///
/// # Errors
/// Where they are of different clusters, and where none is fit.
pub fn choose(seen: &[Status], without_quorum: bool) -> Result<Choice> {
    let clusters: BTreeSet<u64> = seen.iter().map(|status| status.cluster_id).collect();
    if clusters.len() > 1 {
        let places: Vec<String> = seen
            .iter()
            .map(|status| format!("{} is of {:x}", status.endpoint, status.cluster_id))
            .collect();
        return Err(
            Error::invalid("the endpoints are of different etcd clusters")
                .because(places.join(", "))
                .hint("give the endpoints of one cluster"),
        );
    }
    let mut choice = Choice {
        committed: seen
            .iter()
            .map(|status| status.committed)
            .max()
            .unwrap_or(0),
        ..Choice::default()
    };
    let led = seen.iter().any(|status| status.leader != 0);
    let mut taken = BTreeSet::new();
    let mut passed_over = Vec::new();
    for (index, status) in seen.iter().enumerate() {
        // Two endpoints of one member.
        if !taken.insert(status.member_id) {
            continue;
        }
        match unfit(status, led, without_quorum) {
            Some(why) => passed_over.push(format!("{} is passed over: {why}", status.endpoint)),
            None => choice.order.push(index),
        }
    }
    choice.order.sort_by_key(|&index| {
        let status = &seen[index];
        let behind = choice.committed.saturating_sub(status.applied);
        (status.leads(), behind, index)
    });
    if choice.order.is_empty() {
        let leaderless = !led && !seen.is_empty();
        let error = Error::other(if leaderless {
            "no member sees a leader: what it has may not be what the cluster has"
        } else {
            "no member is fit for a snapshot"
        })
        .because(passed_over.join(", "));
        return Err(if leaderless {
            error.hint("bring a majority of the members back; where that can not be, --without-quorum takes what the member with the most has")
        } else {
            error.hint("give the endpoints of all members with --endpoints")
        });
    }
    choice.notes = passed_over;
    if !led {
        choice
            .notes
            .push("no member sees a leader: the snapshot may lack what the others have".to_owned());
    }
    let alarms: BTreeSet<_> = seen.iter().flat_map(|status| &status.alarms).collect();
    for (member, kind) in alarms {
        choice.notes.push(match kind.as_str() {
            "NOSPACE" => format!(
                "etcd has the alarm NOSPACE (member {member:x}) and takes no writes; the snapshot has it too, and what is restored from it comes up with it"
            ),
            kind => format!("etcd has the alarm {kind} (member {member:x})"),
        });
    }
    Ok(choice)
}

fn unfit(status: &Status, led: bool, without_quorum: bool) -> Option<&'static str> {
    let corrupt = |(member, kind): &(u64, String)| *member == status.member_id && kind == "CORRUPT";
    if status.learner {
        return Some("it is a learner");
    }
    if status.alarms.iter().any(corrupt) {
        return Some("etcd found its data corrupt");
    }
    if status.leader == 0 && (led || !without_quorum) {
        return Some("it sees no leader");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(member: u64, leader: u64, applied: u64) -> Status {
        Status {
            endpoint: format!("http://m{member}:2379"),
            cluster_id: 7,
            member_id: member,
            leader,
            committed: applied,
            applied,
            ..Status::default()
        }
    }

    #[test]
    fn followers_come_first_the_least_behind_before_the_others_and_the_leader_last() {
        let seen = [status(1, 1, 100), status(2, 1, 90), status(3, 1, 99)];
        let choice = choose(&seen, false).unwrap();
        assert_eq!(choice.order, [2, 1, 0]);
        assert_eq!(choice.committed, 100);
        assert_eq!(choice.notes, Vec::<String>::new());
    }

    #[test]
    fn the_leader_is_taken_where_it_alone_is_there() {
        assert_eq!(choose(&[status(1, 1, 5)], false).unwrap().order, [0]);
    }

    #[test]
    fn learners_members_without_a_leader_and_corrupt_ones_are_passed_over_and_named() {
        let corrupt = vec![(4, "CORRUPT".to_owned())];
        let mut seen = [
            status(1, 1, 9),
            status(2, 1, 9),
            status(3, 0, 9),
            status(4, 1, 9),
        ];
        seen[1].learner = true;
        seen[3].alarms = corrupt;
        let choice = choose(&seen, false).unwrap();
        assert_eq!(choice.order, [0]);
        for member in ["m2", "m3", "m4", "CORRUPT"] {
            let told = choice.notes.iter().any(|note| note.contains(member));
            assert!(told, "{member}: {:?}", choice.notes);
        }
        let refused = choose(&seen[1..], false).unwrap_err();
        assert!(refused.to_string().contains("no member is fit"));
    }

    #[test]
    fn without_a_leader_nothing_is_taken_unless_it_is_asked_for_and_then_the_member_with_the_most()
    {
        let seen = [status(1, 0, 5), status(2, 0, 9)];
        let refused = choose(&seen, false).unwrap_err();
        assert!(refused.hint_text().unwrap().contains("--without-quorum"));
        let choice = choose(&seen, true).unwrap();
        assert_eq!(choice.order, [1, 0]);
        assert!(choice.notes[0].contains("no member sees a leader"));
    }

    #[test]
    fn endpoints_of_two_clusters_are_refused_and_two_of_one_member_count_once() {
        let mut other = status(2, 2, 1);
        other.cluster_id = 8;
        assert!(choose(&[status(1, 1, 1), other], false).is_err());
        let twice = [status(1, 1, 1), status(1, 1, 1)];
        assert_eq!(choose(&twice, false).unwrap().order, [0]);
    }

    #[test]
    fn an_alarm_is_told_once() {
        let mut seen = [status(1, 1, 1), status(2, 1, 1)];
        for status in &mut seen {
            status.alarms = vec![(2, "NOSPACE".to_owned())];
        }
        let choice = choose(&seen, false).unwrap();
        assert_eq!(choice.order, [1, 0]);
        assert_eq!(choice.notes.len(), 1);
        assert!(choice.notes[0].contains("NOSPACE"));
    }
}
