//! How glusterd is told what to do: its command line, and the options of its volfile (/etc/glusterfs/glusterd.vol).

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use clap::Parser;

use crate::state::model::GLUSTERD_PORT;

/// The management daemon of GlusterFS volumes.
#[derive(Clone, Debug, Parser)]
#[command(name = "glusterd", disable_version_flag = true, args_override_self = true)]
pub struct Arguments {
    /// File with glusterd's options
    #[arg(short = 'f', long = "volfile", value_name = "FILE", default_value = "/etc/glusterfs/glusterd.vol")]
    pub volfile: PathBuf,
    /// Where to log; `-` for the terminal
    #[arg(short = 'l', long = "log-file", value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// How much to log: DEBUG, INFO, WARNING, ERROR, CRITICAL, TRACE, NONE
    #[arg(short = 'L', long = "log-level", value_name = "LEVEL", default_value = "INFO")]
    pub log_level: String,
    /// Log in local time (accepted; logs are in UTC)
    #[arg(long = "localtime-logging", num_args = 0..=1)]
    pub localtime_logging: Option<Option<String>>,
    /// Stay in the foreground
    #[arg(short = 'N', long = "no-daemon")]
    pub no_daemon: bool,
    /// Stay in the foreground, log everything to the terminal
    #[arg(long)]
    pub debug: bool,
    /// Where to leave the pid
    #[arg(short = 'p', long = "pid-file", value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// An option of glusterd: management.NAME=VALUE
    #[arg(long = "xlator-option", value_name = "XLATOR.OPTION=VALUE")]
    pub xlator_options: Vec<String>,
    /// Name of this process (accepted)
    #[arg(long = "process-name", value_name = "NAME")]
    pub process_name: Option<String>,
    /// Majority lost for good: go on with this node alone (see glusterd(8))
    #[arg(long = "recover-alone")]
    pub recover_alone: bool,
    /// Print the version
    #[arg(short = 'V', long)]
    pub version: bool,
}

/// Where glusterd keeps things and listens.
#[derive(Clone, Debug)]
pub struct Config {
    /// The working directory.
    pub working_directory: PathBuf,
    /// Pid files and sockets.
    pub run_directory: PathBuf,
    /// Logs.
    pub log_directory: PathBuf,
    /// The command line's socket.
    pub socket_file: PathBuf,
    /// The one address to listen on and to call from.
    pub bind: Option<IpAddr>,
    /// The port to listen on.
    pub port: u16,
    /// First port given to a brick.
    pub base_port: u16,
    /// Last.
    pub max_port: u16,
    /// Open a new epoch of the pool with this node alone.
    pub recover_alone: bool,
}

impl Default for Config {
    fn default() -> Config {
        let run = PathBuf::from("/var/run/gluster");
        Config {
            working_directory: "/var/lib/glusterd".into(),
            socket_file: "/var/run/glusterd.socket".into(),
            run_directory: run,
            log_directory: "/var/log/glusterfs".into(),
            bind: None,
            port: GLUSTERD_PORT,
            base_port: 49152,
            max_port: 60999,
            recover_alone: false,
        }
    }
}

impl Config {
    /// The configuration those arguments ask for.
    ///
    /// # Errors
    /// A message naming what cannot be used.
    pub fn of(arguments: &Arguments) -> Result<Config, String> {
        let mut config = Config { recover_alone: arguments.recover_alone, ..Config::default() };
        match std::fs::read_to_string(&arguments.volfile) {
            Ok(text) => {
                for (number, line) in text.lines().enumerate() {
                    let mut words = line.split_whitespace();
                    if words.next() == Some("option")
                        && let (Some(name), Some(value)) = (words.next(), words.next())
                    {
                        config
                            .set(name, value)
                            .map_err(|error| format!("{} line {}: {error}", arguments.volfile.display(), number + 1))?;
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", arguments.volfile.display())),
        }
        for option in &arguments.xlator_options {
            let (name, value) = option
                .split_once('=')
                .ok_or_else(|| format!("--xlator-option {option}: XLATOR.OPTION=VALUE expected"))?;
            let name = name.strip_prefix("management.").unwrap_or(name);
            config.set(name, value).map_err(|error| format!("--xlator-option {option}: {error}"))?;
        }
        if config.base_port > config.max_port {
            return Err(format!("base-port {} is above max-port {}", config.base_port, config.max_port));
        }
        Ok(config)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let path = || -> Result<PathBuf, String> {
            if value.starts_with('/') {
                Ok(value.into())
            } else {
                Err(format!("{value}: an absolute path is expected"))
            }
        };
        let port = || value.parse::<u16>().map_err(|_| format!("{value}: a port is expected"));
        match name {
            "working-directory" => self.working_directory = path()?,
            "run-directory" => self.run_directory = path()?,
            "logging-directory" => self.log_directory = path()?,
            "glusterd-sockfile" => self.socket_file = path()?,
            "transport.socket.listen-port" => self.port = port()?,
            "base-port" => self.base_port = port()?,
            "max-port" => self.max_port = port()?,
            "transport.socket.bind-address" => {
                self.bind = Some(value.parse().or_else(|_| resolve(value))?);
            }
            // GlusterFS's others tune what we do not have.
            _ => {}
        }
        Ok(())
    }

    /// The address to listen on.
    pub fn listen_address(&self) -> IpAddr {
        self.bind.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    }

    /// Where the embedded store is.
    pub fn store_path(&self) -> PathBuf {
        self.working_directory.join("state.redb")
    }

    /// glusterd's log.
    pub fn log_file(&self, arguments: &Arguments) -> Option<PathBuf> {
        if arguments.debug || arguments.log_file.as_deref() == Some(Path::new("-")) {
            return None;
        }
        Some(arguments.log_file.clone().unwrap_or_else(|| self.log_directory.join("glusterd.log")))
    }
}

fn resolve(name: &str) -> Result<IpAddr, String> {
    use std::net::ToSocketAddrs;
    (name, 0)
        .to_socket_addrs()
        .map_err(|error| format!("{name}: {error}"))?
        .next()
        .map(|address| address.ip())
        .ok_or_else(|| format!("{name} has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_tests_command_line() {
        let arguments = Arguments::parse_from([
            "glusterd",
            "--xlator-option",
            "management.working-directory=/x/glusterd",
            "--xlator-option",
            "management.transport.socket.bind-address=127.1.1.1",
            "--xlator-option",
            "management.glusterd-sockfile=/x/gd.sock",
            "--log-file=/x/log",
            "--pid-file=/x/pid",
            "--volfile=/nonexistent",
        ]);
        let config = Config::of(&arguments).unwrap();
        assert_eq!(config.working_directory, Path::new("/x/glusterd"));
        assert_eq!(config.bind, Some([127, 1, 1, 1].into()));
        assert_eq!(config.socket_file, Path::new("/x/gd.sock"));
        let bad = Arguments::parse_from(["glusterd", "--xlator-option", "management.working-directory=x", "-f", "/no"]);
        assert!(Config::of(&bad).unwrap_err().contains("absolute"));
    }
}
