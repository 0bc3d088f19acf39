//! `glusterfs --transport-check`: latency and bandwidth of a transport alone, between two nodes, no brick and no disk.
//!
//! `--transport-check listen` on one node answers; `--transport-check HOST` on another asks, one call at a time and then
//! several, in RPC records like those of bricks.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::executor::block_on;
use ladrillo_translator::Payload;
use ladrillo_transport::rpc::{self, AcceptStatus, Incoming};
use ladrillo_transport::xdr::{Reader, Writer};
use ladrillo_transport::{Accepted, Credential, Kind, Listener, Message, RecordReader, Transport, Via, record_mark};
use ladrillo_transport::{sdp, verbs};

/// Where the answering side listens unless told otherwise: behind glusterd's ports.
const DEFAULT_PORT: u16 = 24009;
/// A program number of the range that RFC 5531 leaves to users.
const PROGRAM: u32 = 0x2000_4c43;
const VERSION: u32 = 1;
/// What a call asks: its data thrown away and an answer of so many bytes.
const PROC_EXCHANGE: u32 = 1;
/// Largest payload either way.
const MAX_PAYLOAD: usize = 1 << 20;
/// Calls under way while bandwidth is measured.
const IN_FLIGHT: u32 = 8;
/// How long each measurement goes on at most, and its fewest and most calls.
const LASTS: Duration = Duration::from_secs(2);
const FEWEST: u32 = 16;
const MOST: u32 = 20_000;
/// Connections that are answered at once.
const MAX_ANSWERED: usize = 64;

