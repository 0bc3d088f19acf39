//! What runs now and what is left.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::stats::duration;

/// A bar on a terminal; lines elsewhere.
pub struct Progress {
    bar: Option<ProgressBar>,
    done: u64,
    total: u64,
    start: Instant,
}

impl Progress {
    /// For so many measurements.
    pub fn new(total: u64) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed_precise}  {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Progress { bar, done: 0, total, start: Instant::now() }
    }

    /// Says a line.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    /// What runs now.
    pub fn now(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{what}{}", self.left()));
        }
    }

    /// One measurement is done: its result.
    pub fn done(&mut self, line: &str) {
        self.done += 1;
        let left = self.left();
        match &self.bar {
            Some(bar) => {
                bar.inc(1);
                bar.println(line);
            }
            None => eprintln!("[{}/{}] {line}{left}", self.done, self.total),
        }
    }

    fn left(&self) -> String {
        match left(self.start.elapsed(), self.done, self.total) {
            Some(seconds) => format!("  (about {} left)", duration(seconds)),
            None => String::new(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Seconds left, if what is left takes as long as what was: once a tenth is done.
fn left(elapsed: Duration, done: u64, total: u64) -> Option<f64> {
    let left = total.checked_sub(done).filter(|left| *left > 0)?;
    (done > 0 && done * 10 >= total).then(|| elapsed.as_secs_f64() / done as f64 * left as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left() {
        let minute = Duration::from_secs(60);
        assert_eq!(left(minute, 0, 100), None);
        assert_eq!(left(minute, 5, 100), None);
        assert_eq!(left(minute, 25, 100), Some(180.0));
        assert_eq!(left(minute, 100, 100), None);
    }
}
