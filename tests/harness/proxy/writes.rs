//! The writes of a run, each with the end of a run after it: a story makes a run once and asks what it wrote, then again for each of these, killed when the server has carried that write out and
//! before it can know.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Action, Match, Proxy};
use crate::http_client::Endpoint;
use crate::process::{Folder, PidSlot};
use crate::run::Backup;

/// What a process that is killed ends with.
const KILLED: i32 = 137;

/// How long a run may take until the write after which it is killed.
const PATIENT: Duration = Duration::from_secs(120);

/// Whether a request counts, by its method and its target.
type Counts = fn(&str, &str) -> bool;

/// One write of a run: what it is, without the names that each run makes anew, and how many such came before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub what: String,
    /// Counted from 1.
    pub nth: usize,
}

/// A server whose writes are counted.
pub struct Writes {
    proxy: Proxy,
    counts: Counts,
    home: Folder,
}

/// A request without its query, and without numbers and digests: names that each run makes anew are alike then.
fn shape(method: &str, target: &str) -> String {
    let path = target.split('?').next().unwrap_or_default();
    let is_digit = |c: char| c.is_ascii_hexdigit() || c == '-';
    let mut shape = format!("{method} ");
    let mut rest = path;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_digit(c)).unwrap_or(rest.len());
        let (digits, after) = rest.split_at(end);
        let is_made = digits.chars().any(|c| c.is_ascii_digit());
        shape += if is_made { "*" } else { digits };
        let next = after.find(is_digit).unwrap_or(after.len());
        let (plain, after) = after.split_at(next);
        shape += plain;
        rest = after;
    }
    shape
}

impl Writes {
    /// In front of this server; `counts` says which requests are writes.
    pub fn to(upstream: &Endpoint, counts: Counts) -> Self {
        Self {
            proxy: Proxy::start(upstream),
            counts,
            home: Folder::new("writes"),
        }
    }

    pub fn url(&self) -> String {
        self.proxy.url()
    }

    /// A file with the kubeconfig that leads to it.
    pub fn kubeconfig(&self) -> PathBuf {
        self.home.write("kubeconfig", self.proxy.kubeconfig())
    }

    /// Forgets what was written so far.
    pub fn clear(&self) {
        self.proxy.clear_calls();
    }

    /// What was written since then, in its order. What the server refused changed nothing, and need not come another time.
    pub fn seen(&self) -> Vec<Write> {
        let mut writes: Vec<Write> = Vec::new();
        for call in self.proxy.calls() {
            let (method, target) = (call.method.as_str(), call.target.as_str());
            let is_done = call.status.is_some_and(|status| status < 400);
            if is_done && (self.counts)(method, target) {
                let what = shape(method, target);
                let nth = 1 + writes.iter().filter(|write| write.what == what).count();
                writes.push(Write { what, nth });
            }
        }
        writes
    }

    /// Makes a run and kills it after this write was carried out, before it can know.
    #[track_caller]
    pub fn kill_after(&self, write: &Write, call: Backup) {
        let slot = Arc::new(PidSlot::default());
        let (wanted, counts) = (write.what.clone(), self.counts);
        let is_it = Match::when(move |parts| {
            let (method, target) = (parts.method.as_str(), parts.target.as_str());
            counts(method, target) && shape(method, target) == wanted
        });
        let kill = Action::KillAfterForward(Arc::clone(&slot));
        self.proxy.nth(write.nth, is_it, kill);
        let running = call.spawn();
        running.killed_by(&slot);
        let run = running.wait(PATIENT);
        self.proxy.clear_rules();
        assert_eq!(run.code, KILLED, "{write:?}: {}", run.stderr);
    }
}
