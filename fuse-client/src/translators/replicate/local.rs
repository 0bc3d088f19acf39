//! Bricks on this machine: reads prefer one (`choose-local`).

use ladrillo_translator::{Context, Dict, Fop, Gfid, Reply};

use super::Replicate;

/// Tells where a brick keeps an inode: `<POSIX(/bricks/b1):debian1:/bricks/b1/>`.
const PATHINFO: &str = "trusted.glusterfs.pathinfo";

impl Replicate {
    /// A child has come: finds out whether its brick is on this machine.
    pub(super) fn find_out_whether_local(&self, child: usize) {
        if !self.settings().choose_local || self.local_child.lock().is_some() {
            return;
        }
        let Some(this) = self.this.upgrade() else { return };
        self.runtime.spawn(Box::pin(async move {
            let fop = Fop::Getxattr { gfid: Gfid::ROOT, name: PATHINFO.into(), xdata: Dict::new() };
            let Some(target) = this.children.get(child) else { return };
            if let Ok(Reply::Xattrs { xattrs, .. }) = target.submit(&Context::root(), fop).await
                && let Some(host) = xattrs.text(PATHINFO).and_then(host_of)
                && is_this_machine(host)
            {
                tracing::info!(subvolume = %this.name, child = target.name(), "reads prefer the local brick");
                *this.local_child.lock() = Some(child);
            }
        }));
    }
}

/// The host in a brick's pathinfo.
fn host_of(pathinfo: &str) -> Option<&str> {
    pathinfo.split_once("):")?.1.split(':').next().filter(|host| !host.is_empty())
}

fn is_this_machine(host: &str) -> bool {
    rustix::system::uname().nodename().to_str() == Ok(host)
}

#[cfg(test)]
mod tests {
    use super::host_of;

    #[test]
    fn the_host_is_between_the_brick_and_the_path() {
        assert_eq!(host_of("<POSIX(/bricks/b1):debian1:/bricks/b1/>"), Some("debian1"));
        assert_eq!(host_of("nonsense"), None);
        assert_eq!(host_of("(<POSIX(/b):"), None);
    }
}
