//! Options of translators: how they are declared, how their values are read.
//!
//! Each translator declares its options beside its code as a table of [`OptionSpec`]; a volfile's node brings the
//! values as [`Options`]; typed getters give the value, or the default, or an error in GlusterFS's words. Forms of
//! values (source: GlusterFS 10.3's option validators): booleans are 0|1|on|off|no|yes|true|false|enable|disable in any
//! case, sizes take B|KB|MB|GB|TB|PB (powers of 1024), times s|sec|m|min|h|hr|d|days|w|wk (seconds without a unit),
//! integers may be hexadecimal (0x) or octal (0).

use std::time::Duration;

/// Key and value pairs of a volfile's node, in its order; a key is there once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pairs: Vec<(String, String)>,
}

/// What values an option takes. A bound that is `None` is not checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OptionKind {
    /// on, off and their synonyms.
    Bool,
    /// A whole number.
    Int {
        /// Smallest.
        min: Option<i64>,
        /// Largest.
        max: Option<i64>,
    },
    /// A number of bytes, with a unit.
    Size {
        /// Smallest and largest, in bytes.
        range: Option<(u64, u64)>,
    },
    /// 0 to 100, `%` may follow.
    Percent,
    /// Either of both; a bare number is bytes.
    PercentOrSize {
        /// Smallest and largest where it is a size, in bytes.
        range: Option<(u64, u64)>,
    },
    /// A span of time, in seconds or with a unit.
    Time {
        /// Smallest and largest, in seconds.
        range: Option<(u64, u64)>,
    },
    /// A fractional number.
    Double {
        /// Smallest and largest.
        range: Option<(f64, f64)>,
    },
    /// Any text.
    Str,
    /// One of these words.
    Enum(&'static [&'static str]),
    /// An absolute path without `../`.
    Path,
}

/// An option as its translator declares it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptionSpec {
    /// Its names in volfiles; the first is preferred. `*` stands for any text (`auth.addr.*`).
    pub keys: &'static [&'static str],
    /// What values it takes.
    pub kind: OptionKind,
    /// Its value when nothing is set, in the same form; `None`: there is none.
    pub default: Option<&'static str>,
    /// What it does, in a sentence.
    pub help: &'static str,
}

/// A value that an option does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OptionError(pub String);

/// A percentage or a number of bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PercentOrSize {
    /// 0.0 to 100.0.
    Percent(f64),
    /// Bytes.
    Bytes(u64),
}

impl Options {
    /// None.
    pub const fn new() -> Options {
        Options { pairs: Vec::new() }
    }

