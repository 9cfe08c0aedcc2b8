//! An etcd write-ahead log. Here its head, whose it is: what every segment begins with, and nothing behind it. Every length is checked before
//! it is used. [`tail`] reads the whole log.
//!
//! Format (etcd server/storage/wal): frames of a little-endian u64, whose lower 56 bits are the record's length and whose top byte, where
//! its highest bit is set, holds the number of padding bytes (0..7) in its lower three; then the record, `walpb.Record {1: type,
//! 2: crc, 3: data}`. A segment begins with a record of type 4 (its crc continues that of the segment before), then one of type 1
//! whose data is `Metadata {1: node id, 2: cluster id}`, both fixed in protobuf as varints. CRC-32C runs over the data alone.

pub(crate) mod tail;

use super::ids::Id;

/// More than the first two records ever take.
pub(super) const HEAD: u64 = 4096;

/// A record this long is no head.
const LONGEST: usize = 1024;

/// Whose log it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The member's id.
    pub(super) member: Id,
    /// The cluster's id.
    pub(super) cluster: Id,
}

/// The segment's number, where this is the name of one: sixteen hex digits, a dash, sixteen more, `.wal`.
pub(super) fn sequence(name: &str) -> Option<u64> {
    let (sequence, index) = name.strip_suffix(".wal")?.split_once('-')?;
    let number = |text: &str| {
        let hex = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| u64::from_str_radix(text, 16).ok()).flatten()
    };
    number(index)?;
    number(sequence)
}

/// Reads the first bytes of a segment; the error says what is wrong with them.
pub(super) fn owner(head: &[u8]) -> Result<Owner, &'static str> {
    let (first, rest) = record(head)?;
    if first.kind != 4 || !first.data.is_empty() {
        return Err("does not begin with a checksum record");
    }
    let (second, _) = record(rest)?;
    if second.kind != 1 {
        return Err("has no metadata behind its first record");
    }
    if crc32c::crc32c_append(first.crc, second.data) != second.crc {
        return Err("has metadata that does not match its checksum");
    }
    let (mut member, mut cluster) = (None, None);
    fields(second.data, |field, value| match (field, value) {
        (1, Value::Number(id)) => member = Some(id),
        (2, Value::Number(id)) => cluster = Some(id),
        _ => {}
    })?;
    match (member, cluster) {
        (Some(member), Some(cluster)) if cluster != 0 => Ok(Owner {
            member: Id(member),
            cluster: Id(cluster),
        }),
        _ => Err("names no cluster"),
    }
}

struct Record<'a> {
    kind: u64,
    crc: u32,
    data: &'a [u8],
}

/// The first record, and what follows its padding.
fn record(bytes: &[u8]) -> Result<(Record<'_>, &[u8]), &'static str> {
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or("is cut off")?;
    let field = u64::from_le_bytes(*length);
    if field == 0 {
        return Err("is empty");
    }
    let (length, padding) = frame(field);
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= LONGEST)
        .ok_or("begins with no record")?;
    let (body, rest) = rest
        .split_at_checked(length)
        .ok_or("is cut off inside its first records")?;
    Ok((decode(body)?, rest.get(padding..).unwrap_or_default()))
}

/// The lengths of a record and of its padding, by its frame.
fn frame(field: u64) -> (u64, usize) {
    let padding = if field >> 63 == 1 {
        usize::from((field >> 56) as u8 & 7)
    } else {
        0
    };
    (field & 0x00ff_ffff_ffff_ffff, padding)
}

/// The record in these bytes.
fn decode(body: &[u8]) -> Result<Record<'_>, &'static str> {
    let mut record = Record {
        kind: 0,
        crc: 0,
        data: &[],
    };
    fields(body, |field, value| match (field, value) {
        (1, Value::Number(kind)) => record.kind = kind,
        (2, Value::Number(crc)) => record.crc = crc as u32,
        (3, Value::Bytes(data)) => record.data = data,
        _ => {}
    })?;
    Ok(record)
}

