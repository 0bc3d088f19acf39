//! The embedded store (redb): Raft's log and vote, the applied state, and what only this node knows. Every commit is durable
//! before it is answered, and a commit is whole or absent after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io::Cursor;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::{
    AnyError, Entry, EntryPayload, ErrorSubject, ErrorVerb, LogId, LogState, Membership, OptionalSend, RaftLogReader,
    SnapshotMeta, StorageError, StorageIOError, StoredMembership, Vote,
};
use parking_lot::RwLock;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;

use super::command::{Applied, apply};
use super::model::State;
use super::raft::{NodeId, Place, Types};

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";
const MACHINE: &str = "machine";
const SNAPSHOT: &str = "snapshot";
const LOCAL: &str = "local";

/// What can go wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("the state store is in use by another process")]
    InUse,
    /// The database's own.
    #[error("state store: {0}")]
    Database(#[from] redb::Error),
    /// An entry that does not decode.
    #[error("state store: an entry does not decode: {0}")]
    Decode(#[from] serde_json::Error),
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for StoreError {
            fn from(error: $error) -> StoreError { StoreError::Database(error.into()) }
        }
    )*};
}
from_redb!(redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

/// What this node knows and the pool does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// The node's UUID.
    pub uuid: Uuid,
    /// The pool it belongs to. Raft messages of another pool are refused.
    pub pool: Uuid,
    /// Which epoch of that pool; a survivor of two opens a new one.
    pub epoch: u64,
    /// The node that opened that epoch: two that went on alone opened different ones of the same number.
    pub opener: Uuid,
    /// Told to join a pool and not yet part of it: the node must not found a pool of its own.
    pub joining: bool,
    /// For each volume id, the `start_count` this node last started bricks for.
    pub started: BTreeMap<Uuid, u64>,
    /// The port each of this node's bricks last had, by path.
    pub ports: BTreeMap<String, u16>,
    /// Whether what a GlusterFS left in the working directory is in the pool's state. Until then the directory is not ours to
    /// write.
    #[serde(default = "was_imported")]
    pub imported: bool,
    /// While `joining`: names and addresses of the nodes of the pool to be joined.
    #[serde(default)]
    pub introducers: Vec<String>,
}

/// Stores from before the mark were imported when they were made.
fn was_imported() -> bool {
    true
}

/// The applied state and how far it reaches.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Last applied log entry.
    pub last_applied: Option<LogId<NodeId>>,
    /// Last applied membership.
    pub membership: StoredMembership<NodeId, Place>,
    /// The state.
    pub state: State,
}

impl Machine {
    fn to_snapshot(&self) -> Result<StoredSnapshot, StoreError> {
        let snapshot_id = self.last_applied.map_or_else(|| "empty".to_owned(), |id| id.to_string());
        let meta =
            SnapshotMeta { last_log_id: self.last_applied, last_membership: self.membership.clone(), snapshot_id };
        Ok(StoredSnapshot { meta, data: serde_json::to_vec(&self.state)? })
    }
}

#[derive(Serialize, Deserialize)]
struct StoredSnapshot {
    meta: SnapshotMeta<NodeId, Place>,
    data: Vec<u8>,
}

/// The store. A handle: clones share it.
#[derive(Clone)]
pub struct Store {
    database: Arc<Database>,
    machine: Arc<RwLock<Machine>>,
    local: Arc<RwLock<Local>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Store {
    /// Opens or makes the store at `path`. A new one belongs to a node of UUID `uuid` alone in a pool of its own.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when a second glusterd has it; otherwise the database's.
    pub fn open(path: &Path, uuid: impl FnOnce() -> Uuid) -> Result<Store, StoreError> {
        let database = Database::create(path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse,
            other => StoreError::Database(other.into()),
        })?;
        let transaction = database.begin_write()?;
        let (machine, local) = {
            transaction.open_table(LOG)?;
            let mut meta = transaction.open_table(META)?;
            let machine = get(&meta, MACHINE)?.unwrap_or_default();
            let local = match get(&meta, LOCAL)? {
                Some(local) => local,
                None => {
                    let local = Local {
                        uuid: uuid(),
                        pool: Uuid::new_v4(),
                        epoch: 0,
                        opener: Uuid::nil(),
                        joining: false,
                        started: Default::default(),
                        ports: Default::default(),
                        imported: false,
                        introducers: Vec::new(),
                    };
                    put(&mut meta, LOCAL, &local)?;
                    local
                }
            };
            (machine, local)
        };
        transaction.commit()?;
        Ok(Store {
            database: Arc::new(database),
            machine: Arc::new(RwLock::new(machine)),
            local: Arc::new(RwLock::new(local)),
            changed: Arc::new(watch::Sender::new(0)),
        })
    }

