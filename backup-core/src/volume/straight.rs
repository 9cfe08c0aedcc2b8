//! A volume that goes straight to the store from where it is mounted, with credentials that are lent for it. Two sides speak in lines: [`pod`] has the volume and writes,
//! [`run`] has the location, the keys of repositories and the last word. The page is docs/volumes.md. Nothing here knows Kubernetes, and nothing is kept anywhere: what is secret goes over
//! the lines and lives in the memory of the two.

mod line;
pub mod pod;
pub mod run;

#[cfg(test)]
mod tests;
