//! `server.manage-gids`: which groups a caller is in is looked up on the brick's machine. A caller may be in more groups than
//! a client can send, and the client's word is not taken for them.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ladrillo_translator::option::{parse_bool, parse_int};
use ladrillo_translator::{Context, Options};
use nix::unistd::{Gid, Uid, User, getgrouplist};
use parking_lot::Mutex;

/// Most users remembered. Source: our bound.
const MAX_USERS: usize = 65_536;
/// How long what the name service says holds, in seconds. Source: `server.gid-timeout` of GlusterFS.
const GID_TIMEOUT_S: i64 = 300;

struct Known {
    groups: Arc<[u32]>,
    since: Instant,
}

/// The groups of users as this machine knows them, remembered for `gid-timeout`.
pub struct ManagedGroups {
    timeout: Duration,
    /// By user and primary group.
    known: Mutex<HashMap<(u32, u32), Known>>,
}

impl ManagedGroups {
    /// From the options of protocol/server; `None` with `manage-gids` off.
    ///
    /// # Errors
    /// A sentence: a value of a wrong kind.
    pub fn parse(options: &Options) -> Result<Option<Arc<ManagedGroups>>, String> {
        let wrong = |key: &str, value: &str| format!("option {key} {value:?}: not a valid value");
        let is_on = match options.get("manage-gids") {
            None => false,
            Some(value) => parse_bool(value).ok_or_else(|| wrong("manage-gids", value))?,
        };
        let seconds = match options.get("gid-timeout") {
            None => GID_TIMEOUT_S,
            Some(value) => parse_int(value).ok_or_else(|| wrong("gid-timeout", value))?,
        };
        // Negative: not remembered, as GlusterFS has it.
        let timeout = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        Ok(is_on.then(|| Arc::new(ManagedGroups { timeout, known: Mutex::default() })))
    }

    /// The caller with this machine's groups. The name service, which may be slow, is asked by `blocking`.
    pub async fn resolve<F: Future<Output = Arc<[u32]>>>(
        &self,
        context: &Context,
        blocking: impl FnOnce(u32, u32) -> F,
    ) -> Context {
        let user = (context.uid, context.gid);
        let groups = match self.remembered(user) {
            Some(groups) => groups,
            None => {
                let groups = blocking(context.uid, context.gid).await;
                self.remember(user, groups.clone());
                groups
            }
        };
        Context { groups, ..context.clone() }
    }

    fn remembered(&self, user: (u32, u32)) -> Option<Arc<[u32]>> {
        let known = self.known.lock();
        known.get(&user).filter(|entry| entry.since.elapsed() < self.timeout).map(|entry| entry.groups.clone())
    }

    fn remember(&self, user: (u32, u32), groups: Arc<[u32]>) {
        if self.timeout.is_zero() {
            return;
        }
        let mut known = self.known.lock();
        if known.len() >= MAX_USERS {
            known.retain(|_, entry| entry.since.elapsed() < self.timeout);
            if known.len() >= MAX_USERS {
                known.clear();
            }
        }
        known.insert(user, Known { groups, since: Instant::now() });
    }
}

/// Asks the name service; may block. A user it does not know is in no group but his own.
pub fn look_up(uid: u32, gid: u32) -> Arc<[u32]> {
    let name = match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        Ok(None) => return Arc::from([]),
        Err(error) => {
            tracing::warn!(uid, %error, "manage-gids: the user could not be looked up: no supplementary groups");
            return Arc::from([]);
        }
    };
    let found = CString::new(name.as_str())
        .map_err(|error| error.to_string())
        .and_then(|name| getgrouplist(&name, Gid::from_raw(gid)).map_err(|error| error.to_string()));
    match found {
        Ok(groups) => groups.into_iter().map(Gid::as_raw).collect(),
        Err(error) => {
            tracing::warn!(uid, %name, %error, "manage-gids: the groups could not be looked up");
            Arc::from([])
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn groups_are_remembered_for_a_while_and_callers_words_are_not_taken() {
        let options = |timeout: &str| Options::new().with("manage-gids", "on").with("gid-timeout", timeout);
        assert!(ManagedGroups::parse(&Options::new()).unwrap().is_none());
        assert!(ManagedGroups::parse(&Options::new().with("manage-gids", "maybe")).is_err());
        for (timeout, lookups) in [("300", 1), ("0", 2), ("-1", 2)] {
            let groups = ManagedGroups::parse(&options(timeout)).unwrap().unwrap();
            let asked = Cell::new(0);
            let caller = Context { uid: 7, gid: 8, groups: Arc::from([0, 1]), ..Context::root() };
            for _ in 0..2 {
                let seen = groups.resolve(&caller, |uid, gid| {
                    asked.set(asked.get() + 1);
                    std::future::ready(Arc::from([uid + gid]))
                });
                let seen = futures::executor::block_on(seen);
                assert_eq!((seen.uid, seen.gid, &seen.groups[..]), (7, 8, &[15][..]));
            }
            assert_eq!(asked.get(), lookups, "{timeout}");
        }
    }

    #[test]
    fn the_name_service_knows_root() {
        assert!(look_up(0, 4242).contains(&4242));
        assert_eq!(look_up(4_000_000_000, 1)[..], [0_u32; 0]);
    }
}
