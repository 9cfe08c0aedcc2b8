//! How long work tells how far it is. The library calls it; what is drawn, where and how often is the caller's.

/// Receives the progress of one piece of work; every method may be called from several tasks at once.
pub trait Progress: Send + Sync {
    /// A sentence about the step that starts now, such as "reading 64 resource types".
    fn step(&self, _text: &str) {}

    /// Work that became known: objects to do.
    fn expect(&self, _objects: u64) {}

    /// Work that became known: bytes to read or to write.
    fn expect_bytes(&self, _bytes: u64) {}

    /// Objects done since the last call, and the bytes they are.
    fn done(&self, _objects: u64, _bytes: u64) {}

    /// Something the user may want to know; nothing is wrong.
    fn note(&self, _text: &str) {}

    /// Something the user should know at once, though the work goes on.
    fn warn(&self, _text: &str) {}
}

/// Progress that nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {}
