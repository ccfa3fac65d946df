//! The embedded store: what must outlive a restart, in one file, without a database server.
//!
//! Tables of small JSON values under text keys. Whoever owns a table reads it once at start, keeps it in memory, and writes
//! each change through: nothing is ever looked up here while calls run. One thread writes, and all that has come up while
//! the disk was busy goes into one transaction, so that a hundred callers pay for one `fsync`. Used by `matrix` (delayed
//! leaves, transactions, revocations); opened by `serve`.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use redb::backends::InMemoryBackend;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

/// Inside `data_dir`.
const FILE: &str = "parlour.redb";

/// Bytes. The owners of tables have everything in memory, so only pages about to be written are worth keeping.
const CACHE_SIZE: usize = 4 << 20;

/// A handle; clones are the same store. When the last one goes, what was still to be written is.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// One table of the store: values of `T` by key.
pub struct Table<T> {
    store: Store,
    name: &'static str,
    values: PhantomData<fn(T) -> T>,
}

/// The store did not read or write. What was asked is not on disk, and the next attempt may succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store failed: {0}")]
pub struct StoreError(String);

struct Inner {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

struct Shared {
    pending: Mutex<Pending>,
    arrived: Condvar,
    /// Locked before `pending` by whoever needs both.
    database: Mutex<Place>,
}

/// What is to be written next. A later value of a key replaces an earlier one, so a slow disk costs no memory per change.
#[derive(Default)]
struct Pending {
    /// Table and key → the new value, or `None` to remove it.
    changes: HashMap<(&'static str, String), Option<Vec<u8>>>,
    waiting: Vec<oneshot::Sender<Result<(), StoreError>>>,
    closing: bool,
}

/// Where the database is. After an I/O error redb wants it opened anew: a disk that was full must not need a restart.
struct Place {
    file: Option<PathBuf>,
    open: Option<Database>,
}

impl Store {
    /// Opens or creates the file in `data_dir`, which may not exist yet. The error is a sentence for the operator.
    pub fn open(data_dir: &Path) -> Result<Store, String> {
        let file = data_dir.join(FILE);
        let failed = |what: &str, e: io::Error| {
            format!(
                "data_dir: cannot {what}: {e}; create the folder for the user that runs Parlour, or set data_dir to another one"
            )
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data_dir)
            .map_err(|e| failed(&format!("create {}", data_dir.display()), e))?;
        let handle = open_file(&file).map_err(|e| failed(&format!("open {}", file.display()), e))?;
        let database = catch_unwind(|| checked_database(handle))
            .unwrap_or_else(|_| Err(StorageError::Corrupted("its pages make no sense".to_owned()).into()))
            .map_err(|e| explain(&file, &e))?;
        Store::start(Place { file: Some(file), open: Some(database) })
    }

    /// For tests: forgets everything with its last handle.
    pub fn in_memory() -> Store {
        let database =
            Database::builder().create_with_backend(InMemoryBackend::new()).expect("memory can be written to");
        Store::start(Place { file: None, open: Some(database) }).expect("a thread can be started")
    }

    fn start(place: Place) -> Result<Store, String> {
        let shared =
            Arc::new(Shared { pending: Mutex::default(), arrived: Condvar::new(), database: Mutex::new(place) });
        let writer = thread::Builder::new()
            .name("store".to_owned())
            .spawn({
                let shared = shared.clone();
                move || shared.write_until_closed()
            })
            .map_err(|e| format!("cannot start the thread of the store: {e}"))?;
        Ok(Store { inner: Arc::new(Inner { shared, writer: Some(writer) }) })
    }

    /// The table of that name, which comes into being with its first value.
    pub fn table<T: Serialize + DeserializeOwned>(&self, name: &'static str) -> Table<T> {
        Table { store: self.clone(), name, values: PhantomData }
    }
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Table<T> {
        Table { store: self.store.clone(), ..*self }
    }
}

impl<T: Serialize + DeserializeOwned> Table<T> {
    /// Everything in the table, with the changes that are still on their way to the disk; blocks, so for the start.
    /// A value that this version cannot read is left out and stays where it is.
    pub fn load(&self) -> Result<BTreeMap<String, T>, StoreError> {
        let shared = &self.store.inner.shared;
        let mut database = lock(&shared.database);
        let mut found = database.attempt(|database| read_table(database, self.name))?;
        for ((table, key), value) in &lock(&shared.pending).changes {
            if *table == self.name {
                match value {
                    Some(value) => drop(found.insert(key.clone(), value.clone())),
                    None => drop(found.remove(key)),
                }
            }
        }
        let count = found.len();
        let values: BTreeMap<String, T> =
            found.into_iter().filter_map(|(key, value)| Some((key, serde_json::from_slice(&value).ok()?))).collect();
        if values.len() < count {
            let unreadable = count - values.len();
            tracing::warn!(table = self.name, unreadable, "the store has values of another version; they are ignored");
        }
        Ok(values)
    }

    /// On disk when its future is ready. Changes happen in the order of the calls, whenever the futures are awaited.
    pub fn put(&self, key: &str, value: &T) -> impl Future<Output = Result<(), StoreError>> + Send + use<T> {
        let outcome = encode(value).map(|value| self.change_and_tell(key, Some(value)));
        async move { told(outcome?).await }
    }

    /// Gone from the disk when its future is ready; a key that is not there is fine.
    pub fn remove(&self, key: &str) -> impl Future<Output = Result<(), StoreError>> + Send + use<T> {
        told(self.change_and_tell(key, None))
    }

    /// As [`Table::put`], without waiting: a crash right after may lose it, and a failure is only logged.
    pub fn put_later(&self, key: &str, value: &T) {
        match encode(value) {
            Ok(value) => self.change(key, Some(value), None),
            Err(error) => tracing::error!(table = self.name, %error, "could not store"),
        }
    }

