//! Several fops in one record of our own program, where the brick speaks it.

use std::sync::Arc;

use futures::channel::oneshot;
use ladrillo_translator::error::errno;
use ladrillo_translator::fop::File;
use ladrillo_translator::steps::MAX_STEPS;
use ladrillo_translator::{Fop, FopError, FopKind, FopResult, Reply, Step};
use ladrillo_transport::Credential;
use ladrillo_transport::program::extension::{self, Outgoing};
use ladrillo_transport::xdr::Writer;

use super::session::{CallError, Session};
use super::{Inner, waits_for_lock};

/// Whether all of them are plain calls: what is remembered of locks hangs on other paths, and what
/// waits for a lock must not hold up what comes behind it.
pub(super) fn can_go_together(steps: &[Step]) -> bool {
    let is_plain = |fop: &Fop| !matches!(fop, Fop::Lk { .. } | Fop::Flush { .. }) && !waits_for_lock(fop);
    (2..=MAX_STEPS).contains(&steps.len()) && steps.iter().all(|step| is_plain(&step.fop))
}

/// What [`Fop::files`] answers.
type Files = [Option<File>; 2];

impl Inner {
    /// Sends all in one message. What opens a file runs to its end even when the caller goes away.
    pub(super) async fn submit_together(self: Arc<Self>, session: Arc<Session>, steps: Vec<Step>) -> Vec<FopResult> {
        let count = steps.len();
        if steps.iter().all(|step| step.fop.opens().is_none()) {
            return self.together(&session, steps).await;
        }
        let (answer, receiver) = oneshot::channel();
        let inner = self.clone();
        self.runtime.spawn(Box::pin(async move {
            let opens: Vec<_> =
                steps.iter().filter_map(|step| Some((step.context.clone(), step.fop.opens()?))).collect();
            let results = inner.together(&session, steps).await;
            if answer.send(results).is_err() {
                for (context, fd) in opens {
                    inner.release(&context, fd).await;
                }
            }
        }));
        receiver.await.unwrap_or_else(|_| same_for_all(&FopError::not_connected(&self.name), count))
    }

    async fn together(self: &Arc<Self>, session: &Arc<Session>, mut steps: Vec<Step>) -> Vec<FopResult> {
        let files: Vec<_> = steps.iter().map(|step| step.fop.files()).collect();
        let mut others = steps.iter_mut().filter(|step| closed_by(&step.fop).is_none());
        if let Err(error) = others.try_for_each(|step| self.resolve_files(session, &mut step.fop)) {
            // A file that is not open on the brick: its step must not take the others along.
            return self.in_order(steps, files, &error).await;
        }
        let is_left = self.close_files(session, &mut steps);
        if is_left.iter().all(|is_left| *is_left) {
            return self.send_together(session, steps, files).await;
        }
        // What was not open there needs no telling; what was opened again in a newer session has to be closed in that.
        if let Ok(session) = self.session() {
            self.release_orphans(&session, &steps[0].context).await;
        }
        let count = is_left.len();
        let mut keep = is_left.iter().copied();
        steps.retain(|_| keep.next() != Some(false));
        let mut keep = is_left.iter().copied();
        let files = files.into_iter().filter(|_| keep.next() != Some(false)).collect();
        let mut answers = match steps.is_empty() {
            true => Vec::new(),
            false => self.send_together(session, steps, files).await,
        }
        .into_iter();
        let mut results = Vec::with_capacity(count);
        for is_left in is_left {
            let answer = if is_left { answers.next() } else { None };
            results.push(answer.unwrap_or_else(|| Ok(Reply::done())));
        }
        results
    }

    /// Forgets the files that `steps` close, and puts the brick's numbers in them. Says which steps are left: those that close
    /// what is not open on the brick are not.
    fn close_files(&self, session: &Session, steps: &mut [Step]) -> Vec<bool> {
        let close = |step: &mut Step| {
            let (Fop::Release { file } | Fop::Releasedir { file }) = &mut step.fop else { return true };
            let Some(fd) = file.fd else { return false };
            self.locks.forget_fd(file.gfid, fd);
            file.fd = self.fds.close(fd, session.epoch);
            file.fd.is_some()
        };
        steps.iter_mut().map(close).collect()
    }

