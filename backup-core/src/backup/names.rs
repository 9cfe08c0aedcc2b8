//! The names of what was saved, for `<name>-resource-list.json.gz`: compressed as they come, so that a large cluster's names do not stay in
//! memory. Pure.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// Names wait for compression up to so many bytes.
const CHUNK: usize = 64 << 10;

/// Text that grows at its end, kept as gzip members.
#[derive(Debug, Default)]
pub(super) struct GzText {
    open: Vec<u8>,
    packed: Vec<u8>,
}

impl GzText {
    /// Adds text.
    pub(super) fn push(&mut self, text: &[u8]) {
        self.open.extend_from_slice(text);
        if self.open.len() >= CHUNK {
            self.close();
        }
    }

    /// Adds what is compressed already.
    fn append(&mut self, other: Self) {
        self.close();
        self.packed.extend_from_slice(&other.finish());
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.packed.extend_from_slice(&gzip(&self.open));
            self.open.clear();
        }
    }

    /// The whole, compressed.
    pub(super) fn finish(mut self) -> Bytes {
        if self.packed.is_empty() {
            return gzip(&self.open);
        }
        self.close();
        self.packed.into()
    }
}

/// Text as one gzip member.
pub(super) fn gzip(text: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 3), Compression::default());
    encoder
        .write_all(text)
        .and_then(|()| encoder.finish())
        .expect("memory takes what is written")
        .into()
}

/// The names of one type: the elements of a JSON array.
#[derive(Debug, Default)]
pub(super) struct Names {
    text: GzText,
    some: bool,
}

impl Names {
    /// Adds `ns/name`, or `name`.
    pub(super) fn push(&mut self, namespace: Option<&str>, name: &str) {
        let whole = match namespace {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.to_owned(),
        };
        if self.some {
            self.text.push(b",");
        }
        self.some = true;
        self.text
            .push(serde_json::Value::from(whole).to_string().as_bytes());
    }
}

/// All of them as one JSON object, compressed.
pub(super) fn resource_list(types: impl IntoIterator<Item = (String, Names)>) -> Bytes {
    let mut out = GzText::default();
    out.push(b"{");
    for (position, (kind, names)) in types.into_iter().enumerate() {
        let comma = if position > 0 { "," } else { "" };
        out.push(format!("{comma}{}:[", serde_json::Value::from(kind)).as_bytes());
        out.append(names.text);
        out.push(b"]");
    }
    out.push(b"}");
    out.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    #[test]
    fn many_names_come_back_as_one_json_object() {
        let mut pods = Names::default();
        for n in 0..10_000 {
            pods.push(Some("default"), &format!("web-{n}"));
        }
        let mut nodes = Names::default();
        nodes.push(None, "a:\"b");
        let types = [("v1/Node".to_owned(), nodes), ("v1/Pod".to_owned(), pods)];
        let packed = resource_list(types);
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(packed.as_ref())
            .read_to_string(&mut text)
            .unwrap();
        let lists: BTreeMap<String, Vec<String>> = serde_json::from_str(&text).unwrap();
        assert_eq!(lists["v1/Node"], ["a:\"b"]);
        assert_eq!(lists["v1/Pod"].len(), 10_000);
        assert_eq!(lists["v1/Pod"][9_999], "default/web-9999");
    }
}
