use super::*;
use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;

use proptest::prelude::*;
use serde::Deserialize;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Note {
    text: String,
}

fn note(text: &str) -> Note {
    Note { text: text.to_owned() }
}

fn texts(table: &Table<Note>) -> Vec<(String, String)> {
    table.load().unwrap().into_iter().map(|(key, note)| (key, note.text)).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()
}

#[tokio::test]
async fn what_was_put_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    {
        let store = Store::open(folder.path()).unwrap();
        let table = store.table("notes");
        assert_eq!(texts(&table), [], "a table that was never written to is empty");
        table.put("a", &note("1")).await.unwrap();
        table.put("b", &note("2")).await.unwrap();
        table.put("a", &note("3")).await.unwrap();
        table.remove("b").await.unwrap();
        table.remove("never there").await.unwrap();
        table.put_later("later", &note("4"));
        store.table("others").put("a", &note("5")).await.unwrap();
        assert_eq!(texts(&table), pairs(&[("a", "3"), ("later", "4")]), "what is on its way is told too");
    }
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(texts(&store.table("notes")), pairs(&[("a", "3"), ("later", "4")]));
    assert_eq!(texts(&store.table("others")), pairs(&[("a", "5")]));
    store.table::<Note>("notes").remove_later("a");
    assert_eq!(texts(&store.table("notes")), pairs(&[("later", "4")]));
}

/// The crash is a copy of the file while the store has it open: nothing of ours runs any more when a process is killed.
#[tokio::test]
async fn what_put_returned_from_survives_a_crash() {
    let (folder, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let table = Store::open(folder.path()).unwrap().table("notes");
    for n in 0..20 {
        table.put(&format!("{n:02}"), &note("kept")).await.unwrap();
        fs::copy(folder.path().join(FILE), crashed.path().join(FILE)).unwrap();
        let survivor = Store::open(crashed.path()).unwrap();
        assert_eq!(texts(&survivor.table("notes")).len(), n + 1);
    }
}

#[test]
fn whatever_came_up_while_the_disk_was_busy_is_one_transaction() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = Store::in_memory();
    let disk = lock(&store.inner.shared.database);
    let puts = (0..500).map(|n| {
        let table = store.table("notes");
        async move { table.put(&n.to_string(), &note("x")).await }
    });
    let mut all = Box::pin(futures_util::future::join_all(puts));
    let waker = futures_util::task::noop_waker();
    assert!(all.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    {
        let pending = lock(&store.inner.shared.pending);
        assert_eq!((pending.changes.len(), pending.waiting.len()), (500, 500));
    }
    drop(disk);
    assert!(runtime.block_on(all).iter().all(Result::is_ok));
    assert_eq!(texts(&store.table("notes")).len(), 500);
}

#[test]
fn changes_of_one_key_do_not_pile_up_behind_a_slow_disk() {
    let store = Store::in_memory();
    let table = store.table("notes");
    let disk = lock(&store.inner.shared.database);
    for n in 0..10_000 {
        table.put_later("same", &note(&n.to_string()));
    }
    assert!(lock(&store.inner.shared.pending).changes.len() <= 1);
    drop(disk);
    assert_eq!(texts(&table), pairs(&[("same", "9999")]));
}

#[test]
fn only_our_user_can_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("deeper/still");
    let file = inner.join(FILE);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    drop(Store::open(&inner).unwrap());
    assert_eq!((mode(&inner), mode(&file)), (0o700, 0o600));
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    drop(Store::open(&inner).unwrap());
    assert_eq!(mode(&file), 0o600);
}

#[test]
fn a_second_process_is_told_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let first = Store::open(folder.path()).unwrap();
    let error = Store::open(folder.path()).map(drop).unwrap_err();
    assert!(error.contains("another process uses") && error.contains(FILE), "{error}");
    drop(first);
    Store::open(folder.path()).unwrap();
}

#[test]
fn a_folder_that_cannot_be_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(&file.join("below")).map(drop).unwrap_err();
    assert!(error.contains("data_dir: cannot create") && error.contains("file/below"), "{error}");
}

fn damaged(bytes: &[u8]) -> Result<usize, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(FILE), bytes).unwrap();
    let store = Store::open(folder.path())?;
    store.table::<Note>("notes").load().map(|notes| notes.len()).map_err(|e| e.to_string())
}

#[tokio::test]
async fn a_damaged_file_is_named_with_what_to_do() {
    for bytes in [b"not a database".to_vec(), vec![7; 100_000]] {
        let error = damaged(&bytes).unwrap_err();
        assert!(error.contains(FILE) && error.contains("is damaged") && error.contains("Move it away"), "{error}");
    }
    assert_eq!(damaged(b""), Ok(0), "a file of which nothing was written yet is a new one");
}