/// A record with its frame and padding.
fn encode(kind: u64, crc: u32, data: &[u8]) -> Vec<u8> {
    let mut record = vec![0x08];
    put_varint(&mut record, kind);
    record.push(0x10);
    put_varint(&mut record, u64::from(crc));
    if !data.is_empty() {
        record.push(0x1a);
        put_varint(&mut record, data.len() as u64);
        record.extend(data);
    }
    let padding = (8 - record.len() % 8) % 8;
    let mut field = record.len() as u64;
    if padding > 0 {
        field |= (0x80 | padding as u64) << 56;
    }
    let mut framed = field.to_le_bytes().to_vec();
    framed.extend(record);
    framed.extend(std::iter::repeat_n(0, padding));
    framed
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Walks the fields of a protobuf message of varints and byte strings.
fn fields<'a>(
    mut bytes: &'a [u8],
    mut each: impl FnMut(u64, Value<'a>),
) -> Result<(), &'static str> {
    const WRONG: &str = "holds a record that does not decode";
    while !bytes.is_empty() {
        let key = varint(&mut bytes).ok_or(WRONG)?;
        let value = varint(&mut bytes).ok_or(WRONG)?;
        match key & 7 {
            0 => each(key >> 3, Value::Number(value)),
            2 => {
                let length = usize::try_from(value).map_err(|_| WRONG)?;
                let (inside, rest) = bytes.split_at_checked(length).ok_or(WRONG)?;
                each(key >> 3, Value::Bytes(inside));
                bytes = rest;
            }
            _ => return Err(WRONG),
        }
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            return None;
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The head of a segment as etcd writes it, for tests.
#[cfg(test)]
pub(super) fn head_of(owner: Owner) -> Vec<u8> {
    let mut data = vec![0x08];
    put_varint(&mut data, owner.member.0);
    data.push(0x10);
    put_varint(&mut data, owner.cluster.0);
    let mut head = encode(4, 0, &[]);
    head.extend(encode(1, crc32c::crc32c(&data), &data));
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What etcd 3.6.16 wrote, read with xxd.
    const SEEN: &[u8] = &[
        0x04, 0, 0, 0, 0, 0, 0, 0x84, 0x08, 0x04, 0x10, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0,
        0x08, 0x01, 0x10, 0xfc, 0xb5, 0x88, 0xd4, 0x09, 0x1a, 0x16, 0x08, 0xfb, 0xfa, 0x8b, 0xa3,
        0x92, 0xe6, 0x9e, 0xeb, 0xdd, 0x01, 0x10, 0xb9, 0xae, 0xc4, 0xab, 0xb9, 0x89, 0xe5, 0xf7,
        0xa7, 0x01, 0x0e, 0, 0, 0, 0, 0, 0, 0x82,
    ];

    const OWNER: Owner = Owner {
        member: Id(15_985_099_378_392_235_387),
        cluster: Id(12_101_053_776_118_486_841),
    };

    #[test]
    fn the_owner_is_read_from_what_etcd_writes() {
        assert_eq!(owner(SEEN), Ok(OWNER));
        assert_eq!(owner(&head_of(OWNER)), Ok(OWNER));
        assert_eq!(&head_of(OWNER)[..], &SEEN[..SEEN.len() - 8]);
    }

    #[test]
    fn a_head_that_is_cut_off_or_altered_anywhere_is_refused_and_never_read_beyond() {
        let head = head_of(OWNER);
        for length in 0..head.len() {
            assert!(owner(&head[..length]).is_err(), "cut at {length}");
        }
        for at in 0..head.len() {
            for bit in 0..8 {
                let mut bent = head.clone();
                bent[at] ^= 1 << bit;
                if let Ok(read) = owner(&bent) {
                    assert_eq!(read, OWNER, "byte {at}, bit {bit}");
                }
            }
        }
        assert_eq!(owner(&[0; 64]), Err("is empty"));
        assert!(owner(&[0xff; 64]).is_err());
    }

    #[test]
    fn segments_are_known_by_their_names() {
        assert_eq!(sequence("000000000000000a-000000000000ffff.wal"), Some(10));
        for other in [
            "0.tmp",
            "0-0.wal",
            "000000000000000a-000000000000ffff.wal.broken",
            "+00000000000000a-000000000000ffff.wal",
        ] {
            assert_eq!(sequence(other), None, "{other}");
        }
    }
}
