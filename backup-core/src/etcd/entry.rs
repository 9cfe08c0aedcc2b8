//! What stands in bucket `key`: revisions as keys, and the records that etcd stores under them. Pure, and bounded by the bytes given.

/// What `key` holds.
pub(super) const KEY_BUCKET: &[u8] = b"key";

/// A name of a resource or of an encryption key that is longer is none.
const MOST_NAME: usize = 317; // a resource and a group of 63 and 253 characters

/// Names of encryption keys that are told apart; an API server has a few. Their numbers fit a byte.
pub(super) const MOST_ENCRYPTION_KEYS: usize = 64;

/// The key of an entry: which change it was, and whether it removed the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Revision {
    /// The revision of the store.
    pub main: i64,
    /// Which change of its transaction.
    pub sub: i64,
    /// Whether the key was removed.
    pub is_tombstone: bool,
}

impl Revision {
    /// Eight bytes, `_`, eight bytes, and `t` for a removal; numbers are big endian and never negative.
    pub(super) fn parse(key: &[u8]) -> Option<Self> {
        let is_tombstone = match key.len() {
            17 => false,
            18 if key[17] == b't' => true,
            _ => return None,
        };
        let number = |bytes: &[u8]| Some(i64::from_be_bytes(bytes.try_into().ok()?));
        let (main, sub) = (number(&key[..8])?, number(&key[9..17])?);
        (key[8] == b'_' && main >= 0 && sub >= 0).then_some(Self {
            main,
            sub,
            is_tombstone,
        })
    }
}

/// A record, mvccpb.KeyValue; numbers that are absent are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub key: &'a [u8],
    pub create: i64,
    pub modified: i64,
    pub version: i64,
    pub value: &'a [u8],
    pub lease: i64,
}

impl<'a> Record<'a> {
    /// The whole record; nothing where it is none.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut fields = Fields {
            rest: bytes,
            missing: 0,
        };
        Self::read(&mut fields)
    }

    /// What the first bytes of a record of `length` bytes tell: its value may be cut, and what follows the value is not known.
    /// Nothing where the cut comes before the value.
    pub(super) fn parse_head(bytes: &'a [u8], length: usize) -> Option<Self> {
        let mut fields = Fields {
            rest: bytes,
            missing: length.checked_sub(bytes.len())?,
        };
        Self::read(&mut fields)
    }

    fn read(fields: &mut Fields<'a>) -> Option<Self> {
        let mut record = Self::default();
        while let Some(tag) = fields.tag()? {
            match tag {
                (1, 2) => record.key = fields.bytes(false)?,
                (2, 0) => record.create = fields.varint()?.cast_signed(),
                (3, 0) => record.modified = fields.varint()?.cast_signed(),
                (4, 0) => record.version = fields.varint()?.cast_signed(),
                (5, 2) => {
                    record.value = fields.bytes(true)?;
                    if fields.missing > 0 {
                        break;
                    }
                }
                (6, 0) => record.lease = fields.varint()?.cast_signed(),
                (1..=6, _) => return None,
                (_, kind) => fields.skip(kind)?,
            }
        }
        Some(record)
    }
}

/// Reads the fields of a message of protocol buffers.
struct Fields<'a> {
    rest: &'a [u8],
    /// Bytes that belong to the message and are not at hand.
    missing: usize,
}

impl<'a> Fields<'a> {
    /// The next field and its kind; the inner nothing at the end.
    fn tag(&mut self) -> Option<Option<(u64, u8)>> {
        if self.rest.is_empty() {
            return (self.missing == 0).then_some(None);
        }
        let tag = self.varint()?;
        let number = tag >> 3;
        (number > 0).then_some(Some((number, (tag & 7) as u8)))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for index in 0..10 {
            let byte = *self.rest.get(index)?;
            value |= u64::from(byte & 0x7F).checked_shl(7 * index as u32)?;
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return (index < 9 || byte <= 1).then_some(value);
            }
        }
        None
    }

    fn bytes(&mut self, may_be_cut: bool) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        if length > self.rest.len() {
            let cut = may_be_cut && length - self.rest.len() <= self.missing;
            return cut.then(|| std::mem::take(&mut self.rest));
        }
        let (bytes, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(bytes)
    }

    fn skip(&mut self, kind: u8) -> Option<()> {
        match kind {
            0 => {
                self.varint()?;
            }
            1 => self.rest = self.rest.get(8..)?,
            2 => {
                self.bytes(false)?;
            }
            5 => self.rest = self.rest.get(4..)?,
            _ => return None,
        }
        Some(())
    }
}

