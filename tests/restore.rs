//! Bringing it back: all or a part, here or elsewhere, once or twice, interrupted or not.

mod existing;
mod foreign;
mod interrupted;
mod owners;
mod parts;
mod policies;
mod rewrites;
mod schedules;
mod versions;
mod volumes;
pub(crate) mod whole;
