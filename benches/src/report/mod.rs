//! Results: what is written to results.json, and what is made of it.

mod chart;
mod summary;
mod table;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::phase::{Group, Phase, Target, Unit};
use crate::workspace::Sizes;

pub use summary::{Figures, Summary};
pub use table::markdown;

/// Everything a run found: the contents of results.json.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// This harness's version.
    pub harness: String,
    /// When it began, UTC.
    pub started: String,
    /// How long it took, seconds.
    pub wall_s: f64,
    /// Whether the user ended it early: what is there is complete measurements, but not all.
    pub interrupted: bool,
    /// The user's word about the circumstances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What it ran on.
    pub machine: Machine,
    /// How much was measured.
    pub sizes: Sizes,
    /// How many times.
    pub runs: u32,
    /// What ratios refer to: a subject's name.
    pub reference: String,
    /// What was measured.
    pub subjects: Vec<SubjectInfo>,
    /// By what.
    pub phases: Vec<PhaseInfo>,
    /// Each measurement.
    pub measurements: Vec<Measurement>,
}

/// A subject.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SubjectInfo {
    /// Its name.
    pub name: String,
    /// What it is, with versions.
    pub what: String,
    /// The file system its data ends on, or that it is.
    pub file_system: String,
}

/// A phase.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PhaseInfo {
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: Group,
    /// What it measures.
    pub what: String,
    /// What rates are counted in.
    pub unit: Unit,
    /// What Ladrillo is to reach, as ratios to GlusterFS 10.3.
    pub target: Option<Target>,
    /// Whether the CPU ratio counts the daemons alone.
    pub daemons_only: bool,
}

impl From<&Phase> for PhaseInfo {
    fn from(phase: &Phase) -> PhaseInfo {
        PhaseInfo {
            name: phase.name.to_owned(),
            group: phase.group,
            what: phase.what.to_owned(),
            unit: phase.unit(),
            target: phase.target,
            daemons_only: phase.daemons_only,
        }
    }
}

/// One phase on one subject in one run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Measurement {
    /// The run, from 1.
    pub run: u32,
    /// The subject's name.
    pub subject: String,
    /// The phase's name.
    pub phase: String,
    /// Why there is nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long it took, seconds.
    pub seconds: f64,
    /// Operations, or megabytes.
    pub amount: f64,
    /// Processor time of the daemons meanwhile, seconds.
    pub daemons_s: f64,
    /// What they used in the time they then took to come to rest (delayed work), seconds; in no ratio.
    pub daemons_after_s: f64,
    /// Processor time of the load generator, seconds.
    pub load_s: f64,
    /// Processor time of the whole machine meanwhile, seconds.
    pub machine_s: f64,
    /// Processor time the hypervisor took away meanwhile, seconds.
    pub stolen_s: f64,
    /// Context switches of the whole machine meanwhile.
    pub switches: u64,
    /// Latency: half of the operations, microseconds.
    pub p50_us: Option<f64>,
    /// Latency: 99 of 100 operations, microseconds.
    pub p99_us: Option<f64>,
}

impl Results {
    /// Whether the targets mean anything: they are ratios to GlusterFS.
    pub fn has_targets(&self) -> bool {
        self.reference.starts_with("glusterfs")
    }

    /// Whether anything failed.
    pub fn failed(&self) -> bool {
        self.measurements.iter().any(|m| m.error.is_some())
    }

    /// Writes results.json, results.md and the charts into `directory`.
    ///
    /// # Errors
    /// In words: the file that cannot be written.
    pub fn write(&self, directory: &Path) -> Result<(), String> {
        let failed = |path: &Path, e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        std::fs::create_dir_all(directory).map_err(|e| failed(directory, &e))?;
        let json = directory.join("results.json");
        let text = serde_json::to_string_pretty(self).map_err(|e| failed(&json, &e))?;
        std::fs::write(&json, text + "\n").map_err(|e| failed(&json, &e))?;
        let summary = Summary::of(self);
        let charts = chart::write(self, &summary, directory)?;
        let table = directory.join("results.md");
        std::fs::write(&table, markdown(self, &summary, &charts)).map_err(|e| failed(&table, &e))
    }

    /// Reads a results.json.
    ///
    /// # Errors
    /// In words.
    pub fn read(path: &Path) -> Result<Results, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
    }
}

#[cfg(test)]
pub(crate) mod example {
    //! Results made up for tests.

    use super::*;
    use crate::phase::PHASES;

    /// Two subjects, three runs, two phases; `fast` is ten times the other; one phase fails on `fast`.
    pub fn results() -> Results {
        let mut measurements = Vec::new();
        for run in 1..=3 {
            for (subject, factor) in [("fast", 1.0), ("glusterfs-1", 10.0)] {
                let noise = f64::from(run);
                measurements.push(Measurement {
                    run,
                    subject: subject.to_owned(),
                    phase: "create_4k_1t".to_owned(),
                    seconds: factor * noise,
                    amount: 1000.0,
                    daemons_s: 0.4 * factor,
                    load_s: 0.1 * factor,
                    machine_s: factor,
                    p50_us: Some(100.0 * factor),
                    p99_us: Some(900.0 * factor),
                    ..Measurement::default()
                });
                let error = (subject == "fast").then(|| "fio: exit status 1: no | luck".to_owned());
                let seconds = if error.is_some() { 0.0 } else { 1.0 };
                measurements.push(Measurement {
                    run,
                    subject: subject.to_owned(),
                    phase: "seq_write_1m".to_owned(),
                    error,
                    seconds,
                    amount: 200.0 * seconds,
                    daemons_s: seconds,
                    ..Measurement::default()
                });
            }
        }
        let phases = PHASES.iter().filter(|p| ["create_4k_1t", "seq_write_1m"].contains(&p.name));
        Results {
            harness: "0".to_owned(),
            started: "2026-01-01 00:00:00".to_owned(),
            wall_s: 61.0,
            interrupted: false,
            note: Some("a note".to_owned()),
            machine: Machine { processor: "a | b".to_owned(), processors: 2, drops_caches: true, ..Machine::default() },
            sizes: Sizes {
                files: 1000,
                file_bytes: 4096,
                directories: 10,
                entries: 1000,
                tree_files: 100,
                stream_mib: 64,
                seconds: 2,
            },
            runs: 3,
            reference: "glusterfs-1".to_owned(),
            subjects: ["fast", "glusterfs-1"]
                .map(|name| SubjectInfo { name: name.to_owned(), ..SubjectInfo::default() })
                .to_vec(),
            phases: phases.map(PhaseInfo::from).collect(),
            measurements,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_are_written_and_read_back() {
        let directory = std::env::temp_dir().join(format!("ladrillo-bench-report-{}", std::process::id()));
        let results = example::results();
        assert!(results.failed());
        results.write(&directory).unwrap();
        let again = Results::read(&directory.join("results.json")).unwrap();
        assert_eq!(again.measurements.len(), results.measurements.len());
        assert_eq!(again.measurements[1].error, results.measurements[1].error);
        for (name, magic) in [("ratios.png", &b"\x89PNG\r\n"[..]), ("cpu.png", b"\x89PNG\r\n"), ("rates.svg", b"<svg")]
        {
            let content = std::fs::read(directory.join(name)).unwrap();
            assert!(content.starts_with(magic), "{name}");
            assert!(content.len() > 500, "{name} has {} bytes", content.len());
        }
        let svg = std::fs::read_to_string(directory.join("ratios.svg")).unwrap();
        assert!(svg.contains("create_4k_1t"));
        assert!(Results::read(&directory.join("results.md")).unwrap_err().contains("results.md"));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
