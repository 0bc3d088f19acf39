//! The command line's own log, `cli.log`: which command ran and how it ended.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Status;
use super::console::Console;
use super::options::{LOG_DIRECTORY, Options};

/// The log, when it can be written.
pub(super) struct Log {
    file: Option<File>,
}

impl Log {
    pub(super) fn open(options: &Options, console: &mut Console) -> Log {
        let path = options.log_file.clone().unwrap_or_else(|| PathBuf::from(LOG_DIRECTORY).join("cli.log"));
        let file = OpenOptions::new().create(true).append(true).open(&path);
        if file.is_err() && options.log_file.is_some() {
            console.err(format_args!("ERROR: failed to open logfile {}", path.display()));
        }
        let quiet = matches!(options.log_level.as_deref(), Some("CRITICAL" | "ERROR" | "WARNING" | "NONE"));
        let mut log = Log { file: file.ok().filter(|_| !quiet) };
        log.info(&format!("Started running gluster with version {}", env!("CARGO_PKG_VERSION")));
        log
    }

    pub(super) fn finish(mut self, status: Status) {
        self.info(&format!("Exiting with: {status}"));
    }

    fn info(&mut self, message: &str) {
        if let Some(file) = &mut self.file {
            let _ = file.write_all(format!("[{}] I [cli] 0-cli: {message}\n", timestamp(SystemTime::now())).as_bytes());
        }
    }
}

/// `2026-01-31 23:59:59.000001 +0000`, as in GlusterFS's logs.
pub(super) fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // The civil calendar from days: years begin in March, in eras of 400 of them.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let micros = since.subsec_micros();
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06} +0000")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timestamps_follow_the_calendar() {
        let at = |seconds| timestamp(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00:00.000000 +0000");
        assert_eq!(at(951_782_399), "2000-02-28 23:59:59.000000 +0000");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00.000000 +0000");
        assert_eq!(at(1_785_542_399), "2026-07-31 23:59:59.000000 +0000");
    }
}
