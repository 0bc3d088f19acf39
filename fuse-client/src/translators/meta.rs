//! `meta`: the graph of a mount as files, below `.meta` in its root (not listed there).
//!
//! Of GlusterFS 10.3's tree: `version`, and for the graph of the moment `graphs/active/{volfile,top}` and of each translator
//! `graphs/active/NAME/{name,type,options/KEY,subvolumes/N,private}`. Scripts read where a brick is from it, and from `private`, which
//! tells a translator's state at the moment, whether it is up. The rest shows the volfile the graph was built from; nothing in it
//! can be changed.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use ladrillo_translator::error::errno::{EINVAL, EISDIR, ENODATA, ENOENT, ENOTDIR, EPERM};
use ladrillo_translator::fop::{DirEntry, Entry, Name};
use ladrillo_translator::{
    Context, Dict, FileType, Fop, FopError, FopFuture, FopResult, Gfid, Iatt, OptionError, Options, Parent, Payload,
    Reply, Runtime, Timespec, Translator, Volfile,
};

/// The directory, in the root.
const NAME: &[u8] = b".meta";
/// First half of the gfids of what is in it; the second numbers them.
const GFID_PREFIX: [u8; 8] = *b"\0.meta\0\0";
const FIRST_NUMBER: u64 = 0x6d65_7461_0000_0000;

enum Content {
    /// Names and nodes, in order.
    Directory(Vec<(Name, usize)>),
    File(Bytes),
    /// What a translator holds when it is read.
    State(Arc<dyn Translator>),
    Symlink(Bytes),
}

struct Node {
    parent: usize,
    content: Content,
}

/// The translator, above all others.
pub struct Meta {
    below: Arc<dyn Translator>,
    nodes: Vec<Node>,
    runtime: Arc<dyn Runtime>,
    born: Timespec,
}

impl Meta {
    /// Shows `volfile`, from which `below` and what is in `translators` were built.
    pub fn over(
        below: Arc<dyn Translator>,
        volfile: &Volfile,
        translators: &[Arc<dyn Translator>],
        runtime: Arc<dyn Runtime>,
    ) -> Arc<Meta> {
        // Everybody may read it.
        let mut volfile = volfile.clone();
        for node in &mut volfile.nodes {
            node.options.remove("password");
        }
        let mut tree = Tree { nodes: vec![Node { parent: 0, content: Content::Directory(Vec::new()) }] };
        tree.file(0, "version", "{\n  \"Package Version\": \"10.3\"\n}\n".to_owned());
        let graphs = tree.directory(0, "graphs");
        let active = tree.directory(graphs, "active");
        if let Ok(text) = volfile.to_text() {
            tree.file(active, "volfile", text);
        }
        if let Some(top) = volfile.top() {
            tree.symlink(active, "top", &top.name);
        }
        for node in &volfile.nodes {
            let translator = tree.directory(active, &node.name);
            tree.file(translator, "name", format!("{}\n", node.name));
            tree.file(translator, "type", format!("{}\n", node.kind));
            if let Some(made) = translators.iter().find(|made| made.name() == node.name) {
                tree.add(translator, "private", Content::State(made.clone()));
            }
            let options = tree.directory(translator, "options");
            for (key, value) in node.options.iter() {
                tree.file(options, key, format!("{value}\n"));
            }
            let subvolumes = tree.directory(translator, "subvolumes");
            for (number, name) in node.subvolumes.iter().enumerate() {
                tree.symlink(subvolumes, &number.to_string(), &format!("../../{name}"));
            }
        }
        let born = runtime.wall_clock();
        Arc::new(Meta { below, nodes: tree.nodes, runtime, born })
    }

