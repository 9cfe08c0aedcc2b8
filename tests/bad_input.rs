//! Bad input gets a clear message and the right exit code, and nothing is lost or half-written.

mod archives;
mod connection;
mod names;
mod stores;
