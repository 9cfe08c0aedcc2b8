//! A gate before a server: requests wait at it until it is opened, so that a story can look at what is in the middle of its work.

use std::sync::{Arc, Condvar, Mutex};

use super::{Action, Match, Proxy};

#[derive(Default)]
struct State {
    is_open: bool,
    reached: usize,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

/// Requests of a proxy that wait.
pub struct Gate(Shared);

impl Gate {
    /// A gate that is shut for these.
    pub fn before(proxy: &Proxy, when: Match) -> Self {
        let shared = Shared::default();
        let passing = Arc::clone(&shared);
        proxy.every(
            when,
            Action::hook(move || {
                let (state, opened) = &*passing;
                let mut state = state.lock().unwrap();
                state.reached += 1;
                drop(opened.wait_while(state, |state| !state.is_open).unwrap());
            }),
        );
        Self(shared)
    }

    /// Lets all pass that wait, and all that come.
    pub fn open(&self) {
        self.0.0.lock().unwrap().is_open = true;
        self.0.1.notify_all();
    }

    /// Lets none pass any more.
    pub fn shut(&self) {
        self.0.0.lock().unwrap().is_open = false;
    }

    /// How many came to it so far.
    pub fn reached(&self) -> usize {
        self.0.0.lock().unwrap().reached
    }
}

impl Drop for Gate {
    /// A story that fails ends, too.
    fn drop(&mut self) {
        self.open();
    }
}
