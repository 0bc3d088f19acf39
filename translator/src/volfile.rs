//! Volfiles: the text that says which translators a process runs, with which options, in which order.
//!
//! ```text
//! volume gv0-client-0
//!     type protocol/client
//!     option remote-host server1
//! end-volume
//! ```
//!
//! Facts of the format (GlusterFS 10.3's scanner and grammar): words are separated by blanks; a word in double quotes
//! may hold blanks, and a backslash there takes the next character as it is; `#` at the start of a word begins a
//! comment; a subvolume is defined before it is used, so the last volume is the top. GlusterFS runs what stands between
//! backticks as a shell command: we refuse it.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::option::Options;

/// Largest volfile taken, in bytes. Source: our bound; a pool of 1,000 volumes makes about 10 MiB of glustershd volfile.
pub const MAX_BYTES: usize = 32 << 20;
/// Most volumes in a volfile. Source: our bound.
pub const MAX_NODES: usize = 1 << 17;
/// Most translators above each other: what a fop passes through. Source: our bound; stock graphs have about 20.
pub const MAX_DEPTH: usize = 128;

/// A parsed volfile. The nodes are in the order of the file: children before parents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volfile {
    /// Its volumes.
    pub nodes: Vec<Node>,
}

/// One `volume ... end-volume`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name (`gv0-client-0`).
    pub name: String,
    /// Its type (`protocol/client`).
    pub kind: String,
    /// Its options, in the order of the file.
    pub options: Options,
    /// Names of its children.
    pub subvolumes: Vec<String>,
}

/// What is wrong with a volfile, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolfileError {
    /// The text is wrong at a line (1 is the first).
    #[error("volfile line {line}: {message}")]
    Line {
        /// Line number from 1.
        line: usize,
        /// What is wrong, in GlusterFS's words where it has them.
        message: String,
    },
    /// The whole is wrong.
    #[error("volfile: {0}")]
    Whole(String),
}

impl Node {
    /// A node without options and children.
    pub fn new(name: impl Into<String>, kind: impl Into<String>) -> Node {
        Node { name: name.into(), kind: kind.into(), ..Node::default() }
    }

    /// Adds an option, chained.
    pub fn option(mut self, key: impl Into<String>, value: impl Into<String>) -> Node {
        self.options.set(key, value);
        self
    }

    /// Adds children, chained.
    pub fn over<S: Into<String>>(mut self, subvolumes: impl IntoIterator<Item = S>) -> Node {
        self.subvolumes.extend(subvolumes.into_iter().map(Into::into));
        self
    }
}

impl Volfile {
    /// Parses and checks a volfile.
    ///
    /// # Errors
    /// Syntax, duplicate names and options, unknown subvolumes, missing types, backticks, too large: each names its line.
    pub fn parse(text: impl AsRef<[u8]>) -> Result<Volfile, VolfileError> {
        let text = text.as_ref();
        if text.len() > MAX_BYTES {
            return Err(VolfileError::Whole(format!("{} bytes are more than the {MAX_BYTES} we take", text.len())));
        }
        let text = std::str::from_utf8(text).map_err(|error| {
            let line = 1 + text.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count();
            fail(line, "not UTF-8 text")
        })?;
        if let Some(at) = text.find('\0') {
            return Err(fail(1 + text[..at].matches('\n').count(), "a NUL byte"));
        }
        let mut parser = Parser { scanner: Scanner { rest: text, line: 1 }, peeked: None };
        let mut builder = Builder::default();
        while let Some((token, line)) = parser.next()? {
            if token != Token::Volume {
                return Err(fail(
                    line,
                    format!(
                        "syntax error: \"{token}\" (allowed tokens are 'volume', 'type', 'subvolumes', 'option', 'end-volume')"
                    ),
                ));
            }
            builder.add(parser.volume()?)?;
        }
        match builder.nodes.is_empty() {
            true => Err(VolfileError::Whole("it defines no volume".to_owned())),
            false => Ok(Volfile { nodes: builder.nodes }),
        }
    }