/// The command: `where_to` is `listen`, `listen:PORT`, `HOST` or `HOST:PORT`; `name` the transport.
pub fn main(where_to: &str, name: &str, via: Option<&str>) -> ExitCode {
    let outcome = kind(name, via).and_then(|kind| match where_to.strip_prefix("listen") {
        Some(rest) if rest.is_empty() || rest.starts_with(':') => listen(kind, rest),
        _ => ask(kind, where_to),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("glusterfs: transport check: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn kind(name: &str, via: Option<&str>) -> Result<Kind, String> {
    match Kind::parse_list(name, Via::parse(via)?)?.as_slice() {
        [kind] => Ok(*kind),
        _ => Err(format!("--transport {name}: one of tcp, rdma and sdp")),
    }
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("{text:?} is no port"))
}

/// A connection either way, whatever carries it.
enum Line {
    Socket(TcpStream, RecordReader),
    Transport(Arc<dyn Transport>),
}

impl Line {
    fn socket(stream: TcpStream) -> io::Result<Line> {
        stream.set_nodelay(true)?;
        Ok(Line::Socket(stream, RecordReader::new()))
    }

    fn send(&mut self, message: Message, reply_bytes: usize) -> io::Result<()> {
        match self {
            Line::Transport(transport) => block_on(transport.send_expecting(message, reply_bytes)),
            Line::Socket(stream, _) => {
                stream.write_all(&[&record_mark(message.len())[..], &message.header].concat())?;
                stream.write_all(&message.payload.into_bytes())
            }
        }
    }

    fn recv(&mut self) -> io::Result<Bytes> {
        match self {
            Line::Transport(transport) => block_on(transport.recv()),
            Line::Socket(stream, reader) => loop {
                if let Some(record) = reader.next_record()? {
                    return Ok(record);
                }
                let wanted = reader.wanted() as u64;
                let mut chunk = Vec::new();
                if stream.take(wanted.min(1 << 18)).read_to_end_or_some(&mut chunk)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                reader.feed(&chunk);
            },
        }
    }

    fn medium(&self) -> String {
        match self {
            Line::Transport(transport) => transport.medium(),
            Line::Socket(stream, _) => sdp::kernel::medium(stream).unwrap_or_else(|| "tcp".to_owned()),
        }
    }
}

/// One read of what there is.
trait ReadSome {
    fn read_to_end_or_some(&mut self, into: &mut Vec<u8>) -> io::Result<usize>;
}

impl<R: Read> ReadSome for io::Take<R> {
    fn read_to_end_or_some(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        into.resize(usize::try_from(self.limit()).unwrap_or(0), 0);
        let read = loop {
            match self.read(into) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        into.truncate(read);
        Ok(read)
    }
}

fn connect(kind: Kind, address: SocketAddr) -> io::Result<Line> {
    match kind {
        Kind::Tcp => Line::socket(TcpStream::connect_timeout(&address, Duration::from_secs(10))?),
        Kind::Rdma => block_on(verbs::connect(address)).map(Line::Transport),
        Kind::Sdp(Via::Rsocket) => block_on(sdp::connect(address)).map(Line::Transport),
        Kind::Sdp(via) => {
            let socket = sdp::kernel::socket(via, address)?;
            socket.connect(&address.into())?;
            Line::socket(socket.into())
        }
    }
}

// --- the answering side

fn listen(kind: Kind, rest: &str) -> Result<(), String> {
    let port = if rest.is_empty() { DEFAULT_PORT } else { port(rest.trim_start_matches(':'))? };
    let address = SocketAddr::from(([0, 0, 0, 0], port));
    let failed = |e: io::Error| format!("listening on {address} ({kind}): {e}");
    println!("answering on port {port} ({kind}); end with Ctrl-C");
    let listener: Box<dyn Listener> = match kind {
        Kind::Tcp => return accept_sockets(TcpListener::bind(address).map_err(failed)?).map_err(failed),
        Kind::Sdp(via @ (Via::Smc | Via::InetSdp)) => {
            let socket = sdp::kernel::socket(via, address).map_err(failed)?;
            socket.set_reuse_address(true).map_err(failed)?;
            socket.bind(&address.into()).and_then(|()| socket.listen(16)).map_err(failed)?;
            return accept_sockets(socket.into()).map_err(failed);
        }
        Kind::Rdma => verbs::listen(address).map_err(failed)?,
        Kind::Sdp(Via::Rsocket) => sdp::listen(address).map_err(failed)?,
    };
    loop {
        if let Some(accepted) = listener.accept(Duration::from_secs(3600)).map_err(failed)? {
            // Anybody may measure.
            accepted.admit();
            answer_on_a_thread(Line::Transport(as_transport(accepted)));
        }
    }
}

fn as_transport(accepted: Arc<dyn Accepted>) -> Arc<dyn Transport> {
    accepted
}

fn accept_sockets(listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        answer_on_a_thread(Line::socket(stream)?);
    }
}

fn answer_on_a_thread(mut line: Line) {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static ANSWERED: AtomicUsize = AtomicUsize::new(0);
    if ANSWERED.fetch_add(1, Ordering::AcqRel) >= MAX_ANSWERED {
        ANSWERED.fetch_sub(1, Ordering::AcqRel);
        return;
    }
    let answer = move || {
        println!("a client, by {}", line.medium());
        let zeros = Bytes::from(vec![0; MAX_PAYLOAD]);
        // Its end is an error, too.
        while let Ok(record) = line.recv() {
            let Some(reply) = answer(record, &zeros) else { break };
            if line.send(reply, 0).is_err() {
                break;
            }
        }
        ANSWERED.fetch_sub(1, Ordering::AcqRel);
    };
    if std::thread::Builder::new().name("answer".to_owned()).spawn(answer).is_err() {
        ANSWERED.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The answer to a record; `None` for what is no call of this program.
fn answer(record: Bytes, zeros: &Bytes) -> Option<Message> {
    let Ok(Incoming::Call(header, body)) = rpc::decode_record(record) else { return None };
    if (header.program, header.version, header.procedure) != (PROGRAM, VERSION, PROC_EXCHANGE) {
        return Some(rpc::encode_reply(header.xid, AcceptStatus::ProgUnavail, Message::default()));
    }
    let wanted = Reader::new(body).u32("bytes of the answer").ok()? as usize;
    let payload = Payload::from_bytes(zeros.slice(..wanted.min(zeros.len())));
    Some(rpc::encode_reply(header.xid, AcceptStatus::Success, Message { payload, ..Message::default() }))
}

// --- the asking side

fn ask(kind: Kind, place: &str) -> Result<(), String> {
    let (host, number) = match place.rsplit_once(':') {
        Some((host, number)) if !host.contains(':') || host.ends_with(']') => (host, port(number)?),
        _ => (place, DEFAULT_PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = (host, number)
        .to_socket_addrs()
        .map_err(|e| format!("{host}: {e}"))?
        .next()
        .ok_or_else(|| format!("{host} has no address"))?;
    let failed = |e: io::Error| format!("{address} ({kind}): {e}");
    let mut line = connect(kind, address).map_err(failed)?;
    println!("{kind} to {address}: connected by {}", line.medium());
    let mut exchange = |name, out, back, in_flight| measure(&mut line, name, out, back, in_flight).map_err(failed);
    let round = exchange("latency", 64, 64, 1)?;
    println!("round trip, 64 bytes:        {:>10.1} us", round.each_us());
    let round = exchange("latency of 4 KiB", 4096, 64, 1)?;
    println!("round trip, 4 KiB written:   {:>10.1} us", round.each_us());
    let write = exchange("writing", MAX_PAYLOAD, 0, IN_FLIGHT)?;
    println!("writing 1 MiB, {IN_FLIGHT} at once:   {:>10.1} MB/s", write.megabytes_per_second());
    let read = exchange("reading", 0, MAX_PAYLOAD, IN_FLIGHT)?;
    println!("reading 1 MiB, {IN_FLIGHT} at once:   {:>10.1} MB/s", read.megabytes_per_second());
    Ok(())
}

struct Measured {
    calls: u32,
    bytes: u64,
    took: Duration,
}

impl Measured {
    fn each_us(&self) -> f64 {
        self.took.as_secs_f64() * 1e6 / f64::from(self.calls.max(1))
    }

    fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.took.as_secs_f64().max(1e-9)
    }
}

fn measure(line: &mut Line, name: &str, out: usize, back: usize, in_flight: u32) -> io::Result<Measured> {
    let data = Bytes::from(vec![0x5a; out]);
    let (mut sent, mut got) = (0u32, 0u32);
    let begun = Instant::now();
    loop {
        let goes_on = sent < FEWEST || (begun.elapsed() < LASTS && sent < MOST);
        while goes_on && sent - got < in_flight {
            sent += 1;
            let mut writer = Writer::with_capacity(4);
            writer.u32(back as u32);
            let body = Message { header: writer.finish(), payload: Payload::from_bytes(data.clone()), padding: 0 };
            let call = rpc::encode_call(sent, PROGRAM, VERSION, PROC_EXCHANGE, &Credential::None, body)
                .map_err(|e| io::Error::other(e.to_string()))?;
            line.send(call, back)?;
        }
        if sent == got {
            break;
        }
        match rpc::decode_record(line.recv()?) {
            Ok(Incoming::Reply(header, body)) if header.status == AcceptStatus::Success && body.len() == back => {
                got += 1
            }
            _ => {
                let text = format!("{name}: what answers there is no `glusterfs --transport-check listen`");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
    }
    Ok(Measured { calls: got, bytes: u64::from(got) * (out + back) as u64, took: begun.elapsed() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ends_measure_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || accept_sockets(listener));
        let mut line = connect(Kind::Tcp, address).unwrap();
        assert_eq!(line.medium(), "tcp");
        for (out, back, in_flight) in [(64, 64, 1), (MAX_PAYLOAD, 0, 8), (0, MAX_PAYLOAD, 8)] {
            let data = measure(&mut line, "test", out, back, in_flight).unwrap();
            assert!(data.calls >= FEWEST && data.bytes == u64::from(data.calls) * (out + back) as u64);
        }
    }

    #[test]
    fn what_cannot_be_is_said() {
        assert!(kind("pigeon", None).unwrap_err().contains("pigeon"));
        assert!(kind("tcp,rdma", None).is_err());
        assert!(kind("sdp", Some("pigeon")).is_err());
        assert!(ask(Kind::Tcp, "127.0.0.1:0").is_err());
        assert!(ask(Kind::Tcp, "127.0.0.1:x").unwrap_err().contains("no port"));
        let other = rpc::encode_call(1, 1, 1, 1, &Credential::None, Message::default()).unwrap();
        let zeros = Bytes::from_static(&[0; 8]);
        assert!(answer(other.header, &zeros).is_some(), "another program is refused, not cut off");
        assert!(answer(Bytes::from_static(b"nonsense"), &zeros).is_none());
    }
}
