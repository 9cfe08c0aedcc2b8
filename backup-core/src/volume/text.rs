//! Bytes in JSON: as a string where they are one, else `{"b64": "..."}`; and as a user reads them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form<'a> {
    Text(std::borrow::Cow<'a, str>),
    Bytes { b64: String },
}

pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let form = match std::str::from_utf8(bytes) {
        Ok(text) => Form::Text(text.into()),
        Err(_) => Form::Bytes {
            b64: STANDARD.encode(bytes),
        },
    };
    form.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    match Form::deserialize(deserializer)? {
        Form::Text(text) => Ok(text.into_owned().into_bytes()),
        Form::Bytes { b64 } => STANDARD.decode(b64).map_err(D::Error::custom),
    }
}

/// On one line, with whatever is not to be printed escaped.
pub(super) fn shown(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut shown = String::new();
    let escape = |shown: &mut String, bytes: &[u8]| {
        for byte in bytes {
            let _ = write!(shown, "\\x{byte:02x}");
        }
    };
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if letter.is_control() {
                let mut buffer = [0; 4];
                escape(&mut shown, letter.encode_utf8(&mut buffer).as_bytes());
            } else {
                shown.push(letter);
            }
        }
        escape(&mut shown, chunk.invalid());
    }
    shown
}
