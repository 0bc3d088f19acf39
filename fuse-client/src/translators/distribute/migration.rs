//! Files that a rebalance is copying: marked with S and T, and with the xattr of a linkto file, on the subvolume they
//! leave. It counts on clients to change both copies meanwhile (GlusterFS 10.3, dht-helper.c: migration phase 1).

use ladrillo_translator::error::errno::{ENODATA, EXDEV};
use ladrillo_translator::fop::FopKind;
use ladrillo_translator::{Context, Dict, Fop, FopError, FopResult, Gfid, Iatt, Reply, Value};

use super::Distribute;
use super::linkto::is_missing;
use super::unlink::IATT_IN_XDATA;

/// S and T. Applications may set them, too: the xattr decides.
const MIGRATION_MODE: u32 = 0o3000;

impl Distribute {
    /// Repeats what was done on `child` where the file is being moved to, if it is.
    ///
    /// # Errors
    /// It failed there: what is there now would lack it once the file has moved.
    pub(super) async fn repeat_where_it_goes(
        &self,
        context: &Context,
        fop: &Fop,
        gfid: Gfid,
        child: usize,
        reply: &Reply,
    ) -> FopResult<()> {
        if self.count() == 1 || !is_marked(fop, reply) {
            return Ok(());
        }
        let Some(target) = self.moving_to(gfid, child).await?.filter(|target| *target != child) else {
            return Ok(());
        };
        let outcome = match self.open_all(fop, target).await {
            Ok(()) => self.ask(target, context, fop.clone()).await.map(|_| ()),
            Err(error) => Err(error),
        };
        match outcome {
            // Given up meanwhile.
            Err(error) if is_missing(&error) => Ok(()),
            outcome => outcome,
        }
    }

    /// A copy into a file that is being moved is for the application to make, write by write.
    pub(super) async fn refuse_copy_into_moving(&self, gfid: Gfid, child: usize, reply: &Reply) -> FopResult<()> {
        match reply {
            Reply::CopyFileRange { to, .. } if self.count() > 1 && has_marks(&to.post) => {
                match self.moving_to(gfid, child).await? {
                    Some(_) => Err(FopError::new(EXDEV, format!("{gfid} is being moved"))),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// The subvolume a file on `child` is being moved to.
    async fn moving_to(&self, gfid: Gfid, child: usize) -> FopResult<Option<usize>> {
        let fop = Fop::Getxattr { gfid, name: self.keys.linkto.clone(), xdata: Dict::new() };
        match self.ask(child, &self.system(), fop).await {
            Ok(Reply::Xattrs { xattrs, .. }) => Ok(self.linkto_target(&xattrs)),
            Ok(_) => Err(super::strange_reply("a getxattr")),
            // Bits of the application's own; or unlinked, and nothing can be moved any more.
            Err(error) if error.errno == ENODATA || is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn has_marks(iatt: &Iatt) -> bool {
    iatt.is_regular() && iatt.mode & MIGRATION_MODE == MIGRATION_MODE
}

/// Whether a fop changed (or is to make safe) a file that may be being moved.
fn is_marked(fop: &Fop, reply: &Reply) -> bool {
    let counts = matches!(
        fop.kind(),
        FopKind::Write
            | FopKind::Truncate
            | FopKind::Ftruncate
            | FopKind::Fallocate
            | FopKind::Discard
            | FopKind::Zerofill
            | FopKind::Setattr
            | FopKind::Fsetattr
            | FopKind::Fsync
            | FopKind::Setxattr
            | FopKind::Fsetxattr
            | FopKind::Removexattr
            | FopKind::Fremovexattr
    );
    let iatt = match reply {
        Reply::PrePost { attrs, .. } => &attrs.post,
        reply => match reply.xdata().get(IATT_IN_XDATA) {
            Some(Value::Iatt(iatt)) => &**iatt,
            _ => return false,
        },
    };
    counts && has_marks(iatt)
}
