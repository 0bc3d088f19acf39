//! Dicts on the wire: `gfx_dict` of the 4.x programs (typed), and the older untyped serialization that SETVOLUME,
//! GETSPEC's xdata, callbacks and the management programs still use. Source: glusterfs4-xdr.x, dict.c of 10.3.

use std::collections::HashSet;

use bytes::Bytes;
use ladrillo_translator::iatt::Mdata;
use ladrillo_translator::{Dict, Gfid, Iatt, Timespec, Value};

use crate::xdr::{DecodeError, Reader, Writer, padding};

/// Most pairs a dict may have. Stock's largest (a volume's options) have hundreds.
pub const MAX_DICT_PAIRS: usize = 16_384;
/// Longest key in bytes, its NUL included.
const MAX_KEY_BYTES: usize = 4096;

/// GF_DATA_TYPE_* numbers.
mod data_type {
    pub const STR_OLD: u32 = 1;
    pub const INT: u32 = 2;
    pub const UINT: u32 = 3;
    pub const DOUBLE: u32 = 4;
    pub const STR: u32 = 5;
    pub const PTR: u32 = 6;
    pub const GFUUID: u32 = 7;
    pub const IATT: u32 = 8;
    pub const MDATA: u32 = 9;
}

/// What an empty dict looks like on the wire; both are read as an empty one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    /// No dict (count -1): usual for xdata.
    Null,
    /// A dict without pairs (count 0): where the dict is the value asked for.
    NoPairs,
}

/// Writes a `gfx_dict`: size of the pairs in bytes, their number twice, the pairs.
pub fn write_dict(writer: &mut Writer, dict: &Dict, empty: Empty) {
    if dict.is_empty() {
        writer.u32(0);
        writer.i32(if empty == Empty::Null { -1 } else { 0 });
        writer.u32(0);
        return;
    }
    let size_at = writer.len();
    writer.u32(0);
    writer.i32(dict.len() as i32);
    writer.u32(dict.len() as u32);
    let start = writer.len();
    for (key, value) in dict.iter() {
        writer.opaque_with_nul(key);
        write_value(writer, value);
    }
    writer.patch_u32(size_at, (writer.len() - start) as u32);
}

fn write_value(writer: &mut Writer, value: &Value) {
    match value {
        Value::Int(number) => {
            writer.u32(data_type::INT);
            writer.i64(*number);
        }
        Value::Uint(number) => {
            writer.u32(data_type::UINT);
            writer.u64(*number);
        }
        Value::Double(number) => {
            writer.u32(data_type::DOUBLE);
            writer.u64(number.to_bits());
        }
        Value::Str(text) => {
            writer.u32(data_type::STR);
            writer.opaque_with_nul(text);
        }
        Value::Ptr(bytes) => {
            writer.u32(data_type::PTR);
            writer.opaque(bytes);
        }
        Value::StrOld(bytes) => {
            writer.u32(data_type::STR_OLD);
            writer.opaque(bytes);
        }
        Value::Iatt(iatt) => {
            writer.u32(data_type::IATT);
            write_iatt(writer, iatt);
        }
        Value::Gfid(gfid) => {
            writer.u32(data_type::GFUUID);
            writer.raw(&gfid.0);
        }
        Value::Mdata(mdata) => {
            writer.u32(data_type::MDATA);
            for time in [mdata.atime, mdata.mtime, mdata.ctime] {
                writer.i64(time.seconds);
            }
            for time in [mdata.atime, mdata.mtime, mdata.ctime] {
                writer.u32(time.nanos);
            }
        }
    }
}

/// Reads a `gfx_dict`. Values share the record's buffer.
///
/// # Errors
/// Truncation, too many pairs, a type that does not exist.
pub fn read_dict(reader: &mut Reader) -> Result<Dict, DecodeError> {
    reader.u32("dict size")?;
    let count = reader.i32("dict count")?;
    let pairs = reader.u32("dict pairs")? as usize;
    if count < 0 && pairs != 0 {
        return Err(DecodeError::BadValue { what: "dict count", value: i64::from(count) });
    }
    // A pair takes 16 bytes at least.
    let limit = MAX_DICT_PAIRS.min(reader.left() / 16);
    if pairs > limit {
        return Err(DecodeError::TooLong { what: "dict pairs", length: pairs, limit });
    }
    let mut dict = Collector::with_capacity(pairs);
    for _ in 0..pairs {
        let key = reader.opaque("dict key", MAX_KEY_BYTES)?;
        let value = read_value(reader)?;
        dict.add(without_nul(key), value);
    }
    Ok(dict.finish())
}

