//! `ladrillo-bench`: measures file systems side by side.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ladrillo_benches::args::{Args, Command, LOCAL, Measure};
use ladrillo_benches::cluster::{Cluster, Recipe};
use ladrillo_benches::cpu::Daemons;
use ladrillo_benches::machine::{Machine, file_system, has, version};
use ladrillo_benches::measure::{Plan, Subject, tree_data};
use ladrillo_benches::namespace;
use ladrillo_benches::phase::{Group, PHASES, Selection, select};
use ladrillo_benches::process::Stop;
use ladrillo_benches::report::{Results, SubjectInfo};
use ladrillo_benches::worker::work;
use regex::Regex;

/// Something was measured, but not all.
const SOME_FAILED: u8 = 1;
/// Nothing could be measured.
const NOTHING: u8 = 2;
/// As a shell says that a signal ended a program.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.command {
        Some(Command::Worker(orders)) => work(orders).and_then(|answer| {
            println!("{}", serde_json::to_string(&answer).map_err(|e| e.to_string())?);
            Ok(ExitCode::SUCCESS)
        }),
        Some(Command::Report { file }) => report(file),
        None if args.measure.list => {
            // A reader that has seen enough (`| head`) is no failure.
            let _ = std::io::stdout().write_all(list().as_bytes());
            Ok(ExitCode::SUCCESS)
        }
        None => measure(&args.measure),
    };
    result.unwrap_or_else(|why| {
        eprintln!("ladrillo-bench: {why}");
        ExitCode::from(NOTHING)
    })
}

fn list() -> String {
    let mut text = String::new();
    let mut group: Option<Group> = None;
    for phase in PHASES {
        if group != Some(phase.group) {
            let help = clap::ValueEnum::to_possible_value(&phase.group);
            let help = help.as_ref().and_then(|v| Some((v.get_name().to_owned(), v.get_help()?.to_string())));
            let (name, what) = help.unwrap_or_default();
            text += &format!("{}{name}: {what}\n", if group.is_some() { "\n" } else { "" });
            group = Some(phase.group);
        }
        text += &format!("  {:<21} {}\n", phase.name, phase.what);
    }
    text
}

fn report(file: &Path) -> Result<ExitCode, String> {
    let results = Results::read(file)?;
    results.write(file.parent().unwrap_or(Path::new(".")))?;
    Ok(ExitCode::SUCCESS)
}

fn measure(args: &Measure) -> Result<ExitCode, String> {
    // The one outside stays to remove what the one inside leaves.
    let outside = !args.clusters.is_empty() && namespace::inside().is_none();
    let stop = Stop::on_signals(!outside).map_err(|e| format!("signals: {e}"))?;
    let names = args.names()?;
    let selection = select(&args.only, &args.groups, has)?;
    match namespace::inside() {
        Some(base) => {
            namespace::cover_standard_paths()?;
            measure_in(args, &names, &selection, &base, &stop)
        }
        None => {
            for (program, phases) in &selection.skipped {
                eprintln!("ladrillo-bench: {program} is not installed: skipping {}", phases.join(", "));
            }
            let base = args.work.join(format!("ladrillo-bench-{}", std::process::id()));
            if !args.clusters.is_empty() {
                return namespace::run_inside(&base, &stop);
            }
            std::fs::create_dir(&base).map_err(|e| format!("mkdir {}: {e}", base.display()))?;
            let result = measure_in(args, &names, &selection, &base, &stop);
            if let Err(e) = std::fs::remove_dir_all(&base) {
                eprintln!("ladrillo-bench: {} stays: {e}", base.display());
            }
            result
        }
    }
}

