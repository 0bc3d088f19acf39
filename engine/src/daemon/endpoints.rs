//! Where a brick listens: the options of protocol/server and the command line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use ladrillo_translator::option::Options;
use ladrillo_transport::kind::VIA_OPTION;
use ladrillo_transport::{Kind, Via};

use super::args::BrickPorts;
use crate::server::Endpoint;

/// The port of protocol/server that nobody gave one (GlusterFS's GF_DEFAULT_SOCKET_LISTEN_PORT).
const DEFAULT_PORT: u16 = 24007;

/// The endpoints of `transport-type`: the bind address or all, and of each transport its own port
/// (`transport.socket.listen-port`, `transport.rdma.listen-port`, `transport.sdp.listen-port`) or, the first of them,
/// `--brick-port` or `listen-port`.
///
/// # Errors
/// A sentence: no such transport, no port, an address that is none, two transports and one port.
pub fn of(options: &Options, given: Option<BrickPorts>) -> Result<Vec<Endpoint>, String> {
    let via = Via::parse(options.get(VIA_OPTION))?;
    let kinds = Kind::parse_list(options.get("transport-type").unwrap_or("tcp"), via)?;
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for (index, kind) in kinds.into_iter().enumerate() {
        let port = port(options, given, kind, index)?;
        let shares = |other: &Endpoint| other.address.port() == port && port != 0 && on_tcp(other.kind) && on_tcp(kind);
        if endpoints.iter().any(shares) {
            return Err(format!("transport {kind} has port {port}, and another transport has it, too"));
        }
        endpoints.extend(addresses(options, port)?.into_iter().map(|address| Endpoint { kind, address }));
    }
    Ok(endpoints)
}

/// Whether its ports are TCP's.
fn on_tcp(kind: Kind) -> bool {
    matches!(kind, Kind::Tcp | Kind::Sdp(Via::Smc | Via::InetSdp))
}

fn port(options: &Options, given: Option<BrickPorts>, kind: Kind, index: usize) -> Result<u16, String> {
    let own = match kind {
        Kind::Tcp => "transport.socket.listen-port",
        Kind::Rdma => "transport.rdma.listen-port",
        Kind::Sdp(_) => "transport.sdp.listen-port",
    };
    let from_command_line = match index {
        0 => given.map(|given| given.first),
        1 => given.and_then(|given| given.second),
        _ => None,
    };
    let names: &[&str] = if index == 0 { &["listen-port", own] } else { &[own] };
    match (from_command_line, names.iter().find_map(|name| options.get(name))) {
        (Some(port), _) => Ok(port),
        (None, Some(text)) => text.parse().map_err(|_| format!("listen-port {text:?} is no port")),
        (None, None) if index == 0 => Ok(DEFAULT_PORT),
        // Its clients ask glusterd.
        (None, None) => Ok(0),
    }
}

fn addresses(options: &Options, port: u16) -> Result<Vec<SocketAddr>, String> {
    let bound = ["transport.socket.bind-address", "bind-address"].iter().find_map(|k| options.get(k));
    if let Some(host) = bound {
        let found: Vec<SocketAddr> =
            (host, port).to_socket_addrs().map_err(|e| format!("bind-address {host}: {e}"))?.collect();
        return match found.first() {
            Some(first) => Ok(vec![*first]),
            None => Err(format!("bind-address {host} has no address")),
        };
    }
    let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
    let v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
    Ok(match options.get("transport.address-family") {
        Some("inet") => vec![v4],
        Some("inet6") => vec![v6],
        // One IPv6 socket takes IPv4 too; a kernel without IPv6 has the other.
        _ if std::path::Path::new("/proc/net/if_inet6").exists() => vec![v6],
        _ => vec![v4],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &[(&str, &str)]) -> Options {
        let all = list.iter().fold(Options::new(), |options, (key, value)| options.with(*key, *value));
        all.with("transport.address-family", "inet")
    }

    fn ports(list: &[(&str, &str)], given: Option<BrickPorts>) -> Result<Vec<(Kind, u16)>, String> {
        Ok(of(&options(list), given)?.iter().map(|e| (e.kind, e.address.port())).collect())
    }

    #[test]
    fn each_transport_has_its_port() {
        let sdp = Kind::Sdp(Via::Rsocket);
        assert_eq!(ports(&[], None), Ok(vec![(Kind::Tcp, 24007)]));
        assert_eq!(ports(&[("transport-type", "rdma"), ("listen-port", "5")], None), Ok(vec![(Kind::Rdma, 5)]));
        let both = [
            ("transport-type", "tcp,rdma"),
            ("transport.socket.listen-port", "49152"),
            ("transport.rdma.listen-port", "49153"),
        ];
        assert_eq!(ports(&both, None), Ok(vec![(Kind::Tcp, 49152), (Kind::Rdma, 49153)]));
        let given = Some(BrickPorts { first: 7, second: Some(8) });
        assert_eq!(ports(&[("transport-type", "tcp,rdma")], given), Ok(vec![(Kind::Tcp, 7), (Kind::Rdma, 8)]));
        assert_eq!(ports(&[("transport-type", "sdp")], Some("9".parse().unwrap())), Ok(vec![(sdp, 9)]));
    }

    #[test]
    fn nonsense_is_named() {
        for list in [
            &[("transport-type", "pigeon")][..],
            &[("transport-type", "sdp"), ("transport.sdp.via", "pigeon")],
            &[("listen-port", "70000")],
            &[("bind-address", "no such host")],
        ] {
            assert!(of(&options(list), None).is_err(), "{list:?}");
        }
        let shared = [
            ("transport-type", "tcp,sdp"),
            ("transport.sdp.via", "smc"),
            ("transport.socket.listen-port", "7"),
            ("transport.sdp.listen-port", "7"),
        ];
        assert!(of(&options(&shared), None).unwrap_err().contains("port 7"));
    }
}
