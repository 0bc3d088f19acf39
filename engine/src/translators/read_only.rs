//! features/read-only: nothing on this brick changes, except by GlusterFS's own services (heal, rebalance).
//!
//! Source of the rules: features/read-only of GlusterFS 10.3, which forgets DISCARD, ZEROFILL, COPY_FILE_RANGE and an
//! OPEN that truncates; they are refused here as well.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use ladrillo_translator::error::errno;
use ladrillo_translator::option::{Options, parse_bool};
use ladrillo_translator::{Context, Dict, Fop, FopError, FopFuture, Parent, Translator, Value};

/// The translator.
pub struct ReadOnly {
    name: String,
    child: Arc<dyn Translator>,
    on: AtomicBool,
}

impl ReadOnly {
    /// Over `child`, with option `read-only`.
    ///
    /// # Errors
    /// A sentence: a value that is no boolean.
    pub fn new(name: &str, options: &Options, child: Arc<dyn Translator>) -> Result<ReadOnly, String> {
        let made = ReadOnly { name: name.to_owned(), child, on: AtomicBool::new(false) };
        made.reconfigure(options)?;
        Ok(made)
    }

    /// Takes changed options.
    ///
    /// # Errors
    /// A value that is no boolean; nothing is changed then.
    pub fn reconfigure(&self, options: &Options) -> Result<(), String> {
        self.on.store(flag(options, "read-only", false)?, Ordering::Relaxed);
        Ok(())
    }
}

impl Translator for ReadOnly {
    fn name(&self) -> &str {
        &self.name
    }

    fn submit<'a>(&'a self, context: &'a Context, fop: Fop) -> FopFuture<'a> {
        if self.on.load(Ordering::Relaxed) && !context.is_internal() && changes(&fop) {
            let refusal = refused(&fop, "the volume is read-only (features.read-only)");
            return Box::pin(async move { Err(refusal) });
        }
        self.child.submit(context, fop)
    }

    fn set_parent(&self, parent: Weak<dyn Parent>, child_index: usize) {
        self.child.set_parent(parent, child_index);
    }
}

/// A boolean option.
pub(super) fn flag(options: &Options, key: &str, default: bool) -> Result<bool, String> {
    match options.get(key) {
        None => Ok(default),
        Some(text) => parse_bool(text).ok_or_else(|| format!("option {key} {text:?}: not a boolean")),
    }
}

/// EROFS, and why.
pub(super) fn refused(fop: &Fop, why: &str) -> FopError {
    FopError::new(errno::EROFS, format!("{}: {why}", fop.kind().name()))
}

/// Whether an xattrop changes anything: one of zeros only reads.
pub(super) fn counts(xattrs: &Dict) -> bool {
    xattrs.iter().any(|(_, value)| match value {
        Value::Str(raw) | Value::StrOld(raw) | Value::Ptr(raw) => raw.iter().any(|byte| *byte != 0),
        _ => true,
    })
}

/// Whether a fop changes what is stored.
fn changes(fop: &Fop) -> bool {
    match fop {
        Fop::Mknod { .. }
        | Fop::Mkdir { .. }
        | Fop::Unlink { .. }
        | Fop::Rmdir { .. }
        | Fop::Symlink { .. }
        | Fop::Rename { .. }
        | Fop::Link { .. }
        | Fop::Truncate { .. }
        | Fop::Ftruncate { .. }
        | Fop::Write { .. }
        | Fop::Setxattr { .. }
        | Fop::Fsetxattr { .. }
        | Fop::Removexattr { .. }
        | Fop::Fremovexattr { .. }
        | Fop::Fsyncdir { .. }
        | Fop::Create { .. }
        | Fop::Put { .. }
        | Fop::Icreate { .. }
        | Fop::Namelink { .. }
        | Fop::Setattr { .. }
        | Fop::Fsetattr { .. }
        | Fop::Fallocate { .. }
        | Fop::Discard { .. }
        | Fop::Zerofill { .. }
        | Fop::CopyFileRange { .. } => true,
        Fop::Open { flags, .. } => flags & libc::O_ACCMODE as u32 != 0 || flags & libc::O_TRUNC as u32 != 0,
        Fop::Xattrop { xattrs, .. } | Fop::Fxattrop { xattrs, .. } => counts(xattrs),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translators::testing::{Bench, create, entry, lookup};
    use ladrillo_translator::fop::XattropKind;
    use ladrillo_translator::{FdId, Gfid};

    #[test]
    fn a_read_only_brick_is_read_and_healed_only() {
        let mut handle = None;
        let bench = Bench::new(|storage| {
            let made = Arc::new(ReadOnly::new("ro", &Options::new(), storage).unwrap());
            handle = Some(made.clone());
            made
        });
        let (Some(bench), Some(ro)) = (bench, handle) else { return };
        let gfid = bench.file(Gfid::ROOT, "old", b"text");
        assert!(ro.reconfigure(&Options::new().with("read-only", "perhaps")).is_err());
        ro.reconfigure(&Options::new().with("read-only", "on")).unwrap();
        let x = Dict::new;
        let xattrop = |n: u8| {
            let xattrs = x().with("trusted.afr.dirty", Value::Ptr(vec![0, 0, 0, n].into()));
            Fop::Xattrop { gfid, kind: XattropKind::AddArray, xattrs, xdata: x() }
        };
        for fop in [
            create(Gfid::ROOT, "new", Gfid::random(), FdId(1)),
            Fop::Unlink { entry: entry(Gfid::ROOT, "old"), flags: 0, xdata: x() },
            Fop::Truncate { gfid, size_bytes: 0, xdata: x() },
            Fop::Open { gfid, flags: libc::O_TRUNC as u32, fd: FdId(2), xdata: x() },
            Fop::Open { gfid, flags: 1, fd: FdId(2), xdata: x() },
            xattrop(1),
        ] {
            assert_eq!(bench.run(fop.clone()).unwrap_err().errno, errno::EROFS, "{fop:?}");
        }
        bench.run(lookup(Gfid::ROOT, "old")).unwrap();
        bench.run(Fop::Open { gfid, flags: 0, fd: FdId(3), xdata: x() }).unwrap();
        bench.run(xattrop(0)).unwrap();
        let healer = Context { pid: Context::PID_SELF_HEALD, ..Context::root() };
        bench.run_as(&healer, create(Gfid::ROOT, "healed", Gfid::random(), FdId(4))).unwrap();
        ro.reconfigure(&Options::new()).unwrap();
        bench.run(Fop::Truncate { gfid, size_bytes: 0, xdata: x() }).unwrap();
    }
}
