//! Several fops for one child, carried out one after the other: what a protocol can send as one message.

use crate::error::errno::ECANCELED;
use crate::{Context, Fop, FopError, FopResult, LocalFuture, Translator};

/// Most steps that are sent at once. Source: our bound.
pub const MAX_STEPS: usize = 64;

/// One of several fops.
#[derive(Clone, Debug)]
pub struct Step {
    /// Who asks for it.
    pub context: Context,
    /// What is asked. It must not be one that waits for a lock: the steps behind it would wait, too.
    pub fop: Fop,
    /// It is left out (ECANCELED) where the step before it failed or was left out.
    pub needs_previous: bool,
}

impl Step {
    /// A step that is carried out whatever became of the one before.
    pub fn new(context: &Context, fop: Fop) -> Step {
        Step { context: context.clone(), fop, needs_previous: false }
    }

    /// A step that is left out where the one before failed.
    pub fn then(context: &Context, fop: Fop) -> Step {
        Step { context: context.clone(), fop, needs_previous: true }
    }

    /// What a step that was left out is answered with.
    pub fn left_out() -> FopError {
        FopError::new(ECANCELED, "the step before it failed")
    }
}

/// The answers of steps under way, one for each, in their order.
pub type StepsFuture<'a> = LocalFuture<'a, Vec<FopResult>>;

/// Carries out `steps` with one [`Translator::submit`] each.
pub async fn one_by_one<T: Translator + ?Sized>(child: &T, steps: Vec<Step>) -> Vec<FopResult> {
    let mut results: Vec<FopResult> = Vec::with_capacity(steps.len());
    for Step { context, fop, needs_previous } in steps {
        let failed = results.last().is_some_and(|result| result.is_err());
        results.push(match needs_previous && failed {
            true => Err(Step::left_out()),
            false => child.submit(&context, fop).await,
        });
    }
    results
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Weak};

    use parking_lot::Mutex;

    use super::*;
    use crate::{Dict, FopFuture, FopKind, Gfid, Parent, Reply};

    struct Child(Mutex<Vec<FopKind>>);

    impl Translator for Child {
        fn name(&self) -> &str {
            "child"
        }

        fn submit<'a>(&'a self, _: &'a Context, fop: Fop) -> FopFuture<'a> {
            self.0.lock().push(fop.kind());
            Box::pin(async move {
                match fop {
                    Fop::Access { .. } => Err(FopError::new(13, "no")),
                    _ => Ok(Reply::done()),
                }
            })
        }

        fn set_parent(&self, _: Weak<dyn Parent>, _: usize) {}
    }

    #[test]
    fn a_failure_takes_along_only_what_needs_it() {
        let child: Arc<dyn Translator> = Arc::new(Child(Mutex::default()));
        let (root, gfid, xdata) = (Context::root(), Gfid::ROOT, Dict::new());
        let steps = vec![
            Step::new(&root, Fop::Access { gfid, mask: 1, xdata: xdata.clone() }),
            Step::then(&root, Fop::Stat { gfid, xdata: xdata.clone() }),
            Step::then(&root, Fop::Stat { gfid, xdata: xdata.clone() }),
            Step::new(&root, Fop::Statfs { gfid, xdata: xdata.clone() }),
            Step::then(&root, Fop::Stat { gfid, xdata }),
        ];
        let results = futures_now(child.submit_steps(steps));
        let errors: Vec<Option<i32>> = results.iter().map(|r| r.as_ref().err().map(|e| e.errno)).collect();
        assert_eq!(errors, [Some(13), Some(ECANCELED), Some(ECANCELED), None, None]);
    }

    fn futures_now<T>(mut future: LocalFuture<'_, T>) -> T {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match future.as_mut().poll(&mut cx) {
            std::task::Poll::Ready(value) => value,
            std::task::Poll::Pending => panic!("nothing to wait for"),
        }
    }
}