    /// The text set for exactly this key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Sets `key`, replacing its value in place.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        let (key, value) = (key.into(), value.into());
        match self.pairs.iter_mut().find(|(k, _)| *k == key) {
            Some(pair) => pair.1 = value,
            None => self.pairs.push((key, value)),
        }
    }

    /// [`Options::set`], chained.
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Options {
        self.set(key, value);
        self
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(k, _)| k == key)?;
        Some(self.pairs.remove(at).1)
    }

    /// All pairs, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The text of an option: what is set under any of its keys, or its default.
    pub fn text<'a>(&'a self, spec: &OptionSpec) -> Option<&'a str> {
        self.find(spec).map(|(_, value)| value).or(spec.default)
    }

    /// A boolean option; false where neither set nor defaulted.
    ///
    /// # Errors
    /// What is set is no boolean.
    pub fn bool(&self, spec: &OptionSpec) -> Result<bool, OptionError> {
        self.read(spec, parse_bool).map(|value| value.unwrap_or(false))
    }

    /// An integer option; 0 where neither set nor defaulted.
    ///
    /// # Errors
    /// No number, or out of range.
    pub fn int(&self, spec: &OptionSpec) -> Result<i64, OptionError> {
        self.read(spec, parse_int).map(|value| value.unwrap_or(0))
    }

    /// A size option in bytes; 0 where neither set nor defaulted.
    ///
    /// # Errors
    /// No size, or out of range.
    pub fn size_bytes(&self, spec: &OptionSpec) -> Result<u64, OptionError> {
        self.read(spec, parse_size).map(|value| value.unwrap_or(0))
    }

    /// A percentage; 0 where neither set nor defaulted.
    ///
    /// # Errors
    /// No percentage.
    pub fn percent(&self, spec: &OptionSpec) -> Result<f64, OptionError> {
        self.read(spec, parse_percent).map(|value| value.unwrap_or(0.0))
    }

    /// A percentage or a size; 0 bytes where neither set nor defaulted.
    ///
    /// # Errors
    /// Neither.
    pub fn percent_or_size(&self, spec: &OptionSpec) -> Result<PercentOrSize, OptionError> {
        self.read(spec, parse_percent_or_size).map(|value| value.unwrap_or(PercentOrSize::Bytes(0)))
    }

    /// A span of time; zero where neither set nor defaulted.
    ///
    /// # Errors
    /// No time, or out of range.
    pub fn time(&self, spec: &OptionSpec) -> Result<Duration, OptionError> {
        self.read(spec, parse_time).map(|value| Duration::from_secs(value.unwrap_or(0)))
    }

    /// A fractional number; 0 where neither set nor defaulted.
    ///
    /// # Errors
    /// No number, or out of range.
    pub fn double(&self, spec: &OptionSpec) -> Result<f64, OptionError> {
        self.read(spec, parse_double).map(|value| value.unwrap_or(0.0))
    }

    /// A text option (also an enumeration or a path), checked.
    ///
    /// # Errors
    /// Not one of the words, not an absolute path.
    pub fn str<'a>(&'a self, spec: &OptionSpec) -> Result<Option<&'a str>, OptionError> {
        if let Some((key, value)) = self.find(spec) {
            spec.check(key, value)?;
        }
        Ok(self.text(spec))
    }

    /// Checks all that is set against `table`; keys that it does not know are left alone, as GlusterFS does.
    ///
    /// # Errors
    /// The first bad value.
    pub fn check(&self, table: &[OptionSpec]) -> Result<(), OptionError> {
        for (key, value) in self.iter() {
            if let Some(spec) = table.iter().find(|spec| spec.is_named(key)) {
                spec.check(key, value)?;
            }
        }
        Ok(())
    }

    fn find<'a>(&'a self, spec: &OptionSpec) -> Option<(&'a str, &'a str)> {
        spec.keys.iter().find_map(|pattern| self.iter().find(|(key, _)| glob(pattern.as_bytes(), key.as_bytes())))
    }

    fn read<T>(&self, spec: &OptionSpec, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, OptionError> {
        if let Some((key, value)) = self.find(spec) {
            spec.check(key, value)?;
            return match parse(value) {
                Some(parsed) => Ok(Some(parsed)),
                None => Err(OptionError(format!("invalid number format \"{value}\" in option \"{key}\""))),
            };
        }
        let Some(text) = spec.default else { return Ok(None) };
        match parse(text) {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(OptionError(format!("option {}: its default '{text}' is of another kind", spec.name()))),
        }
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Options {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Options {
        let mut options = Options::new();
        for (key, value) in pairs {
            options.set(key, value);
        }
        options
    }
}

impl OptionSpec {
    /// A declaration, for tables.
    pub const fn new(
        keys: &'static [&'static str],
        kind: OptionKind,
        default: Option<&'static str>,
        help: &'static str,
    ) -> OptionSpec {
        OptionSpec { keys, kind, default, help }
    }

    /// Its preferred name.
    pub fn name(&self) -> &'static str {
        self.keys.first().copied().unwrap_or("")
    }

    /// Whether `key` is one of its names.
    pub fn is_named(&self, key: &str) -> bool {
        self.keys.iter().any(|pattern| glob(pattern.as_bytes(), key.as_bytes()))
    }

    /// Checks a value for this option.
    ///
    /// # Errors
    /// Says what is wrong in the words of GlusterFS 10.3, naming `key`.
    pub fn check(&self, key: &str, value: &str) -> Result<(), OptionError> {
        let number = || OptionError(format!("invalid number format \"{value}\" in option \"{key}\""));
        let range = |shown: &dyn std::fmt::Display, min: &dyn std::fmt::Display, max: &dyn std::fmt::Display| {
            OptionError(format!("'{shown}' in 'option {key} {value}' is out of range [{min} - {max}]"))
        };
        match self.kind {
            OptionKind::Bool => match parse_bool(value) {
                Some(_) => Ok(()),
                None => Err(OptionError(format!("option {key} {value}: '{value}' is not a valid boolean value"))),
            },
            OptionKind::Int { min, max } => {
                let given = parse_int(value).ok_or_else(number)?;
                match (min, max) {
                    (Some(min), None) if given < min => Err(OptionError(format!(
                        "'{given}' in 'option {key} {value}' is smaller than minimum value '{min}'"
                    ))),
                    (None, Some(max)) if given > max => Err(OptionError(format!(
                        "'{given}' in 'option {key} {value}' is greater than maximum value '{max}'"
                    ))),
                    (Some(min), Some(max)) if given < min || given > max => Err(range(&given, &min, &max)),
                    _ => Ok(()),
                }
            }
            OptionKind::Size { range: bounds } => {
                let given = parse_size(value).ok_or_else(number)?;
                match bounds {
                    Some((min, max)) if given < min || given > max => Err(range(&given, &min, &max)),
                    _ => Ok(()),
                }
            }
            OptionKind::Percent => {
                let given = parse_double(value.strip_suffix('%').unwrap_or(value))
                    .filter(|given| !given.is_sign_negative())
                    .ok_or_else(|| OptionError(format!("invalid percent format \"{value}\" in \"option {key}\"")))?;
                if given > 100.0 { Err(range(&format_args!("{given:.6}"), &0, &100)) } else { Ok(()) }
            }
            OptionKind::PercentOrSize { range: bounds } => {
                let bad = || OptionError(format!("invalid number format \"{value}\" in \"option {key}\""));
                match parse_percent_or_size(value).ok_or_else(bad)? {
                    PercentOrSize::Percent(given) if given > 100.0 => Err(range(&format_args!("{given:.6}"), &0, &100)),
                    PercentOrSize::Percent(_) => Ok(()),
                    PercentOrSize::Bytes(given) => match bounds {
                        Some((min, max)) if given < min || given > max => {
                            Err(range(&format_args!("{given}.000000"), &min, &max))
                        }
                        _ => Ok(()),
                    },
                }
            }
            OptionKind::Time { range: bounds } => {
                let given = parse_time(value)
                    .ok_or_else(|| OptionError(format!("invalid time format \"{value}\" in \"option {key}\"")))?;
                match bounds {
                    Some((min, max)) if given < min || given > max => Err(range(&given, &min, &max)),
                    _ => Ok(()),
                }
            }
            OptionKind::Double { range: bounds } => {
                let given = parse_double(value).ok_or_else(number)?;
                match bounds {
                    Some((min, max)) if given < min || given > max => {
                        Err(range(&format_args!("{given:.6}"), &format_args!("{min:.6}"), &format_args!("{max:.6}")))
                    }
                    _ => Ok(()),
                }
            }
            OptionKind::Str => Ok(()),
            OptionKind::Enum(words) => match words.contains(&value) {
                true => Ok(()),
                false => Err(OptionError(format!(
                    "option {key} {value}: '{value}' is not valid (possible options are {}.)",
                    words.join(", ")
                ))),
            },
            OptionKind::Path => {
                if value.contains("../") {
                    Err(OptionError(format!("invalid path given '{value}'")))
                } else if !value.starts_with('/') {
                    Err(OptionError(format!("option {key} {value}: '{value}' is not an absolute path name")))
                } else {
                    Ok(())
                }
            }
        }
    }
}

