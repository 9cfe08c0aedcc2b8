//! The test program: one module per user story, and the harness' own tests.
#![allow(clippy::unwrap_used, reason = "what is missing fails the test")]

mod as_kubectl;
mod backup;
mod bad_input;
mod completion;
mod controller;
mod copies;
mod copy;
mod csi;
mod diff;
mod doctor;
mod emulated;
mod encryption;
mod etcd;
mod harness_itself;
mod hooks;
mod interop;
mod krew;
mod location;
mod many;
mod place;
mod readme;
mod restore;
mod secrets;
mod terminal;
mod volumes;
