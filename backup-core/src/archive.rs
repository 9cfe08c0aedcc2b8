//! The archive of a backup and its index: Velero's tar.gz (format 1.1.0), cut so that any object can be fetched alone.
//! Nothing here talks to a cluster or knows where the bytes are kept.
//!
//! # Archive: `<name>.tar.gz`
//! One gzip stream of many members, as RFC 1952 allows; Go, Velero, `gunzip` and `tar xzf` read it as one. In it a GNU tar:
//! first `metadata/version` (`1.1.0\n`), then every object twice with the same body, adjacent:
//! `resources/<resource[.group]>/namespaces/<ns>/<name>.json` (cluster-scoped: `.../cluster/<name>.json`) and
//! `resources/<resource[.group]>/<version>-preferredversion/...` the same. Files are regular, mode 0755 (Velero gives folders the
//! mode of files), uid and gid 0, mtime the backup's start; names over 100 bytes use GNU long-name records.
//! The body is the object as the server sent it; where the list left out `apiVersion` and `kind` they are put first.
//!
//! # Members
//! A member is cut only between objects, at about 1 MiB of tar, and holds both copies of each of its objects. One exception: a body
//! over 16 KiB is a member of its own, exactly its JSON bytes. The tar header before it ends the member before; its padding
//! opens the member after. Such a body is compressed once and the same compressed bytes are written for both copies:
//! `[.. header1] [body] [padding header2] [body] [padding ..]`. That a concatenation of members is the concatenation of what they hold
//! is RFC 1952, section 2.2; the test `a_large_body_is_compressed_once_and_read_back_by_plain_gunzip_and_tar` shows it.
//! A body of 16 KiB or less lies, with its second copy and two headers, inside deflate's window of 32 KiB: the copy costs a few
//! bytes. A larger one would be compressed a second time in full, hence the exception.
//!
//! # Index: `index.jsonl.zst`
//! Zstandard frames, one after the other, so that `zstd -dc` prints JSON lines. Each frame holds lines of one kind:
//! 1. `{"format":"kubectl-backup.index/1", "backup":.., "created":..}`: one line, the first frame.
//! 2. objects of one API resource, in one or more frames of about 1 MiB of lines (several, so that no resource type has to be held whole):
//!    `{"ns":..,"name":..,"uid":..,"rv":..,"labels":{..},"owners":[uid..],"sha256":..,"crc32":..,"member":n,"offset":o,"length":l}`.
//!    `member` counts members from 0 in the order of the archive; `offset` and `length` locate the first copy of the body in the
//!    uncompressed member. `crc32` is of the body as stored. `sha256` is of the body without what a server sets (see
//!    [`row::content_digest`]), so that two backups or a cluster can be compared without bodies. Absent fields are left out.
//!    Within one resource, lines are in the order in which the server listed them.
//! 3. members: `{"at":offset,"length":bytes,"size":uncompressed,"sha256":of the compressed bytes}`, a line each, in order, in frames of about 1 MiB.
//! 4. resources: a line per API resource the server has: `{"resource":"deployments.apps","version":"v1","kind":"Deployment","namespaced":true,
//!    "outcome":"saved|excluded|failed","why":..,"count":n,"rv":..,"rv2":..,"exact":bool}`; `rv` is the revision it was read at, `rv2` a
//!    second one where a list expired half-way, `exact` whether `rv` is the backup's common revision.
//! 5. the table of contents, one line: `{"members":n,"objects":n,"size":archive bytes,"frames":[{"kind":"objects","resource":..,"at":..,"length":..,"lines":n,"first":[ns,name],"last":[ns,name]}..]}`.
//! 6. a zstd skippable frame (magic `0x184D2A5B`, little endian, length 24): offset and length of frame 5 (u64, little endian), then the
//!    8 bytes `KBINDEX1`. It is the last 32 bytes of the file, so one range read finds everything. A decompressor passes over it.
//!
//! A reader refuses a `format` it does not know, and ignores keys it does not know.

pub mod index;
pub mod pack;
pub mod read;
pub mod row;
pub mod spool;
pub mod verify;
pub mod write;
