//! A blocking RPC client, for the few calls a brick makes to glusterd.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::Bytes;
use ladrillo_translator::Context;
use ladrillo_transport::Message;
use ladrillo_transport::credential::Credential;
use ladrillo_transport::record::{RecordReader, record_mark};
use ladrillo_transport::rpc::{self, AcceptStatus, Incoming};

/// glusterd's volfiles are refused beyond this, in bytes.
const REPLY_MAX_BYTES: usize = 64 << 20;

/// Where glusterd is.
#[derive(Clone, Debug)]
pub enum Glusterd {
    /// Host and port.
    Tcp(String, u16),
    /// A unix socket.
    Unix(std::path::PathBuf),
}

impl std::fmt::Display for Glusterd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Glusterd::Tcp(host, port) => write!(f, "{host}:{port}"),
            Glusterd::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection to glusterd.
pub struct Client {
    stream: Stream,
    reader: RecordReader,
    next_xid: u32,
}

fn invalid(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

impl Client {
    /// Connects; calls then time out after `timeout`.
    ///
    /// # Errors
    /// The network's.
    pub fn connect(glusterd: &Glusterd, timeout: Duration) -> io::Result<Client> {
        let stream = match glusterd {
            Glusterd::Tcp(host, port) => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
                let mut connected = None;
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, timeout) {
                        Ok(stream) => {
                            connected = Some(stream);
                            break;
                        }
                        Err(e) => last = e,
                    }
                }
                let stream = connected.ok_or(last)?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Glusterd::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
        };
        let client = Client { stream, reader: RecordReader::with_limit(REPLY_MAX_BYTES), next_xid: 1 };
        client.set_timeout(Some(timeout))?;
        Ok(client)
    }

    fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(s) => s.set_read_timeout(timeout).and_then(|()| s.set_write_timeout(timeout)),
            Stream::Unix(s) => s.set_read_timeout(timeout).and_then(|()| s.set_write_timeout(timeout)),
        }
    }

    /// Calls a procedure and waits for its result.
    ///
    /// # Errors
    /// The network's, a refusal, or an answer that is none.
    pub fn call(&mut self, program: u32, version: u32, procedure: u32, body: Message) -> io::Result<Bytes> {
        let xid = self.next_xid;
        self.next_xid = self.next_xid.wrapping_add(1);
        let credential = Credential::v2(&Context { pid: std::process::id() as i32, ..Context::root() });
        let call = rpc::encode_call(xid, program, version, procedure, &credential, body).map_err(invalid)?;
        let mut record = record_mark(call.len()).to_vec();
        record.extend_from_slice(&call.header);
        record.extend_from_slice(call.payload.as_slice());
        record.resize(record.len() + usize::from(call.padding), 0);
        match &mut self.stream {
            Stream::Tcp(s) => s.write_all(&record)?,
            Stream::Unix(s) => s.write_all(&record)?,
        }
        loop {
            match rpc::decode_record(self.record()?).map_err(invalid)? {
                Incoming::Reply(header, body) if header.xid == xid => {
                    return match header.status {
                        AcceptStatus::Success => Ok(body),
                        status => {
                            Err(invalid(format!("glusterd refused procedure {procedure} of {program}: {status:?}")))
                        }
                    };
                }
                // Callbacks, and answers to nobody.
                _ => {}
            }
        }
    }

    /// The next record; waits as long as the timeout says.
    fn record(&mut self) -> io::Result<Bytes> {
        let mut chunk = vec![0; 64 << 10];
        loop {
            if let Some(record) = self.reader.next_record()? {
                return Ok(record);
            }
            let read = match &mut self.stream {
                Stream::Tcp(s) => s.read(&mut chunk),
                Stream::Unix(s) => s.read(&mut chunk),
            };
            let n = match read {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.reader.feed(chunk.get(..n).unwrap_or_default());
        }
    }

    /// Waits for what glusterd says unasked: program and procedure of a call. `None` = nothing within `patience`.
    ///
    /// # Errors
    /// The connection ended.
    pub fn listen(&mut self, patience: Duration) -> io::Result<Option<(u32, u32)>> {
        self.set_timeout(Some(patience))?;
        match self.record() {
            Ok(record) => match rpc::decode_record(record).map_err(invalid)? {
                Incoming::Call(header, _) => Ok(Some((header.program, header.procedure))),
                Incoming::Reply(..) => Ok(None),
            },
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(None),
            Err(e) => Err(e),
        }
    }
}