/// Changes one byte after the other of a file with values in it: opening either brings all of them, or says that the file
/// is damaged. It never panics and never comes up with less, and neither do writing and closing.
#[tokio::test]
async fn no_flipped_byte_goes_unnoticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let table = Store::open(folder.path()).unwrap().table("notes");
    for n in 0..30 {
        table.put(&n.to_string(), &note(&"long ".repeat(20))).await.unwrap();
    }
    drop(table);
    let whole = fs::read(&path).unwrap();
    // Headers byte by byte, the rest in strides: each try writes and checks the whole file.
    let positions = (0..320).chain((320..whole.len()).step_by(whole.len() / 100));
    let mut noticed = 0;
    for position in positions {
        let mut file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all(&whole).unwrap();
        file.set_len(whole.len() as u64).unwrap();
        file.seek(SeekFrom::Start(position as u64)).unwrap();
        file.write_all(&[whole[position] ^ 0x55]).unwrap();
        match Store::open(folder.path()) {
            Ok(store) => {
                let table = store.table("notes");
                assert_eq!(texts(&table).len(), 30, "byte {position}");
                let _ = table.put("more", &note("x")).await;
            }
            Err(error) => {
                noticed += 1;
                assert!(error.contains("is damaged") || error.contains("another version"), "{error}");
            }
        }
    }
    assert!(noticed > 10, "{noticed}");
}

#[test]
fn a_value_of_another_version_does_not_hide_the_others() {
    let store = Store::in_memory();
    store.table("notes").put_later("number", &7);
    store.table("notes").put_later("text", &note("read"));
    assert_eq!(texts(&store.table("notes")), pairs(&[("text", "read")]));
    assert_eq!(store.table::<u32>("notes").load().unwrap().len(), 1, "it is still there");
}

/// A file size limit stands in for a full disk. It holds for a whole process, and its signal must be ignored from the start,
/// so the test runs itself in a process of its own.
#[test]
fn a_full_disk_is_an_error_and_not_the_end() {
    const WITHIN: &str = "PARLOUR_TEST_FULL_DISK";
    if std::env::var_os(WITHIN).is_none() {
        let name = "store::tests::a_full_disk_is_an_error_and_not_the_end";
        let status = std::process::Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" --exact \"$1\""])
            .args([std::env::current_exe().unwrap().as_os_str(), name.as_ref()])
            .env(WITHIN, "1")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let table = Store::open(folder.path()).unwrap().table("notes");
        table.put("before", &note("kept")).await.unwrap();
        let size = fs::metadata(folder.path().join(FILE)).unwrap().len();
        let large = note(&"x".repeat(8 << 20));
        let (_, hard) = rlimit::getrlimit(rlimit::Resource::FSIZE).unwrap();
        rlimit::setrlimit(rlimit::Resource::FSIZE, size, hard).unwrap();
        assert!(table.put("large", &large).await.is_err());
        assert!(table.put("large", &large).await.is_err());
        rlimit::setrlimit(rlimit::Resource::FSIZE, hard, hard).unwrap();
        table.put("after", &note("written")).await.unwrap();
        assert_eq!(texts(&table), pairs(&[("after", "written"), ("before", "kept")]));
    });
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    PutLater(u8, u8),
    Remove(u8),
    RemoveLater(u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0u8..6;
    prop_oneof![
        (key.clone(), any::<u8>()).prop_map(|(k, v)| Step::Put(k, v)),
        (key.clone(), any::<u8>()).prop_map(|(k, v)| Step::PutLater(k, v)),
        key.clone().prop_map(Step::Remove),
        key.prop_map(Step::RemoveLater),
        Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn it_is_a_map_that_survives(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut table: Table<u8> = Store::open(folder.path()).unwrap().table("map");
        let mut model = BTreeMap::new();
        for step in steps {
            match step {
                Step::Put(k, v) => {
                    runtime.block_on(table.put(&k.to_string(), &v)).unwrap();
                    model.insert(k.to_string(), v);
                }
                Step::PutLater(k, v) => {
                    table.put_later(&k.to_string(), &v);
                    model.insert(k.to_string(), v);
                }
                Step::Remove(k) => {
                    runtime.block_on(table.remove(&k.to_string())).unwrap();
                    model.remove(&k.to_string());
                }
                Step::RemoveLater(k) => {
                    table.remove_later(&k.to_string());
                    model.remove(&k.to_string());
                }
                Step::Reopen => {
                    drop(table);
                    table = Store::open(folder.path()).unwrap().table("map");
                }
            }
            prop_assert_eq!(&table.load().unwrap(), &model);
        }
    }
}

#[tokio::test]
async fn the_last_handle_waits_for_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    for n in 0..200 {
        store.table("notes").put_later(&n.to_string(), &note("x"));
    }
    let other = store.clone();
    drop(store);
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop(other);
    assert_eq!(texts(&Store::open(folder.path()).unwrap().table("notes")).len(), 200);
}
