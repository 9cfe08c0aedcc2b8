//! What the pod of a check is told over its standard input, and what it answers: a line of JSON each way. Keys stand in the question alone, which is kept
//! nowhere; both lines come from elsewhere for who reads them, and are bounded.

use backup_core::api::BackupStorageLocation;
use backup_core::location::check::Step;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Neither line is longer.
pub(super) const LONGEST: u64 = 1 << 20;

/// No check has more steps.
pub(super) const MOST_STEPS: usize = 64;

/// Which location, and with which keys where they are not mounted.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Question {
    /// The location, as it works without the asking machine.
    pub(super) location: BackupStorageLocation,
    /// The credentials file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) credentials: Option<Key>,
    /// The key that the store encrypts with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) customer_key: Option<Key>,
    /// Where the credentials are from, for messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) origin: Option<String>,
}

/// Bytes that are shown to nobody; base64 on their way.
pub(super) struct Key(pub(super) Vec<u8>);

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        // Not the decoder's own words: they may repeat what it was given.
        let bytes = STANDARD.decode(text.as_bytes());
        bytes
            .map(Self)
            .map_err(|_| serde::de::Error::custom("a key is no base64"))
    }
}

/// What was seen, or why nothing could be.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Answer {
    /// Each step.
    Steps(Vec<Step>),
    /// The location could not be opened there, and why.
    Refused(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_arrives_as_it_was_asked_and_a_broken_one_repeats_nothing() {
        let question = Question {
            location: BackupStorageLocation::default(),
            credentials: Some(Key(b"secret\n".to_vec())),
            customer_key: None,
            origin: None,
        };
        let line = serde_json::to_string(&question).unwrap();
        assert!(!line.contains('\n') && !line.contains("secret"));
        let arrived: Question = serde_json::from_str(&line).unwrap();
        assert_eq!(arrived.credentials.unwrap().0, b"secret\n");
        let broken = line.replace(&STANDARD.encode("secret\n"), "s3cr3t!");
        let refused = serde_json::from_str::<Question>(&broken).err().unwrap();
        assert!(!refused.to_string().contains("s3cr3t"), "{refused}");
    }
}