/// Reads a boolean in any of GlusterFS's words, whatever their case.
pub fn parse_bool(text: &str) -> Option<bool> {
    const TRUE: [&str; 5] = ["1", "on", "yes", "true", "enable"];
    const FALSE: [&str; 5] = ["0", "no", "off", "false", "disable"];
    if TRUE.iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return Some(true);
    }
    FALSE.iter().any(|word| text.eq_ignore_ascii_case(word)).then_some(false)
}

/// Reads an integer as C's strtoll with base 0 does, the whole text.
pub fn parse_int(text: &str) -> Option<i64> {
    let (value, rest) = leading_int(text)?;
    rest.is_empty().then_some(value)
}

/// Reads a size in bytes: `64KB`, `1.5gb`, `512`.
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, factor) = split_size_unit(text.trim_start())?;
    if number.contains('.') {
        let bytes = parse_double(number)? * factor as f64;
        return (0.0..9.2e18).contains(&bytes).then_some(bytes as u64);
    }
    let digits = number.strip_prefix('+').unwrap_or(number);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor).filter(|bytes| *bytes <= i64::MAX as u64)
}

/// Reads a percentage: `10%`, `12.5`.
pub fn parse_percent(text: &str) -> Option<f64> {
    parse_double(text.strip_suffix('%').unwrap_or(text)).filter(|value| (0.0..=100.0).contains(value))
}