    fn gfid(number: usize) -> Gfid {
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&GFID_PREFIX);
        raw[8..].copy_from_slice(&(FIRST_NUMBER + number as u64).to_be_bytes());
        Gfid(raw)
    }

    /// The number of one of its inodes.
    fn number(&self, gfid: &Gfid) -> Option<usize> {
        let tail = gfid.0.strip_prefix(&GFID_PREFIX)?;
        let number = u64::from_be_bytes(tail.try_into().ok()?).checked_sub(FIRST_NUMBER)?;
        usize::try_from(number).ok().filter(|number| *number < self.nodes.len())
    }

    fn child(&self, entry: &Entry) -> Option<FopResult<usize>> {
        if entry.parent.is_root() {
            return (entry.name.as_ref() == NAME).then_some(Ok(0));
        }
        let parent = self.number(&entry.parent)?;
        let node = self.nodes.get(parent)?;
        Some(match (&node.content, entry.name.as_ref()) {
            (Content::Directory(_), b".") => Ok(parent),
            (Content::Directory(_), b"..") => Ok(node.parent),
            (Content::Directory(names), name) => names
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, number)| *number)
                .ok_or_else(|| FopError::new(ENOENT, "there is no such file in .meta")),
            _ => Err(FopError::new(ENOTDIR, "not a directory")),
        })
    }

    fn iatt(&self, number: usize) -> Iatt {
        let (kind, permissions, size_bytes) = match self.nodes.get(number).map(|node| &node.content) {
            Some(Content::File(text)) => (FileType::Regular, 0o444, text.len() as u64),
            Some(Content::State(translator)) => (FileType::Regular, 0o444, state_text(&**translator).len() as u64),
            Some(Content::Symlink(target)) => (FileType::Symlink, 0o777, target.len() as u64),
            _ => (FileType::Directory, 0o555, 4096),
        };
        let gfid = Meta::gfid(number);
        // What may have changed is newer than what the kernel has of it.
        let changed = match self.nodes.get(number).map(|node| &node.content) {
            Some(Content::State(_)) => self.runtime.wall_clock(),
            _ => self.born,
        };
        Iatt {
            flags: Iatt::VALID_BASIC,
            gfid,
            ino: gfid.ino(),
            mode: kind.mode_bits() | permissions,
            nlink: if kind == FileType::Directory { 2 } else { 1 },
            size_bytes,
            block_size_bytes: 4096,
            atime: self.born,
            mtime: changed,
            ctime: changed,
            ..Iatt::default()
        }
    }

    /// The answer to what is about one of its inodes; `None`: about another.
    fn answer(&self, fop: &Fop) -> Option<FopResult> {
        let done = || Some(Ok(Reply::done()));
        let of = |number: usize| Reply::Iatt { iatt: Box::new(self.iatt(number)), xdata: Dict::new() };
        match fop {
            Fop::Lookup { entry: Some(entry), .. } if !entry.name.is_empty() => {
                let found = self.child(entry)?;
                Some(found.map(|number| self.found(number)))
            }
            Fop::Lookup { gfid, .. } => Some(Ok(self.found(self.number(gfid)?))),
            Fop::Stat { gfid, .. } => Some(Ok(of(self.number(gfid)?))),
            Fop::Fstat { file, .. } => Some(Ok(of(self.number(&file.gfid)?))),
            Fop::Access { gfid, .. } | Fop::Opendir { gfid, .. } => {
                self.number(gfid)?;
                done()
            }
            Fop::Open { gfid, flags, .. } => {
                self.number(gfid)?;
                match *flags & libc::O_ACCMODE as u32 == libc::O_RDONLY as u32 {
                    true => done(),
                    false => Some(Err(FopError::new(EPERM, "files in .meta are read only"))),
                }
            }
            Fop::Release { file } | Fop::Releasedir { file } => self.number(&file.gfid).and_then(|_| done()),
            Fop::Flush { file, .. } | Fop::Fsync { file, .. } | Fop::Fsyncdir { file, .. } => {
                self.number(&file.gfid).and_then(|_| done())
            }
            Fop::Readlink { gfid, .. } => {
                let number = self.number(gfid)?;
                Some(match &self.nodes.get(number)?.content {
                    Content::Symlink(target) => Ok(Reply::Readlink {
                        target: target.clone(),
                        iatt: Box::new(self.iatt(number)),
                        xdata: Dict::new(),
                    }),
                    _ => Err(FopError::new(EINVAL, "not a symlink")),
                })
            }
            Fop::Read { file, offset, size_bytes, .. } => {
                Some(self.read(self.number(&file.gfid)?, *offset, *size_bytes))
            }
            Fop::Readdir { file, offset, .. } | Fop::Readdirp { file, offset, .. } => {
                let plus = matches!(fop, Fop::Readdirp { .. });
                Some(self.list(self.number(&file.gfid)?, *offset, plus))
            }
            Fop::Getxattr { gfid, name, .. } => self.number(gfid).map(|_| no_xattr(name)),
            Fop::Fgetxattr { file, name, .. } => self.number(&file.gfid).map(|_| no_xattr(name)),
            other => self.is_about(other).then(|| Err(FopError::new(EPERM, "nothing in .meta can be changed"))),
        }
    }

    /// Whether a fop that is none of the above names one of its inodes.
    fn is_about(&self, fop: &Fop) -> bool {
        let gfids: [Option<Gfid>; 2] = match fop {
            Fop::Mknod { entry, .. }
            | Fop::Mkdir { entry, .. }
            | Fop::Symlink { entry, .. }
            | Fop::Unlink { entry, .. }
            | Fop::Rmdir { entry, .. }
            | Fop::Create { entry, .. }
            | Fop::Put { entry, .. } => [Some(entry.parent), None],
            Fop::Link { gfid, entry, .. } => [Some(*gfid), Some(entry.parent)],
            Fop::Rename { from, to, .. } => [Some(from.parent), Some(to.parent)],
            Fop::Setattr { gfid, .. }
            | Fop::Truncate { gfid, .. }
            | Fop::Setxattr { gfid, .. }
            | Fop::Removexattr { gfid, .. }
            | Fop::Xattrop { gfid, .. }
            | Fop::Inodelk { gfid, .. }
            | Fop::Entrylk { gfid, .. } => [Some(*gfid), None],
            other => other.files().map(|file| file.map(|file| file.gfid)),
        };
        gfids.iter().flatten().any(|gfid| self.number(gfid).is_some())
    }

    fn found(&self, number: usize) -> Reply {
        let parent = self.nodes.get(number).map_or(0, |node| node.parent);
        Reply::Lookup { iatt: Box::new(self.iatt(number)), parent: Box::new(self.iatt(parent)), xdata: Dict::new() }
    }

    fn read(&self, number: usize, offset: u64, size_bytes: u32) -> FopResult {
        let text = match self.nodes.get(number).map(|node| &node.content) {
            Some(Content::File(text)) => text.clone(),
            Some(Content::State(translator)) => state_text(&**translator).into(),
            _ => return Err(FopError::new(EISDIR, "not a file")),
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
        let end = start.saturating_add(size_bytes as usize).min(text.len());
        let data = Payload::from_bytes(text.slice(start..end));
        Ok(Reply::Read { data, iatt: Box::new(self.iatt(number)), xdata: Dict::new() })
    }

    /// Offsets count from 1: the dots, then the names.
    fn list(&self, number: usize, offset: u64, plus: bool) -> FopResult {
        let Some(node) = self.nodes.get(number) else { return Err(FopError::new(ENOENT, "gone")) };
        let Content::Directory(names) = &node.content else {
            return Err(FopError::new(ENOTDIR, "not a directory"));
        };
        let dots = [(Bytes::from_static(b"."), number), (Bytes::from_static(b".."), node.parent)];
        let all = dots.iter().chain(names).enumerate();
        // A page at a time: a few hundred translators have short names.
        let page = all.skip(usize::try_from(offset).unwrap_or(usize::MAX)).take(32);
        let entries = page
            .map(|(at, (name, child))| {
                let iatt = self.iatt(*child);
                DirEntry {
                    ino: iatt.ino,
                    offset: at as u64 + 1,
                    d_type: iatt.file_type().map_or(0, FileType::d_type),
                    name: name.clone(),
                    iatt: plus.then_some(iatt),
                    xdata: Dict::new(),
                }
            })
            .collect();
        Ok(Reply::Entries { entries, xdata: Dict::new() })
    }
}

