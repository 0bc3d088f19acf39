//! results.md.

use std::fmt::Write;

use crate::args::LOCAL;
use crate::stats::{duration, geometric_mean, short};

use super::summary::{Row, Summary};
use super::{Figures, Results};

/// More than this share of processor time that nobody accounts for is worth a word.
const NOISY_SHARE: f64 = 0.35;

/// The report, with `charts` (file names) shown in it.
pub fn markdown(results: &Results, summary: &Summary<'_>, charts: &[String]) -> String {
    let mut text = String::from("# Measurements\n\n");
    head(&mut text, results, summary);
    if let Some(reference) = summary.reference {
        ratios(&mut text, results, summary, reference);
    }
    for chart in charts {
        let _ = writeln!(text, "![{}]({chart})\n", chart.trim_end_matches(".svg"));
    }
    figures(&mut text, results, summary);
    latencies(&mut text, results, summary);
    failures(&mut text, summary, results);
    phases(&mut text, summary);
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), short)
}

fn head(text: &mut String, results: &Results, summary: &Summary<'_>) {
    let machine = &results.machine;
    let sizes = &results.sizes;
    let _ = writeln!(
        text,
        "{} UTC, {} run{}, {}: {} x {}, {} MiB, Linux {}, load {:.2} at the start ({:.0} % busy).\n",
        results.started,
        results.runs,
        if results.runs == 1 { "" } else { "s, medians" },
        duration(results.wall_s),
        machine.processors,
        cell(&machine.processor),
        machine.memory_mib,
        machine.kernel,
        machine.load[0],
        machine.busy_share * 100.0
    );
    let _ = writeln!(
        text,
        "{} files of {} bytes in each set, {} entries in the large directory, {} files in the tree, a stream of {} MiB, \
         {} s of random access. Runs are interleaved: each phase runs on all subjects before the next one begins.\n",
        sizes.files, sizes.file_bytes, sizes.entries, sizes.tree_files, sizes.stream_mib, sizes.seconds
    );
    for subject in &results.subjects {
        let on = if subject.file_system.is_empty() { String::new() } else { format!("; {}", subject.file_system) };
        let _ = writeln!(text, "- **{}**: {}{on}", cell(&subject.name), cell(&subject.what));
    }
    let versions: Vec<String> = machine.versions.iter().map(|(_, version)| cell(version)).collect();
    let _ = writeln!(text, "- load generators: ladrillo-bench {}, {}\n", results.harness, versions.join(", "));
    if let Some(note) = &results.note {
        let _ = writeln!(text, "Note: {}\n", cell(note));
    }
    for warning in machine.warnings() {
        let _ = writeln!(text, "**Warning: {warning}.**\n");
    }
    if let Some(share) = summary.rest_share.filter(|s| *s > NOISY_SHARE) {
        let _ = writeln!(
            text,
            "**Warning: {:.0} % of the processor time was neither the daemons' nor the load generators': kernel threads, \
             or something else ran.**\n",
            share * 100.0
        );
    }
    if results.interrupted {
        text.push_str("**Interrupted: not all measurements were made.**\n\n");
    }
}

