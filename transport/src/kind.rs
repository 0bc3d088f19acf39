//! Which transports there are, by the names that volumes and volfiles give them.

use std::fmt;

use crate::Address;

/// A way to reach a brick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// TCP (`tcp`).
    Tcp,
    /// RPC over RDMA: payloads by RDMA read and write (`rdma`).
    Rdma,
    /// A byte stream over RDMA (`sdp`).
    Sdp(Via),
}

/// What carries the byte stream of `sdp`: option `transport.sdp.via`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Via {
    /// rsockets of librdmacm, in user space (`rsocket`).
    #[default]
    Rsocket,
    /// Kernel sockets of AF_SMC (43): SMC-R where both ends can, TCP where not (`smc`).
    Smc,
    /// Kernel sockets of AF_INET_SDP (27), of OFED kernels (`sdp`).
    InetSdp,
}

/// The option that says what carries `sdp`.
pub const VIA_OPTION: &str = "transport.sdp.via";

impl Via {
    /// Of the option's value; `None` means the default.
    ///
    /// # Errors
    /// A sentence that names what there is.
    pub fn parse(value: Option<&str>) -> Result<Via, String> {
        match value.map(str::trim) {
            None | Some("" | "rsocket") => Ok(Via::Rsocket),
            Some("smc") => Ok(Via::Smc),
            Some("sdp") => Ok(Via::InetSdp),
            Some(other) => Err(format!("{VIA_OPTION} {other}: it is rsocket, smc or sdp")),
        }
    }

    /// As the option has it.
    pub fn name(self) -> &'static str {
        match self {
            Via::Rsocket => "rsocket",
            Via::Smc => "smc",
            Via::InetSdp => "sdp",
        }
    }
}

impl Kind {
    /// Of a volfile's `transport-type`: one, or several separated by commas, in their order. Tcp has the names
    /// `tcp`, `socket`, `tcp/client`, `tcp/server` and (its socket's path is another option) `unix`.
    ///
    /// # Errors
    /// A sentence that names what there is.
    pub fn parse_list(list: &str, via: Via) -> Result<Vec<Kind>, String> {
        let mut kinds = Vec::new();
        for name in list.split(',').map(str::trim) {
            let kind = match name {
                "tcp" | "socket" | "tcp/client" | "tcp/server" | "unix" | "socket/client" | "socket/server" => {
                    Kind::Tcp
                }
                "rdma" | "rdma/client" | "rdma/server" | "ib-verbs" => Kind::Rdma,
                "sdp" | "ib-sdp" => Kind::Sdp(via),
                _ => return Err(format!("transport-type {list}: {name:?} is none of tcp, rdma, sdp and unix")),
            };
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        Ok(kinds)
    }

    /// As a volume has it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Tcp => "tcp",
            Kind::Rdma => "rdma",
            Kind::Sdp(_) => "sdp",
        }
    }

    /// What a brick's name ends with at the portmapper when its port of this transport is meant. `.rdma` is
    /// GlusterFS 7's, `.sdp` ours.
    pub fn portmap_suffix(self) -> &'static str {
        match self {
            Kind::Tcp => "",
            Kind::Rdma => ".rdma",
            Kind::Sdp(_) => ".sdp",
        }
    }

    /// A host's address on this transport.
    pub fn at(self, host: impl Into<String>, port: u16) -> Address {
        let host = host.into();
        match self {
            Kind::Tcp => Address::Tcp { host, port },
            Kind::Rdma => Address::Rdma { host, port },
            Kind::Sdp(via) => Address::Sdp { host, port, via },
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Sdp(via) => write!(f, "sdp ({})", via.name()),
            kind => f.write_str(kind.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_volumes_write_them() {
        assert_eq!(Kind::parse_list("tcp", Via::Rsocket), Ok(vec![Kind::Tcp]));
        assert_eq!(Kind::parse_list("tcp,rdma", Via::Rsocket), Ok(vec![Kind::Tcp, Kind::Rdma]));
        assert_eq!(Kind::parse_list("rdma, tcp,rdma", Via::Rsocket), Ok(vec![Kind::Rdma, Kind::Tcp]));
        assert_eq!(Kind::parse_list("sdp", Via::Smc), Ok(vec![Kind::Sdp(Via::Smc)]));
        for wrong in ["", "pigeon", "tcp,", "rdma;tcp"] {
            assert!(Kind::parse_list(wrong, Via::Rsocket).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn via_is_one_of_three() {
        assert_eq!(Via::parse(None), Ok(Via::Rsocket));
        for via in [Via::Rsocket, Via::Smc, Via::InetSdp] {
            assert_eq!(Via::parse(Some(via.name())), Ok(via));
        }
        assert!(Via::parse(Some("tcp")).is_err());
    }

    #[test]
    fn each_has_an_address_and_a_name_at_the_portmapper() {
        assert_eq!(Kind::Rdma.at("h", 1), Address::Rdma { host: "h".into(), port: 1 });
        assert_eq!(Kind::Sdp(Via::Smc).at("h", 1).to_string(), "sdp:h:1");
        assert_eq!(Kind::Tcp.at("h", 1).to_string(), "h:1");
        assert_eq!(Kind::Rdma.portmap_suffix(), ".rdma");
    }
}
