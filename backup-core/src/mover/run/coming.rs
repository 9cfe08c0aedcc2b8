//! Waits until a mover runs, and says what keeps it from that. Makes nothing and takes nothing away.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::start::refused;
use super::{LARGEST_POD, OFTEN, Shared, Spot, stopped};
use crate::error::{Error, Result};
use crate::mover::{pull, spec};
use crate::pod::{Event, Stand, event_of, stand};

/// How often it is asked for its events then.
const SELDOM: Duration = Duration::from_secs(2);

impl Shared {
    /// Waits until its container runs; the node where it does.
    pub(super) async fn await_running(&self, spot: &Spot, uid: &str) -> Result<String> {
        let path = spot.path();
        let until = Instant::now() + self.options.timeout;
        let mut told = Instant::now();
        let mut stop = self.stop.subscribe();
        loop {
            let mut waits = "the server does not tell how it stands".to_owned();
            match self.cluster.get_bounded(&path, LARGEST_POD).await {
                Ok(body) => {
                    let pod: Value = serde_json::from_slice(&body).unwrap_or_default();
                    if pod["metadata"]["uid"] != uid
                        || !pod["metadata"]["deletionTimestamp"].is_null()
                    {
                        return Err(self.not_come(spot, "somebody deleted it", None));
                    }
                    match stand(&pod, &spot.container) {
                        Stand::Runs => {
                            let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
                            return Ok(node.to_owned());
                        }
                        Stand::Waits(why) => waits = why,
                        Stand::Stuck(why) | Stand::Ended(why) => {
                            let event = self.event_of(spot).await;
                            return Err(self.not_come(spot, &why, event.map(|event| event.text)));
                        }
                    }
                }
                Err(e) if e.is_not_found() => {
                    return Err(self.not_come(spot, "somebody deleted it", None));
                }
                Err(e) if e.is_forbidden() => return Err(refused(e)),
                // A server that is away comes back, or the time is over.
                Err(_) => {}
            }
            let over = Instant::now() >= until;
            if over || told.elapsed() >= SELDOM {
                told = Instant::now();
                let event = self.event_of(spot).await;
                if over || event.as_ref().is_some_and(|event| event.is_final) {
                    return Err(self.not_come(spot, &waits, event.map(|event| event.text)));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(OFTEN) => {}
                _ = stop.wait_for(|stop| *stop) => return Err(stopped()),
            }
        }
    }

    /// What was told last of its pod. What is told of somebody's is not of a mover in it.
    async fn event_of(&self, spot: &Spot) -> Option<Event> {
        match spot.is_inside {
            true => None,
            false => event_of(&self.cluster, &spot.namespace, &spot.pod).await,
        }
    }

    fn not_come(&self, spot: &Spot, why: &str, event: Option<String>) -> Error {
        let event = event.map_or_else(String::new, |event| format!("; last event: {event}"));
        let what = match spot.is_inside {
            true => format!("the ephemeral container in pod {}", spot.pod),
            false => "the pod beside it".to_owned(),
        };
        let error = Error::other(format!("{what} did not come to run: {why}{event}"));
        if why.contains("image") {
            let inside = spot.is_inside.then_some(spot.pod.as_str());
            return error.hint(pull::hint(&self.options, &spot.namespace, inside));
        }
        if lacks_program(why) {
            let image = &self.options.image;
            return error.hint(format!(
                "{image} does not have this program: --mover-image names an image of it"
            ));
        }
        error.hint("the node, quotas, taints and the volume's driver decide that; --mover-timeout gives it longer")
    }
}

/// Whether the image is somebody's that does not have this program, in the words of runc and of crun.
fn lacks_program(why: &str) -> bool {
    let why = why.to_ascii_lowercase();
    why.contains(spec::PROGRAM) && why.contains("no such file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_this_program_is_told_from_a_volume_that_is_not_there() {
        for lacks in [
            "exec: \"/kubectl-backup\": stat /kubectl-backup: no such file or directory",
            "executable file `/kubectl-backup` not found: No such file or directory",
        ] {
            assert!(lacks_program(lacks), "{lacks}");
        }
        assert!(!lacks_program("stat /mnt/disk: no such file or directory"));
    }
}
