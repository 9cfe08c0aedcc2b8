//! How a mover and whoever archives speak: frames in both directions, over whatever carries bytes (the streams of an exec). The mover lists its folder, sends the files that it is
//! asked for, and receives a volume; it holds no credentials and no key. Each side takes the other for hostile: frames are bounded, paths and order are checked by [`super::source`]
//! and the folder's own descriptors.
//!
//! | program | stdin | stdout |
//! |---|---|---|
//! | `mover list FOLDER` | | `entry`, `trouble` and `vanished`, then `end` |
//! | `mover send FOLDER` | `wanted` for each file, one after the other or many at once; `end`, or the stream's, ends the program | for each, in the same order, `data` and `zeros`, then `file`; at last `end` |
//! | `mover receive FOLDER` | `entry`, each file's followed by its `data` and `zeros`; then `end` | `end` with what could not be brought back |
//!
//! A stream that has no `end` was cut, whatever its bytes say.

mod frame;
mod listing;
mod receive;
#[cfg(target_os = "linux")]
mod send;
mod source;

pub use frame::Ended;
pub use listing::listed;
pub use receive::Sending;
#[cfg(target_os = "linux")]
pub use receive::receive;
#[cfg(target_os = "linux")]
pub use send::{list, send};
pub use source::{Asking, Exit, WireSource};

#[cfg(test)]
mod tests;