    /// Checks a volfile made in memory as [`Volfile::parse`] checks one it reads.
    ///
    /// # Errors
    /// The first offending node; its "line" is its number from 1.
    pub fn check(&self) -> Result<(), VolfileError> {
        let mut builder = Builder::default();
        for (at, node) in self.nodes.iter().enumerate() {
            builder.add(Located {
                lines: vec![at + 1; node.subvolumes.len()],
                first_line: at + 1,
                end_line: at + 1,
                node: node.clone(),
            })?;
        }
        match self.nodes.is_empty() {
            true => Err(VolfileError::Whole("it defines no volume".to_owned())),
            false => Ok(()),
        }
    }

    /// The text of it, laid out as GlusterFS prints it; [`Volfile::parse`] gives back the same volfile.
    ///
    /// # Errors
    /// A word that the format cannot hold: one with a line feed or a NUL.
    pub fn to_text(&self) -> Result<String, VolfileError> {
        let mut out = String::new();
        for (at, node) in self.nodes.iter().enumerate() {
            if at > 0 {
                out.push('\n');
            }
            let mut write = || -> Result<(), String> {
                let _ = writeln!(out, "volume {}", word(&node.name)?);
                let _ = writeln!(out, "    type {}", word(&node.kind)?);
                for (key, value) in node.options.iter() {
                    let _ = writeln!(out, "    option {} {}", word(key)?, word(value)?);
                }
                if !node.subvolumes.is_empty() {
                    out.push_str("    subvolumes");
                    for name in &node.subvolumes {
                        let _ = write!(out, " {}", word(name)?);
                    }
                    out.push('\n');
                }
                out.push_str("end-volume\n");
                Ok(())
            };
            write().map_err(|what| VolfileError::Whole(format!("volume '{}': {what}", node.name)))?;
        }
        Ok(out)
    }

    /// The top of the graph: the last volume.
    pub fn top(&self) -> Option<&Node> {
        self.nodes.last()
    }

    /// The volume of this name.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }
}

/// A word as it is written: quoted where it must be.
fn word(text: &str) -> Result<String, String> {
    if let Some(bad) = text.chars().find(|c| matches!(c, '\n' | '\0')) {
        return Err(format!("{text:?} cannot be written: it holds {bad:?}"));
    }
    let plain = !text.is_empty()
        && !text.starts_with('#')
        && keyword(text).is_none()
        && !text.contains(['"', '\\', '`', ' ', '\t', '\r']);
    if plain {
        return Ok(text.to_owned());
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '`') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    Ok(out)
}

fn fail(line: usize, message: impl Into<String>) -> VolfileError {
    VolfileError::Line { line, message: message.into() }
}

/// Nodes so far, with what the checks need to know of them.
#[derive(Default)]
struct Builder {
    nodes: Vec<Node>,
    /// Name -> how many translators are above each other from here down.
    depths: HashMap<String, usize>,
}

/// A node and where it stands.
struct Located {
    node: Node,
    first_line: usize,
    end_line: usize,
    /// Line of each subvolume.
    lines: Vec<usize>,
}