/// An alarm, etcdserverpb.AlarmMember: the member and the number of the alarm.
pub(super) fn alarm(bytes: &[u8]) -> Option<(u64, u64)> {
    let mut fields = Fields {
        rest: bytes,
        missing: 0,
    };
    let (mut member, mut kind) = (0, 0);
    while let Some(tag) = fields.tag()? {
        match tag {
            (1, 0) => member = fields.varint()?,
            (2, 0) => kind = fields.varint()?,
            (1 | 2, _) => return None,
            (_, kind) => fields.skip(kind)?,
        }
    }
    Some((member, kind))
}

/// What a key of the API server belongs to, as `resource` or `resource.group`; nothing for any other key. Its paths are
/// `/registry/<resource>/..` and `/registry/<group>/<resource>/..`, where a group has a dot.
pub(super) fn resource(key: &[u8]) -> Option<(&str, Option<&str>)> {
    let path = std::str::from_utf8(key.strip_prefix(b"/registry/")?).ok()?;
    let mut parts = path.splitn(3, '/');
    let (first, second) = (parts.next()?, parts.next()?);
    let is_name = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    let found = match (first, second) {
        // Two resources that share a folder, and one that was renamed.
        ("services", "specs") => ("services", None),
        ("services", "endpoints") => ("endpoints", None),
        ("minions", _) => ("nodes", None),
        (group, resource) if group.contains('.') && parts.next().is_some() => {
            (resource, Some(group))
        }
        (resource, _) => (resource, None),
    };
    let (name, group) = found;
    let is_one = is_name(name)
        && group.is_none_or(is_name)
        && name.len() + group.map_or(0, str::len) < MOST_NAME;
    is_one.then_some(found)
}

