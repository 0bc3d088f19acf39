//! Volfiles that a GlusterFS process runs itself and ours does not: those with brick-side translators. One with protocol/server on
//! top is a brick's, and glusterfsd takes over. One that would be mounted right on storage/posix gets a brick process of its own,
//! on this machine and for this mount alone, and the mount goes through it.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ladrillo_translator::volfile::Volfile;

use super::args::Args;

/// What a volfile asks of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client: this program runs it.
    Client,
    /// A brick: glusterfsd runs it.
    Brick,
    /// A mount right on a directory.
    Local,
}

/// The kind of the volfile at `path`; one that cannot be read or used is a client's, which says what is wrong with it.
pub fn kind(path: &Path) -> Kind {
    let Some(volfile) = std::fs::read(path).ok().and_then(|text| Volfile::parse(&text).ok()) else {
        return Kind::Client;
    };
    kind_of(&volfile)
}

fn kind_of(volfile: &Volfile) -> Kind {
    match volfile.top() {
        Some(top) if top.kind == "protocol/server" => Kind::Brick,
        Some(_) if volfile.nodes.iter().any(|node| node.kind == "storage/posix") => Kind::Local,
        _ => Kind::Client,
    }
}

/// The program `glusterfsd`: beside this one, else in PATH.
fn program() -> PathBuf {
    let beside =
        std::env::current_exe().ok().and_then(|own| own.parent().map(|directory| directory.join("glusterfsd")));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from("glusterfsd"))
}

/// Becomes the brick process of the volfile. Comes back only with why it could not.
pub fn become_brick(args: &Args, volfile: &Path) -> io::Error {
    let mut command = Command::new(program());
    command.arg("-f").arg(volfile);
    let mut pass = |flag: &str, value: Option<&OsStr>| {
        if let Some(value) = value {
            command.arg(flag).arg(value);
        }
    };
    pass("-l", args.log_file.as_deref().map(Path::as_os_str));
    pass("-p", args.pid_file.as_deref().map(Path::as_os_str));
    for (volume, key, value) in &args.xlator_options {
        pass("--xlator-option", Some(&OsString::from(format!("{volume}.{key}={value}"))));
    }
    if args.no_daemon {
        command.arg("-N");
    }
    let error = command.exec();
    io::Error::new(error.kind(), format!("{}: {error}", command.get_program().display()))
}

/// A brick process for one mount; it ends with this.
pub struct LocalBrick {
    directory: PathBuf,
    pid: Option<rustix::process::Pid>,
}

impl LocalBrick {
    /// Starts a brick on the translators of `volfile`, reachable from this machine with a password that only this process and
    /// the brick know. Also answers the volfile of a mount of it.
    ///
    /// # Errors
    /// What kept it from starting, in words.
    pub fn start(volfile: &Path) -> Result<(LocalBrick, PathBuf), String> {
        let words = |error: io::Error| format!("a brick for {}: {error}", volfile.display());
        let text = std::fs::read_to_string(volfile).map_err(words)?;
        let parsed = Volfile::parse(text.as_bytes()).map_err(|error| error.to_string())?;
        let top = parsed.top().ok_or("the volfile is empty")?.name.clone();
        let secret = secret().map_err(words)?;
        let directory = std::env::temp_dir().join(format!("glusterfs-{}-{}", std::process::id(), &secret[..16]));
        DirBuilder::new().mode(0o700).create(&directory).map_err(words)?;
        let mut brick = LocalBrick { directory, pid: None };
        // Free a moment ago; should another process take it now, the brick says so.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|probe| probe.local_addr()).map_err(words)?.port();
        let (user, password) = secret.split_at(secret.len() / 2);
        let server = format!(
            "{text}\nvolume {top}-server\n    type protocol/server\n    option transport-type tcp\n    \
             option transport.socket.bind-address 127.0.0.1\n    option transport.socket.listen-port {port}\n    \
             option auth.login.{top}.allow {user}\n    option auth.login.{user}.password {password}\n    \
             subvolumes {top}\nend-volume\n"
        );
        let client = format!(
            "volume {top}\n    type protocol/client\n    option transport-type tcp\n    option remote-host 127.0.0.1\n    \
             option remote-port {port}\n    option remote-subvolume {top}\n    option username {user}\n    \
             option password {password}\nend-volume\n"
        );
        let put = |name: &str, text: &str| -> io::Result<PathBuf> {
            let path = brick.directory.join(name);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(text.as_bytes())?;
            Ok(path)
        };
        let server = put("brick.vol", &server).map_err(words)?;
        let client = put("mount.vol", &client).map_err(words)?;
        let pid_file = brick.directory.join("brick.pid");
        let output = Command::new(program())
            .arg("-f")
            .arg(server)
            .arg("-p")
            .arg(&pid_file)
            .arg("-l")
            .arg(brick.directory.join("brick.log"))
            .stdin(Stdio::null())
            .output()
            .map_err(words)?;
        if !output.status.success() {
            return Err(format!(
                "a brick for {}: {}",
                volfile.display(),
                String::from_utf8_lossy(&output.stderr).trim()
            ));
        }
        let pid = std::fs::read_to_string(&pid_file).map_err(words)?;
        brick.pid = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
        Ok((brick, client))
    }
}

impl Drop for LocalBrick {
    fn drop(&mut self) {
        if let Some(pid) = self.pid
            && let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::TERM)
        {
            tracing::warn!("ending the brick of this mount: {error}");
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// 32 random bytes as hexadecimal digits.
fn secret() -> io::Result<String> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volfiles_are_told_apart() {
        let parse = |text: &str| kind_of(&Volfile::parse(text.as_bytes()).unwrap());
        let posix = "volume p\n  type storage/posix\n  option directory /b\nend-volume\n";
        let client =
            "volume c\n  type protocol/client\n  option remote-host h\n  option remote-subvolume /b\nend-volume\n";
        assert_eq!(parse(posix), Kind::Local);
        assert_eq!(parse(client), Kind::Client);
        assert_eq!(
            parse(&format!("{posix}volume s\n  type protocol/server\n  subvolumes p\nend-volume\n")),
            Kind::Brick
        );
        assert_eq!(kind(Path::new("/nonexistent")), Kind::Client);
        assert_ne!(secret().unwrap(), secret().unwrap());
    }
}