fn measure_in(
    args: &Measure,
    names: &[String],
    selection: &Selection,
    base: &Path,
    stop: &Stop,
) -> Result<ExitCode, String> {
    let machine = Machine::look(args.keep_caches, stop);
    for warning in machine.warnings() {
        eprintln!("ladrillo-bench: WARNING: {warning}");
    }
    let clusters = bring_up(args, base, stop)?;
    let subjects = subjects(args, &clusters, base)?;
    let sizes = args.sizes();
    let data = if selection.phases.iter().any(|p| p.group == Group::Tree) {
        tree_data(&base.join("data"), sizes.tree_files, args.tar.as_deref(), has("git"), stop)?
    } else {
        Default::default()
    };
    let plan = Plan {
        subjects,
        phases: selection.phases.clone(),
        runs: args.run_count(),
        sizes,
        data,
        reference: args.reference_of(names),
        limit: Duration::from_secs(args.timeout),
        machine,
        note: args.note.clone(),
    };
    let mut written = Ok(());
    let results = plan.measure(stop, &mut |results| written = results.write(&args.out));
    written?;
    drop(clusters);
    let table = args.out.join("results.md");
    eprintln!("ladrillo-bench: {} (and results.json, charts beside it)", table.display());
    Ok(if results.interrupted {
        ExitCode::from(INTERRUPTED)
    } else if results.failed() {
        eprintln!("ladrillo-bench: some phases failed: see the failures there");
        ExitCode::from(SOME_FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

fn bring_up(args: &Measure, base: &Path, stop: &Stop) -> Result<Vec<(SubjectInfo, Cluster)>, String> {
    let mut clusters = Vec::new();
    for (name, directory) in &args.clusters {
        eprintln!("ladrillo-bench: bringing up {name}: three nodes of {directory}");
        let programs = Path::new(directory).canonicalize().map_err(|e| format!("{directory}: {e}"))?;
        let recipe = Recipe {
            name: name.clone(),
            volume_type: args.volume_type,
            volume_options: args.volume_options.iter().map(|(k, v)| format!("{k}={v}")).collect(),
            client_arguments: args.client_options.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect(),
            programs,
        };
        let cluster = Cluster::up(&recipe, base, stop).map_err(|e| format!("{name}: {e}"))?;
        let said = version(&recipe.programs.join("glusterfs"), "--version", stop).unwrap_or_default();
        let kind =
            clap::ValueEnum::to_possible_value(&args.volume_type).map_or(String::new(), |v| v.get_name().to_owned());
        let options: Vec<&str> =
            recipe.volume_options.iter().chain(&recipe.client_arguments).map(String::as_str).collect();
        let what = [format!("{said}, {kind}, three nodes on this machine")]
            .into_iter()
            .chain((!options.is_empty()).then(|| options.join(" ")))
            .collect::<Vec<_>>()
            .join(", ");
        let info = SubjectInfo { name: name.clone(), what, file_system: file_system_of(base) };
        clusters.push((info, cluster));
    }
    Ok(clusters)
}

fn file_system_of(directory: &Path) -> String {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    file_system(&table, directory).unwrap_or_default()
}

fn subjects(args: &Measure, clusters: &[(SubjectInfo, Cluster)], base: &Path) -> Result<Vec<Subject>, String> {
    let mut subjects: Vec<Subject> = clusters
        .iter()
        .map(|(info, cluster)| Subject {
            info: info.clone(),
            directory: cluster.directory().to_owned(),
            daemons: cluster.daemons(),
            temporary: true,
        })
        .collect();
    for (name, directory) in &args.subjects {
        let directory: PathBuf = Path::new(directory).canonicalize().map_err(|e| format!("{directory}: {e}"))?;
        let regex = args.daemons.iter().find(|(n, _)| n == name);
        let daemons = match regex {
            Some((_, regex)) => Daemons::CommandLine(Regex::new(regex).map_err(|e| e.to_string())?),
            None => Daemons::None,
        };
        if regex.is_some() && daemons.pids().is_empty() {
            return Err(format!("no process matches the daemons of {name}"));
        }
        let info = SubjectInfo {
            name: name.clone(),
            what: format!("the directory {}", directory.display()),
            file_system: file_system_of(&directory),
        };
        subjects.push(Subject { info, directory, daemons, temporary: false });
    }
    if args.local {
        let directory = base.join(LOCAL);
        std::fs::create_dir_all(&directory).map_err(|e| format!("mkdir {}: {e}", directory.display()))?;
        let info = SubjectInfo {
            name: LOCAL.to_owned(),
            what: "the local disk itself".to_owned(),
            file_system: file_system_of(&directory),
        };
        subjects.push(Subject { info, directory, daemons: Daemons::None, temporary: true });
    }
    Ok(subjects)
}
