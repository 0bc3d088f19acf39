//! Which times a request moves: the `flags` of AUTH_GLUSTERFS v3, without which a stock brick keeps the request's birth out
//! of `trusted.glusterfs.mdata`. Source: stack.h (MDATA_*) and utime-helpers.c of 10.3, with `noatime` as by default.

use ladrillo_translator::Fop;

const CTIME: u32 = 1;
const MTIME: u32 = 1 << 1;
const ATIME: u32 = 1 << 2;
const PARENT_CTIME: u32 = 1 << 3;
const PARENT_MTIME: u32 = 1 << 4;

/// The flags for `fop` when it carries an application's wish; services that copy times themselves (heal) send 0.
pub fn time_flags(fop: &Fop) -> u32 {
    match fop {
        Fop::Setxattr { .. }
        | Fop::Fsetxattr { .. }
        | Fop::Removexattr { .. }
        | Fop::Fremovexattr { .. }
        | Fop::Setattr { .. }
        | Fop::Fsetattr { .. } => CTIME,
        Fop::Fallocate { .. } | Fop::Zerofill { .. } => MTIME | ATIME,
        Fop::Mknod { .. } | Fop::Mkdir { .. } | Fop::Symlink { .. } | Fop::Create { .. } => {
            ATIME | CTIME | MTIME | PARENT_CTIME | PARENT_MTIME
        }
        Fop::Unlink { .. } | Fop::Rmdir { .. } | Fop::Link { .. } | Fop::Rename { .. } => {
            CTIME | PARENT_CTIME | PARENT_MTIME
        }
        Fop::Write { .. } | Fop::Truncate { .. } | Fop::Ftruncate { .. } | Fop::CopyFileRange { .. } => CTIME | MTIME,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ladrillo_translator::fop::{Entry, File};
    use ladrillo_translator::{Dict, Gfid, Payload};

    #[test]
    fn flags_are_those_of_a_stock_client() {
        let entry = Entry { parent: Gfid::ROOT, name: "f".into() };
        // Both numbers were seen in a capture of GlusterFS 10.3's traffic.
        let mkdir = Fop::Mkdir { entry: entry.clone(), mode: 0, umask: 0, xdata: Dict::new() };
        assert_eq!(time_flags(&mkdir), 0x1f);
        let file = File { gfid: Gfid::ROOT, fd: None };
        let write = Fop::Write { file, offset: 0, data: Payload::empty(), flags: 0, xdata: Dict::new() };
        assert_eq!(time_flags(&write), 3);
        assert_eq!(time_flags(&Fop::Lookup { gfid: Gfid::ROOT, entry: Some(entry), xdata: Dict::new() }), 0);
    }
}