impl Builder {
    fn add(&mut self, located: Located) -> Result<(), VolfileError> {
        let Located { node, first_line, end_line, lines } = located;
        if self.nodes.len() >= MAX_NODES {
            return Err(fail(first_line, format!("more than {MAX_NODES} volumes")));
        }
        if self.depths.contains_key(&node.name) {
            return Err(fail(first_line, format!("volume '{}' defined again", node.name)));
        }
        if node.name.is_empty() {
            return Err(fail(first_line, "a volume needs a name"));
        }
        if node.kind.is_empty() {
            return Err(fail(end_line, format!("\"type\" not specified for volume {}", node.name)));
        }
        let mut depth = 1;
        for (name, line) in node.subvolumes.iter().zip(lines) {
            if *name == node.name {
                return Err(fail(line, format!("volume '{name}' has itself as subvolume")));
            }
            let Some(below) = self.depths.get(name) else {
                return Err(fail(
                    line,
                    format!("volume '{}': subvolume '{name}' is not defined prior to usage", node.name),
                ));
            };
            depth = depth.max(below + 1);
        }
        if depth > MAX_DEPTH {
            return Err(fail(first_line, format!("more than {MAX_DEPTH} translators above each other")));
        }
        self.depths.insert(node.name.clone(), depth);
        self.nodes.push(node);
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Volume,
    Type,
    Option,
    Subvolumes,
    EndVolume,
    Word(String),
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Token::Volume => "volume",
            Token::Type => "type",
            Token::Option => "option",
            Token::Subvolumes => "subvolumes",
            Token::EndVolume => "end-volume",
            Token::Word(text) => return f.write_str(&text.chars().take(64).collect::<String>()),
        })
    }
}

fn keyword(text: &str) -> Option<Token> {
    Some(match text {
        "volume" => Token::Volume,
        "type" => Token::Type,
        "option" => Token::Option,
        "subvolumes" | "subvolumeS" => Token::Subvolumes,
        "end-volume" => Token::EndVolume,
        _ => return None,
    })
}

struct Scanner<'a> {
    rest: &'a str,
    line: usize,
}

impl Scanner<'_> {
    fn next(&mut self) -> Result<Option<(Token, usize)>, VolfileError> {
        loop {
            self.skip_blanks();
            let line = self.line;
            let Some(first) = self.rest.chars().next() else { return Ok(None) };
            match first {
                '#' => {
                    let end = self.rest.find('\n').unwrap_or(self.rest.len());
                    self.rest = &self.rest[end..];
                }
                '"' => return Ok(Some((Token::Word(self.quoted()?), line))),
                '\\' => return Err(fail(line, "a backslash outside quotes")),
                _ => {
                    let end = self.rest.find([' ', '\t', '\r', '\n', '"', '\\']).unwrap_or(self.rest.len());
                    let (text, rest) = self.rest.split_at(end);
                    if text.contains('`') {
                        return Err(fail(line, BACKTICK));
                    }
                    self.rest = rest;
                    return Ok(Some((keyword(text).unwrap_or_else(|| Token::Word(text.to_owned())), line)));
                }
            }
        }
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let skipped = &self.rest[..self.rest.len() - rest.len()];
        self.line += skipped.bytes().filter(|byte| *byte == b'\n').count();
        self.rest = rest;
    }

    fn quoted(&mut self) -> Result<String, VolfileError> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                '\n' => return Err(fail(self.line, "a quoted word ends on its line")),
                '`' => return Err(fail(self.line, BACKTICK)),
                '\\' => match chars.next() {
                    Some((_, next)) if next != '\n' => text.push(next),
                    _ => return Err(fail(self.line, "a backslash at the end of a line")),
                },
                _ => text.push(c),
            }
        }
        Err(fail(self.line, "a quoted word does not end"))
    }
}

const BACKTICK: &str = "commands in backticks are not run here; write their output instead";

struct Parser<'a> {
    scanner: Scanner<'a>,
    peeked: Option<(Token, usize)>,
}

