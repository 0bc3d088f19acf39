//! Asks a glusterd: the command line's way in.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ladrillo_transport::record::RecordReader;
use ladrillo_transport::rpc::{AcceptStatus, Incoming, decode_record};
use ladrillo_transport::xdr::DecodeError;

use crate::api::{Outcome, Request};
use crate::net::{record, rpc, socket};

/// Where a glusterd listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Its unix socket.
    Unix(PathBuf),
    /// Its TCP port (it answers only commands that change nothing there).
    Tcp {
        /// Name or address.
        host: String,
        /// Port, 24007 unless told otherwise.
        port: u16,
    },
}

enum Connection {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Connection {
    fn set_timeout(&self, left: Duration) -> io::Result<()> {
        let left = Some(left.max(Duration::from_millis(1)));
        match self {
            Connection::Unix(stream) => {
                stream.set_read_timeout(left)?;
                stream.set_write_timeout(left)
            }
            Connection::Tcp(stream) => {
                stream.set_read_timeout(left)?;
                stream.set_write_timeout(left)
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Unix(stream) => stream.read(buffer),
            Connection::Tcp(stream) => stream.read(buffer),
        }
    }

    fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Connection::Unix(stream) => stream.write_all(data),
            Connection::Tcp(stream) => stream.write_all(data),
        }
    }
}

/// Sends `request` to the glusterd at `target` and waits for its answer, blocking, at most `timeout` in all.
///
/// # Errors
/// The connection's (`NotFound`, `ConnectionRefused`: no glusterd there), `TimedOut`, or `InvalidData` when what answers is
/// no glusterd of ours. A command that glusterd refused is `Ok(Err(_))`.
pub fn call(target: &Target, request: &Request, timeout: Duration) -> io::Result<Outcome> {
    let deadline = Instant::now() + timeout;
    let mut connection = match target {
        Target::Unix(path) => Connection::Unix(UnixStream::connect(path)?),
        Target::Tcp { host, port } => Connection::Tcp(socket::connect_blocking(host, *port, None, timeout)?.0),
    };
    let json = serde_json::to_vec(request).map_err(io::Error::other)?;
    let call = rpc::call(1, rpc::CLI_PROGRAM, rpc::OWN_VERSION, rpc::OWN_CALL, rpc::wrap(&json))?;
    connection.set_timeout(left(deadline)?)?;
    connection.write_all(&call).map_err(timed_out)?;
    let reply = read_record(&mut connection, deadline)?;
    let Incoming::Reply(header, body) = decode_record(reply).map_err(invalid)? else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a call where a reply was expected"));
    };
    match header.status {
        AcceptStatus::Success => {}
        AcceptStatus::ProgUnavail | AcceptStatus::ProgMismatch { .. } => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the glusterd there does not speak this program's protocol (is it GlusterFS's own?)",
            ));
        }
        other => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("refused: {other:?}"))),
    }
    let json = rpc::unwrap(body, record::MAX_RECORD_BYTES).map_err(invalid)?;
    serde_json::from_slice(&json).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn read_record(connection: &mut Connection, deadline: Instant) -> io::Result<bytes::Bytes> {
    let mut records = RecordReader::with_limit(record::MAX_RECORD_BYTES);
    let mut buffer = vec![0; 64 << 10];
    loop {
        if let Some(record) = records.next_record()? {
            return Ok(record);
        }
        connection.set_timeout(left(deadline)?)?;
        match connection.read(&mut buffer) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "glusterd closed the connection")),
            Ok(read) => records.feed(buffer.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(timed_out(error)),
        }
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(io::Error::new(io::ErrorKind::TimedOut, "glusterd did not answer in time"))
    } else {
        Ok(left)
    }
}

fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        // What an expired SO_RCVTIMEO says.
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "glusterd did not answer in time"),
        _ => error,
    }
}

fn invalid(error: DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
