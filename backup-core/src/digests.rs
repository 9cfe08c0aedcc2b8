//! SHA256SUMS: reads it and checks every file it names by streaming the file. Writes nothing.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use futures::StreamExt;

use crate::error::{Error, Kind, Result};
use crate::layout::BackupKeys;
use crate::location::Store;
use crate::name::Name;
use crate::progress::Progress;

/// No SHA256SUMS is larger.
const LARGEST: u64 = 1 << 20;

/// Checks the files of one backup; `marker` is the marker as it was read. What is wrong is a sentence each.
///
/// # Errors
/// The store's.
pub async fn check(
    store: &Store,
    name: &Name,
    marker: &[u8],
    progress: &dyn Progress,
) -> Result<Vec<String>> {
    let keys = BackupKeys::new(name);
    let Some(sums) = store.find(&keys.digests(), LARGEST).await? else {
        return Ok(vec![format!("{} is missing", keys.digests())]);
    };
    let sums = match parse(&sums) {
        Ok(sums) => sums,
        Err(e) => return Ok(vec![format!("{}: {e}", keys.digests())]),
    };
    let mut problems = Vec::new();
    for needed in [keys.marker(), keys.archive(), keys.index()] {
        let file = needed.trim_start_matches(&keys.folder()).to_owned();
        if !sums.contains_key(&file) {
            problems.push(format!("{} does not name {file}", keys.digests()));
        }
    }
    for (file, wanted) in &sums {
        let key = format!("{}{file}", keys.folder());
        let seen = if key == keys.marker() {
            hex(digest::digest(&digest::SHA256, marker).as_ref())
        } else {
            match sha256(store, &key, progress).await {
                Ok(seen) => seen,
                Err(e) if matches!(e.kind(), Kind::NotFound) => {
                    problems.push(format!("{key} is missing"));
                    continue;
                }
                Err(e) => return Err(e),
            }
        };
        if seen != *wanted {
            problems.push(format!(
                "{key} was altered: its SHA-256 is {seen}, and was {wanted} when it was written"
            ));
        }
    }
    Ok(problems)
}

async fn sha256(store: &Store, key: &str, progress: &dyn Progress) -> Result<String> {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut chunks = store.stream(key).await?;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        context.update(&chunk);
        progress.done(0, chunk.len() as u64);
    }
    Ok(hex(context.finish().as_ref()))
}

/// File name to digest. A name with a slash could point out of the folder and is refused.
fn parse(text: &[u8]) -> Result<BTreeMap<String, String>> {
    let text = std::str::from_utf8(text).map_err(|e| Error::corrupt("it is no text").because(e))?;
    text.lines()
        .enumerate()
        .map(|(number, line)| {
            let (digest, file) = line.split_once("  ").unwrap_or_default();
            let is_digest = digest.len() == 64
                && digest
                    .bytes()
                    .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if !is_digest || file.is_empty() || file.contains('/') {
                return Err(Error::corrupt(format!(
                    "line {} is no digest of a file",
                    number + 1
                )));
            }
            Ok((file.to_owned(), digest.to_owned()))
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_no_digest_of_a_file_here_are_refused() {
        let digest = "a".repeat(64);
        assert_eq!(
            parse(format!("{digest}  x.gz\n").as_bytes()).unwrap()["x.gz"],
            digest
        );
        for bad in [
            format!("{digest} x"),
            format!("{digest}  ../x"),
            format!("{}  x", "A".repeat(64)),
            "x".to_owned(),
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
