//! The test program: one module per user story, and the harness' own tests.
#![allow(clippy::unwrap_used, reason = "what is missing fails the test")]

mod harness_itself;