/// Reads `10%` as a percentage, anything else as a size.
pub fn parse_percent_or_size(text: &str) -> Option<PercentOrSize> {
    match text.strip_suffix('%') {
        Some(number) => parse_double(number).filter(|value| *value >= 0.0).map(PercentOrSize::Percent),
        None => parse_size(text).map(PercentOrSize::Bytes),
    }
}

/// Reads a span of time in seconds: `10`, `10s`, `5min`, `2hr`, `7days`, `1wk`.
pub fn parse_time(text: &str) -> Option<u64> {
    let (value, unit) = leading_int(text)?;
    let factor: u64 = match unit {
        "" | "s" | "sec" => 1,
        "m" | "min" => 60,
        "h" | "hr" => 3600,
        "d" | "days" => 86_400,
        "w" | "wk" => 604_800,
        _ => return None,
    };
    u64::try_from(value).ok()?.checked_mul(factor)
}

/// Reads a decimal fraction; neither infinite nor "not a number".
pub fn parse_double(text: &str) -> Option<f64> {
    let text = text.trim_start();
    if !text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)) {
        return None;
    }
    text.parse::<f64>().ok().filter(|value| value.is_finite())
}

/// The number at the start of `text` (decimal, 0x hexadecimal, 0 octal) and what follows.
fn leading_int(text: &str) -> Option<(i64, &str)> {
    let text = text.trim_start();
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let hex = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X"));
    let (radix, digits) = match hex {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_hexdigit()) => (16, rest),
        _ if unsigned.starts_with('0') => (8, unsigned),
        _ => (10, unsigned),
    };
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    let (number, rest) = digits.split_at(end);
    let magnitude = i128::from_str_radix(number, radix).ok()?;
    Some((i64::try_from(if negative { -magnitude } else { magnitude }).ok()?, rest))
}

/// Splits `64KB` into `64` and 65536's unit 1024.
fn split_size_unit(text: &str) -> Option<(&str, u64)> {
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "KB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        "PB" => 1 << 50,
        _ => return None,
    };
    Some((number, factor))
}

