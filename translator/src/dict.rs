//! Typed key-value pairs that ride with every fop (`dict_t`, on the 4.x wire `gfx_dict`).

use bytes::Bytes;

use crate::iatt::Mdata;
use crate::{Gfid, Iatt};

/// A value of a [`Dict`]. The wire's type numbers are in transport's codec.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Signed integer.
    Int(i64),
    /// Unsigned integer.
    Uint(u64),
    /// Floating point number.
    Double(f64),
    /// Text, without the trailing NUL that the wire adds.
    Str(Bytes),
    /// Opaque bytes.
    Ptr(Bytes),
    /// Bytes of a type the sender did not know (`GF_DATA_TYPE_STR_OLD`): integers often come as decimal text here.
    StrOld(Bytes),
    /// Attributes.
    Iatt(Box<Iatt>),
    /// A gfid.
    Gfid(Gfid),
    /// Times.
    Mdata(Mdata),
}

/// Pairs in insertion order; few, so a list that is searched beats a hash map.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dict {
    pairs: Vec<(Bytes, Value)>,
}

impl Dict {
    /// An empty dict: costs nothing.
    pub const fn new() -> Dict {
        Dict { pairs: Vec::new() }
    }

    /// From pairs whose keys are known to differ: for decoders, which have checked it.
    pub fn from_unique_pairs(pairs: Vec<(Bytes, Value)>) -> Dict {
        Dict { pairs }
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// The value of `key`.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<&Value> {
        let key = key.as_ref();
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// Whether `key` is there, whatever its value.
    pub fn contains(&self, key: impl AsRef<[u8]>) -> bool {
        self.get(key).is_some()
    }

    /// Sets `key`, replacing an earlier value.
    pub fn set(&mut self, key: impl Into<Bytes>, value: Value) {
        let key = key.into();
        match self.pairs.iter_mut().find(|(k, _)| *k == key) {
            Some(pair) => pair.1 = value,
            None => self.pairs.push((key, value)),
        }
    }

    /// [`Dict::set`], chained.
    pub fn with(mut self, key: impl Into<Bytes>, value: Value) -> Dict {
        self.set(key, value);
        self
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: impl AsRef<[u8]>) -> Option<Value> {
        let at = self.pairs.iter().position(|(k, _)| k == key.as_ref())?;
        Some(self.pairs.remove(at).1)
    }

    /// All pairs, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Value)> {
        self.pairs.iter().map(|(k, v)| (k, v))
    }

    /// The bytes of a Str, StrOld or Ptr value.
    pub fn bytes(&self, key: impl AsRef<[u8]>) -> Option<&Bytes> {
        match self.get(key)? {
            Value::Str(b) | Value::StrOld(b) | Value::Ptr(b) => Some(b),
            _ => None,
        }
    }

    /// Text of a Str, StrOld or Ptr value, without a trailing NUL.
    pub fn text(&self, key: impl AsRef<[u8]>) -> Option<&str> {
        let raw = self.bytes(key)?;
        std::str::from_utf8(raw.strip_suffix(b"\0").unwrap_or(raw)).ok()
    }

    /// An integer however it was sent: Int, Uint, or decimal text as older senders do.
    pub fn int(&self, key: impl AsRef<[u8]>) -> Option<i64> {
        match self.get(key.as_ref())? {
            Value::Int(n) => Some(*n),
            Value::Uint(n) => i64::try_from(*n).ok(),
            _ => self.text(key.as_ref())?.trim().parse().ok(),
        }
    }

    /// A gfid sent as such or as 16 opaque bytes.
    pub fn gfid(&self, key: impl AsRef<[u8]>) -> Option<Gfid> {
        match self.get(key)? {
            Value::Gfid(g) => Some(*g),
            Value::Str(b) | Value::StrOld(b) | Value::Ptr(b) => Gfid::from_slice(b),
            _ => None,
        }
    }

    /// A text value.
    pub fn set_str(&mut self, key: impl Into<Bytes>, text: impl Into<Bytes>) {
        self.set(key, Value::Str(text.into()));
    }

    /// An integer value.
    pub fn set_int(&mut self, key: impl Into<Bytes>, number: i64) {
        self.set(key, Value::Int(number));
    }
}

impl FromIterator<(Bytes, Value)> for Dict {
    fn from_iter<I: IntoIterator<Item = (Bytes, Value)>>(pairs: I) -> Dict {
        let mut dict = Dict::new();
        for (key, value) in pairs {
            dict.set(key, value);
        }
        dict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_however_sent() {
        let dict = Dict::new()
            .with("a", Value::Int(-1))
            .with("b", Value::Uint(7))
            .with("c", Value::StrOld(Bytes::from_static(b"42\0")));
        assert_eq!((dict.int("a"), dict.int("b"), dict.int("c"), dict.int("d")), (Some(-1), Some(7), Some(42), None));
    }
}
