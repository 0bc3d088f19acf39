//! Who may use a brick, and as whom: `auth.*`, and the squashing of users. Source of the rules: auth/addr, auth/login and
//! server-helpers.c of GlusterFS 10.3.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ladrillo_translator::error::errno;
use ladrillo_translator::option::{Options, parse_bool, parse_int};
use ladrillo_translator::{Context, Dict};

use super::subdir::Subdir;
use crate::host_names::{HostNames, is_host_name};

/// A refusal: errno and the sentence the client logs.
pub type Refusal = (i32, String);

/// What an authentication module thinks of a client.
#[derive(PartialEq)]
enum Opinion {
    Accept,
    Reject,
    DoNotCare,
}

/// auth.addr.SUBVOLUME.allow and .reject, auth.login.SUBVOLUME.allow with auth.login.USER.password. As stock: a module
/// that rejects wins; one that accepts suffices; a volfile without any auth option admits (hand-written ones). Answers
/// whether the client is trusted: it gave the name and password that glusterd puts into the pool's own volfiles.
///
/// # Errors
/// EACCES and the sentence for the client.
pub fn authenticate(
    options: &Options,
    hosts: &HostNames,
    subvolume: &str,
    subdir: &str,
    peer: Option<SocketAddr>,
    request: &Dict,
) -> Result<bool, Refusal> {
    let refuse = || Err((errno::EACCES, "Authentication failed".to_owned()));
    let login = by_login(options, subvolume, request);
    let address = by_address(options, hosts, subvolume, subdir, peer);
    if login == Opinion::Reject || address == Opinion::Reject {
        return refuse();
    }
    let any = options
        .iter()
        .any(|(key, _)| ["addr", "ip", "login"].iter().any(|module| key == format!("auth.{module}.{subvolume}.allow")));
    match login == Opinion::Accept || address == Opinion::Accept || !any {
        true => Ok(login == Opinion::Accept),
        false => refuse(),
    }
}

/// A name that is not listed is nobody's concern, unless `strict-auth-accept` says otherwise; a listed one needs its password.
fn by_login(options: &Options, subvolume: &str, request: &Dict) -> Opinion {
    let strict = options.get("strict-auth-accept").and_then(parse_bool).unwrap_or(false);
    let otherwise = || if strict { Opinion::Reject } else { Opinion::DoNotCare };
    let (Some(user), Some(given)) = (request.text("username"), request.text("password")) else { return otherwise() };
    let Some(users) = options.get(&format!("auth.login.{subvolume}.allow")) else { return Opinion::DoNotCare };
    let mut users = users.split([' ', ',']).filter(|u| !u.is_empty());
    if !users.any(|pattern| crate::storage::matches_pattern(pattern.as_bytes(), user.as_bytes())) {
        return otherwise();
    }
    match options.get(&format!("auth.login.{user}.password")) {
        Some(expected) if same(expected, given) => Opinion::Accept,
        _ => Opinion::Reject,
    }
}

fn by_address(
    options: &Options,
    hosts: &HostNames,
    subvolume: &str,
    subdir: &str,
    peer: Option<SocketAddr>,
) -> Opinion {
    let reject = options.get(&format!("auth.addr.{subvolume}.reject"));
    let allow = options
        .get(&format!("auth.addr.{subvolume}.allow"))
        .or_else(|| options.get(&format!("auth.ip.{subvolume}.allow")));
    let port = peer.map_or(0, |p| p.port());
    if port >= 1024 && options.get("rpc-auth-allow-insecure").and_then(parse_bool) == Some(false) {
        return Opinion::Reject;
    }
    let address = peer.map(|p| p.ip().to_canonical());
    if reject.is_some_and(|list| is_listed(list, subdir, address, hosts)) {
        return Opinion::Reject;
    }
    match allow {
        Some(list) if is_listed(list, subdir, address, hosts) => Opinion::Accept,
        _ => Opinion::DoNotCare,
    }
}

/// Entries separated by commas: an address holds for all mounts, `/dir(address|address)` for those of just this directory,
/// `/` being the volume itself. Stock stops at the first entry without a directory once there is one with: a list that
/// mixes them would reject nobody.
fn is_listed(list: &str, subdir: &str, address: Option<IpAddr>, hosts: &HostNames) -> bool {
    list.split(',').map(str::trim).any(|entry| match entry.split_once('(') {
        None => !entry.starts_with('/') && address_matches(entry, address, hosts),
        Some((directory, addresses)) => {
            directory.starts_with('/')
                && Subdir::normal(directory) == subdir
                && addresses.strip_suffix(')').is_some_and(|addresses| {
                    addresses.split('|').any(|pattern| address_matches(pattern.trim(), address, hosts))
                })
        }
    })
}

/// `root-squash`, `all-squash`, `anonuid`, `anongid`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Squash {
    root: bool,
    all: bool,
    uid: u32,
    gid: u32,
}

impl Default for Squash {
    fn default() -> Squash {
        Squash { root: false, all: false, uid: 65534, gid: 65534 }
    }
}

