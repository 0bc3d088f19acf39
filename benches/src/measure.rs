//! The measuring itself: runs interleaved over the subjects.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::cpu::{Daemons, MachineTime};
use crate::machine::{Machine, drop_caches, utc};
use crate::phase::{Cache, Group, Phase};
use crate::process::Stop;
use crate::progress::Progress;
use crate::report::{Measurement, PhaseInfo, Results, SubjectInfo};
use crate::stats::short;
use crate::workspace::{Sizes, TreeData, Workspace, Yield};

/// What is measured: a directory, and whose processor time counts as the file system's.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its name and what it is.
    pub info: SubjectInfo,
    /// Where to work.
    pub directory: PathBuf,
    /// Its daemons.
    pub daemons: Daemons,
    /// Whether it goes away at the end, and all that is in it.
    pub temporary: bool,
}

/// What to measure, on what, how often.
#[derive(Debug)]
pub struct Plan {
    /// On these.
    pub subjects: Vec<Subject>,
    /// These.
    pub phases: Vec<&'static Phase>,
    /// So often.
    pub runs: u32,
    /// How much.
    pub sizes: Sizes,
    /// The source tree.
    pub data: TreeData,
    /// What ratios refer to.
    pub reference: String,
    /// The longest a phase may take.
    pub limit: Duration,
    /// The machine.
    pub machine: Machine,
    /// The user's word about the circumstances.
    pub note: Option<String>,
}

/// GlusterFS's mounts believe attributes for a second.
const ATTRIBUTE_TIMEOUT: Duration = Duration::from_millis(1300);
/// Daemons that use less than this share of a processor are at rest.
const REST_SHARE: f64 = 0.02;
/// Looked at for so long.
const REST_LOOK: Duration = Duration::from_millis(150);
/// Daemons that do not come to rest are not waited for longer.
const REST_LIMIT: Duration = Duration::from_secs(6);

impl Plan {
    /// Runs everything and gives `each` what there is after each run.
    pub fn measure(&self, stop: &Stop, each: &mut dyn FnMut(&Results)) -> Results {
        let start = Instant::now();
        let mut results = Results {
            harness: env!("CARGO_PKG_VERSION").to_owned(),
            started: utc(SystemTime::now()),
            wall_s: 0.0,
            interrupted: false,
            note: self.note.clone(),
            machine: self.machine.clone(),
            sizes: self.sizes.clone(),
            runs: self.runs,
            reference: self.reference.clone(),
            subjects: self.subjects.iter().map(|s| s.info.clone()).collect(),
            phases: self.phases.iter().map(|p| PhaseInfo::from(*p)).collect(),
            measurements: Vec::new(),
        };
        let total = self.phases.len() as u64 * self.subjects.len() as u64 * u64::from(self.runs);
        let mut progress = Progress::new(total);
        for run in 1..=self.runs {
            self.one_run(run, stop, &mut progress, &mut results.measurements);
            results.wall_s = start.elapsed().as_secs_f64();
            results.interrupted = stop.asked();
            each(&results);
            if stop.asked() {
                break;
            }
        }
        results
    }

    fn one_run(&self, run: u32, stop: &Stop, progress: &mut Progress, measurements: &mut Vec<Measurement>) {
        let mut places: Vec<Result<Workspace, String>> =
            self.subjects.iter().map(|s| Workspace::new(&s.directory, self.limit)).collect();
        // Another one goes first in each run.
        let count = self.subjects.len();
        let order: Vec<usize> = (0..count).map(|i| (i + run as usize - 1) % count.max(1)).collect();
        let mut group: Option<Group> = None;
        for phase in &self.phases {
            if group.is_some_and(|g| g != phase.group) {
                for place in places.iter_mut().flatten() {
                    // What stays is in nobody's way but the disk's.
                    let _ = place.clear(stop);
                }
            }
            group = Some(phase.group);
            for index in &order {
                let (Some(subject), Some(place)) = (self.subjects.get(*index), places.get_mut(*index)) else {
                    continue;
                };
                if stop.asked() {
                    break;
                }
                progress.now(&format!("run {run} of {}: {} on {}", self.runs, phase.name, subject.info.name));
                let outcome = match place {
                    Ok(place) => self.one_phase(phase, subject, place, stop),
                    Err(e) => Err(e.clone()),
                };
                if stop.asked() {
                    break;
                }
                let measurement = measurement(run, subject, phase, outcome);
                progress.done(&line(&measurement, phase));
                measurements.push(measurement);
            }
        }
        progress.now("removing what was written");
        for (place, subject) in places.into_iter().zip(&self.subjects) {
            if let Ok(place) = place
                && !(subject.temporary && (stop.asked() || run == self.runs))
            {
                place.close();
            }
        }
    }