    /// As [`Table::remove`], without waiting.
    pub fn remove_later(&self, key: &str) {
        self.change(key, None, None);
    }

    fn change_and_tell(&self, key: &str, value: Option<Vec<u8>>) -> oneshot::Receiver<Result<(), StoreError>> {
        let (done, outcome) = oneshot::channel();
        self.change(key, value, Some(done));
        outcome
    }

    fn change(&self, key: &str, value: Option<Vec<u8>>, done: Option<oneshot::Sender<Result<(), StoreError>>>) {
        let shared = &self.store.inner.shared;
        let mut pending = lock(&shared.pending);
        pending.changes.insert((self.name, key.to_owned()), value);
        pending.waiting.extend(done);
        shared.arrived.notify_one();
    }
}

async fn told(outcome: oneshot::Receiver<Result<(), StoreError>>) -> Result<(), StoreError> {
    outcome.await.unwrap_or_else(|_| Err(StoreError("its thread ended".to_owned())))
}

impl Drop for Inner {
    fn drop(&mut self) {
        lock(&self.shared.pending).closing = true;
        self.shared.arrived.notify_one();
        // It ends when the rest is written; a panic of it was reported where it happened.
        self.writer.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn write_until_closed(&self) {
        loop {
            let idle = |pending: &mut Pending| pending.changes.is_empty() && !pending.closing;
            // The lock is given back at once: the database's comes first.
            drop(self.arrived.wait_while(lock(&self.pending), idle));
            let mut database = lock(&self.database);
            let Pending { changes, waiting, closing } = {
                let mut pending = lock(&self.pending);
                let closing = pending.closing;
                std::mem::replace(&mut *pending, Pending { closing, ..Pending::default() })
            };
            if !changes.is_empty() {
                let outcome = database.attempt(|database| write(database, &changes));
                if let Err(error) = &outcome {
                    tracing::error!(changes = changes.len(), %error, "could not write to data_dir");
                }
                for done in waiting {
                    // Whoever gave up waiting does not need to know.
                    let _ = done.send(outcome.clone());
                }
            } else if closing {
                return;
            }
        }
    }
}

impl Place {
    /// Does it with the open database, and closes that after a failure, so that the next attempt starts afresh.
    fn attempt<R>(&mut self, work: impl FnOnce(&Database) -> Result<R, redb::Error>) -> Result<R, StoreError> {
        let database = match (&mut self.open, &self.file) {
            (Some(database), _) => database,
            (open, Some(file)) => {
                let opened = catch_unwind(|| checked_database(open_file(file)?));
                open.insert(opened.map_err(panicked)?.map_err(|e| StoreError(e.to_string()))?)
            }
            (None, None) => return Err(StoreError("its memory is gone".to_owned())),
        };
        // redb asserts what it relies on; a page that went bad under us must not end the thread.
        match catch_unwind(AssertUnwindSafe(|| work(database))) {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => {
                self.close();
                Err(StoreError(error.to_string()))
            }
            Err(panic) => {
                self.close();
                Err(panicked(panic))
            }
        }
    }

    fn close(&mut self) {
        if self.file.is_some() {
            let open = self.open.take();
            // Closing writes once more, to the pages that just failed.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(open)));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.close();
    }
}

fn panicked<P>(_: P) -> StoreError {
    StoreError("its pages make no sense".to_owned())
}

/// A panic while one of these locks is held leaves nothing half done: maps and options are changed in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Delay ids and tokens' fates are in it: for our user only, also when an older file was more open.
fn open_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Every page is read against its checksum: few and small they are, and a bad one is better found now than in a call.
fn checked_database(file: File) -> Result<Database, DatabaseError> {
    let mut database = Database::builder().set_cache_size(CACHE_SIZE).create_file(file)?;
    database.check_integrity()?;
    Ok(database)
}

fn explain(file: &Path, error: &DatabaseError) -> String {
    let file = file.display();
    match error {
        DatabaseError::DatabaseAlreadyOpen => format!(
            "data_dir: another process uses {file}; end the other Parlour, or give this one a data_dir of its own"
        ),
        DatabaseError::UpgradeRequired(_) => {
            format!(
                "data_dir: {file} was written by another version of Parlour ({error}); run that one, or move the file away"
            )
        }
        DatabaseError::Storage(StorageError::Io(e))
            if e.kind() != io::ErrorKind::InvalidData && e.kind() != io::ErrorKind::UnexpectedEof =>
        {
            format!("data_dir: cannot read {file}: {e}")
        }
        _ => format!(
            "data_dir: {file} is damaged ({error}). Move it away and start again: calls go on, but Parlour then does not know any more whose leave it was to send, and those members stay in their rooms until their homeserver ends them"
        ),
    }
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|e| StoreError(e.to_string()))
}

fn definition(name: &str) -> TableDefinition<'_, &'static str, &'static [u8]> {
    TableDefinition::new(name)
}

fn read_table(database: &Database, name: &str) -> Result<BTreeMap<String, Vec<u8>>, redb::Error> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(definition(name)) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(BTreeMap::new()),
        table => table?,
    };
    let mut found = BTreeMap::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        found.insert(key.value().to_owned(), value.value().to_owned());
    }
    Ok(found)
}

/// All or nothing, on disk when it returns.
fn write(database: &Database, changes: &HashMap<(&'static str, String), Option<Vec<u8>>>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for ((name, key), value) in changes {
        let mut table = transaction.open_table(definition(name))?;
        match value {
            Some(value) => drop(table.insert(key.as_str(), value.as_slice())?),
            None => drop(table.remove(key.as_str())?),
        }
    }
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests;