    /// A copy of the applied state.
    pub fn state(&self) -> State {
        self.machine.read().state.clone()
    }

    /// Looks at the applied state without copying it.
    pub fn with_state<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.machine.read().state)
    }

    /// The last applied membership.
    pub fn membership(&self) -> StoredMembership<NodeId, Place> {
        self.machine.read().membership.clone()
    }

    /// Told of each change of the applied state.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What only this node knows.
    pub fn local(&self) -> Local {
        self.local.read().clone()
    }

    /// Changes and stores what only this node knows.
    ///
    /// # Errors
    /// The database's; nothing is changed then.
    pub fn update_local(&self, change: impl FnOnce(&mut Local)) -> Result<(), StoreError> {
        let mut local = self.local.write();
        let mut next = local.clone();
        change(&mut next);
        if next != *local {
            self.put_meta(LOCAL, &next)?;
            *local = next;
        }
        Ok(())
    }

    /// Forgets Raft's log, vote and state, and changes what the node knows: all in one commit. Raft must not be running.
    ///
    /// # Errors
    /// The database's; nothing is changed then.
    pub fn reset(&self, change: impl FnOnce(&mut Local)) -> Result<(), StoreError> {
        self.replace(Machine::default(), None, change)
    }

    /// Makes this node the only member, with the state it would have if its whole log were decided: what a survivor goes on
    /// with. The log goes on from where it ends. Raft must not be running.
    ///
    /// # Errors
    /// The database's; nothing is changed then.
    pub fn stand_alone(&self, place: Place, change: impl FnOnce(&mut Local)) -> Result<(), StoreError> {
        let state = self.state_with_log()?;
        let last = self.last_log_id()?;
        let own = NodeId(self.local().uuid);
        let membership = Membership::new(vec![BTreeSet::from([own])], BTreeMap::from([(own, place)]));
        let machine = Machine { last_applied: last, membership: StoredMembership::new(last, membership), state };
        self.replace(machine, last, change)
    }

    fn replace(
        &self,
        next_machine: Machine,
        purged: Option<LogId<NodeId>>,
        change: impl FnOnce(&mut Local),
    ) -> Result<(), StoreError> {
        let mut local = self.local.write();
        let mut machine = self.machine.write();
        let mut next_local = local.clone();
        change(&mut next_local);
        let transaction = self.database.begin_write()?;
        {
            transaction.delete_table(LOG)?;
            transaction.open_table(LOG)?;
            let mut meta = transaction.open_table(META)?;
            for key in [COMMITTED, PURGED, SNAPSHOT] {
                meta.remove(key)?;
            }
            match purged {
                // Terms only grow, so the vote stays with a log that goes on.
                Some(purged) => {
                    put(&mut meta, PURGED, &purged)?;
                    put(&mut meta, COMMITTED, &Some(purged))?;
                    put(&mut meta, SNAPSHOT, &next_machine.to_snapshot()?)?;
                }
                None => {
                    meta.remove(VOTE)?;
                }
            }
            put(&mut meta, MACHINE, &next_machine)?;
            put(&mut meta, LOCAL, &next_local)?;
        }
        transaction.commit()?;
        *local = next_local;
        *machine = next_machine;
        drop((local, machine));
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }

    fn last_log_id(&self) -> Result<Option<LogId<NodeId>>, StoreError> {
        let transaction = self.database.begin_read()?;
        let log = transaction.open_table(LOG)?;
        Ok(match log.last()? {
            Some((_, entry)) => Some(serde_json::from_slice::<Entry<Types>>(entry.value())?.log_id),
            None => get(&transaction.open_table(META)?, PURGED)?,
        })
    }

    /// The applied state with the whole log applied on top: what a survivor of two goes on with. Entries its peer had
    /// committed are all in here, whether or not word of the commit came.
    ///
    /// # Errors
    /// The database's.
    pub fn state_with_log(&self) -> Result<State, StoreError> {
        let machine = self.machine.read().clone();
        let mut state = machine.state;
        let next = machine.last_applied.map_or(0, |id| id.index + 1);
        for entry in self.entries((Bound::Included(next), Bound::Unbounded))? {
            if let EntryPayload::Normal(command) = entry.payload {
                apply(&mut state, command);
            }
        }
        Ok(state)
    }

    fn put_meta<T: Serialize>(&self, key: &str, value: &T) -> Result<(), StoreError> {
        let transaction = self.database.begin_write()?;
        put(&mut transaction.open_table(META)?, key, value)?;
        transaction.commit()?;
        Ok(())
    }

    fn get_meta<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StoreError> {
        let transaction = self.database.begin_read()?;
        let meta = transaction.open_table(META)?;
        get(&meta, key)
    }

    fn entries(&self, range: (Bound<u64>, Bound<u64>)) -> Result<Vec<Entry<Types>>, StoreError> {
        let transaction = self.database.begin_read()?;
        let log = transaction.open_table(LOG)?;
        log.range(range)?.map(|entry| Ok(serde_json::from_slice(entry?.1.value())?)).collect()
    }

    fn write_log(
        &self,
        write: impl FnOnce(&mut redb::Table<'_, u64, &[u8]>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let transaction = self.database.begin_write()?;
        write(&mut transaction.open_table(LOG)?)?;
        transaction.commit()?;
        Ok(())
    }

    fn store_machine(&self, next: Machine, snapshot: Option<&StoredSnapshot>) -> Result<(), StoreError> {
        let mut machine = self.machine.write();
        let transaction = self.database.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            put(&mut meta, MACHINE, &next)?;
            if let Some(snapshot) = snapshot {
                put(&mut meta, SNAPSHOT, snapshot)?;
            }
        }
        transaction.commit()?;
        let changed = machine.state != next.state || machine.membership != next.membership;
        *machine = next;
        drop(machine);
        if changed {
            self.changed.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    fn snapshot_now(&self) -> Result<StoredSnapshot, StoreError> {
        let snapshot = self.machine.read().to_snapshot()?;
        self.put_meta(SNAPSHOT, &snapshot)?;
        Ok(snapshot)
    }
}

fn get<T: DeserializeOwned>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &str,
) -> Result<Option<T>, StoreError> {
    match table.get(key)? {
        Some(value) => Ok(Some(serde_json::from_slice(value.value())?)),
        None => Ok(None),
    }
}