fn ratios(text: &mut String, results: &Results, summary: &Summary<'_>, reference: usize) {
    let others: Vec<usize> = (0..results.subjects.len()).filter(|i| *i != reference).collect();
    if others.is_empty() {
        return;
    }
    let name = |i: usize| results.subjects.get(i).map_or(String::new(), |s| cell(&s.name));
    let _ = writeln!(
        text,
        "## Ratios to {}\n\nHow many times its rate, and how many times less processor time per operation: above 1 is \
         better than {0}. Processor time is that of daemons and load generator; where the target says so, of the daemons \
         alone.\n",
        name(reference)
    );
    let mut first = String::from("| phase |");
    let mut rule = String::from("|---|");
    for other in &others {
        let _ = write!(first, " {0}: rate | {0}: CPU |", name(*other));
        rule += "---:|---:|";
    }
    let _ = writeln!(text, "{first} target: rate, CPU (stretch) |\n{rule}---|");
    let mut all: Vec<(Vec<f64>, Vec<f64>)> = vec![Default::default(); others.len()];
    for row in &summary.rows {
        let _ = write!(text, "| {} |", row.phase.name);
        for (other, all) in others.iter().zip(&mut all) {
            let (rate, cpu) = (row.rate_ratio(*other, reference), row.cpu_ratio(*other, reference));
            // The targets are not the disk's.
            let judged = results.has_targets() && name(*other) != LOCAL;
            let rate_text = mark(rate, row, |t| t.rate.filter(|_| judged));
            let _ = write!(text, " {rate_text} | {} |", mark(cpu, row, |t| judged.then_some(t.cpu)));
            all.0.extend(rate);
            all.1.extend(cpu);
        }
        let _ = writeln!(text, " {} |", if results.has_targets() { goal(row) } else { "-".to_owned() });
    }
    text.push_str("| geometric mean |");
    for (rates, cpus) in all {
        let _ = write!(text, " {} | {} |", number(geometric_mean(rates)), number(geometric_mean(cpus)));
    }
    text.push_str(" |\n\n");
    if results.has_targets() {
        text.push_str("Bold: the target is reached.\n\n");
    }
}

fn mark(value: Option<f64>, row: &Row<'_>, target: impl Fn(&crate::phase::Target) -> Option<f64>) -> String {
    let reached = value.zip(row.phase.target.as_ref().and_then(target)).is_some_and(|(v, t)| v >= t);
    let value = number(value);
    if reached { format!("**{value}**") } else { value }
}

fn goal(row: &Row<'_>) -> String {
    let Some(target) = &row.phase.target else { return "-".to_owned() };
    let rate = target.rate.map_or_else(|| "(disk)".to_owned(), |r| format!("{r} x"));
    let stretch = target.stretch.map_or_else(String::new, |s| format!(" ({s} x)"));
    let whose = if row.phase.daemons_only { ", daemons" } else { "" };
    format!("{rate}, 1/{}{stretch}{whose}", target.cpu)
}

fn figures(text: &mut String, results: &Results, summary: &Summary<'_>) {
    text.push_str(
        "## Figures\n\nRate (slowest and fastest run); processor time of daemons and load generator in us per operation \
         (per MB for the streams), in brackets the daemons alone / the whole machine.\n\n",
    );
    let mut first = String::from("| phase | unit |");
    let mut rule = String::from("|---|---|");
    for subject in &results.subjects {
        let _ = write!(first, " {0}: rate | {0}: CPU us |", cell(&subject.name));
        rule += "---:|---:|";
    }
    let _ = writeln!(text, "{first}\n{rule}");
    for row in &summary.rows {
        let _ = write!(text, "| {} | {} |", row.phase.name, row.unit());
        for figures in &row.figures {
            let _ = write!(text, " {} | {} |", rate(figures), cpu(figures));
        }
        text.push('\n');
    }
    text.push('\n');
}

fn rate(figures: &Figures) -> String {
    match (figures.rate, figures.rates) {
        (Some(rate), Some((low, high))) if figures.runs > 1 => {
            format!("{} ({}-{})", short(rate), short(low), short(high))
        }
        (Some(rate), _) => short(rate),
        (None, _) if figures.error.is_some() => "failed".to_owned(),
        (None, _) => "-".to_owned(),
    }
}

fn cpu(figures: &Figures) -> String {
    match figures.cpu_us {
        Some(both) => {
            format!("{} ({} / {})", short(both), number(figures.daemons_us), number(figures.machine_us))
        }
        None => "-".to_owned(),
    }
}

