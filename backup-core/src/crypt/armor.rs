//! Sealed bytes as text, as age has it: what stands in a field of JSON. Small things only.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const ARMOR: [&str; 2] = [
    "-----BEGIN AGE ENCRYPTED FILE-----",
    "-----END AGE ENCRYPTED FILE-----",
];

/// As text.
pub(crate) fn armored(bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    let mut lines = vec![ARMOR[0]];
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        lines.push(line);
        rest = after;
    }
    lines.extend([ARMOR[1], ""]);
    lines.join("\n")
}

/// Back; nothing where it is no such text.
pub(crate) fn unarmored(text: &str) -> Option<Vec<u8>> {
    let inner = text.trim().strip_prefix(ARMOR[0])?.strip_suffix(ARMOR[1])?;
    let inner: String = inner.split_ascii_whitespace().collect();
    STANDARD.decode(inner).ok()
}