/// The provider and the name of the key that an API server encrypted a value with: `k8s:enc:<provider>:<version>:<key>:` stands before it.
pub(super) fn encryption(value: &[u8]) -> Option<(&str, &str)> {
    let rest = value.strip_prefix(b"k8s:enc:")?;
    let rest = &rest[..rest.len().min(MOST_NAME)];
    let mut parts = rest.splitn(4, |byte| *byte == b':');
    let mut part = || std::str::from_utf8(parts.next()?).ok();
    let (provider, _version, key) = (part()?, part()?, part()?);
    // The colon that ends the name must be there, or the name was cut.
    parts.next()?;
    let is_word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    (is_word(provider) && is_word(key)).then_some((provider, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(main: i64, sub: i64, mark: &[u8]) -> Vec<u8> {
        [&main.to_be_bytes()[..], b"_", &sub.to_be_bytes(), mark].concat()
    }

    #[test]
    fn a_revision_is_17_bytes_or_18_with_a_t() {
        let parsed = Revision::parse(&key(7, 2, b"t")).unwrap();
        assert_eq!((parsed.main, parsed.sub, parsed.is_tombstone), (7, 2, true));
        assert!(!Revision::parse(&key(7, 2, b"")).unwrap().is_tombstone);
        for wrong in [
            key(-1, 0, b""),
            key(1, -1, b""),
            key(1, 0, b"x"),
            key(1, 0, b"tt"),
            key(1, 0, b"")[..16].to_vec(),
            Vec::new(),
        ] {
            assert_eq!(Revision::parse(&wrong), None, "{wrong:?}");
        }
        let mut no_line = key(1, 0, b"");
        no_line[8] = b'-';
        assert_eq!(Revision::parse(&no_line), None);
    }

    #[test]
    fn a_record_is_read_field_by_field_and_unknown_fields_are_passed_over() {
        let bytes = [
            b"\x0a\x03abc\x10\x05\x18\x07\x20\x02\x2a\x02xy\x30".as_slice(),
            &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
            b"\x3a\x01z\x40\x01\x4d1234\x5112345678",
        ]
        .concat();
        let record = Record::parse(&bytes).unwrap();
        assert_eq!((record.key, record.value), (&b"abc"[..], &b"xy"[..]));
        assert_eq!((record.create, record.modified), (5, 7));
        assert_eq!((record.version, record.lease), (2, i64::MAX));
        assert_eq!(Record::parse(b"").unwrap(), Record::default());
    }

    #[test]
    fn what_is_no_record_is_none_and_never_a_panic() {
        for wrong in [
            &b"\x0a"[..],
            b"\x0a\x05abc",
            b"\x08\x01",
            b"\x12\x01a",
            b"\x00",
            b"\x3b",
            b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"\x2a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x4d123",
        ] {
            assert_eq!(Record::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_head_of_a_record_tells_all_but_the_lease() {
        let bytes = b"\x0a\x03abc\x10\x05\x18\x07\x20\x02\x2a\x0a0123456789\x30\x01";
        let whole = Record::parse(bytes).unwrap();
        for cut in 13..bytes.len() {
            let head = Record::parse_head(&bytes[..cut], bytes.len()).unwrap();
            assert_eq!((head.key, head.version), (whole.key, 2), "{cut}");
            assert!(whole.value.starts_with(head.value), "{cut}");
        }
        assert_eq!(Record::parse_head(&bytes[..12], bytes.len()), None);
        assert_eq!(Record::parse_head(bytes, bytes.len()).unwrap(), whole);
        assert_eq!(Record::parse_head(bytes, 3), None);
        // A value that claims more than the record has.
        assert_eq!(Record::parse_head(b"\x2a\x7fab", 10), None);
    }

    #[test]
    fn resources_are_told_from_the_path() {
        for (path, want) in [
            ("/registry/pods/default/a", Some(("pods", None))),
            ("/registry/namespaces/default", Some(("namespaces", None))),
            ("/registry/apps/x/y", Some(("apps", None))),
            (
                "/registry/velero.io/backups/velero/a",
                Some(("backups", Some("velero.io"))),
            ),
            (
                "/registry/apiregistration.k8s.io/apiservices/v1.",
                Some(("apiservices", Some("apiregistration.k8s.io"))),
            ),
            (
                "/registry/services/specs/default/a",
                Some(("services", None)),
            ),
            (
                "/registry/services/endpoints/default/a",
                Some(("endpoints", None)),
            ),
            ("/registry/minions/node1", Some(("nodes", None))),
            ("/registry/health", None),
            ("/registry//a", None),
            ("/registry/a b/c", None),
            ("compact_rev_key", None),
            ("", None),
        ] {
            assert_eq!(resource(path.as_bytes()), want, "{path}");
        }
        assert_eq!(resource(b"/registry/pods\xff/a"), None);
        let long = format!("/registry/{}/a", "x".repeat(400));
        assert_eq!(resource(long.as_bytes()), None);
    }

    #[test]
    fn the_encryption_key_is_told_from_the_prefix() {
        let of = |value: &'static str| encryption(value.as_bytes());
        assert_eq!(
            of("k8s:enc:aescbc:v1:key1:\u{1}xx"),
            Some(("aescbc", "key1"))
        );
        assert_eq!(of("k8s:enc:kms:v2:my-kms:x"), Some(("kms", "my-kms")));
        assert_eq!(of("k8s:enc:kms:v2:my-kms"), None);
        assert_eq!(of("k8s:enc:::x:"), None);
        assert_eq!(of("k8s\0"), None);
    }
}
