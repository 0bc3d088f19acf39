//! Locks cleared from outside: `gluster volume clear-locks` (`glusterfs.clrlk`) and interrupted waiters
//! (`glusterfs.intrlk`), both asked for as an xattr whose name says which. Source: features/locks/clear.c of GlusterFS 10.3.

use bytes::Bytes;

use super::queue::Held;
use super::region::EntryName;
use super::*;

const CLEAR: &[u8] = b"glusterfs.clrlk.";
const INTERRUPT: &[u8] = b"glusterfs.intrlk.";
const PATHINFO: &str = "trusted.glusterfs.pathinfo";

/// Whether an xattr's name is such a command.
pub(super) fn is_command(name: &[u8]) -> bool {
    name.starts_with(b"glusterfs.clrlk") || name.starts_with(b"glusterfs.intrlk")
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Which {
    Inode,
    Entry,
    Posix,
}

/// What a name asks for: `PREFIX.t{inode,entry,posix}.k{blocked,granted,all}[.RANGE or NAME]`.
#[derive(Debug, PartialEq)]
struct Command {
    interrupt: bool,
    which: Which,
    blocked: bool,
    granted: bool,
    /// First byte and length as the lock was asked for.
    range: Option<(u64, u64)>,
    name: Option<Bytes>,
}

impl Command {
    fn parse(text: &[u8]) -> Option<Command> {
        let interrupt = text.starts_with(INTERRUPT);
        let rest = text.strip_prefix(INTERRUPT).or_else(|| text.strip_prefix(CLEAR))?;
        let mut parts = rest.splitn(3, |byte| *byte == b'.');
        let which = match parts.next()? {
            b"tinode" => Which::Inode,
            b"tentry" => Which::Entry,
            b"tposix" => Which::Posix,
            _ => return None,
        };
        let (blocked, granted) = match parts.next()? {
            b"kblocked" => (true, false),
            b"kgranted" => (false, true),
            b"kall" => (true, true),
            _ => return None,
        };
        let argument = parts.next().map(|arg| arg.split(|byte| *byte == b'/').next().unwrap_or(arg));
        let argument = argument.filter(|arg| !arg.is_empty());
        let (mut range, mut name) = (None, None);
        match which {
            Which::Entry => name = argument.map(Bytes::copy_from_slice),
            // `WHENCE,START-LENGTH`; only SEEK_SET is ever stored.
            _ => {
                if let Some(argument) = argument {
                    let text = std::str::from_utf8(argument).ok()?;
                    let (whence, rest) = text.split_once(',')?;
                    let (start, len) = rest.split_once('-')?;
                    if whence.trim().parse::<i16>().ok()? != 0 {
                        return None;
                    }
                    range = Some((start.parse().ok()?, len.parse().ok()?));
                }
            }
        }
        Some(Command { interrupt, which, blocked, granted, range, name })
    }

    fn is_range(&self, range: &Range) -> bool {
        self.range.is_none_or(|(start, len)| range.start == start && range.wire_len() == len)
    }

    fn is_name(&self, entry: &EntryName) -> bool {
        self.name.is_none() || entry.name == self.name
    }
}

impl Locks {
    /// Carries out a command; answers how many locks went, in GlusterFS's words.
    pub(super) async fn clear(&self, context: &Context, gfid: Gfid, text: &Bytes) -> FopResult {
        let shown = || String::from_utf8_lossy(text).into_owned();
        let Some(command) = Command::parse(text) else {
            return Err(FopError::new(errno::EINVAL, format!("no command to clear locks: {}", shown())));
        };
        // An interrupt only reaches waiters of the process that was interrupted; clearing takes anybody's locks.
        if !command.interrupt && context.uid != 0 && !context.is_internal() {
            return Err(FopError::new(errno::EPERM, format!("only root may clear locks: {}", shown())));
        }
        if command.interrupt && (command.which != Which::Posix || context.is_internal()) {
            return Err(FopError::new(errno::EINVAL, format!("nothing that is interrupted: {}", shown())));
        }
        let (blocked, granted) = match command.which {
            Which::Posix => self.clear_posix(context, gfid, &command),
            Which::Inode => self.clear_domains::<Range>(gfid, &command, |held| command.is_range(&held.region)),
            Which::Entry => self.clear_domains::<EntryName>(gfid, &command, |held| command.is_name(&held.region)),
        };
        let summary = match blocked + granted {
            0 => "No locks cleared.".to_owned(),
            _ => {
                let which = match command.which {
                    Which::Inode => "inode",
                    Which::Entry => "entry",
                    Which::Posix => "posix",
                };
                let brick = self.brick_name().await.unwrap_or_else(|| self.name.clone());
                format!("{brick}: {which} blocked locks={blocked} granted locks={granted}")
            }
        };
        let xattrs = Dict::new().with(text.clone(), Value::Str(summary.into()));
        Ok(Reply::Xattrs { xattrs, xdata: Dict::new() })
    }

    fn clear_posix(&self, context: &Context, gfid: Gfid, command: &Command) -> (usize, usize) {
        let meant = |lock: &PosixLock| {
            command.is_range(&lock.range)
                && (!command.interrupt || lock.caller == context.pid && lock.who.client == context.client)
        };
        let mut granted = 0;
        let interrupted = self.on_inode(gfid, |inode, wake, _| {
            let mut interrupted = Senders::new();
            if command.blocked {
                for waiting in std::mem::take(&mut inode.posix.waiting) {
                    if meant(&waiting.lock) {
                        self.discharge(waiting.lock.who.client, gfid, 1);
                        interrupted.push(waiting.wake);
                    } else {
                        inode.posix.waiting.push_back(waiting);
                    }
                }
            }
            if command.granted {
                inode.posix.remove_granted(|held| {
                    let goes = meant(held);
                    if goes {
                        self.discharge(held.who.client, gfid, 1);
                        granted += 1;
                    }
                    goes
                });
            }
            wake.extend(inode.posix.serve());
            interrupted
        });
        let blocked = interrupted.len();
        for sender in interrupted {
            let _ = sender.send(Err(FopError::new(errno::EINTR, "a waiting lock was interrupted")));
        }
        (blocked, granted)
    }

    fn clear_domains<R: Kind>(
        &self,
        gfid: Gfid,
        command: &Command,
        meant: impl Fn(&Held<R>) -> bool,
    ) -> (usize, usize) {
        let mut granted = 0;
        let refused = self.on_inode(gfid, |inode, wake, found| {
            let mut refused = Senders::new();
            for (name, domain) in &mut inode.domains {
                let queue = R::queue(domain);
                let mut notices = self.notices();
                let (taken, senders) = self.take_away(gfid, queue, command.granted, command.blocked, &meant);
                granted += taken;
                refused.extend(senders);
                wake.extend(queue.serve(&mut notices));
                self.report(gfid, name, notices, found);
            }
            refused
        });
        let blocked = refused.len();
        for sender in refused {
            let _ = sender.send(Err(FopError::new(errno::EAGAIN, "a waiting lock was cleared")));
        }
        (blocked, granted)
    }

    /// `HOST:/brick/`, out of the pathinfo that storage answers (`<POSIX(/brick):HOST:...>`).
    async fn brick_name(&self) -> Option<String> {
        let info = self.pathinfo().await?;
        let (brick, rest) = info.strip_prefix("<POSIX(")?.split_once("):")?;
        let (host, _) = rest.split_once(':')?;
        Some(format!("{host}:{brick}/"))
    }

    /// What storage says about where the brick's root is.
    pub(super) async fn pathinfo(&self) -> Option<String> {
        let fop = Fop::Getxattr { gfid: Gfid::ROOT, name: PATHINFO.into(), xdata: Dict::new() };
        match self.child.submit(&Context::root(), fop).await {
            Ok(Reply::Xattrs { xattrs, .. }) => xattrs.text(PATHINFO).map(str::to_owned),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_glusterfs_writes_them() {
        let parse = |text: &str| Command::parse(text.as_bytes());
        let command = parse("glusterfs.intrlk.tposix.kblocked.0,10-20").unwrap();
        assert!(command.interrupt && command.blocked && !command.granted);
        assert_eq!((command.which, command.range), (Which::Posix, Some((10, 20))));
        let command = parse("glusterfs.clrlk.tentry.kall.a.file").unwrap();
        assert_eq!((command.which, command.name.as_deref()), (Which::Entry, Some(&b"a.file"[..])));
        assert_eq!(parse("glusterfs.clrlk.tinode.kgranted").unwrap().range, None);
        for wrong in [
            "glusterfs.clrlk",
            "glusterfs.clrlk.tposix",
            "glusterfs.clrlk.tother.kall",
            "glusterfs.clrlk.tposix.kmost",
            "glusterfs.clrlk.tposix.kall.0,x-1",
            "glusterfs.clrlk.tposix.kall.1,0-1",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
