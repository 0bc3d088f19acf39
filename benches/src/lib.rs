//! The benchmark harness, `ladrillo-bench`: file systems side by side (docs/benchmarks.md).
//!
//! [`args`] says what to do, [`namespace`] and [`cluster`] bring subjects up, [`phase`] lists what is measured,
//! [`measure`] does it with a [`workspace`] per subject and [`worker`] processes, [`report`] writes it down. The
//! criterion benches of the parts are in `benches/`.
#![warn(missing_docs)]

pub mod args;
pub mod cluster;
pub mod cpu;
pub mod machine;
pub mod measure;
pub mod namespace;
pub mod phase;
pub mod process;
pub mod progress;
pub mod report;
pub mod stats;
pub mod worker;
pub mod workspace;
