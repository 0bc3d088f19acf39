//! Our own program: several fops in one record, each carried out as if it had come alone.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::{EntrylkCmd, LockCmd};
use ladrillo_translator::{Context, Fop, FopError, FopKind, FopResult, Step};
use ladrillo_transport::program::extension::{self, Done, Incoming};
use ladrillo_transport::program::fop4;
use ladrillo_transport::rpc::{self, AUTH_REJECTEDCRED, AUTH_TOOWEAK, AcceptStatus, CallHeader};
use ladrillo_transport::xdr::Writer;
use ladrillo_transport::{MAX_RECORD_BYTES, Message};

use super::session::Session;
use super::{Client, Shared, carry_out, may_wait_for_lock};

/// A step that can be carried out, or why not.
struct Ready {
    kind: Option<FopKind>,
    needs_previous: bool,
    what: FopResult<(Context, Fop)>,
}

impl Client {
    pub(super) fn extension(&self, header: &CallHeader, body: Bytes, size: usize) {
        let xid = header.xid;
        if header.procedure == 0 {
            return self.reply(xid, AcceptStatus::Success, Message::default());
        }
        let Some(session) = self.session.clone().filter(|_| self.extended) else {
            tracing::warn!(peer = %self.outgoing.peer(), "our own program by a client that did not announce it");
            return self.refuse(xid, AcceptStatus::DeniedAuth(AUTH_TOOWEAK));
        };
        if header.procedure != extension::PROC_STEPS {
            return self.refuse(xid, AcceptStatus::ProcUnavail);
        }
        let steps = match extension::decode_request(body) {
            Ok(steps) => steps,
            Err(e) => {
                tracing::warn!(peer = %self.outgoing.peer(), error = %e, "garbage arguments of steps");
                return self.refuse(xid, AcceptStatus::GarbageArgs);
            }
        };
        let Some(mut context) = self.context(&header.credential, &session) else {
            return self.refuse(xid, AcceptStatus::DeniedAuth(AUTH_REJECTEDCRED));
        };
        let mut answer_bytes = 0;
        let mut ready = Vec::with_capacity(steps.len());
        for step in steps {
            if let Some(credential) = &step.credential {
                context = match self.context(credential, &session) {
                    Some(context) => context,
                    None => return self.refuse(xid, AcceptStatus::DeniedAuth(AUTH_REJECTEDCRED)),
                };
            }
            ready.push(prepare(&context, step, &mut answer_bytes));
        }
        let counted = ready.iter().any(|step| !step.kind.is_some_and(may_wait_for_lock));
        let (shared, outgoing) = (self.shared.clone(), self.outgoing.clone());
        self.run(counted.then_some(size + answer_bytes), async move {
            let done = carry_out_all(&shared, &session, ready).await;
            let mut writer = Writer::with_capacity(64 + 320 * done.len());
            rpc::write_reply_header(&mut writer, xid, AcceptStatus::Success);
            let payload = extension::write_reply(&mut writer, &done);
            outgoing.send(Message { header: writer.finish(), payload, padding: 0 });
        });
    }
}

/// Carries out one after the other; fsyncs side by side at the same time, as a file system makes many files durable at
/// little more than the cost of one.
async fn carry_out_all(shared: &Arc<Shared>, session: &Arc<Session>, ready: Vec<Ready>) -> Vec<Done> {
    let mut done: Vec<Done> = Vec::with_capacity(ready.len());
    let mut ready = ready.into_iter().peekable();
    while let Some(first) = ready.next() {
        let mut run = vec![first];
        while run.iter().all(is_sync)
            && let Some(next) = ready.next_if(|next| is_sync(next) && !next.needs_previous)
        {
            run.push(next);
        }
        let failed = done.last().is_some_and(|before| before.result.is_err());
        done.extend(join_all(run.into_iter().map(|step| carry_out_step(shared, session, step, failed))).await);
    }
    done
}

fn is_sync(step: &Ready) -> bool {
    step.kind == Some(FopKind::Fsync)
}

async fn carry_out_step(shared: &Arc<Shared>, session: &Arc<Session>, step: Ready, failed: bool) -> Done {
    let Ready { kind, needs_previous, what } = step;
    match what {
        _ if needs_previous && failed => Done { kind: None, result: Err(Step::left_out()), opened: None },
        // Its locks went with it: what is left must not be done without them.
        _ if session.is_ended() => Done { kind, result: Err(FopError::not_connected("the client")), opened: None },
        Ok((context, fop)) => {
            let (result, opened) = carry_out(shared, session, &context, fop).await;
            Done { kind, result, opened }
        }
        Err(error) => Done { kind, result: Err(error), opened: None },
    }
}

/// Understands a step; what it may be answered with counts into `answer_bytes`, which one record must hold.
fn prepare(context: &Context, step: Incoming, answer_bytes: &mut usize) -> Ready {
    let kind = FopKind::from_procedure(step.procedure);
    let needs_previous = step.needs_previous;
    let what = fop4::decode_request(step.procedure, step.body).map_err(|e| FopError::new(e.errno(), e.to_string()));
    let what = what.and_then(|fop| {
        if waits(&fop) {
            return Err(FopError::new(errno::EINVAL, "a step that waits for a lock"));
        }
        let most = crate::storage::answer_bytes(&fop);
        if *answer_bytes + most > MAX_RECORD_BYTES {
            return Err(FopError::new(errno::EMSGSIZE, "more is asked for than one record holds"));
        }
        *answer_bytes += most;
        Ok((context.clone(), fop))
    });
    Ready { kind, needs_previous, what }
}

/// Whether it waits as long as somebody else holds a lock: the steps behind it would, too.
fn waits(fop: &Fop) -> bool {
    match fop {
        Fop::Lk { cmd, .. } | Fop::Inodelk { cmd, .. } | Fop::Finodelk { cmd, .. } => *cmd == LockCmd::SetWait,
        Fop::Entrylk { cmd, .. } | Fop::Fentrylk { cmd, .. } => *cmd == EntrylkCmd::Lock,
        _ => false,
    }
}
