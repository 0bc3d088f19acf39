//! Who may use the peer program: callers from an address of a node of the pool.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::node::{Node, resolve};

/// How often the addresses of the nodes' names are asked for again.
const REFRESH_EVERY: Duration = Duration::from_secs(30);
/// How soon they are asked for again for a caller that nobody knows.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// How often one caller's refusal is logged.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Most refused callers remembered for that.
const MAX_WARNED: usize = 256;

/// The addresses of names, as last resolved.
#[derive(Default)]
pub struct Callers {
    looked_up: RefCell<HashMap<String, (Instant, Vec<IpAddr>)>>,
    one: tokio::sync::Mutex<()>,
    warned: RefCell<HashMap<IpAddr, Instant>>,
}

impl Callers {
    /// Whether one of `hosts` is at `address`, by what was last resolved.
    fn has(&self, hosts: &[String], address: IpAddr) -> bool {
        let looked_up = self.looked_up.borrow();
        hosts.iter().any(|host| match host.parse::<IpAddr>() {
            Ok(literal) => literal.to_canonical() == address,
            Err(_) => looked_up.get(host).is_some_and(|(_, addresses)| addresses.contains(&address)),
        })
    }

    /// Resolves those of `hosts` that were last resolved longer than `age` ago, and forgets all others. A name that does not
    /// resolve now keeps the addresses it had.
    async fn refresh(&self, hosts: &[String], age: Duration) {
        let _one = self.one.lock().await;
        self.looked_up.borrow_mut().retain(|known, _| hosts.contains(known));
        let is_due = |host: &String| {
            let looked_up = self.looked_up.borrow();
            host.parse::<IpAddr>().is_err() && looked_up.get(host).is_none_or(|(at, _)| at.elapsed() >= age)
        };
        let due: Vec<&String> = hosts.iter().filter(|host| is_due(host)).collect();
        futures::future::join_all(due.into_iter().map(|host| async move {
            let found: Vec<IpAddr> = resolve(host).await.iter().map(IpAddr::to_canonical).collect();
            let mut looked_up = self.looked_up.borrow_mut();
            let (at, addresses) = looked_up.entry(host.clone()).or_insert_with(|| (Instant::now(), Vec::new()));
            *at = Instant::now();
            if !found.is_empty() {
                *addresses = found;
            }
        }))
        .await;
    }

    /// Whether it is time to log that `address` was refused.
    fn should_warn(&self, address: IpAddr) -> bool {
        let mut warned = self.warned.borrow_mut();
        warned.retain(|_, at| at.elapsed() < WARN_EVERY);
        if warned.len() >= MAX_WARNED || warned.contains_key(&address) {
            return false;
        }
        warned.insert(address, Instant::now());
        true
    }
}

impl Node {
    /// Names of the pool's other nodes: those in the state, those in the log's membership (a node is there first), and, while
    /// the log of the pool we join has not come, those we were told of.
    fn member_hosts(&self) -> Vec<String> {
        let own = self.uuid();
        let mut hosts: Vec<String> = self.others().into_iter().flat_map(|peer| peer.hostnames).collect();
        let membership = self.store.membership();
        hosts.extend(membership.nodes().filter(|(id, _)| id.0 != own).map(|(_, place)| place.host.clone()));
        hosts.extend(self.store.local().introducers);
        hosts.sort();
        hosts.dedup();
        // The first node's membership calls it so; it means another machine to everybody else.
        hosts.retain(|host| host != "localhost");
        hosts
    }

    /// Whether a caller is a node of the pool, by what is known now. The unix socket is root's.
    pub fn is_member_now(&self, address: Option<IpAddr>) -> bool {
        address.is_none_or(|address| self.callers.has(&self.member_hosts(), address.to_canonical()))
    }

    /// Whether a caller is a node of the pool; the resolver may be asked.
    pub async fn is_member(&self, address: Option<IpAddr>) -> bool {
        if self.is_member_now(address) {
            return true;
        }
        self.callers.refresh(&self.member_hosts(), ASK_AGAIN_AFTER).await;
        if self.is_member_now(address) {
            return true;
        }
        if let Some(address) = address
            && self.callers.should_warn(address)
        {
            tracing::warn!(
                "{address} is no node of this pool as far as names and addresses tell: its calls are refused (if it is \
                 one, probe it under a name that leads to that address)"
            );
        }
        false
    }

    /// Keeps the addresses of the pool's nodes fresh.
    pub fn refresh_callers(self: &Rc<Self>) {
        let node = self.clone();
        if self.callers.one.try_lock().is_ok() {
            tokio::task::spawn_local(async move { node.callers.refresh(&node.member_hosts(), REFRESH_EVERY).await });
        }
    }
}
