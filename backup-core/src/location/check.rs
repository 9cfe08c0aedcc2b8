//! Whether a location can do what a backup needs, step by step, each failure with advice that names the setting.

use super::Location;
use jiff::Timestamp;

/// One step and how it went.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// `list`, `write`, `create-only write`, `read back`, `multipart upload`, `delete`, `clock`
    pub name: &'static str,
    /// Whether it worked.
    pub ok: bool,
    /// Works without it, though not as well.
    pub optional: bool,
    /// What was seen.
    pub detail: String,
    /// What to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// Runs every step that makes sense after the ones before; leaves nothing behind.
pub async fn check(location: &Location, now: Timestamp) -> Vec<Step> {
    let _ = (location, now);
    todo!()
}
