//! What the programs share between the library and the user: errors and exit codes, tables, the terminal, the user's files.
//!
//! [`ui`] is the only place that prints. No module here knows a command.

pub mod encryption;
pub mod error;
pub mod interrupt;
pub mod locations;
pub mod output;
pub mod paths;
pub mod ui;