impl Squash {
    /// From the options of protocol/server.
    ///
    /// # Errors
    /// A sentence: a value of a wrong kind.
    pub fn parse(options: &Options) -> Result<Squash, String> {
        let wrong = |key: &str, value: &str| format!("option {key} {value:?}: not a valid value");
        let flag = |key: &str| match options.get(key) {
            None => Ok(false),
            Some(value) => parse_bool(value).ok_or_else(|| wrong(key, value)),
        };
        let id = |key: &str| match options.get(key) {
            None => Ok(65534),
            // As glusterd reads it: 0x10 and 020 are 16.
            Some(value) => parse_int(value).and_then(|id| u32::try_from(id).ok()).ok_or_else(|| wrong(key, value)),
        };
        Ok(Squash { root: flag("root-squash")?, all: flag("all-squash")?, uid: id("anonuid")?, gid: id("anongid")? })
    }

    /// Makes nobody of those who are to be. Of trusted clients GlusterFS's own services, and mounts with
    /// `no-root-squash`, stay who they are; others may call themselves what they like.
    pub fn apply(&self, context: &mut Context, trusted: bool) {
        if !self.root && !self.all {
            return;
        }
        let spared = [
            Context::PID_NO_ROOT_SQUASH,
            Context::PID_REBALANCE,
            Context::PID_SELF_HEALD,
            Context::PID_HEAL_INFO,
            PID_GSYNCD,
            PID_QUOTA_MOUNT,
        ];
        if trusted && spared.contains(&context.pid) {
            return;
        }
        // Negative pids pass all checks of permissions.
        context.pid = context.pid.max(0);
        if self.all || context.uid == 0 {
            context.uid = self.uid;
        }
        if self.all || context.gid == 0 {
            context.gid = self.gid;
        }
        if context.groups.contains(&0) {
            context.groups =
                context.groups.iter().map(|gid| if *gid == 0 { self.gid } else { *gid }).collect::<Arc<[u32]>>();
        }
    }
}

/// GF_CLIENT_PID_GSYNCD.
const PID_GSYNCD: i32 = -1;
/// GF_CLIENT_PID_QUOTA_MOUNT.
const PID_QUOTA_MOUNT: i32 = -5;

/// Compares secrets in a time that does not tell how much of them agrees.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