    /// Sends steps that have the brick's descriptors; `files` are the graph's.
    async fn send_together(
        self: &Arc<Self>,
        session: &Arc<Session>,
        steps: Vec<Step>,
        files: Vec<Files>,
    ) -> Vec<FopResult> {
        let kinds: Vec<FopKind> = steps.iter().map(|step| step.fop.kind()).collect();
        let credentials: Vec<Credential> = steps.iter().map(|step| self.credential(&step.context, &step.fop)).collect();
        let outgoing: Vec<Outgoing<'_>> = steps
            .iter()
            .enumerate()
            .map(|(number, step)| {
                let differs = number > 0 && credentials[number] != credentials[number - 1];
                let credential = differs.then(|| credentials[number].clone());
                Outgoing { credential, fop: &step.fop, needs_previous: step.needs_previous }
            })
            .collect();
        let procedure = (extension::PROGRAM, extension::VERSION, extension::PROC_STEPS);
        let timeout = self.settings().frame_timeout;
        let reply_bytes = steps.iter().map(|step| super::reply_bytes(&step.fop)).sum();
        let write = |writer: &mut Writer| extension::write_request(writer, &outgoing);
        let called = session.call(procedure, &credentials[0], timeout, reply_bytes, write).await;
        let body = match called {
            Ok(body) => body,
            // Nothing was sent: each for itself, so that only the one that cannot be sent fails.
            Err(CallError::Unsendable(error)) => {
                for step in &steps {
                    if let Some(file) = closed_by(&step.fop) {
                        let directory = matches!(step.fop, Fop::Releasedir { .. });
                        self.release_number(session, &step.context, file, directory).await;
                    }
                }
                let error = FopError::new(error.errno(), error.to_string());
                return self.in_order(steps, files, &error).await;
            }
            Err(error) => return same_for_all(&error.into_fop_error(&self.name), steps.len()),
        };
        let answers = match extension::decode_reply(&kinds, body) {
            Ok(answers) => answers,
            Err(error) => {
                let message = format!("{}: answer to steps not understood: {error}", self.name);
                tracing::error!("{message}");
                return same_for_all(&FopError::new(errno::EPROTO, message), steps.len());
            }
        };
        let mut results = Vec::with_capacity(answers.len());
        for (Step { context, fop, .. }, (result, opened)) in steps.iter().zip(answers) {
            results.push(match result {
                Ok(reply) => {
                    self.note_opened(session, context, fop, &reply, opened).await;
                    self.check_identity(fop, reply)
                }
                Err(error) => Err(error),
            });
        }
        results
    }

    /// Each in a message of its own, because of `error`. `files` are the graph's descriptors, as they came.
    async fn in_order(self: &Arc<Self>, steps: Vec<Step>, files: Vec<Files>, error: &FopError) -> Vec<FopResult> {
        tracing::debug!(client = %self.name, %error, "steps are sent one by one");
        let mut results: Vec<FopResult> = Vec::with_capacity(steps.len());
        for (Step { context, mut fop, needs_previous }, files) in steps.into_iter().zip(files) {
            for (place, file) in fop.files_mut().into_iter().flatten().zip(files.into_iter().flatten()) {
                *place = file;
            }
            let failed = results.last().is_some_and(|result| result.is_err());
            if let Some(File { gfid, fd: Some(fd) }) = closed_by(&fop) {
                // Closed already where this is the second attempt.
                self.locks.forget_fd(gfid, fd);
                self.release(&context, fd).await;
                results.push(Ok(Reply::done()));
                continue;
            }
            results.push(match (needs_previous && failed, fop.opens()) {
                (true, _) => Err(Step::left_out()),
                (false, Some(_)) => self.clone().open(&context, fop).await,
                (false, None) => self.clone().forward(&context, fop).await,
            });
        }
        results
    }
}

/// The file that a fop closes.
fn closed_by(fop: &Fop) -> Option<File> {
    match fop {
        Fop::Release { file } | Fop::Releasedir { file } => Some(*file),
        _ => None,
    }
}

fn same_for_all(error: &FopError, count: usize) -> Vec<FopResult> {
    (0..count).map(|_| Err(error.clone())).collect()
}
