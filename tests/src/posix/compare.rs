//! Both sides, side by side.

use std::fmt;

use super::op::{Answer, Op, Outcome};
use super::{Model, Real};

/// Where the two differ.
#[derive(Debug)]
pub struct Difference {
    /// Which operation, counted from 0; past the last: the comparison of the whole trees.
    pub step: usize,
    /// What differs.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operation {}: {}", self.step, self.what)
    }
}

/// The model and the real thing, driven together.
#[derive(Debug)]
pub struct Pair {
    model: Model,
    real: Real,
    step: usize,
}

impl Pair {
    /// An empty directory.
    pub fn new(real: Real) -> Pair {
        Pair { model: Model::default(), real, step: 0 }
    }

    /// How many operations were done.
    pub fn steps(&self) -> usize {
        self.step
    }

    /// One operation on both.
    ///
    /// # Errors
    /// The answers differ.
    pub fn step(&mut self, op: &Op) -> Result<(), Difference> {
        // Two mounts are two file systems to the kernel: it copies between them itself, which is not ours to check.
        if let Op::SlotCopy { from, to, .. } = op
            && !self.model.same_mount(*from, *to)
        {
            return Ok(());
        }
        let result = self.compare(op);
        self.step += 1;
        result
    }

    fn compare(&mut self, op: &Op) -> Result<(), Difference> {
        let wanted = self.model.apply(op);
        let got = self.real.apply(op);
        let what = |what| Difference { step: self.step, what: format!("{op:?}: {what}") };
        check(&self.model, op, &wanted, &got).map_err(what)
    }

    /// Compares everything there is, through every mount.
    ///
    /// # Errors
    /// The first difference.
    pub fn finish(&mut self) -> Result<(), Difference> {
        let step = self.step;
        let paths = self.model.walk();
        for mount in 0..self.real.mounts() {
            let seen =
                self.real.walk(mount).map_err(|e| Difference { step, what: format!("walking mount {mount}: {e}") })?;
            if seen != paths {
                return Err(Difference { step, what: format!("names on mount {mount}: {seen:?}, not {paths:?}") });
            }
            for path in &paths {
                let path = || path.clone();
                for op in [
                    Op::Stat { mount, path: path() },
                    Op::Xattrs { mount, path: path() },
                    Op::Readlink { mount, path: path() },
                    Op::Read { mount, path: path() },
                ] {
                    self.compare(&op)?;
                }
            }
        }
        Ok(())
    }
}

/// Does all operations on both, and compares every answer, and at the end everything there is, through every mount.
///
/// # Errors
/// The first difference.
pub fn run(real: Real, ops: &[Op]) -> Result<(), Difference> {
    let mut pair = Pair::new(real);
    for op in ops {
        pair.step(op)?;
    }
    pair.finish()
}

fn check(model: &Model, op: &Op, wanted: &Outcome, got: &Outcome) -> Result<(), String> {
    match (wanted, got) {
        (Ok(Answer::Stat(wanted)), Ok(Answer::Stat(got))) => {
            let mut got = got.clone();
            if wanted.mtime_s.is_none() {
                got.mtime_s = None;
            }
            if got == *wanted { Ok(()) } else { Err(format!("the mount says {got:?}, the model {wanted:?}")) }
        }
        (Ok(Answer::Seek(_)), Ok(Answer::Seek(found))) => check_seek(model, op, *found),
        // An offset at or after the end is ENXIO, whatever is looked for.
        (Err(_), Ok(Answer::Seek(None))) => Ok(()),
        (Ok(Answer::Data(wanted)), Ok(Answer::Data(got))) => {
            if wanted == got {
                return Ok(());
            }
            let at = wanted.iter().zip(got).position(|(a, b)| a != b).unwrap_or(wanted.len().min(got.len()));
            let bytes = |data: &[u8]| data.get(at..(at + 8).min(data.len())).unwrap_or_default().to_vec();
            Err(format!(
                "contents differ from byte {at}: the mount has {} bytes and there {:?}, the model {} and {:?}",
                got.len(),
                bytes(got),
                wanted.len(),
                bytes(wanted)
            ))
        }
        (wanted, got) if wanted == got => Ok(()),
        (wanted, got) => Err(format!("the mount says {got:?}, the model {wanted:?}")),
    }
}

/// A hole may be told as data and never the other way round.
fn check_seek(model: &Model, op: &Op, found: Option<u64>) -> Result<(), String> {
    let Op::SlotSeek { slot, offset, hole } = op else { return Err("not a seek".to_owned()) };
    let data = model.slot_data(*slot).unwrap_or_default();
    let end = data.len() as u64;
    let zero = |from: u64, to: u64| data.get(from as usize..to as usize).is_some_and(|d| d.iter().all(|b| *b == 0));
    match (found, hole) {
        (Some(at), true) if at < *offset || at > end => Err(format!("hole at {at} of {end}")),
        (Some(at), true) if at < end && !zero(at, at + 1) => Err(format!("hole at {at}, where there is data")),
        (None, true) => Err("no hole, though the end is one".to_owned()),
        (Some(at), false) if at < *offset || at >= end => Err(format!("data at {at} of {end}")),
        (Some(at), false) if !zero(*offset, at) => Err(format!("data from {at} only, though there is some before")),
        (None, false) if !zero(*offset, end) => Err("no more data, though there is".to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::test_runner::{Config, TestCaseError, TestRunner};

    use super::*;
    use crate::posix::arbitrary_ops;

    /// The model itself is checked on a file system that nobody doubts: that of the temporary directory.
    #[test]
    fn the_model_agrees_with_a_local_file_system() {
        let base = std::env::temp_dir().join(format!("ladrillo-model-{}", std::process::id()));
        std::fs::create_dir_all(&base).unwrap();
        let _ = rustix::process::umask(rustix::fs::Mode::empty());
        let number = std::cell::Cell::new(0);
        let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
        let result = TestRunner::new(config).run(&arbitrary_ops(1, 80), |ops| {
            number.set(number.get() + 1);
            let directory = base.join(number.get().to_string());
            std::fs::create_dir(&directory).unwrap();
            run(Real::new(vec![directory]), &ops).map_err(|e| TestCaseError::fail(e.to_string()))
        });
        std::fs::remove_dir_all(&base).unwrap();
        result.unwrap();
    }

    /// What would pass with anything is no test: two "mounts" that are not one file system are told apart.
    #[test]
    fn mounts_that_do_not_agree_are_seen() {
        let base = std::env::temp_dir().join(format!("ladrillo-differ-{}", std::process::id()));
        let both = ["one", "other"].map(|name| base.join(name));
        both.iter().for_each(|directory| std::fs::create_dir_all(directory).unwrap());
        let create = Op::Create { mount: 0, path: "a".into(), mode: 0o644, exclusive: true };
        let difference = run(Real::new(both.to_vec()), &[create]).unwrap_err();
        std::fs::remove_dir_all(&base).unwrap();
        assert!(difference.step == 1 && difference.what.contains("names on mount 1"), "{difference}");
    }
}