fn put<T: Serialize>(table: &mut redb::Table<'_, &str, &[u8]>, key: &str, value: &T) -> Result<(), StoreError> {
    table.insert(key, serde_json::to_vec(value)?.as_slice())?;
    Ok(())
}

fn failed(subject: ErrorSubject<NodeId>, verb: ErrorVerb) -> impl FnOnce(StoreError) -> StorageError<NodeId> {
    move |error| StorageIOError::new(subject, verb, AnyError::new(&error)).into()
}

impl RaftLogReader<Types> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<Types>>, StorageError<NodeId>> {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        self.entries(range).map_err(failed(ErrorSubject::Logs, ErrorVerb::Read))
    }
}

impl RaftLogStorage<Types> for Store {
    type LogReader = Store;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError<NodeId>> {
        let read = || -> Result<LogState<Types>, StoreError> {
            let transaction = self.database.begin_read()?;
            let log = transaction.open_table(LOG)?;
            let last_purged_log_id = get(&transaction.open_table(META)?, PURGED)?;
            let last = match log.last()? {
                Some((_, entry)) => Some(serde_json::from_slice::<Entry<Types>>(entry.value())?.log_id),
                None => last_purged_log_id,
            };
            Ok(LogState { last_purged_log_id, last_log_id: last })
        };
        read().map_err(failed(ErrorSubject::Logs, ErrorVerb::Read))
    }