fn read_value(reader: &mut Reader) -> Result<Value, DecodeError> {
    Ok(match reader.u32("dict value type")? {
        data_type::INT => Value::Int(reader.i64("dict value")?),
        data_type::UINT => Value::Uint(reader.u64("dict value")?),
        data_type::DOUBLE => Value::Double(f64::from_bits(reader.u64("dict value")?)),
        data_type::STR => Value::Str(without_nul(reader.opaque("dict value", usize::MAX)?)),
        data_type::PTR => Value::Ptr(reader.opaque("dict value", usize::MAX)?),
        data_type::STR_OLD => Value::StrOld(reader.opaque("dict value", usize::MAX)?),
        data_type::GFUUID => Value::Gfid(Gfid(reader.array("dict value")?)),
        data_type::IATT => Value::Iatt(Box::new(read_iatt(reader)?)),
        data_type::MDATA => {
            let (atime, mtime, ctime) = (reader.i64("atime")?, reader.i64("mtime")?, reader.i64("ctime")?);
            let mut time = |seconds| Ok(Timespec { seconds, nanos: reader.u32("nanoseconds")? });
            Value::Mdata(Mdata { atime: time(atime)?, mtime: time(mtime)?, ctime: time(ctime)? })
        }
        other => return Err(DecodeError::BadValue { what: "dict value type", value: i64::from(other) }),
    })
}

/// Builds a dict in linear time whatever the sender put in it; of equal keys the last wins, as with `Dict::set`.
struct Collector {
    pairs: Vec<(Bytes, Value)>,
}

impl Collector {
    fn with_capacity(pairs: usize) -> Collector {
        Collector { pairs: Vec::with_capacity(pairs) }
    }

    fn add(&mut self, key: Bytes, value: Value) {
        self.pairs.push((key, value));
    }

    fn finish(self) -> Dict {
        const FEW: usize = 32;
        if self.pairs.len() <= FEW {
            return self.pairs.into_iter().collect();
        }
        let mut seen = HashSet::with_capacity(self.pairs.len());
        let mut pairs: Vec<_> = self.pairs.into_iter().rev().filter(|(key, _)| seen.insert(key.clone())).collect();
        pairs.reverse();
        Dict::from_unique_pairs(pairs)
    }
}

/// Keys and text travel with their NUL; what follows the first one is not text.
fn without_nul(mut bytes: Bytes) -> Bytes {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// Writes a `gfx_iattx`.
pub fn write_iatt(writer: &mut Writer, iatt: &Iatt) {
    writer.raw(&iatt.gfid.0);
    for number in [
        iatt.flags,
        iatt.ino,
        iatt.dev,
        rdev_to_wire(iatt.rdev),
        iatt.size_bytes,
        iatt.blocks,
        iatt.attributes,
        iatt.attributes_mask,
    ] {
        writer.u64(number);
    }
    let times = [iatt.atime, iatt.mtime, iatt.ctime, iatt.btime];
    for time in times {
        writer.i64(time.seconds);
    }
    for time in times {
        writer.u32(time.nanos);
    }
    for number in [iatt.nlink, iatt.uid, iatt.gid, iatt.block_size_bytes, iatt.mode] {
        writer.u32(number);
    }
}

/// Reads a `gfx_iattx`.
///
/// # Errors
/// Truncation.
pub fn read_iatt(reader: &mut Reader) -> Result<Iatt, DecodeError> {
    // One bounds check for all of it: this is the hottest structure of the wire.
    let raw: [u8; IATT_BYTES] = reader.array("iatt")?;
    let u64_at = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| raw[at + i]));
    let u32_at = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| raw[at + i]));
    let time = |which: usize| Timespec { seconds: u64_at(80 + 8 * which) as i64, nanos: u32_at(112 + 4 * which) };
    Ok(Iatt {
        gfid: Gfid(std::array::from_fn(|i| raw[i])),
        flags: u64_at(16),
        ino: u64_at(24),
        dev: u64_at(32),
        rdev: rdev_from_wire(u64_at(40)),
        size_bytes: u64_at(48),
        blocks: u64_at(56),
        attributes: u64_at(64),
        attributes_mask: u64_at(72),
        atime: time(0),
        mtime: time(1),
        ctime: time(2),
        btime: time(3),
        nlink: u32_at(128),
        uid: u32_at(132),
        gid: u32_at(136),
        block_size_bytes: u32_at(140),
        mode: u32_at(144),
    })
}