/// Whether `text` is what `pattern` says; `*` stands for any text. Linear: only the last `*` is ever gone back to.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if pattern.get(p) == text.get(t) {
            p += 1;
            t += 1;
        } else if let Some((after, from)) = star {
            star = Some((after, from + 1));
            p = after;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern.iter().skip(p).all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const EAGER: OptionSpec = OptionSpec::new(&["eager-lock", "old-eager"], OptionKind::Bool, Some("on"), "");
    const COUNT: OptionSpec =
        OptionSpec::new(&["count"], OptionKind::Int { min: Some(0), max: Some(64) }, Some("8"), "");
    const WINDOW: OptionSpec =
        OptionSpec::new(&["window"], OptionKind::Size { range: Some((512, 1 << 30)) }, Some("1MB"), "");
    const DELAY: OptionSpec = OptionSpec::new(&["delay"], OptionKind::Time { range: None }, Some("5min"), "");
    const POLICY: OptionSpec = OptionSpec::new(&["policy"], OptionKind::Enum(&["none", "size"]), Some("none"), "");
    const AUTH: OptionSpec = OptionSpec::new(&["auth.addr.*.allow"], OptionKind::Str, None, "");

    #[test]
    fn values_defaults_and_old_names() {
        let options = Options::new().with("old-eager", "Disable").with("window", "64kb").with("count", "0x10");
        assert_eq!(options.bool(&EAGER), Ok(false));
        assert_eq!(Options::new().bool(&EAGER), Ok(true));
        assert_eq!(options.size_bytes(&WINDOW), Ok(65_536));
        assert_eq!(options.int(&COUNT), Ok(16));
        assert_eq!(options.time(&DELAY), Ok(Duration::from_secs(300)));
        assert_eq!(options.str(&POLICY), Ok(Some("none")));
        let options = Options::new().with("auth.addr./a/b.allow", "*");
        assert_eq!(options.text(&AUTH), Some("*"));
        assert_eq!(options.check(&[AUTH, POLICY]), Ok(()));
    }

    #[test]
    fn errors_are_in_glusterfs_words() {
        let said = |options: &Options, spec: &OptionSpec| options.check(&[*spec]).unwrap_err().0;
        assert_eq!(
            said(&Options::new().with("eager-lock", "maybe"), &EAGER),
            "option eager-lock maybe: 'maybe' is not a valid boolean value"
        );
        assert_eq!(
            said(&Options::new().with("count", "65"), &COUNT),
            "'65' in 'option count 65' is out of range [0 - 64]"
        );
        assert_eq!(
            said(&Options::new().with("count", "6 5"), &COUNT),
            "invalid number format \"6 5\" in option \"count\""
        );
        assert_eq!(
            said(&Options::new().with("policy", "x"), &POLICY),
            "option policy x: 'x' is not valid (possible options are none, size.)"
        );
        assert_eq!(
            said(&Options::new().with("delay", "5 minutes"), &DELAY),
            "invalid time format \"5 minutes\" in \"option delay\""
        );
        assert!(Options::new().with("count", "x").int(&COUNT).is_err());
    }

    #[test]
    fn forms_of_numbers() {
        assert_eq!(parse_size("1.5GB"), Some(3 << 29));
        assert_eq!(parse_size("10%"), None);
        assert_eq!(parse_size("-1"), None);
        assert_eq!(parse_size("99999PB"), None);
        assert_eq!(parse_percent_or_size("10%"), Some(PercentOrSize::Percent(10.0)));
        assert_eq!(parse_percent_or_size("10GB"), Some(PercentOrSize::Bytes(10 << 30)));
        assert_eq!(parse_time("2hr"), Some(7200));
        assert_eq!(parse_time("-1"), None);
        assert_eq!(parse_int("010"), Some(8));
        assert_eq!(parse_int("99999999999999999999"), None);
        assert_eq!(parse_double("1e999"), None);
        assert_eq!(parse_double("nan"), None);
        assert_eq!(parse_percent("101"), None);
    }

    #[test]
    fn globs() {
        assert!(glob(b"a*c*", b"abcc"));
        assert!(!glob(b"a*d", b"abcc"));
        assert!(glob(b"*", b""));
    }
}
