//! Secrets of locations are told by nobody: not on a screen, not in a file, an object, a bucket, a metric or an argument, and no child inherits them.
//! Everything that is said during a story is kept, and searched at its end for each secret as it is, in base64, as a URL and JSON have it, and packed.

mod client;
mod controller;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use harness::run::{Backup, Run};

/// What was said, and what may not be in it.
#[derive(Default)]
pub(crate) struct Witness {
    said: Vec<(String, Vec<u8>)>,
    secrets: Vec<(String, String)>,
}

impl Witness {
    /// Something that may not be told.
    pub(crate) fn keeps(&mut self, what: &str, secret: &str) {
        assert!(secret.len() > 7, "{what} is too short to be looked for");
        self.secrets.push((what.to_owned(), secret.to_owned()));
    }

    /// Something that was said.
    pub(crate) fn hears(&mut self, by: impl Into<String>, text: impl Into<Vec<u8>>) {
        self.said.push((by.into(), text.into()));
    }

    /// Runs a call; it ends with one of these codes, or with any where none is named.
    #[track_caller]
    pub(crate) fn run(&mut self, call: Backup, codes: &[i32]) -> Run {
        let run = call.run();
        assert!(
            codes.is_empty() || codes.contains(&run.code),
            "{} ended with {}\n{}\n{}",
            run.command,
            run.code,
            run.stdout,
            run.stderr
        );
        let said = format!("{}\n{}", run.stdout, run.stderr);
        self.hears(run.command.clone(), said);
        run
    }

    /// Every file below a folder.
    pub(crate) fn reads(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.reads(&path);
            } else if path.is_file() {
                let content = fs::read(&path).unwrap();
                self.hears(path.display().to_string(), content);
            }
        }
    }

    /// Where which secret was told.
    fn leaks(&self) -> Vec<String> {
        let all = self.secrets.iter();
        let forms: Vec<_> = all.map(|(what, secret)| (what, forms(secret))).collect();
        let mut leaks = Vec::new();
        for (by, said) in &self.said {
            for text in layers(said) {
                for (what, forms) in &forms {
                    if forms.iter().any(|form| text.contains(form.as_str())) {
                        leaks.push(format!("{what} is told by {by}"));
                    }
                }
            }
        }
        leaks
    }

    /// Fails the test where anything was told, and where this would not be noticed.
    #[track_caller]
    pub(crate) fn was_told_nothing(&self) {
        for (what, secret) in &self.secrets {
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            packed.write_all(secret.as_bytes()).unwrap();
            let quoted = serde_json::to_string(secret).unwrap();
            for said in [
                format!("key={secret}!").into_bytes(),
                format!("{{\"a\": {quoted}}}").into_bytes(),
                format!("?a=b&key={}&c=d", in_url(secret)).into_bytes(),
                STANDARD.encode(format!("1[x]={secret}\n")).into_bytes(),
                STANDARD.encode(format!("22[x]={secret}")).into_bytes(),
                URL_SAFE_NO_PAD
                    .encode(format!("333[x]={secret}!"))
                    .into_bytes(),
                packed.finish().unwrap(),
            ] {
                let mut other = Self::default();
                other.keeps(what, secret);
                other.hears("itself", said.clone());
                assert_eq!(other.leaks().len(), 1, "{what}: {said:?}");
            }
        }
        assert!(!self.secrets.is_empty() && !self.said.is_empty());
        let leaks = self.leaks();
        assert!(leaks.is_empty(), "{}", leaks.join("\n"));
    }
}

/// What can be read of bytes: as they are, and what is packed in them.
fn layers(bytes: &[u8]) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut all = vec![text(bytes)];
    let mut unpacked = Vec::new();
    let is_unpacked = match bytes {
        [0x1f, 0x8b, ..] => MultiGzDecoder::new(bytes)
            .read_to_end(&mut unpacked)
            .is_ok(),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            unpacked = zstd::decode_all(bytes).unwrap_or_default();
            true
        }
        _ => false,
    };
    if is_unpacked {
        all.push(text(&unpacked));
    }
    all
}

fn in_url(text: &str) -> String {
    text.bytes().fold(String::new(), |mut url, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            let _ = write!(url, "%{byte:02X}");
        }
        url
    })
}

/// How a secret may look.
fn forms(secret: &str) -> Vec<String> {
    let quoted = serde_json::to_string(secret).unwrap();
    let mut forms = vec![
        secret.to_owned(),
        in_url(secret),
        quoted.trim_matches('"').to_owned(),
    ];
    // In base64 it depends on what stands before it, and its ends on what stands beside it.
    for (before, first) in [(0, 0), (1, 2), (2, 3)] {
        let bytes = [&vec![0; before], secret.as_bytes()].concat();
        let whole = bytes.len() / 3 * 4;
        let encoded = STANDARD.encode(&bytes);
        let inner = &encoded[first..whole];
        forms.push(inner.to_owned());
        forms.push(inner.replace('+', "-").replace('/', "_"));
    }
    forms.sort();
    forms.dedup();
    forms
}