/// A Linux `dev_t` as an iatt carries it: major in the upper half, minor in the lower (`ia_makedev`, iatt.h of 10.3).
/// MKNOD's own argument is a plain `dev_t`.
pub fn rdev_to_wire(rdev: u64) -> u64 {
    let major = (rdev >> 8) & 0xfff | (rdev >> 32) & !0xfff;
    let minor = rdev & 0xff | (rdev >> 12) & 0xffff_ff00;
    major << 32 | minor
}

/// The inverse of [`rdev_to_wire`].
pub fn rdev_from_wire(wire: u64) -> u64 {
    let (major, minor) = (wire >> 32, wire & 0xffff_ffff);
    (major & 0xfff) << 8 | (major & !0xfff) << 32 | minor & 0xff | (minor & !0xff) << 12
}

/// Size of a `gfx_iattx`.
const IATT_BYTES: usize = 148;

/// The untyped serialization: count, then for each pair the lengths of key and value, the key with a NUL, the value.
/// Integers become decimal text with a NUL, text gets its NUL; a gfid stays 16 bytes. An empty dict is 4 zero bytes.
pub fn encode_untyped(dict: &Dict) -> Bytes {
    let mut writer = Writer::with_capacity(64 * dict.len() + 4);
    writer.u32(dict.len() as u32);
    for (key, value) in dict.iter() {
        let value = untyped_value(value);
        writer.u32(key.len() as u32);
        writer.u32(value.len() as u32);
        writer.raw(key);
        writer.raw(&[0]);
        writer.raw(&value);
    }
    writer.finish()
}

fn untyped_value(value: &Value) -> Bytes {
    let text = |text: String| Bytes::from(text + "\0");
    match value {
        Value::Int(number) => text(number.to_string()),
        Value::Uint(number) => text(number.to_string()),
        Value::Double(number) => text(format!("{number:.6}")),
        Value::Str(bytes) => [bytes, &b"\0"[..]].concat().into(),
        Value::Ptr(bytes) | Value::StrOld(bytes) => bytes.clone(),
        Value::Gfid(gfid) => Bytes::copy_from_slice(&gfid.0),
        Value::Iatt(iatt) => {
            let mut writer = Writer::default();
            write_iatt(&mut writer, iatt);
            writer.finish()
        }
        Value::Mdata(mdata) => {
            let mut writer = Writer::default();
            for time in [mdata.atime, mdata.mtime, mdata.ctime] {
                writer.i64(time.seconds);
                writer.u32(time.nanos);
            }
            writer.finish()
        }
    }
}

/// Reads the untyped serialization; every value is [`Value::StrOld`] with the bytes as sent, a NUL at the end
/// included (`Dict::text` and `Dict::int` know). No data at all is an empty dict.
///
/// # Errors
/// Truncation, too many pairs, a key without its NUL.
pub fn decode_untyped(data: Bytes) -> Result<Dict, DecodeError> {
    if data.is_empty() {
        return Ok(Dict::new());
    }
    let mut reader = Reader::new(data);
    let count = reader.u32("dict count")? as usize;
    // A pair takes 9 bytes at least.
    let limit = MAX_DICT_PAIRS.min(reader.left() / 9);
    if count > limit {
        return Err(DecodeError::TooLong { what: "dict pairs", length: count, limit });
    }
    let mut dict = Collector::with_capacity(count);
    for _ in 0..count {
        let (key_bytes, value_bytes) = (reader.u32("key length")? as usize, reader.u32("value length")? as usize);
        if key_bytes >= MAX_KEY_BYTES {
            return Err(DecodeError::TooLong { what: "dict key", length: key_bytes, limit: MAX_KEY_BYTES });
        }
        let key = reader.bytes("dict key", key_bytes)?;
        if reader.array::<1>("dict key")? != [0] || key.contains(&0) {
            return Err(DecodeError::BadName { what: "dict key" });
        }
        dict.add(key, Value::StrOld(reader.bytes("dict value", value_bytes)?));
    }
    Ok(dict.finish())
}

/// Writes an untyped dict as XDR opaque data.
pub(crate) fn write_untyped(writer: &mut Writer, dict: &Dict) {
    if dict.is_empty() {
        writer.u32(0);
    } else {
        writer.opaque(&encode_untyped(dict));
    }
}