    async fn get_log_reader(&mut self) -> Store {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<NodeId>) -> Result<(), StorageError<NodeId>> {
        self.put_meta(VOTE, vote).map_err(failed(ErrorSubject::Vote, ErrorVerb::Write))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<NodeId>>, StorageError<NodeId>> {
        self.get_meta(VOTE).map_err(failed(ErrorSubject::Vote, ErrorVerb::Read))
    }

    async fn save_committed(&mut self, committed: Option<LogId<NodeId>>) -> Result<(), StorageError<NodeId>> {
        self.put_meta(COMMITTED, &committed).map_err(failed(ErrorSubject::Store, ErrorVerb::Write))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<NodeId>>, StorageError<NodeId>> {
        let committed: Option<Option<LogId<NodeId>>> =
            self.get_meta(COMMITTED).map_err(failed(ErrorSubject::Store, ErrorVerb::Read))?;
        Ok(committed.flatten())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError<NodeId>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let result = self.write_log(|log| {
            for entry in entries {
                log.insert(entry.log_id.index, serde_json::to_vec(&entry)?.as_slice())?;
            }
            Ok(())
        });
        match result {
            Ok(()) => {
                callback.log_io_completed(Ok(()));
                Ok(())
            }
            Err(error) => Err(failed(ErrorSubject::Logs, ErrorVerb::Write)(error)),
        }
    }

    async fn truncate(&mut self, log_id: LogId<NodeId>) -> Result<(), StorageError<NodeId>> {
        self.write_log(|log| Ok(log.retain_in(log_id.index.., |_, _| false)?))
            .map_err(failed(ErrorSubject::Logs, ErrorVerb::Delete))
    }

    async fn purge(&mut self, log_id: LogId<NodeId>) -> Result<(), StorageError<NodeId>> {
        let purge = || -> Result<(), StoreError> {
            let transaction = self.database.begin_write()?;
            put(&mut transaction.open_table(META)?, PURGED, &log_id)?;
            transaction.open_table(LOG)?.retain_in(..=log_id.index, |_, _| false)?;
            transaction.commit()?;
            Ok(())
        };
        purge().map_err(failed(ErrorSubject::Logs, ErrorVerb::Delete))
    }
}

impl RaftSnapshotBuilder<Types> for Store {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError<NodeId>> {
        let snapshot = self.snapshot_now().map_err(failed(ErrorSubject::Snapshot(None), ErrorVerb::Write))?;
        Ok(Snapshot { meta: snapshot.meta, snapshot: Box::new(Cursor::new(snapshot.data)) })
    }
}

impl RaftStateMachine<Types> for Store {
    type SnapshotBuilder = Store;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<NodeId>>, StoredMembership<NodeId, Place>), StorageError<NodeId>> {
        let machine = self.machine.read();
        Ok((machine.last_applied, machine.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Applied>, StorageError<NodeId>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut next = self.machine.read().clone();
        let mut answers = Vec::new();
        for entry in entries {
            next.last_applied = Some(entry.log_id);
            answers.push(match entry.payload {
                EntryPayload::Blank => Applied::default(),
                EntryPayload::Normal(command) => apply(&mut next.state, command),
                EntryPayload::Membership(membership) => {
                    next.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Applied::default()
                }
            });
        }
        for loser in answers.iter().flat_map(|applied| &applied.losers) {
            tracing::warn!("merge: {loser}");
        }
        self.store_machine(next, None).map_err(failed(ErrorSubject::StateMachine, ErrorVerb::Write))?;
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Store {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError<NodeId>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<NodeId, Place>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError<NodeId>> {
        let data = snapshot.into_inner();
        let install = || -> Result<(), StoreError> {
            let next = Machine {
                last_applied: meta.last_log_id,
                membership: meta.last_membership.clone(),
                state: serde_json::from_slice(&data)?,
            };
            self.store_machine(next, Some(&StoredSnapshot { meta: meta.clone(), data: data.clone() }))
        };
        install().map_err(failed(ErrorSubject::Snapshot(Some(meta.signature())), ErrorVerb::Write))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError<NodeId>> {
        let stored: Option<StoredSnapshot> =
            self.get_meta(SNAPSHOT).map_err(failed(ErrorSubject::Snapshot(None), ErrorVerb::Read))?;
        Ok(stored.map(|stored| Snapshot { meta: stored.meta, snapshot: Box::new(Cursor::new(stored.data)) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::testing::{StoreBuilder, Suite};

    struct Builder;

    /// Removes the test's directory when dropped.
    struct Directory(std::path::PathBuf);

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    impl StoreBuilder<Types, Store, Store, Directory> for Builder {
        async fn build(&self) -> Result<(Directory, Store, Store), StorageError<NodeId>> {
            let path = std::env::temp_dir().join(format!("ladrillo-store-{}", Uuid::new_v4()));
            std::fs::create_dir_all(&path).map_err(|error| StorageIOError::write(&error))?;
            let store = Store::open(&path.join("state.redb"), Uuid::new_v4)
                .map_err(failed(ErrorSubject::Store, ErrorVerb::Write))?;
            Ok((Directory(path), store.clone(), store))
        }
    }

    #[test]
    fn keeps_rafts_promises() {
        Suite::test_all(Builder).expect("openraft's storage suite");
    }
}