/// In the form of GlusterFS's: `child_up[0] = 1`.
fn state_text(translator: &dyn Translator) -> String {
    translator.state().iter().map(|(name, value)| format!("{name} = {value}\n")).collect()
}

fn no_xattr(name: &[u8]) -> FopResult {
    match name.is_empty() {
        true => Ok(Reply::Xattrs { xattrs: Dict::new(), xdata: Dict::new() }),
        false => Err(FopError::new(ENODATA, "files in .meta have no xattrs")),
    }
}

struct Tree {
    nodes: Vec<Node>,
}

impl Tree {
    fn add(&mut self, parent: usize, name: &str, content: Content) -> usize {
        let number = self.nodes.len();
        self.nodes.push(Node { parent, content });
        // Names of translators may hold a slash (bricks'), which no file name can.
        let name = Bytes::from(name.replace('/', "-"));
        if let Some(Node { content: Content::Directory(names), .. }) = self.nodes.get_mut(parent) {
            names.push((name, number));
        }
        number
    }

    fn directory(&mut self, parent: usize, name: &str) -> usize {
        self.add(parent, name, Content::Directory(Vec::new()))
    }

    fn file(&mut self, parent: usize, name: &str, text: String) {
        self.add(parent, name, Content::File(text.into()));
    }

    fn symlink(&mut self, parent: usize, name: &str, target: &str) {
        self.add(parent, name, Content::Symlink(Bytes::copy_from_slice(target.as_bytes())));
    }
}