    fn one_phase(
        &self,
        phase: &Phase,
        subject: &Subject,
        place: &mut Workspace,
        stop: &Stop,
    ) -> Result<Measured, String> {
        place.prepare(phase, &self.sizes, &self.data, stop)?;
        match phase.cache {
            // What other phases wrote is not to be written to the disk in this one's time.
            Cache::AsIs if self.machine.drops_caches => rustix::fs::sync(),
            Cache::Cold if self.machine.drops_caches => {
                drop_caches();
            }
            Cache::AsIs | Cache::Cold => {}
            Cache::Warm | Cache::Expired => {
                place.perform(phase, &self.sizes, &self.data, stop).map_err(|e| format!("preparing: {e}"))?;
            }
        }
        if phase.cache == Cache::Expired {
            std::thread::sleep(ATTRIBUTE_TIMEOUT);
        } else if phase.cache != Cache::Warm {
            // What dropped caches make daemons do (FORGET), and delayed work of the phase before, is not this one's.
            rest(&subject.daemons, stop);
        }
        let machine = MachineTime::now();
        let daemons = subject.daemons.times();
        let result = place.perform(phase, &self.sizes, &self.data, stop);
        let daemons_then = subject.daemons.times();
        let machine_then = MachineTime::now();
        let result = result?;
        rest(&subject.daemons, stop);
        Ok(Measured {
            result,
            daemons_s: daemons_then.since(&daemons),
            daemons_after_s: subject.daemons.times().since(&daemons_then),
            machine_s: machine_then.busy_s - machine.busy_s,
            stolen_s: machine_then.stolen_s - machine.stolen_s,
            switches: machine_then.switches.saturating_sub(machine.switches),
        })
    }
}

struct Measured {
    result: Yield,
    daemons_s: f64,
    daemons_after_s: f64,
    machine_s: f64,
    stolen_s: f64,
    switches: u64,
}

/// Waits until the daemons do nothing more.
fn rest(daemons: &Daemons, stop: &Stop) {
    let end = Instant::now() + REST_LIMIT;
    let mut before = daemons.times();
    while before.count() > 0 && Instant::now() < end && !stop.asked() {
        std::thread::sleep(REST_LOOK);
        let now = daemons.times();
        if now.since(&before) < REST_SHARE * REST_LOOK.as_secs_f64() {
            return;
        }
        before = now;
    }
}

fn measurement(run: u32, subject: &Subject, phase: &Phase, outcome: Result<Measured, String>) -> Measurement {
    let named =
        Measurement { run, subject: subject.info.name.clone(), phase: phase.name.to_owned(), ..Measurement::default() };
    match outcome {
        Err(error) => Measurement { error: Some(error), ..named },
        Ok(measured) => Measurement {
            seconds: measured.result.seconds,
            amount: measured.result.amount,
            daemons_s: measured.daemons_s,
            daemons_after_s: measured.daemons_after_s,
            load_s: measured.result.load_cpu_s,
            machine_s: measured.machine_s,
            stolen_s: measured.stolen_s,
            switches: measured.switches,
            p50_us: measured.result.p50_us,
            p99_us: measured.result.p99_us,
            ..named
        },
    }
}

/// A measurement in a line.
fn line(m: &Measurement, phase: &Phase) -> String {
    let head = format!("{:<20} {:<16}", m.phase, m.subject);
    if let Some(error) = &m.error {
        return format!("{head} FAILED: {error}");
    }
    let (per, each) = match phase.unit() {
        crate::phase::Unit::Operation => ("op/s", "op"),
        crate::phase::Unit::Megabyte => ("MB/s", "MB"),
    };
    let us = |s: f64| short(1e6 * s / m.amount.max(1e-9));
    format!(
        "{head} {:>9} {per}  CPU us/{each}: daemons {}, load {}, machine {}",
        short(m.amount / m.seconds.max(1e-9)),
        us(m.daemons_s),
        us(m.load_s),
        us(m.machine_s)
    )
}

/// Makes the source tree in `base`, or takes the user's tar file.
///
/// # Errors
/// In words.
pub fn tree_data(base: &Path, files: u64, tar: Option<&Path>, git: bool, stop: &Stop) -> Result<TreeData, String> {
    let shell = |script: &str, args: &[&Path]| {
        let mut command = std::process::Command::new("sh");
        command.arg("-ec").arg(script).arg("sh").args(args);
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        crate::process::run(command, Duration::from_secs(600), stop).map_err(|e| format!("making the source tree: {e}"))
    };
    let source = base.join("source");
    std::fs::create_dir_all(&source).map_err(|e| format!("mkdir {}: {e}", source.display()))?;
    let own = base.join("source.tar");
    let file = match tar {
        Some(file) => {
            let file = file.canonicalize().map_err(|e| format!("{}: {e}", file.display()))?;
            shell("tar -C \"$1\" -xf \"$2\"", &[&source, &file])?;
            file
        }
        None => {
            crate::worker::make_tree(&source, files).map_err(|e| format!("{}: {e}", source.display()))?;
            shell("tar -C \"$1\" -cf \"$2\" .", &[&source, &own])?;
            own
        }
    };
    let listed = shell("tar -tf \"$1\" | wc -l", &[&file])?;
    let entries = listed.stdout.trim().parse().map_err(|e| format!("counting the tree's entries: {e}"))?;
    let repository = base.join("source.git");
    if git {
        shell(
            "cd \"$1\"; rm -rf .git; git init -q; git add -A
             git -c user.name=bench -c user.email=bench@localhost commit -qm tree; git clone -q --bare . \"$2\"",
            &[&source, &repository],
        )?;
    }
    std::fs::remove_dir_all(&source).map_err(|e| format!("{}: {e}", source.display()))?;
    Ok(TreeData { tar: file, git: if git { repository } else { PathBuf::new() }, entries })
}
