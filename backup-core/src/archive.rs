//! The archive of a backup and its index: Velero's tar.gz (format 1.1.0), cut so that any object can be fetched alone.
//! Nothing here talks to a cluster or knows where the bytes are kept.
//!
//! # Archive: `<name>.tar.gz`
//! One gzip stream of many members, as RFC 1952 allows; Go, Velero, `gunzip` and `tar xzf` read it as one. In it a GNU tar:
//! first `metadata/version` (`1.1.0\n`), then every object twice with the same body, adjacent:
//! `resources/<resource[.group]>/namespaces/<ns>/<name>.json` (cluster-scoped: `.../cluster/<name>.json`) and
//! `resources/<resource[.group]>/<version>-preferredversion/...` the same; two zero blocks end it. Files are regular, mode 0755
//! (Velero gives folders the mode of files), uid and gid 0, mtime the backup's start; names over 100 bytes use GNU long-name records.
//! The body is the object as the server sent it; where the list left out `apiVersion` and `kind` they are put first.
//! A body is at most [`LARGEST_BODY`] bytes. Where a path comes twice the last one counts, as for every reader of tar.
//!
//! # Members
//! A member is cut only between objects, at about 1 MiB of tar or where a page of a list ends, and holds both copies of each of its
//! objects. One exception: a body over 16 KiB is a member of its own, exactly its JSON bytes. The tar header before it (with its
//! long-name record) ends the member before; its padding, where it has any, opens the member after. Such a body is compressed once and
//! the same compressed bytes are written for both copies: `[.. header1] [body] [padding header2] [body] [padding ..]`. No member is
//! empty. That a concatenation of members is the concatenation of what they hold is RFC 1952, section 2.2; the test
//! `a_large_body_is_compressed_once_and_read_back_by_plain_gunzip_and_tar` shows it.
//! A body of 16 KiB or less lies, with its second copy and two headers, inside deflate's window of 32 KiB: the copy costs a few
//! bytes. A larger one would be compressed a second time in full, hence the exception. A reader takes none of these sizes for granted:
//! it goes by the index.
//!
//! # Index: `index.jsonl.zst`
//! Zstandard frames, one after the other without a gap, so that `zstd -dc` prints JSON lines, each ended by a line feed. A frame holds
//! at least one line, lines of one kind only, and at most [`LARGEST_FRAME`] bytes of them
//! ([`LARGEST_CONTENTS`] for the table of contents). Header, then objects and members (their
//! frames mix, in the order in which they filled up), then resources, table of contents, trailer:
//! 1. header: `{"format":"kubectl-backup.index/1", "backup":.., "created":..}`: one line.
//! 2. objects of one API resource, in one or more frames of about 1 MiB of lines or less (several, so that no resource type has to be
//!    held whole): `{"ns":..,"name":..,"uid":..,"rv":..,"labels":{..},"owners":[uid..],"sha256":..,"crc32":..,"member":n,"offset":o,"length":l}`.
//!    `member` counts members from 0 in the order of the archive; `offset` and `length` locate the first copy of the body in the
//!    uncompressed member. `crc32` is of the body as stored. `sha256` is of the body without what a server sets (see
//!    [`object::content_digest`]), so that two backups or a cluster can be compared without bodies. Absent fields are left out.
//!    Within one resource, lines are in the order in which the server listed them.
//! 3. members: `{"at":offset,"length":bytes,"size":uncompressed,"sha256":of the compressed bytes}`, a line each, in order, in frames of about
//!    1 MiB. They follow each other without a gap from 0 to the archive's end.
//! 4. resources: a line per API resource the server has: `{"resource":"deployments.apps","version":"v1","kind":"Deployment","namespaced":true,
//!    "outcome":"saved|excluded|failed","why":..,"count":n,"rv":..,"rv2":..,"exact":bool}`; `count` tells how many of its objects are in
//!    the archive (some may be where it failed half-way), `rv` is the revision it was read at, `rv2` a second one where a list expired
//!    half-way, `exact` whether `rv` is the backup's common revision.
//! 5. the table of contents, one line: `{"format":..,"members":n,"objects":n,"size":archive bytes,"frames":[{"kind":"objects","resource":..,
//!    "at":..,"length":..,"size":uncompressed,"lines":n,"min":key,"max":key,"sha256":of the compressed frame}..]}`: every frame before it, in
//!    order. A key is `ns/name`, or `name` for what is cluster-scoped; `min` and `max` are the smallest and greatest of an objects frame in
//!    byte order, so that one object is found by reading one frame where the server listed in its own (etcd's) order, and is found still
//!    where it did not.
//! 6. the trailer, a zstd skippable frame, the last 72 bytes of the file: magic `0x184D2A5B` and length 64 (u32 each), then offset, length
//!    and uncompressed size of frame 5 (u64 each; all little endian), the 32 bytes of the SHA-256 of frame 5 as compressed, and the 8
//!    bytes `KBINDEX1`. A decompressor passes over it.
//!
//! # Secrets apart: `secrets.tar.gz.age` and `secrets.index.jsonl.zst.age`
//! Where Secrets alone are encrypted, they are in an archive and an index of their own, of these same forms, each one an age file for the backup's key. Its
//! index has one resource, `secrets`, and `"salt"` in its header: 128 random bits, for the digest of its table of contents stands in the marker. Its table of
//! contents has in `"beside"` the SHA-256 of the table of contents (as compressed) of the other index, so that nothing else can stand beside the Secrets. The
//! other index has the format `kubectl-backup.index/2` and no object of `secrets`; its line of that resource has `"count":0` and in `"apart"` how many there are.
//!
//! Each digest covers the next: trailer, table of contents, frames, and with them members and bodies. One read of the file's end finds
//! everything. A reader refuses a `format` it does not know, and ignores keys and kinds of frames it does not know.

pub mod index;
pub mod object;
pub mod pack;
pub mod read;
pub mod row;
pub mod spool;
pub mod verify;
pub mod write;

pub(crate) use path::is_dns_label;

mod entries;
mod feed;
mod path;
#[cfg(test)]
mod tests;

/// The name of this form of index, and its version.
pub const FORMAT: &str = "kubectl-backup.index/1";

/// The same where Secrets stand apart: who knows nothing of that does not take the rest for all.
pub const FORMAT_APART: &str = "kubectl-backup.index/2";

/// The resource that can stand apart from the rest of a backup, encrypted.
pub const SECRETS: &str = "secrets";

/// No body is larger. (etcd refuses objects of a few MiB.)
pub const LARGEST_BODY: u64 = 64 << 20;

/// No frame of an index is larger uncompressed, but for the table of contents.
pub const LARGEST_FRAME: u64 = 16 << 20;

/// No table of contents is larger uncompressed: some 100,000 frames, or as many million objects.
pub const LARGEST_CONTENTS: u64 = 32 << 20;

/// SHA-256 in lower-case hex.
fn sha256_hex(bytes: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]])
        .map(char::from)
        .collect()
}
