//! What the tests of POSIX behaviour share: a reference model of a file system, the same operations on a real one, and
//! the tools of others (pjdfstest, fsx).

mod compare;
mod model;
mod op;
mod real;
mod tools;

pub use compare::{Difference, Pair, run};
pub use model::Model;
pub use op::{FallocateHow, Op, SLOTS, arbitrary_contents_op, arbitrary_op, arbitrary_ops};
pub use real::Real;
pub use tools::{PjdfsTest, fsx, pjdfstest};

/// A number from the environment.
///
/// # Panics
/// When it is set and no number.
pub fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable)
        .map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}
