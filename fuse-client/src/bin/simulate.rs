//! Runs seeds of the simulator: replicate and the heal service on bricks that die and links that break.
//!
//! Exit code 0: every promise was kept (with `--bug`: the bug was caught). 1: it was not. 2: bad arguments.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use ladrillo_fuse_client::simulate::{Outcome, Plan, simulate};
use ladrillo_fuse_client::translators::replicate::Sabotage;
use parking_lot::Mutex;

/// Runs replicate and the heal service on simulated bricks, network and time, and checks what they promise.
#[derive(Parser)]
#[command(name = "simulate", version)]
struct Arguments {
    /// First seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds; 1 when only --seed is given
    #[arg(long)]
    seeds: Option<u64>,
    /// Steps of all applications together, per seed
    #[arg(long, default_value_t = Plan::default().steps)]
    steps: u64,
    /// Plant this bug, and stop when it is caught
    #[arg(long, value_enum)]
    bug: Option<Bug>,
    /// Two mounts change a few names in turn, nothing breaks, and each answer is compared with a model's
    #[arg(long)]
    turns: bool,
    /// Seeds run at once, each on a thread of its own
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Print every event of a failing seed (of every seed, with one seed)
    #[arg(long)]
    verbose: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Bug {
    /// Copies that missed a change are not accused
    SkipPostOp,
    /// Heals copy from an accused copy to a good one
    HealFromWrongSource,
    /// A change counts as done when one copy has it
    AckAtOneCopy,
}

impl Bug {
    fn sabotage(self) -> Sabotage {
        match self {
            Bug::SkipPostOp => Sabotage::SkipPostOp,
            Bug::HealFromWrongSource => Sabotage::HealFromWrongSource,
            Bug::AckAtOneCopy => Sabotage::AckAtOneCopy,
        }
    }
}

/// Sums over all seeds.
#[derive(Default)]
struct Totals {
    seeds: u64,
    asked: u64,
    succeeded: u64,
    faults: u64,
    simulated: Duration,
    failed: Vec<(u64, Outcome)>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // What the translators say, where RUST_LOG asks for it.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    let only_seed = std::env::args().any(|argument| argument == "--seed" || argument.starts_with("--seed="));
    let seeds = arguments.seeds.unwrap_or(if only_seed { 1 } else { 100 });
    let plan = Plan {
        steps: arguments.steps,
        bug: arguments.bug.map(Bug::sabotage),
        turns: arguments.turns,
        ..Plan::default()
    };
    let is_single = seeds == 1;
    let started = Instant::now();
    let bar = ProgressBar::new(seeds);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {msg}, {eta} left") {
        bar.set_style(style);
    }
    let totals = Mutex::new(Totals::default());
    let (next, enough) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.clamp(1, 64) {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= seeds {
                        break;
                    }
                    let seed = arguments.seed.wrapping_add(at);
                    let outcome = simulate(seed, &Plan { log: is_single && arguments.verbose, ..plan });
                    let mut totals = totals.lock();
                    totals.seeds += 1;
                    totals.asked += outcome.asked;
                    totals.succeeded += outcome.succeeded;
                    totals.faults += outcome.faults;
                    totals.simulated += outcome.simulated;
                    if is_single {
                        outcome.log.iter().for_each(|line| println!("{line}"));
                    }
                    if !outcome.violations.is_empty() {
                        totals.failed.push((seed, outcome));
                        if plan.bug.is_some() {
                            enough.store(true, Ordering::Relaxed);
                        }
                    }
                    bar.set_message(format!("{} failed", totals.failed.len()));
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut totals = totals.into_inner();
    totals.failed.sort_by_key(|(seed, _)| *seed);
    report(&arguments, &plan, &totals, started.elapsed(), is_single)
}

fn report(arguments: &Arguments, plan: &Plan, totals: &Totals, took: Duration, is_single: bool) -> ExitCode {
    for (seed, outcome) in totals.failed.iter().take(10) {
        println!("seed {seed} FAILED:");
        outcome.violations.iter().for_each(|violation| println!("    {violation}"));
        if arguments.verbose && !is_single {
            simulate(*seed, &Plan { log: true, ..*plan }).log.iter().for_each(|line| println!("{line}"));
        }
        let bug = arguments.bug.and_then(|bug| bug.to_possible_value());
        let bug = bug.map(|bug| format!(" --bug {}", bug.get_name())).unwrap_or_default();
        let turns = if arguments.turns { " --turns" } else { "" };
        println!("    replay: simulate --seed {seed} --steps {}{turns}{bug} --verbose", arguments.steps);
    }
    if totals.failed.len() > 10 {
        let more: Vec<String> = totals.failed.iter().skip(10).map(|(seed, _)| seed.to_string()).collect();
        println!("failed as well: seeds {}", more.join(" "));
    }
    println!(
        "{} seeds, {} failed; {} operations, {} succeeded; {} faults; {} simulated hours in {:.1} s",
        totals.seeds,
        totals.failed.len(),
        totals.asked,
        totals.succeeded,
        totals.faults,
        totals.simulated.as_secs() / 3600,
        took.as_secs_f64()
    );
    match (arguments.bug.is_some(), totals.failed.is_empty()) {
        (false, true) | (true, false) => ExitCode::SUCCESS,
        (true, true) => {
            println!("the planted bug was NOT caught");
            ExitCode::FAILURE
        }
        (false, false) => ExitCode::FAILURE,
    }
}
