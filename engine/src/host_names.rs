//! Host names in `auth.addr.*.allow` and `.reject`, resolved when a volfile is taken, so that a client's handshake
//! never waits for a name server.
//!
//! A name that cannot be resolved matches nobody, and is tried again until it can be, or is no longer listed.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ladrillo_translator::option::Options;
use parking_lot::RwLock;

/// How long taking a volfile waits for name servers; what they answer later counts from then on.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between attempts at a name that cannot be resolved.
const AGAIN: Duration = Duration::from_secs(10);
/// Threads that resolve at once. Source: our bound.
const MAX_THREADS: usize = 16;

/// The addresses of the hosts that options name.
#[derive(Default)]
pub struct HostNames {
    current: RwLock<Arc<Resolved>>,
}

/// Of one volfile; given up when the next is taken.
#[derive(Default)]
struct Resolved {
    addresses: RwLock<HashMap<String, Vec<IpAddr>>>,
}

impl HostNames {
    /// Resolves the names in `options`; waits for the first attempts, for a bounded time. Not for executors.
    pub fn take(&self, options: &Options) {
        let names = listed(options);
        let mut next = Resolved::default();
        {
            // Until they are resolved anew, what was known counts.
            let last = self.current.read();
            let known = last.addresses.read();
            next.addresses
                .get_mut()
                .extend(names.iter().filter_map(|name| Some((name.clone(), known.get(name)?.clone()))));
        }
        let next = Arc::new(next);
        let (tried, attempts) = channel();
        for group in names.chunks(names.len().div_ceil(MAX_THREADS).max(1)) {
            let (group, resolved, tried) = (group.to_vec(), Arc::downgrade(&next), tried.clone());
            let resolver = std::thread::Builder::new().name("resolver".to_owned());
            if let Err(e) = resolver.spawn(move || resolve(group, &resolved, &tried)) {
                tracing::error!(error = %e, "starting a thread that resolves host names");
            }
        }
        drop(tried);
        let end = Instant::now() + PATIENCE;
        while attempts.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok() {}
        *self.current.write() = next;
    }

    /// The addresses of a host; `None` where they are not known.
    pub fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.current.read().addresses.read().get(name).cloned()
    }
}

/// Resolves names until all are, or nobody wants them any more. `tried` hears of each name's first attempt.
fn resolve(mut names: Vec<String>, resolved: &Weak<Resolved>, tried: &Sender<()>) {
    let mut first = true;
    loop {
        names.retain(|name| {
            let answer = (name.as_str(), 0u16).to_socket_addrs();
            let Some(resolved) = resolved.upgrade() else { return false };
            let failed = match answer {
                Ok(found) => {
                    let addresses = found.map(|address| address.ip().to_canonical()).collect();
                    resolved.addresses.write().insert(name.clone(), addresses);
                    false
                }
                Err(e) => {
                    if first {
                        tracing::warn!(host = %name, error = %e, "resolving a host of auth.allow or auth.reject");
                    }
                    true
                }
            };
            if first {
                let _ = tried.send(());
            }
            failed
        });
        first = false;
        if names.is_empty() || resolved.strong_count() == 0 {
            return;
        }
        std::thread::sleep(AGAIN);
    }
}

/// The host names in all lists of addresses.
fn listed(options: &Options) -> Vec<String> {
    let lists = options.iter().filter(|(key, _)| {
        ["auth.addr.", "auth.ip."].iter().any(|p| key.starts_with(p))
            && (key.ends_with(".allow") || key.ends_with(".reject"))
    });
    let names: HashSet<&str> = lists
        // `/dir(address|address),...` has parentheses and bars, a plain list has commas.
        .flat_map(|(_, list)| list.split([',', '|', '(', ')']))
        .map(|pattern| pattern.trim().trim_start_matches('!'))
        .filter(|pattern| is_host_name(pattern))
        .collect();
    names.into_iter().map(str::to_owned).collect()
}

/// Whether a pattern is a host's name rather than an address, a network or a wildcard.
pub fn is_host_name(pattern: &str) -> bool {
    pattern.len() <= 253
        && pattern.parse::<IpAddr>().is_err()
        && pattern.bytes().any(|b| b.is_ascii_alphabetic())
        && pattern.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_addresses_and_resolved() {
        for name in ["localhost", "debian1", "a-b.example.org", "10gbe.example"] {
            assert!(is_host_name(name), "{name}");
        }
        for other in ["10.0.0.1", "10.0.*", "10.0", "fd00::1", "10.0.0.0/8", "*", "", "a*", "host/24"] {
            assert!(!is_host_name(other), "{other}");
        }
        let options = Options::new()
            .with("auth.addr./b.allow", "10.0.0.1, localhost")
            .with("auth.addr./b.reject", "/(!no-such-host.invalid|10.0.0.1),/a()")
            .with("auth.login./b.allow", "somebody");
        let mut names = listed(&options);
        names.sort();
        assert_eq!(names, ["localhost", "no-such-host.invalid"]);
        let hosts = HostNames::default();
        hosts.take(&Options::new().with("auth.addr./b.allow", "localhost"));
        assert!(hosts.addresses("localhost").is_some_and(|found| found.iter().all(IpAddr::is_loopback)));
        hosts.take(&Options::new());
        assert_eq!(hosts.addresses("localhost"), None);
    }
}
