//! Medians over runs, and ratios between subjects.

use crate::phase::Unit;
use crate::stats::{median, ratio};

use super::{Measurement, PhaseInfo, Results};

/// Medians of one phase on one subject.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Operations or megabytes per second.
    pub rate: Option<f64>,
    /// The slowest and the fastest run.
    pub rates: Option<(f64, f64)>,
    /// Processor time of daemons and load generator, microseconds per operation or megabyte.
    pub cpu_us: Option<f64>,
    /// That of the daemons alone.
    pub daemons_us: Option<f64>,
    /// That of the whole machine.
    pub machine_us: Option<f64>,
    /// Latency, microseconds.
    pub p50_us: Option<f64>,
    /// Latency, microseconds.
    pub p99_us: Option<f64>,
    /// Runs that have a result.
    pub runs: usize,
    /// The first error.
    pub error: Option<String>,
}

/// A phase: what each subject reached, in the order of [`Results::subjects`].
#[derive(Clone, Debug)]
pub struct Row<'r> {
    /// The phase.
    pub phase: &'r PhaseInfo,
    /// Per subject.
    pub figures: Vec<Figures>,
}

/// All phases.
#[derive(Clone, Debug)]
pub struct Summary<'r> {
    /// Those that ran, in order.
    pub rows: Vec<Row<'r>>,
    /// The reference's place among the subjects, when it is one of them.
    pub reference: Option<usize>,
    /// Share of the machine's processor time that was neither the daemons' nor the load generators': the kernel's own
    /// threads, and whatever else ran.
    pub rest_share: Option<f64>,
}

impl Figures {
    fn of(measurements: &[&Measurement]) -> Figures {
        let good: Vec<&&Measurement> =
            measurements.iter().filter(|m| m.error.is_none() && m.amount > 0.0 && m.seconds > 0.0).collect();
        let middle = |of: &dyn Fn(&Measurement) -> f64| median(good.iter().map(|m| of(m)));
        let rates: Vec<f64> = good.iter().map(|m| m.amount / m.seconds).collect();
        let optional = |of: &dyn Fn(&Measurement) -> Option<f64>| median(good.iter().filter_map(|m| of(m)));
        Figures {
            rate: median(rates.iter().copied()),
            rates: rates
                .iter()
                .copied()
                .fold(None, |range, r| Some(range.map_or((r, r), |(low, high): (f64, f64)| (low.min(r), high.max(r))))),
            cpu_us: middle(&|m| 1e6 * (m.daemons_s + m.load_s) / m.amount),
            daemons_us: middle(&|m| 1e6 * m.daemons_s / m.amount),
            machine_us: middle(&|m| 1e6 * m.machine_s / m.amount),
            p50_us: optional(&|m| m.p50_us),
            p99_us: optional(&|m| m.p99_us),
            runs: good.len(),
            error: measurements.iter().find_map(|m| m.error.clone()),
        }
    }
}

impl Row<'_> {
    /// How many times faster than the reference a subject is.
    pub fn rate_ratio(&self, subject: usize, reference: usize) -> Option<f64> {
        ratio(self.figures.get(subject)?.rate, self.figures.get(reference)?.rate)
    }

    /// How many times less processor time than the reference a subject needs: of the daemons alone where the phase's
    /// load generator does much itself.
    pub fn cpu_ratio(&self, subject: usize, reference: usize) -> Option<f64> {
        // Where nobody's daemons are known, all there is to compare is the load generator.
        let known = [subject, reference].iter().any(|i| self.figures.get(*i).is_some_and(|f| f.daemons_us > Some(0.0)));
        let of = |index: usize| {
            let figures = self.figures.get(index)?;
            if self.phase.daemons_only && known { figures.daemons_us } else { figures.cpu_us }
        };
        ratio(of(reference), of(subject))
    }

    /// `op/s` or `MB/s`.
    pub fn unit(&self) -> &'static str {
        match self.phase.unit {
            Unit::Operation => "op/s",
            Unit::Megabyte => "MB/s",
        }
    }
}

impl<'r> Summary<'r> {
    /// Of everything measured.
    pub fn of(results: &'r Results) -> Summary<'r> {
        let row = |phase: &'r PhaseInfo| {
            let figures = results.subjects.iter().map(|subject| {
                let of: Vec<&Measurement> = results
                    .measurements
                    .iter()
                    .filter(|m| m.phase == phase.name && m.subject == subject.name)
                    .collect();
                Figures::of(&of)
            });
            Row { phase, figures: figures.collect() }
        };
        let rows = results.phases.iter().map(row).filter(|r| r.figures.iter().any(|f| f.runs > 0 || f.error.is_some()));
        let good = || results.measurements.iter().filter(|m| m.error.is_none());
        let machine: f64 = good().map(|m| m.machine_s).sum();
        let known: f64 = good().map(|m| m.daemons_s + m.load_s).sum();
        Summary {
            rows: rows.collect(),
            reference: results.subjects.iter().position(|s| s.name == results.reference),
            rest_share: (machine > 0.0).then(|| ((machine - known) / machine).max(0.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn medians_and_ratios() {
        let results = example::results();
        let summary = Summary::of(&results);
        assert_eq!(summary.reference, Some(1));
        let create = summary.rows.iter().find(|r| r.phase.name == "create_4k_1t").unwrap();
        let fast = &create.figures[0];
        // 1, 2 and 3 seconds for 1,000 operations.
        assert_eq!((fast.rate, fast.runs), (Some(500.0), 3));
        let (low, high) = fast.rates.unwrap();
        assert!((low - 1000.0 / 3.0).abs() < 1e-6 && (high - 1000.0).abs() < 1e-6);
        assert!((fast.cpu_us.unwrap() - 500.0).abs() < 1e-6);
        assert!((fast.daemons_us.unwrap() - 400.0).abs() < 1e-6);
        assert!((create.rate_ratio(0, 1).unwrap() - 10.0).abs() < 1e-6);
        assert!((create.cpu_ratio(0, 1).unwrap() - 10.0).abs() < 1e-6);
        assert!((create.cpu_ratio(1, 1).unwrap() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn failures_have_no_figures() {
        let results = example::results();
        let summary = Summary::of(&results);
        let write = summary.rows.iter().find(|r| r.phase.name == "seq_write_1m").unwrap();
        assert_eq!((write.figures[0].runs, write.figures[0].rate), (0, None));
        assert!(write.figures[0].error.is_some());
        assert_eq!(write.rate_ratio(0, 1), None);
        assert_eq!(write.figures[1].rate, Some(200.0));
    }

    #[test]
    fn what_nobody_accounts_for() {
        let results = example::results();
        // Per run: creating took 11 s of the machine and 5.5 s of ours, the stream none and 1 s.
        let share = Summary::of(&results).rest_share.unwrap();
        assert!((share - 4.5 / 11.0).abs() < 1e-6, "{share}");
    }
}
