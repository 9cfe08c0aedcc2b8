//! Asks every endpoint for its status and settles on one member that has applied all that the cluster had committed when it was asked.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use super::choice::{Choice, choose};
use super::{Access, Connection, Status};
use crate::error::{Error, Kind, Result};

/// How long a member that is behind is waited for before the next one is asked.
const CATCH_UP: Duration = Duration::from_secs(5);
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// The member to take a snapshot from.
#[derive(Clone, Debug)]
pub struct Found {
    /// The connection to it.
    pub connection: Connection,
    /// What it said of itself last.
    pub status: Status,
    /// What the user should know: endpoints that do not answer, members passed over, alarms.
    pub notes: Vec<String>,
}

/// Settles on a member; see [`choose`] for which.
///
/// # Errors
/// Where no endpoint answers (with the first one's kind), where none is fit, and where all are behind.
pub async fn find_member(
    endpoints: &[String],
    access: &Access,
    without_quorum: bool,
) -> Result<Found> {
    if endpoints.is_empty() {
        return Err(
            Error::invalid("no endpoint of etcd is given").hint("give some with --endpoints")
        );
    }
    let asked = endpoints
        .iter()
        .map(|endpoint| Connection::reach(endpoint, access));
    let asked = join_all(asked).await;
    let (mut members, mut silent) = (Vec::new(), Vec::new());
    for answer in asked {
        match answer {
            Ok(member) => members.push(member),
            Err(error) => silent.push(error),
        }
    }
    if members.is_empty() {
        return Err(nobody(silent));
    }
    let seen: Vec<Status> = members.iter().map(|(_, status)| status.clone()).collect();
    let Choice {
        order,
        committed,
        mut notes,
    } = choose(&seen, without_quorum)?;
    notes.extend(silent.iter().map(Error::one_line));
    let mut behind = Vec::new();
    for index in order {
        let (connection, status) = members[index].clone();
        match caught_up(&connection, status, committed).await {
            Ok(status) => {
                notes.extend(behind);
                return Ok(Found {
                    connection,
                    status,
                    notes,
                });
            }
            Err(e) => behind.push(e.one_line()),
        }
    }
    Err(
        Error::other("every member that answers is behind what the cluster has committed")
            .because(behind.join(", "))
            .hint("look at the members' disks and logs: they do not apply what they have received"),
    )
}

async fn caught_up(connection: &Connection, mut status: Status, committed: u64) -> Result<Status> {
    let deadline = Instant::now() + CATCH_UP;
    while status.applied < committed {
        if Instant::now() >= deadline {
            return Err(Error::other(format!(
                "{} is passed over: it is {} entries behind and did not catch up within {} s",
                connection.endpoint(),
                committed - status.applied,
                CATCH_UP.as_secs()
            )));
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
        status = connection.status().await?;
    }
    Ok(status)
}

/// One endpoint's own error, or all of them in one.
fn nobody(mut silent: Vec<Error>) -> Error {
    if silent.len() == 1 {
        return silent.remove(0);
    }
    let kind = silent.first().map_or(Kind::Unreachable, Error::kind);
    let hint = silent.iter().find_map(|error| error.hint_text());
    let error = Error::new(
        kind,
        format!("none of the {} endpoints of etcd answers", silent.len()),
    )
    .because(
        silent
            .iter()
            .map(Error::one_line)
            .collect::<Vec<_>>()
            .join(", "),
    );
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
