//! Opening the files: for use, or only to look.
//!
//! Always true: a store that is opened for use keeps the tables that it has until `add_tables`, so that a checkpoint of
//! it can still be opened by the version that wrote it; looking writes nothing, not even RocksDB's own log. Not here:
//! whether the store may be used (`upgrade`).

use std::path::{Path, PathBuf};

use rocksdb::{Cache, ColumnFamilyDescriptor, DB, DBRecoveryMode, InfoLogger, LogLevel, Options as RocksOptions};

use super::Options;
use super::tables::Table;
use crate::error::{Code, Error, Result};

/// The folder of RocksDB's files inside the store's.
pub(super) fn db_folder(path: &Path) -> PathBuf {
    path.join("db")
}

/// Whether a store is in the folder already.
pub fn exists(path: &Path) -> bool {
    db_folder(path).join("CURRENT").exists()
}

/// The database to use, and the cache that its tables share.
pub(super) fn open(options: &Options) -> Result<(DB, Cache)> {
    std::fs::create_dir_all(&options.path).map_err(|e| at(&options.path, "cannot be created", e))?;
    let fresh = !exists(&options.path);
    let mut db = common();
    db.create_if_missing(true);
    db.create_missing_column_families(fresh);
    db.set_db_write_buffer_size(options.write_buffer_bytes.get());
    // Enough log that memtables fill before it forces them out.
    db.set_max_total_wal_size(4 * options.write_buffer_bytes.get() as u64);
    db.set_max_open_files(i32::try_from(options.open_files_max.get()).unwrap_or(i32::MAX));
    db.set_max_background_jobs(i32::try_from(options.background_threads.get()).unwrap_or(2));
    db.set_bytes_per_sync(1 << 20);
    db.set_keep_log_file_num(4);
    db.set_max_log_file_size(4 << 20);
    db.set_log_level(LogLevel::Warn);
    let cache = Cache::new_lru_cache(options.block_cache_bytes.get());
    let tables = if fresh { Table::ALL.to_vec() } else { tables_in(options)? };
    let families = tables.iter().map(|t| ColumnFamilyDescriptor::new(t.name(), of_table(*t, options, &cache)));
    let db = DB::open_cf_descriptors(&db, db_folder(&options.path), families).map_err(|e| told(&options.path, e))?;
    Ok((db, cache))
}

/// Makes the tables of this build that the store does not have yet.
pub(super) fn add_tables(db: &mut DB, options: &Options, cache: &Cache) -> Result<()> {
    for table in Table::ALL {
        if db.cf_handle(table.name()).is_none() {
            db.create_cf(table.name(), &of_table(*table, options, cache)).map_err(Error::internal)?;
        }
    }
    Ok(())
}

/// The database to look at. Nothing is written.
///
/// # Errors
/// As [`open`]; a node that uses the store would change it under our eyes, so that is refused too.
pub(super) fn look(options: &Options) -> Result<DB> {
    let path = &options.path;
    if !exists(path) {
        return Err(Error::invalid(format!("there is no store in {}; set storage.path", path.display())));
    }
    if in_use(path) {
        return Err(Error::invalid(format!("{} {IN_USE}", path.display())));
    }
    let mut db = common();
    db.set_max_open_files(i32::try_from(options.open_files_max.get()).unwrap_or(i32::MAX));
    db.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Fatal, |_, _| ()));
    let cache = Cache::new_lru_cache(options.block_cache_bytes.get());
    let tables = tables_in(options)?;
    let families = tables.iter().map(|t| ColumnFamilyDescriptor::new(t.name(), of_table(*t, options, &cache)));
    DB::open_cf_descriptors_read_only(&db, db_folder(path), families, false).map_err(|e| told(path, e))
}

/// What both ways of opening obey.
fn common() -> RocksOptions {
    let mut db = RocksOptions::default();
    db.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    db
}

fn of_table(table: Table, options: &Options, cache: &Cache) -> RocksOptions {
    table.options(cache, options.write_buffer_bytes.get() / 4)
}

/// The tables that an existing store has. One that we do not know was made by a newer build.
fn tables_in(options: &Options) -> Result<Vec<Table>> {
    let path = &options.path;
    let names = DB::list_cf(&common(), db_folder(path)).map_err(|e| told(path, e))?;
    let known = |name: &str| Table::ALL.iter().copied().find(|t| t.name() == name);
    match names.iter().find(|name| *name != "default" && known(name).is_none()) {
        Some(name) => Err(Error::new(
            Code::Internal,
            format!(
                "{} was written by a newer tidemill (it has the table {name:?}): start that one, or restore a backup",
                path.display()
            ),
        )),
        None => Ok(names.iter().filter_map(|name| known(name)).collect()),
    }
}

const IN_USE: &str = "is in use: another process has this store open; stop it, or set another storage.path";

/// Why the files do not open, and what to do.
fn told(path: &Path, error: rocksdb::Error) -> Error {
    let text = error.to_string();
    if text.contains("lock hold by current process") || text.contains("While lock file") {
        at(path, IN_USE, error)
    } else if error.kind() == rocksdb::ErrorKind::Corruption {
        at(path, "is damaged: restore a backup, or move it away to start anew", error)
    } else {
        at(path, "cannot be opened", error)
    }
}

pub(super) fn at(path: &Path, what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let mut told = Error::internal(error);
    told.message = format!("{} {what}", path.display());
    told
}

/// Whether another process has the store open. It must not be asked by the one that has it open itself: closing the lock
/// file here would end that process's lock.
#[allow(unsafe_code, reason = "asking for a record lock has no safe form in the standard library")]
pub fn in_use(path: &Path) -> bool {
    use std::os::fd::AsRawFd;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(db_folder(path).join("LOCK"));
    let Ok(file) = file else { return false };
    // SAFETY: a flock of zeros is a valid one: from the start to the end of the file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    (lock.l_type, lock.l_whence) = (lock_word(libc::F_WRLCK), lock_word(libc::SEEK_SET));
    // SAFETY: the descriptor is open and `lock` is a whole flock, which the call fills.
    let asked = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut lock) };
    asked == 0 && lock.l_type != lock_word(libc::F_UNLCK)
}

/// The system's header gives these small numbers as an int, its struct holds a short.
fn lock_word(word: libc::c_int) -> libc::c_short {
    libc::c_short::try_from(word).unwrap_or_default()
}

/// Bytes free on the disk that holds `path`; everything when the system will not say.
#[allow(unsafe_code, reason = "statvfs has no safe form in the standard library")]
pub fn free_bytes(path: &Path) -> u64 {
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) else { return u64::MAX };
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: `path` ends with a zero byte and `stat` is a whole statvfs that the call fills.
    let stat = unsafe {
        if libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) != 0 {
            return u64::MAX;
        }
        stat.assume_init()
    };
    stat.f_bavail.saturating_mul(stat.f_frsize)
}
