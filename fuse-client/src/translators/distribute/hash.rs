//! The hash of a name: which point of a directory's layout it falls on.
//!
//! Davies-Meyer over TEA rounds, and the munging of temporary names (`rsync-hash-regex`, `extra-hash-regex`), as
//! GlusterFS 10.3 has them (libglusterfs/hashfn.c, dht-hashfn.c): where a file lies follows from it, so every bit counts.

use std::ffi::CString;

use ladrillo_translator::option::OptionError;

const DELTA: u32 = 0x9e37_79b9;
/// Rounds for each whole 16 bytes, and at the end.
const PART_ROUNDS: u32 = 6;
const FULL_ROUNDS: u32 = 10;

/// The hash of `name` as it stands (hash type "dm").
pub(crate) fn davies_meyer(name: &[u8]) -> u32 {
    let (mut h0, mut h1) = (0x9464_a485_u32, 0x542e_1a94_u32);
    let (quads, tail) = name.as_chunks::<16>();
    for quad in quads {
        round(PART_ROUNDS, words(quad), &mut h0, &mut h1);
    }
    // What is left: whole words, then a word of the last bytes shifted into the padding, then padding.
    let mut pad = name.len() as u32;
    pad |= pad << 8;
    pad |= pad << 16;
    let mut array = [pad; 4];
    let (whole, rest) = tail.as_chunks::<4>();
    for (slot, word) in array.iter_mut().zip(whole) {
        *slot = u32::from_le_bytes(*word);
    }
    if let Some(slot) = array.get_mut(whole.len()) {
        for byte in rest {
            // C's char is signed on x86: a byte above 127 sets all the bits above it.
            *slot = (*slot << 8) | (*byte as i8 as u32);
        }
    }
    round(FULL_ROUNDS, array, &mut h0, &mut h1);
    h0 ^ h1
}

fn words(quad: &[u8; 16]) -> [u32; 4] {
    let mut array = [0; 4];
    for (slot, word) in array.iter_mut().zip(quad.as_chunks::<4>().0) {
        *slot = u32::from_le_bytes(*word);
    }
    array
}

fn round(rounds: u32, key: [u32; 4], h0: &mut u32, h1: &mut u32) {
    let mut sum = 0_u32;
    let (mut b0, mut b1) = (*h0, *h1);
    for _ in 0..rounds {
        sum = sum.wrapping_add(DELTA);
        b0 = b0.wrapping_add(mix(b1, sum, key[0], key[1]));
        b1 = b1.wrapping_add(mix(b0, sum, key[2], key[3]));
    }
    *h0 = h0.wrapping_add(b0);
    *h1 = h1.wrapping_add(b1);
}

fn mix(b: u32, sum: u32, left: u32, right: u32) -> u32 {
    (b << 4).wrapping_add(left) ^ b.wrapping_add(sum) ^ (b >> 5).wrapping_add(right)
}

/// Hashes names, munged first.
pub struct Hasher {
    extra: Option<Regex>,
    rsync: Option<Regex>,
}

/// What rsync's temporary names look like: `.name.XXXXXX`.
const RSYNC_DEFAULT: &str = r"^\.(.+)\.[^.]+$";

impl Hasher {
    /// With the options' expressions: unset = the default for rsync's and none for the other; "none" = none.
    ///
    /// # Errors
    /// Not a POSIX extended regular expression.
    pub fn new(rsync: Option<&str>, extra: Option<&str>) -> Result<Hasher, OptionError> {
        let compile = |text: Option<&str>| match text {
            None | Some("none") => Ok(None),
            Some(text) => Regex::new(text).map(Some),
        };
        Ok(Hasher { extra: compile(extra)?, rsync: compile(rsync.or(Some(RSYNC_DEFAULT)))? })
    }

    /// The hash of `name`, or of the part of it that an expression's first group matches.
    pub fn hash(&self, name: &[u8]) -> u32 {
        let part = [&self.extra, &self.rsync].into_iter().flatten().find_map(|regex| regex.first_group(name));
        davies_meyer(part.unwrap_or(name))
    }
}

/// A compiled POSIX extended regular expression: libc's, because placement depends on its very semantics.
struct Regex(Box<libc::regex_t>);

// SAFETY: regexec(3) is MT-safe on a compiled expression, which nothing changes after regcomp(3).
unsafe impl Send for Regex {}
// SAFETY: as above; glibc locks what its matcher shares.
unsafe impl Sync for Regex {}

impl Regex {
    fn new(text: &str) -> Result<Regex, OptionError> {
        let bad = || OptionError(format!("'{text}' is no regular expression"));
        let pattern = CString::new(text).map_err(|_| bad())?;
        let mut regex = Box::<libc::regex_t>::new_uninit();
        // SAFETY: both pointers are valid; regcomp fills the first from the NUL-terminated second.
        let status = unsafe { libc::regcomp(regex.as_mut_ptr(), pattern.as_ptr(), libc::REG_EXTENDED) };
        if status != 0 {
            return Err(bad());
        }
        // SAFETY: regcomp succeeded and so has initialised it.
        Ok(Regex(unsafe { regex.assume_init() }))
    }

    /// What the first group matches of `name`, if that is a part of it and not all.
    fn first_group<'a>(&self, name: &'a [u8]) -> Option<&'a [u8]> {
        let text = CString::new(name).ok()?;
        let mut matches = [libc::regmatch_t { rm_so: -1, rm_eo: -1 }; 2];
        // SAFETY: the expression is compiled, the text NUL-terminated, and there is room for the two matches asked for.
        let status = unsafe { libc::regexec(&*self.0, text.as_ptr(), matches.len(), matches.as_mut_ptr(), 0) };
        if status != 0 {
            return None;
        }
        let (start, end) = (usize::try_from(matches[1].rm_so).ok()?, usize::try_from(matches[1].rm_eo).ok()?);
        name.get(start..end)
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: it was compiled by regcomp and is freed once, here.
        unsafe { libc::regfree(&mut *self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_names_hash_as_what_they_become() {
        let hasher = Hasher::new(None, Some(r"^(.+)\.part$")).unwrap();
        assert_eq!(hasher.hash(b".movie.avi.Xa12Zq"), davies_meyer(b"movie.avi"));
        assert_eq!(hasher.hash(b"movie.avi.part"), davies_meyer(b"movie.avi"));
        assert_eq!(hasher.hash(b"movie.avi"), davies_meyer(b"movie.avi"));
        assert_eq!(hasher.hash(b".profile"), davies_meyer(b".profile"));
        let plain = Hasher::new(Some("none"), None).unwrap();
        assert_eq!(plain.hash(b".movie.avi.Xa12Zq"), davies_meyer(b".movie.avi.Xa12Zq"));
        assert!(Hasher::new(Some("("), None).is_err());
        // A group that took no part in the match munges nothing.
        assert_eq!(Hasher::new(Some("(x)?y"), None).unwrap().hash(b"y"), davies_meyer(b"y"));
    }
}