impl Parser<'_> {
    fn next(&mut self) -> Result<Option<(Token, usize)>, VolfileError> {
        match self.peeked.take() {
            Some(token) => Ok(Some(token)),
            None => self.scanner.next(),
        }
    }

    /// The next token if it is a word.
    fn word(&mut self) -> Result<Option<(String, usize)>, VolfileError> {
        match self.next()? {
            Some((Token::Word(text), line)) => Ok(Some((text, line))),
            other => {
                self.peeked = other;
                Ok(None)
            }
        }
    }

    /// What follows `volume`, to its `end-volume`.
    fn volume(&mut self) -> Result<Located, VolfileError> {
        let Some((name, first_line)) = self.word()? else {
            return Err(fail(self.scanner.line, "a volume needs a name"));
        };
        let mut node = Node::new(name, "");
        let mut lines = Vec::new();
        loop {
            let Some((token, line)) = self.next()? else {
                return Err(fail(self.scanner.line, format!("'end-volume' not defined for volume '{}'", node.name)));
            };
            match token {
                Token::EndVolume => return Ok(Located { node, first_line, end_line: line, lines }),
                Token::Volume => {
                    return Err(fail(line, format!("'end-volume' not defined for volume '{}'", node.name)));
                }
                Token::Type if !node.kind.is_empty() => {
                    return Err(fail(line, format!("duplicate 'type' defined for volume '{}'", node.name)));
                }
                Token::Type => match self.word()? {
                    Some((kind, _)) => node.kind = kind,
                    None => return Err(fail(line, format!("Volume {}: Please specify volume type", node.name))),
                },
                Token::Option => {
                    let (Some((key, _)), Some((value, _))) = (self.word()?, self.word()?) else {
                        return Err(fail(line, format!("Volume {}: Please specify option <key> <value>", node.name)));
                    };
                    if node.options.get(&key).is_some() {
                        return Err(fail(
                            line,
                            format!("Volume '{}': duplicate entry ('option {key}') present", node.name),
                        ));
                    }
                    node.options.set(key, value);
                }
                Token::Subvolumes if !node.subvolumes.is_empty() => {
                    return Err(fail(line, format!("duplicate 'subvolumes' defined for volume '{}'", node.name)));
                }
                Token::Subvolumes => {
                    while let Some((child, line)) = self.word()? {
                        node.subvolumes.push(child);
                        lines.push(line);
                    }
                    if node.subvolumes.is_empty() {
                        return Err(fail(line, format!("Volume {}: Please specify subvolumes", node.name)));
                    }
                }
                Token::Word(text) => {
                    return Err(fail(
                        line,
                        format!(
                            "syntax error (volume '{}'): \"{}\" (allowed tokens are 'volume', 'type', 'subvolumes', \
                             'option', 'end-volume')",
                            node.name,
                            Token::Word(text)
                        ),
                    ));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REPLICA: &str = r#"
# two bricks
volume gv0-client-0
    type protocol/client
    option remote-host server1   # the first
    option remote-subvolume "/bricks/a b"
end-volume

volume gv0-client-1
    type protocol/client
    option password "say \"x\" \\ \`"
end-volume
volume gv0-replicate-0 type cluster/replicate
    subvolumes gv0-client-0 gv0-client-1
    option eager-lock on
end-volume
"#;

    #[test]
    fn a_replica_is_read() {
        let volfile = Volfile::parse(REPLICA).unwrap();
        assert_eq!(volfile.nodes.len(), 3);
        assert_eq!(volfile.get("gv0-client-0").unwrap().options.get("remote-subvolume"), Some("/bricks/a b"));
        assert_eq!(volfile.get("gv0-client-1").unwrap().options.get("password"), Some("say \"x\" \\ `"));
        let top = volfile.top().unwrap();
        assert_eq!((top.kind.as_str(), top.subvolumes.len()), ("cluster/replicate", 2));
        assert_eq!(Volfile::parse(volfile.to_text().unwrap()).unwrap(), volfile);
    }

    #[test]
    fn it_is_printed_as_glusterfs_prints_it() {
        let volfile = Volfile {
            nodes: vec![
                Node::new("a", "storage/posix").option("directory", "/b"),
                Node::new("b", "debug/io-stats").over(["a"]),
            ],
        };
        assert_eq!(
            volfile.to_text().unwrap(),
            "volume a\n    type storage/posix\n    option directory /b\nend-volume\n\nvolume b\n    type debug/io-stats\n    subvolumes a\nend-volume\n"
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, line, what) in [
            ("volume a\n type x\nend-volume\nvolume a\n type x\nend-volume", 4, "defined again"),
            ("volume a\n type x\n subvolumes b\nend-volume", 3, "not defined prior to usage"),
            ("volume a\n type x\n subvolumes a\nend-volume", 3, "itself"),
            ("volume a\n option k v\nend-volume", 3, "\"type\" not specified"),
            ("volume a\n type x\n option k\nend-volume", 3, "option <key> <value>"),
            ("volume a\n type x\n option k `id`\nend-volume", 3, "backticks"),
            ("volume a\n type x\n option k \"`id`\"\nend-volume", 3, "backticks"),
            ("volume a\n type x\n option k v\n option k w\nend-volume", 4, "duplicate"),
            ("volume a\n type x\n type y\nend-volume", 3, "duplicate 'type'"),
            ("volume a\n type x\nvolume b", 3, "'end-volume' not defined"),
            ("volume a\n type x\n", 3, "'end-volume' not defined"),
            ("volume a\n type x\n option k \"v\nend-volume", 3, "quoted"),
            ("volume a\n type x\n option k \\v\nend-volume", 3, "backslash"),
            ("hello", 1, "syntax error"),
            ("volume a\n type x\n nonsense\nend-volume", 3, "syntax error"),
        ] {
            match Volfile::parse(text) {
                Err(VolfileError::Line { line: at, message }) => {
                    assert_eq!(at, line, "{text:?}: {message}");
                    assert!(message.contains(what), "{text:?}: {message}");
                }
                other => panic!("{text:?}: {other:?}"),
            }
        }
        assert!(Volfile::parse("# nothing").is_err());
        assert!(Volfile::parse(b"volume \xff".as_slice()).is_err());
    }

    #[test]
    fn depth_is_bounded() {
        let mut volfile = Volfile { nodes: vec![Node::new("v0", "t")] };
        for n in 1..=MAX_DEPTH {
            assert_eq!(volfile.check(), Ok(()));
            volfile.nodes.push(Node::new(format!("v{n}"), "t").over([format!("v{}", n - 1)]));
        }
        assert!(volfile.check().is_err());
    }

    fn words() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z0-9./:#`\"\\\\ \t\r-]{0,12}",
            Just("volume".to_owned()),
            Just("end-volume".to_owned()),
            "[^\n\0]{0,8}",
        ]
    }

    #[test]
    fn a_nul_byte_is_refused_with_its_line() {
        let error = Volfile::parse("volume a\n    type x/y\n    option k\0 v\nend-volume\n").unwrap_err();
        assert_eq!(error.to_string(), "volfile line 3: a NUL byte");
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(
            raw in proptest::collection::vec(
                (
                    words(),
                    words(),
                    proptest::collection::vec((words(), words()), 0..4),
                    proptest::collection::vec(any::<proptest::sample::Index>(), 0..3),
                ),
                1..6,
            )
        ) {
            let mut volfile = Volfile::default();
            for (at, (name, kind, options, children)) in raw.into_iter().enumerate() {
                let mut node = Node::new(format!("{at}{name}"), format!("t{kind}"));
                for (key, value) in options {
                    node.options.set(key, value);
                }
                if at > 0 {
                    for child in children {
                        node.subvolumes.push(volfile.nodes[child.index(at)].name.clone());
                    }
                }
                volfile.nodes.push(node);
            }
            let text = volfile.to_text().unwrap();
            prop_assert_eq!(Volfile::parse(&text).unwrap(), volfile);
        }

        #[test]
        fn any_text_is_taken_or_refused(text in "(volume|type|option|subvolumes|end-volume|[a-z\"`#\\\\]|[ \n])*") {
            if let Ok(volfile) = Volfile::parse(&text) {
                prop_assert_eq!(volfile.check(), Ok(()));
            }
        }
    }
}
