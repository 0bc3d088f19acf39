//! The command line, as glusterd and operators write it for GlusterFS's glusterfsd.

use std::path::PathBuf;

use clap::{ArgAction, Parser};

/// What `--version` says: the first line is the form tools parse.
pub const VERSION: &str =
    concat!("10.3\nLadrillo ", env!("CARGO_PKG_VERSION"), ": a brick of GlusterFS, rebuilt in Rust");

/// Options of glusterfsd.
#[derive(Parser, Clone, Debug)]
#[command(name = "glusterfs", version = VERSION, disable_version_flag = true, args_override_self = true, about = "The brick process of a GlusterFS volume")]
pub struct Args {
    /// Volfile to run, instead of one from glusterd
    #[arg(short = 'f', long = "volfile", value_name = "VOLFILE")]
    pub volfile: Option<PathBuf>,
    /// Host of the glusterd that has the volfile, or the path of its unix socket
    #[arg(short = 's', long = "volfile-server", value_name = "SERVER")]
    pub volfile_server: Option<String>,
    /// Port of that glusterd
    #[arg(long = "volfile-server-port", value_name = "PORT", default_value_t = 24007)]
    pub volfile_server_port: u16,
    /// Transport to that glusterd: tcp or unix
    #[arg(long = "volfile-server-transport", value_name = "TRANSPORT", default_value = "tcp")]
    pub volfile_server_transport: String,
    /// Key of the volfile at glusterd
    #[arg(long = "volfile-id", value_name = "KEY")]
    pub volfile_id: Option<String>,
    /// File that holds the process id while we run, locked
    #[arg(short = 'p', long = "pid-file", value_name = "PIDFILE")]
    pub pid_file: Option<PathBuf>,
    /// Unix socket on which glusterd talks to this process
    #[arg(short = 'S', long = "socket-file", value_name = "SOCKFILE")]
    pub socket_file: Option<PathBuf>,
    /// Log file; `-` or none with -N: standard error
    #[arg(short = 'l', long = "log-file", value_name = "LOGFILE")]
    pub log_file: Option<PathBuf>,
    /// Log level: TRACE, DEBUG, INFO, WARNING, ERROR, CRITICAL or NONE
    #[arg(short = 'L', long = "log-level", value_name = "LOGLEVEL", default_value = "INFO")]
    pub log_level: String,
    /// Overrides an option of a translator: VOLUME.KEY=VALUE, VOLUME may hold `*`
    #[arg(long = "xlator-option", value_name = "VOLUME.KEY=VALUE", action = ArgAction::Append)]
    pub xlator_option: Vec<String>,
    /// The brick's name at the portmapper
    #[arg(long = "brick-name", value_name = "BRICK")]
    pub brick_name: Option<String>,
    /// Port to listen on; with `tcp,rdma` two, that of TCP first
    #[arg(long = "brick-port", value_name = "PORT[,PORT]")]
    pub brick_port: Option<BrickPorts>,
    /// What this process is
    #[arg(long = "process-name", value_name = "NAME")]
    pub process_name: Option<String>,
    /// Name of the volume, ignored
    #[arg(long = "volume-name", value_name = "NAME", hide = true)]
    pub volume_name: Option<String>,
    /// Stay in the foreground
    #[arg(short = 'N', long = "no-daemon")]
    pub no_daemon: bool,
    /// Stay in the foreground and log at DEBUG to standard error
    #[arg(long = "debug")]
    pub debug: bool,
    /// Print the directory of GlusterFS's helper programs
    #[arg(long = "print-libexecdir")]
    pub print_libexecdir: bool,
    /// Print the directory of logs
    #[arg(long = "print-logdir")]
    pub print_logdir: bool,
    /// Print the directory state dumps go to
    #[arg(long = "print-statedumpdir")]
    pub print_statedumpdir: bool,
    /// Print the version
    #[arg(short = 'V', long = "version", action = ArgAction::Version)]
    version: Option<bool>,
}

/// `--brick-port`: GlusterFS 7's glusterd gives a brick with two transports `TCP,RDMA`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrickPorts {
    /// Of the brick's first transport.
    pub first: u16,
    /// Of its second.
    pub second: Option<u16>,
}

impl std::str::FromStr for BrickPorts {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<BrickPorts, std::num::ParseIntError> {
        Ok(match text.split_once(',') {
            Some((first, second)) => BrickPorts { first: first.parse()?, second: Some(second.parse()?) },
            None => BrickPorts { first: text.parse()?, second: None },
        })
    }
}