impl Translator for Meta {
    fn name(&self) -> &str {
        self.below.name()
    }

    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        match self.answer(&fop) {
            Some(outcome) => Box::pin(std::future::ready(outcome)),
            None => self.below.submit(context, fop),
        }
    }

    fn set_parent(&self, parent: Weak<dyn Parent>, child_index: usize) {
        self.below.set_parent(parent, child_index);
    }

    fn reconfigure(&self, options: &Options) -> Result<bool, OptionError> {
        self.below.reconfigure(options)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use ladrillo_translator::fop::File;
    use ladrillo_translator::volfile;

    use super::*;

    struct Below;

    impl Translator for Below {
        fn name(&self) -> &str {
            "below"
        }

        fn submit<'a>(&'a self, _: &'a Context, _: Fop) -> FopFuture<'a> {
            Box::pin(async { Err(FopError::new(99, "below")) })
        }

        fn set_parent(&self, _: Weak<dyn Parent>, _: usize) {}
    }

    /// The client of the graph.
    struct Held;

    impl Translator for Held {
        fn name(&self) -> &str {
            "v-client-0"
        }

        fn submit<'a>(&'a self, _: &'a Context, _: Fop) -> FopFuture<'a> {
            Box::pin(async { Err(FopError::new(99, "held")) })
        }

        fn state(&self) -> Vec<(std::borrow::Cow<'static, str>, String)> {
            vec![("connected".into(), "1".into())]
        }

        fn set_parent(&self, _: Weak<dyn Parent>, _: usize) {}
    }

    fn meta() -> Arc<Meta> {
        let client = volfile::Node::new("v-client-0", "protocol/client")
            .option("remote-subvolume", "/bricks/b0")
            .option("password", "secret");
        let top = volfile::Node::new("v", "debug/io-stats").over(["v-client-0"]);
        let runtime = Arc::new(crate::executor::RingRuntime::new());
        Meta::over(Arc::new(Below), &Volfile { nodes: vec![client, top] }, &[Arc::new(Held)], runtime)
    }

    fn ask(meta: &Meta, fop: Fop) -> FopResult {
        meta.submit(&Context::root(), fop).now_or_never().expect("it answers at once")
    }

    fn walk(meta: &Meta, path: &str) -> FopResult<Gfid> {
        let mut at = Gfid::ROOT;
        for name in path.split('/') {
            let entry = Entry { parent: at, name: Bytes::copy_from_slice(name.as_bytes()) };
            match ask(meta, Fop::Lookup { gfid: Gfid::NULL, entry: Some(entry), xdata: Dict::new() })? {
                Reply::Lookup { iatt, .. } => at = iatt.gfid,
                reply => panic!("{reply:?}"),
            }
        }
        Ok(at)
    }

    fn cat(meta: &Meta, path: &str) -> String {
        let file = File { gfid: walk(meta, path).unwrap(), fd: None };
        match ask(meta, Fop::Read { file, offset: 0, size_bytes: 9999, flags: 0, xdata: Dict::new() }) {
            Ok(Reply::Read { data, .. }) => String::from_utf8_lossy(data.as_slice()).into_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_graph_is_read_like_files() {
        let meta = meta();
        assert_eq!(cat(&meta, ".meta/graphs/active/v-client-0/options/remote-subvolume"), "/bricks/b0\n");
        assert_eq!(cat(&meta, ".meta/graphs/active/v/type"), "debug/io-stats\n");
        assert_eq!(cat(&meta, ".meta/graphs/active/v-client-0/private"), "connected = 1\n");
        let options = File { gfid: walk(&meta, ".meta/graphs/active/v-client-0/options").unwrap(), fd: None };
        let list = Fop::Readdirp { file: options, offset: 0, size_bytes: 4096, xdata: Dict::new() };
        let Ok(Reply::Entries { entries, .. }) = ask(&meta, list) else { panic!() };
        let names: Vec<&[u8]> = entries.iter().map(|entry| &entry.name[..]).collect();
        assert_eq!(names, [&b"."[..], b"..", b"remote-subvolume"], "and no password");
        assert!(!cat(&meta, ".meta/graphs/active/volfile").contains("secret"));
        let next = Fop::Readdir { file: options, offset: 3, size_bytes: 4096, xdata: Dict::new() };
        assert!(matches!(ask(&meta, next), Ok(Reply::Entries { entries, .. }) if entries.is_empty()));
    }

    #[test]
    fn nothing_in_it_changes_and_the_rest_goes_below() {
        let meta = meta();
        let directory = walk(&meta, ".meta/graphs").unwrap();
        let code = |fop: Fop| ask(&meta, fop).map_or_else(|error| error.errno, |_| 0);
        let entry = |parent: Gfid, name: &'static str| Entry { parent, name: Bytes::from_static(name.as_bytes()) };
        let unlink = |entry| Fop::Unlink { entry, flags: 0, xdata: Dict::new() };
        assert_eq!(code(unlink(entry(directory, "active"))), EPERM);
        assert_eq!(code(Fop::Truncate { gfid: directory, size_bytes: 0, xdata: Dict::new() }), EPERM);
        assert_eq!(code(unlink(entry(Gfid::ROOT, "x"))), 99);
        assert_eq!(code(Fop::Stat { gfid: Gfid::ROOT, xdata: Dict::new() }), 99);
        let mut beyond = Meta::gfid(0);
        beyond.0[12] = 9;
        assert_eq!(code(Fop::Stat { gfid: beyond, xdata: Dict::new() }), 99);
        assert_eq!(walk(&meta, ".meta/none").map_err(|error| error.errno), Err(ENOENT));
        assert_eq!(walk(&meta, ".meta/version/x").map_err(|error| error.errno), Err(ENOTDIR));
    }
}