/// Reads an untyped dict out of XDR opaque data.
pub(crate) fn read_untyped(reader: &mut Reader) -> Result<Dict, DecodeError> {
    decode_untyped(reader.opaque("dict", usize::MAX)?)
}

/// Bytes a dict takes at most on the wire: to size a buffer before writing it.
pub fn size_hint(dict: &Dict) -> usize {
    let value = |value: &Value| match value {
        Value::Str(b) | Value::Ptr(b) | Value::StrOld(b) => 8 + b.len() + padding(b.len()),
        Value::Iatt(_) => IATT_BYTES,
        _ => 40,
    };
    12 + dict.iter().map(|(k, v)| 12 + k.len() + value(v)).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Dict {
        Dict::new()
            .with("int", Value::Int(-5))
            .with("uint", Value::Uint(u64::MAX))
            .with("double", Value::Double(1.5))
            .with("str", Value::Str("text".into()))
            .with("ptr", Value::Ptr(Bytes::from_static(&[0, 1, 2])))
            .with("old", Value::StrOld("x\0".into()))
            .with("gfid", Value::Gfid(Gfid::ROOT))
            .with("iatt", Value::Iatt(Box::new(Iatt { mode: 0o100644, ino: 9, ..Iatt::default() })))
            .with("mdata", Value::Mdata(Mdata { ctime: Timespec { seconds: -1, nanos: 5 }, ..Mdata::default() }))
    }

    fn wire(dict: &Dict, empty: Empty) -> Bytes {
        let mut writer = Writer::default();
        write_dict(&mut writer, dict, empty);
        writer.finish()
    }

    #[test]
    fn device_numbers_are_split_on_the_wire() {
        assert_eq!(rdev_to_wire(0x103), 1 << 32 | 3);
        for rdev in [0, 0x103, 0xf_ffff, 0x1234_5678_9abc_def0, u64::MAX] {
            assert_eq!(rdev_from_wire(rdev_to_wire(rdev)), rdev);
        }
    }

    #[test]
    fn every_type_round_trips() {
        let wire = wire(&sample(), Empty::Null);
        assert!(wire.len() <= size_hint(&sample()));
        assert_eq!(u32::from_be_bytes(wire[..4].try_into().unwrap()) as usize, wire.len() - 12);
        let mut reader = Reader::new(wire);
        assert_eq!(read_dict(&mut reader).unwrap(), sample());
        assert_eq!(reader.left(), 0);
    }

    #[test]
    fn both_kinds_of_empty_are_empty() {
        for (empty, count) in [(Empty::Null, -1), (Empty::NoPairs, 0)] {
            let wire = wire(&Dict::new(), empty);
            assert_eq!(i32::from_be_bytes(wire[4..8].try_into().unwrap()), count);
            assert!(read_dict(&mut Reader::new(wire)).unwrap().is_empty());
        }
    }

    #[test]
    fn every_truncation_and_a_lying_count_are_errors() {
        let wire = wire(&sample(), Empty::Null);
        for end in 0..wire.len() {
            assert!(read_dict(&mut Reader::new(wire.slice(..end))).is_err(), "{end} bytes");
        }
        let lie = Bytes::from_static(&[0, 0, 0, 0, 0, 1, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0]);
        assert!(matches!(read_dict(&mut Reader::new(lie)), Err(DecodeError::TooLong { .. })));
    }

    #[test]
    fn many_pairs_are_read_in_linear_time_and_the_last_of_equal_keys_wins() {
        let mut writer = Writer::default();
        for word in [0, 10_000, 10_000] {
            writer.u32(word);
        }
        for n in 0..10_000u32 {
            writer.opaque_with_nul(format!("k{}", n % 5000).as_bytes());
            write_value(&mut writer, &Value::Uint(u64::from(n)));
        }
        let dict = read_dict(&mut Reader::new(writer.finish())).unwrap();
        assert_eq!((dict.len(), dict.int("k7")), (5000, Some(5007)));
    }

    #[test]
    fn untyped_round_trips_as_text() {
        let dict = sample();
        let wire = encode_untyped(&dict);
        let back = decode_untyped(wire.clone()).unwrap();
        assert_eq!((back.int("int"), back.text("str"), back.gfid("gfid")), (Some(-5), Some("text"), Some(Gfid::ROOT)));
        assert_eq!(encode_untyped(&back), wire);
        for end in 1..wire.len() {
            assert!(decode_untyped(wire.slice(..end)).is_err(), "{end} bytes");
        }
    }
}