fn latencies(text: &mut String, results: &Results, summary: &Summary<'_>) {
    let rows: Vec<&Row<'_>> = summary.rows.iter().filter(|r| r.figures.iter().any(|f| f.p50_us.is_some())).collect();
    if rows.is_empty() {
        return;
    }
    text.push_str("## Latency\n\nMedian and 99th percentile of single operations, us.\n\n| phase |");
    let mut rule = String::from("|---|");
    for subject in &results.subjects {
        let _ = write!(text, " {0}: p50 | {0}: p99 |", cell(&subject.name));
        rule += "---:|---:|";
    }
    let _ = writeln!(text, "\n{rule}");
    for row in rows {
        let _ = write!(text, "| {} |", row.phase.name);
        for figures in &row.figures {
            let _ = write!(text, " {} | {} |", number(figures.p50_us), number(figures.p99_us));
        }
        text.push('\n');
    }
    text.push('\n');
}

fn failures(text: &mut String, summary: &Summary<'_>, results: &Results) {
    let mut any = false;
    for row in &summary.rows {
        for (figures, subject) in row.figures.iter().zip(&results.subjects) {
            let Some(error) = &figures.error else { continue };
            if !any {
                text.push_str("## Failures\n\n");
                any = true;
            }
            let _ = writeln!(text, "- {} on {}: {}", row.phase.name, cell(&subject.name), cell(error));
        }
    }
    if any {
        text.push('\n');
    }
}

fn phases(text: &mut String, summary: &Summary<'_>) {
    text.push_str("## Phases\n\n");
    for row in &summary.rows {
        let _ = writeln!(text, "- `{}`: {}", row.phase.name, row.phase.what);
    }
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn a_whole_report() {
        let results = example::results();
        let text = markdown(&results, &Summary::of(&results), &["ratios.svg".to_owned()]);
        let line = |start: &str| text.lines().find(|l| l.starts_with(start)).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(line("| create_4k_1t | **"), "| create_4k_1t | **10.0** | **10.0** | 10 x, 1/10 (20 x) |");
        assert_eq!(line("| seq_write_1m | - "), "| seq_write_1m | - | - | 4 x, 1/4 (6 x) |");
        assert_eq!(line("| geometric mean"), "| geometric mean | 10.0 | 10.0 | |");
        assert_eq!(
            line("| create_4k_1t | op/s"),
            "| create_4k_1t | op/s | 500 (333-1000) | 500 (400 / 1000) | 50.0 (33.3-100) | 5000 (4000 / 10000) |"
        );
        assert_eq!(
            line("| seq_write_1m | MB/s"),
            "| seq_write_1m | MB/s | failed | - | 200 (200-200) | 5000 (5000 / 0.00) |"
        );
        assert_eq!(line("| create_4k_1t | 100 |"), "| create_4k_1t | 100 | 900 | 1000 | 9000 |");
        assert_eq!(line("- seq_write_1m on"), "- seq_write_1m on fast: fio: exit status 1: no \\| luck");
        assert!(text.contains("![ratios](ratios.svg)"));
        assert!(text.contains("\nNote: a note\n"));
        assert!(text.contains("2 x a \\| b"));
        assert!(!text.contains("not idle") && !text.contains("Interrupted"));
        // Every table has as many cells in each line as in its head.
        let mut width = 0;
        for line in text.lines() {
            let cells = if line.starts_with('|') { line.replace("\\|", "").matches('|').count() } else { 0 };
            assert!(width == 0 || cells == 0 || cells == width, "{line}");
            width = cells;
        }
    }

    #[test]
    fn warnings_are_at_the_top() {
        let mut results = example::results();
        results.machine.busy_share = 0.5;
        results.interrupted = true;
        let text = markdown(&results, &Summary::of(&results), &[]);
        let top = text.split("## Ratios").next().unwrap_or_default();
        assert!(top.contains("**Warning: this machine is not idle: 50 %") && top.contains("**Interrupted"));
        results.reference = "fast".to_owned();
        let other = markdown(&results, &Summary::of(&results), &[]);
        assert!(other.contains("| create_4k_1t | 0.10 | 0.10 | - |") && !other.contains("Bold"), "{other}");
        results.reference = "nobody".to_owned();
        assert!(!markdown(&results, &Summary::of(&results), &[]).contains("## Ratios"));
    }
}