/// `*`, `192.168.*`, a literal address, a network `10.0.0.0/8`, or a host's name; `!` before it negates. A name whose
/// addresses are not known matches nobody, negated or not.
fn address_matches(pattern: &str, address: Option<IpAddr>, hosts: &HostNames) -> bool {
    if let Some(rest) = pattern.strip_prefix('!') {
        let known = !is_host_name(rest) || hosts.addresses(rest).is_some();
        return known && !address_matches(rest, address, hosts);
    }
    // No IP at all (a socketpair): patterns may still admit everybody.
    let Some(address) = address else { return pattern == "*" };
    if is_host_name(pattern) {
        return hosts.addresses(pattern).is_some_and(|found| found.contains(&address));
    }
    if let Ok(literal) = pattern.parse::<IpAddr>() {
        return literal.to_canonical() == address;
    }
    if let Some((network, bits)) = pattern.split_once('/')
        && let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>())
    {
        return match (network, address) {
            (IpAddr::V4(n), IpAddr::V4(a)) if bits <= 32 => {
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                u32::from(n) & mask == u32::from(a) & mask
            }
            (IpAddr::V6(n), IpAddr::V6(a)) if bits <= 128 => {
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                u128::from(n) & mask == u128::from(a) & mask
            }
            _ => false,
        };
    }
    crate::storage::matches_pattern(pattern.as_bytes(), address.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_match_as_glusterfs_writes_them() {
        let hosts = HostNames::default();
        hosts.take(&Options::new().with("auth.addr./b.allow", "localhost"));
        for (pattern, address, expected) in [
            ("*", "10.0.0.1", true),
            ("10.0.*", "10.0.3.4", true),
            ("10.0.*", "10.1.3.4", false),
            ("10.0.0.0/8", "10.200.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("!10.0.0.1", "10.0.0.1", false),
            ("fd00::/8", "fd12::1", true),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("fd00:0:0::1", "fd00::1", true),
            ("localhost", "127.0.0.1", true),
            ("localhost", "10.0.0.1", false),
            ("!localhost", "10.0.0.1", true),
            ("!localhost", "127.0.0.1", false),
            ("not-resolved", "10.0.0.1", false),
            ("!not-resolved", "10.0.0.1", false),
        ] {
            assert_eq!(address_matches(pattern, address.parse().ok(), &hosts), expected, "{pattern} {address}");
        }
    }

    #[test]
    fn login_needs_the_password_of_the_volfile() {
        let options = Options::new().with("auth.login./b.allow", "u").with("auth.login.u.password", "secret");
        let request = |user: &str, password: &str| {
            let mut dict = Dict::new();
            dict.set_str("username", user.to_owned());
            dict.set_str("password", password.to_owned());
            dict
        };
        let hosts = HostNames::default();
        let peer = "10.0.0.1:1000".parse().ok();
        assert!(authenticate(&options, &hosts, "/b", "/", peer, &request("u", "secret")).is_ok());
        assert!(authenticate(&options, &hosts, "/b", "/", peer, &request("u", "wrong")).is_err());
        assert!(authenticate(&options, &hosts, "/b", "/", peer, &request("v", "secret")).is_err());
        assert!(authenticate(&options, &hosts, "/b", "/", peer, &Dict::new()).is_err());
        assert!(authenticate(&Options::new(), &hosts, "/b", "/", peer, &Dict::new()).is_ok());
    }

    #[test]
    fn unlisted_users_are_judged_by_their_address_unless_strict() {
        let options = Options::new()
            .with("auth.login./b.allow", "u")
            .with("auth.login.u.password", "secret")
            .with("auth.addr./b.allow", "10.0.0.*");
        let hosts = HostNames::default();
        let ask = |options: &Options, address: &str, user: Option<(&str, &str)>| {
            let mut dict = Dict::new();
            if let Some((user, password)) = user {
                dict.set_str("username", user.to_owned());
                dict.set_str("password", password.to_owned());
            }
            authenticate(options, &hosts, "/b", "/", address.parse().ok(), &dict).ok()
        };
        assert_eq!(ask(&options, "10.0.0.1:1", None), Some(false), "by address, not trusted");
        assert_eq!(ask(&options, "10.1.0.1:1", None), None);
        assert_eq!(ask(&options, "10.1.0.1:1", Some(("u", "secret"))), Some(true));
        assert_eq!(ask(&options, "10.0.0.1:1", Some(("u", "wrong"))), None, "a wrong password is never right");
        assert_eq!(ask(&options, "10.0.0.1:1", Some(("v", "x"))), Some(false));
        let strict = options.clone().with("strict-auth-accept", "on");
        assert_eq!(ask(&strict, "10.0.0.1:1", None), None);
        assert_eq!(ask(&strict, "10.0.0.1:1", Some(("v", "x"))), None);
        assert_eq!(ask(&strict, "10.0.0.1:1", Some(("u", "secret"))), Some(true));
        let rejected = options.with("auth.addr./b.reject", "10.1.0.1");
        assert_eq!(ask(&rejected, "10.1.0.1:1", Some(("u", "secret"))), None, "whatever he knows");
    }

    #[test]
    fn directories_have_lists_of_their_own() {
        let hosts = HostNames::default();
        let list = "/(10.0.0.1|10.0.0.2),/a/b(10.0.1.*),/c(*)";
        let listed = |subdir: &str, address: &str| is_listed(list, subdir, address.parse().ok(), &hosts);
        assert!(listed("/", "10.0.0.2") && listed("/a/b", "10.0.1.7") && listed("/c", "1.2.3.4"));
        assert!(!listed("/", "10.0.1.7") && !listed("/a", "10.0.1.7") && !listed("/a/b", "10.0.0.1"));
        assert!(is_listed("10.0.0.*", "/any", "10.0.0.1".parse().ok(), &hosts), "a plain list is for all");
        assert!(!is_listed("/a(", "/a", "10.0.0.1".parse().ok(), &hosts));
        let mixed = "10.0.0.9, /a/(10.0.0.1),10.0.2.*";
        let listed = |subdir: &str, address: &str| is_listed(mixed, subdir, address.parse().ok(), &hosts);
        assert!(listed("/", "10.0.0.9") && listed("/a", "10.0.0.9") && listed("/", "10.0.2.3"));
        assert!(listed("/a", "10.0.0.1"), "/a/ is /a");
        assert!(!listed("/", "10.0.0.1") && !listed("/b", "10.0.0.1"));
    }

    #[test]
    fn root_is_squashed_and_services_are_not() {
        let squash = Squash::parse(&Options::new().with("root-squash", "on").with("anonuid", "99")).unwrap();
        let root = |pid: i32| Context { pid, groups: Arc::from([0, 5]), ..Context::root() };
        let squashed = |mut context: Context, trusted: bool, squash: &Squash| {
            squash.apply(&mut context, trusted);
            (context.uid, context.gid, context.groups.to_vec(), context.pid)
        };
        assert_eq!(squashed(root(7), true, &squash), (99, 65534, vec![65534, 5], 7));
        let heal = Context::PID_SELF_HEALD;
        assert_eq!(squashed(root(heal), true, &squash), (0, 0, vec![0, 5], heal));
        assert_eq!(squashed(root(heal), false, &squash), (99, 65534, vec![65534, 5], 0), "so he says");
        let user = || Context { uid: 5, gid: 5, groups: Arc::from([5]), ..root(7) };
        assert_eq!(squashed(user(), false, &squash), (5, 5, vec![5], 7));
        let all = Squash::parse(&Options::new().with("all-squash", "on")).unwrap();
        assert_eq!(squashed(user(), false, &all), (65534, 65534, vec![5], 7));
        for (text, id) in
            [("0x10", Some(16)), ("010", Some(8)), ("4294967295", Some(u32::MAX)), ("-1", None), ("x", None)]
        {
            let parsed = Squash::parse(&Options::new().with("anonuid", text)).ok();
            assert_eq!(parsed.map(|squash| squash.uid), id, "{text}");
        }
    }
}