/// Where GlusterFS's helper programs are on this machine: Debian has them below the machine's library directory.
fn libexec_directory() -> &'static str {
    const PLACES: [&str; 3] =
        ["/usr/libexec/glusterfs", "/usr/lib/x86_64-linux-gnu/glusterfs", "/usr/lib/aarch64-linux-gnu/glusterfs"];
    PLACES.into_iter().find(|place| std::path::Path::new(place).is_dir()).unwrap_or("/usr/libexec/glusterfs")
}

impl Args {
    /// What is to be printed in place of running, if anything.
    pub fn printed(&self) -> Option<&'static str> {
        match self {
            Args { print_libexecdir: true, .. } => Some(libexec_directory()),
            Args { print_logdir: true, .. } => Some("/var/log/glusterfs"),
            Args { print_statedumpdir: true, .. } => Some(super::statedump::DIRECTORY),
            _ => None,
        }
    }

    /// What is still wrong with them when clap is content.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn check(&self) -> Result<(), String> {
        if self.volfile.is_none() && (self.volfile_server.is_none() || self.volfile_id.is_none()) {
            return Err("a brick needs -f VOLFILE, or -s SERVER with --volfile-id KEY".to_owned());
        }
        if !matches!(self.volfile_server_transport.as_str(), "tcp" | "socket" | "unix") {
            return Err(format!("--volfile-server-transport {}: tcp or unix", self.volfile_server_transport));
        }
        for option in &self.xlator_option {
            split_option(option)?;
        }
        if self.level().is_none() {
            return Err(format!(
                "--log-level {}: none of TRACE, DEBUG, INFO, WARNING, ERROR, CRITICAL, NONE",
                self.log_level
            ));
        }
        Ok(())
    }

    /// The level as tracing has it.
    pub fn level(&self) -> Option<tracing_subscriber::filter::LevelFilter> {
        use tracing_subscriber::filter::LevelFilter;
        Some(match self.log_level.to_uppercase().as_str() {
            _ if self.debug => LevelFilter::DEBUG,
            "TRACE" => LevelFilter::TRACE,
            "DEBUG" => LevelFilter::DEBUG,
            "INFO" => LevelFilter::INFO,
            "WARNING" => LevelFilter::WARN,
            "ERROR" | "CRITICAL" => LevelFilter::ERROR,
            "NONE" => LevelFilter::OFF,
            _ => return None,
        })
    }

    /// Whether the process stays in the foreground.
    pub fn foreground(&self) -> bool {
        self.no_daemon || self.debug
    }
}

/// `VOLUME.KEY=VALUE` in its parts; VOLUME ends at the first dot behind its last `/` (brick paths hold dots).
///
/// # Errors
/// A sentence: no `=`, no dot.
pub fn split_option(option: &str) -> Result<(&str, &str, &str), String> {
    let wrong = || format!("--xlator-option {option}: not of the form VOLUME.KEY=VALUE");
    let (name, value) = option.split_once('=').ok_or_else(wrong)?;
    let (volume, key) = name.split_once('.').ok_or_else(wrong)?;
    if volume.is_empty() || key.is_empty() {
        return Err(wrong());
    }
    Ok((volume, key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_glusterd_writes_is_understood() {
        let args = Args::parse_from([
            "glusterfsd",
            "-s",
            "debian1",
            "--volfile-id",
            "gv0.debian1.bricks-b1",
            "-p",
            "/run/x.pid",
            "-S",
            "/run/x.socket",
            "--brick-name",
            "/bricks/b1",
            "-l",
            "/var/log/b.log",
            "--xlator-option",
            "*-posix.glusterd-uuid=abc",
            "--process-name",
            "brick",
            "--brick-port",
            "49152",
            "--xlator-option",
            "gv0-server.listen-port=49152",
        ]);
        args.check().unwrap();
        assert_eq!(args.brick_port, Some(BrickPorts { first: 49152, second: None }));
        assert_eq!("1,2".parse(), Ok(BrickPorts { first: 1, second: Some(2) }));
        assert_eq!(split_option(&args.xlator_option[0]).unwrap(), ("*-posix", "glusterd-uuid", "abc"));
        assert!(Args::parse_from(["glusterfsd"]).check().is_err());
        assert!(Args::try_parse_from(["glusterfsd", "--brick-port", "99999"]).is_err());
    }
}
