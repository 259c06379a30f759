//! What a RocksDB folder says at the next start: after a crash, after damage, and when it is not ours.
//!
//! A crash is a copy of the files as they lie while the engine is open (what a killed process leaves), cut or damaged
//! as a power failure or a bad disk would.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

use meridian_storage::{Batch, Durability, Engine, Read, RocksEngine, RocksOptions, StorageError};
use tempfile::TempDir;

fn open(path: &Path) -> Result<RocksEngine, StorageError> {
    RocksEngine::open(
        path,
        &RocksOptions {
            block_cache_bytes: 1 << 20,
            ..RocksOptions::default()
        },
    )
}

fn key(at: u8) -> Vec<u8> {
    vec![b'k', at]
}

fn write(engine: &RocksEngine, at: u8, durability: Durability) {
    let mut batch = Batch::new();
    batch.put(key(at), vec![at; 200]);
    batch.put(vec![0x80, at], vec![at; 200]);
    engine.write(&batch, durability).unwrap();
}

/// Ten batches, the first five synced; the engine stays open while its files are copied.
fn crashed() -> TempDir {
    let origin = tempfile::tempdir().unwrap();
    let engine = open(origin.path()).unwrap();
    for at in 0..10 {
        write(
            &engine,
            at,
            if at < 5 {
                Durability::Synced
            } else {
                Durability::Buffered
            },
        );
    }
    copy_of(origin.path())
}

/// The files as they lie now; second names of theirs, in a folder of their own, are nothing more.
fn copy_of(origin: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(origin).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            continue;
        }
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// Files with something in them, oldest first.
fn files(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.retain(|path| wanted(path) && fs::metadata(path).unwrap().len() > 0);
    found.sort();
    found
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|ext| ext == "log")
}

fn is_table(path: &Path) -> bool {
    path.extension().is_some_and(|ext| ext == "sst")
}

fn log_of(folder: &Path) -> PathBuf {
    files(folder, is_log).pop().unwrap()
}

fn damage(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    *bytes.get_mut(at).unwrap() ^= 0x5a;
    fs::write(file, bytes).unwrap();
}

fn is_whole(engine: &RocksEngine, at: u8) -> bool {
    let parts = [
        engine.get(&key(at)).unwrap().is_some(),
        engine.get(&[0x80, at]).unwrap().is_some(),
    ];
    assert_eq!(parts[0], parts[1], "batch {at} is torn");
    parts[0]
}

#[test]
fn a_killed_process_loses_nothing_it_has_written() {
    let folder = crashed();
    let engine = open(folder.path()).unwrap();
    assert!((0..10).all(|at| is_whole(&engine, at)));
}

#[test]
fn a_log_cut_anywhere_loses_whole_batches_from_the_end_only() {
    let folder = crashed();
    let len = fs::metadata(log_of(folder.path())).unwrap().len();
    for cut in [1, 100, 430, 700, 1500] {
        let folder = crashed();
        let log = fs::File::options()
            .write(true)
            .open(log_of(folder.path()))
            .unwrap();
        log.set_len(len - cut).unwrap();
        let engine = open(folder.path()).unwrap();
        let whole: Vec<bool> = (0..10).map(|at| is_whole(&engine, at)).collect();
        let kept = whole.iter().take_while(|whole| **whole).count();
        assert!((5..10).contains(&kept), "cut {cut}: {whole:?}");
        assert!(
            whole.iter().skip(kept).all(|whole| !whole),
            "cut {cut} left a hole: {whole:?}"
        );
        write(&engine, 10, Durability::Synced);
        drop(engine);
        assert!(
            is_whole(&open(folder.path()).unwrap(), 10),
            "cut {cut}: not writable afterwards"
        );
    }
}

#[test]
fn a_damaged_record_inside_the_log_is_corruption_and_never_a_shorter_log() {
    let folder = crashed();
    let log = log_of(folder.path());
    let before = fs::read(&log).unwrap();
    damage(&log, before.len() / 3);
    for _ in 0..2 {
        assert!(matches!(
            open(folder.path()),
            Err(StorageError::Corruption { .. })
        ));
    }
    // Looking has changed nothing: with the bytes back, everything is there.
    fs::write(&log, before).unwrap();
    let engine = open(folder.path()).unwrap();
    assert!((0..10).all(|at| is_whole(&engine, at)));
}

#[test]
fn a_damaged_block_on_disk_is_corruption_for_its_readers() {
    let folder = crashed();
    // Opening writes the replayed log out to table files, which the damage then meets.
    drop(open(folder.path()).unwrap());
    let tables = files(folder.path(), is_table);
    assert!(!tables.is_empty());
    for table in &tables {
        damage(table, 40);
    }
    match open(folder.path()) {
        Ok(engine) => assert!(matches!(
            engine.get(&key(0)),
            Err(StorageError::Corruption { .. })
        )),
        Err(error) => assert!(matches!(error, StorageError::Corruption { .. }), "{error}"),
    }
}

#[test]
fn a_second_engine_on_the_folder_is_refused_until_the_first_and_its_views_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path()).unwrap();
    let locked = StorageError::Locked {
        path: folder.path().to_path_buf(),
    };
    assert_eq!(open(folder.path()).err(), Some(locked.clone()));
    let view = engine.view().unwrap();
    drop(engine);
    assert_eq!(open(folder.path()).err(), Some(locked));
    drop(view);
    assert!(open(folder.path()).is_ok());
}

#[test]
fn a_folder_without_its_current_file_is_not_filled_anew() {
    let folder = crashed();
    fs::remove_file(folder.path().join("CURRENT")).unwrap();
    assert!(matches!(
        open(folder.path()),
        Err(StorageError::Corruption { .. })
    ));
}

#[test]
fn a_synced_log_file_that_is_missing_is_corruption() {
    let origin = tempfile::tempdir().unwrap();
    let small = RocksOptions {
        write_buffer_bytes: 1 << 16,
        ..RocksOptions::default()
    };
    let engine = RocksEngine::open(origin.path(), &small).unwrap();
    write(&engine, 0, Durability::Synced);
    // Filling the log family's buffers begins new log files; the first stays, for the record of the state family.
    for at in 0..40 {
        let mut batch = Batch::new();
        batch.put(vec![0x80, at], vec![at; 10_000]);
        engine.write(&batch, Durability::Synced).unwrap();
    }
    let folder = copy_of(origin.path());
    let first = files(folder.path(), is_log).remove(0);
    assert!(first < files(folder.path(), is_log).remove(1));
    fs::remove_file(first).unwrap();
    assert!(matches!(
        open(folder.path()),
        Err(StorageError::Corruption { .. })
    ));
}

#[test]
fn a_folder_with_families_of_somebody_else_is_a_format_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    drop(rocksdb::DB::open_cf(&options, folder.path(), ["default", "strange"]).unwrap());
    assert!(matches!(
        open(folder.path()),
        Err(StorageError::Format { .. })
    ));
}

#[test]
fn a_path_that_is_a_file_is_an_error_and_not_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "not a folder").unwrap();
    assert!(matches!(open(&file), Err(StorageError::Io { .. })));
}
