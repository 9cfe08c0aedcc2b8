//! Creating, looking at and removing backups.

mod claims;
mod expiry;
mod filters;
mod gaps;
mod looking;
mod namespace_user;
mod point_in_time;
mod policies;
mod raw_bytes;
mod stores;
mod verify;
