//! Opening the files: for use, or only to look.
//!
//! Always true: a store that is opened for use keeps the tables that it has until `add_tables`, so that a checkpoint of
//! it can still be opened by the version that wrote it; looking writes nothing, not even RocksDB's own log. Not here:
//! whether the store may be used (`upgrade`).

use std::path::{Path, PathBuf};

use rocksdb::{Cache, ColumnFamilyDescriptor, DB, DBRecoveryMode, InfoLogger, LogLevel, Options as RocksOptions};

use super::Options;
use super::mark::Mark;
use super::tables::Table;
use crate::error::{Code, Error, Result};

/// The family that every RocksDB has.
const UNUSED: &str = "default";

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
    let mut db = RocksOptions::default();
    db.create_if_missing(true);
    db.create_missing_column_families(fresh);
    db.set_db_write_buffer_size(options.write_buffer_bytes.get());
    // Enough log that memtables fill before it forces them out.
    db.set_max_total_wal_size(4 * options.write_buffer_bytes.get() as u64);
    db.set_max_background_jobs(i32::try_from(options.background_threads.get()).unwrap_or(2));
    db.set_bytes_per_sync(1 << 20);
    db.set_keep_log_file_num(4);
    db.set_max_log_file_size(4 << 20);
    db.set_log_level(LogLevel::Warn);
    recover(options, db, !fresh, |db, families| DB::open_cf_descriptors(db, db_folder(&options.path), families))
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
    Ok(recover(options, RocksOptions::default(), true, |db, families| look_at(path, db, families))?.0)
}

fn look_at(
    path: &Path,
    db: &RocksOptions,
    families: Vec<ColumnFamilyDescriptor>,
) -> std::result::Result<DB, rocksdb::Error> {
    let mut db = db.clone();
    db.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Fatal, |_, _| ()));
    DB::open_cf_descriptors_read_only(&db, db_folder(path), families, false)
}

type Families = Vec<ColumnFamilyDescriptor>;

/// Opens in a way that takes a log which a crash cut, and none that is damaged. A power failure can leave a log that looks
/// damaged behind what was synced: whether that is all, the mark tells, before anything is written.
fn recover(
    options: &Options,
    mut db: RocksOptions,
    is_there: bool,
    open: impl Fn(&RocksOptions, Families) -> std::result::Result<DB, rocksdb::Error>,
) -> Result<(DB, Cache)> {
    let path = &options.path;
    let folder = db_folder(path);
    let mark = Mark::read(&folder).filter(|_| is_there);
    if let Some(mark) = &mark {
        mark.check_manifest(&folder)?;
    }
    let cache = Cache::new_lru_cache(options.block_cache_bytes.get());
    let tables = if is_there { tables_in(options)? } else { Table::ALL.to_vec() };
    db.set_max_open_files(i32::try_from(options.open_files_max.get()).unwrap_or(i32::MAX));
    let families = || families(&tables, options, &cache);
    db.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    let opened = match open(&db, families()) {
        Err(error) if error.kind() == rocksdb::ErrorKind::Corruption => {
            db.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
            let looked = look_at(path, &db, families()).map_err(|_| told(path, error))?;
            if let Some(mark) = &mark {
                mark.check_logs(&folder, &looked)?;
            }
            drop(looked);
            tracing::warn!("the end of the log, which was never synced, cannot be read: going on without it");
            open(&db, families())
        }
        outcome => outcome,
    };
    let opened = opened.map_err(|e| told(path, e))?;
    if let Some(mark) = &mark {
        mark.check_logs(&folder, &opened)?;
    }
    check_files(&folder, &opened)?;
    Ok((opened, cache))
}

/// Whether every table file is there and whole in length; RocksDB looks at the first ones only. It may compact already: a
/// file that it has replaced since it was listed is not missed.
fn check_files(folder: &Path, db: &DB) -> Result<()> {
    let live = || db.live_files().map_err(Error::internal);
    for file in live()? {
        let place = folder.join(file.name.trim_start_matches('/'));
        let found = match std::fs::metadata(&place) {
            Ok(found) => found.len(),
            Err(error) if live()?.iter().any(|still| still.name == file.name) => {
                return Err(at(&place, DAMAGED, error));
            }
            Err(_) => continue,
        };
        if found != file.size as u64 {
            let what = format!("it has {found} bytes, not {}", file.size);
            return Err(at(&place, DAMAGED, std::io::Error::other(what)));
        }
    }
    Ok(())
}

fn families(tables: &[Table], options: &Options, cache: &Cache) -> Families {
    let mut unused = RocksOptions::default();
    // After a full disk RocksDB goes on once the largest buffer fits; this family's would be 64 MiB and is never used.
    unused.set_write_buffer_size(options.write_buffer_bytes.get() / 4);
    let ours = tables.iter().map(|t| ColumnFamilyDescriptor::new(t.name(), of_table(*t, options, cache)));
    ours.chain([ColumnFamilyDescriptor::new(UNUSED, unused)]).collect()
}

fn of_table(table: Table, options: &Options, cache: &Cache) -> RocksOptions {
    table.options(cache, options.write_buffer_bytes.get() / 4)
}

/// The tables that an existing store has. One that we do not know was made by a newer build.
fn tables_in(options: &Options) -> Result<Vec<Table>> {
    let path = &options.path;
    let names = DB::list_cf(&RocksOptions::default(), db_folder(path)).map_err(|e| told(path, e))?;
    let known = |name: &str| Table::ALL.iter().copied().find(|t| t.name() == name);
    match names.iter().find(|name| *name != UNUSED && known(name).is_none()) {
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

const DAMAGED: &str = "is damaged: restore a backup, or move the store away to start anew";
const IN_USE: &str = "is in use: another process has this store open; stop it, or set another storage.path";

/// Why the files do not open, and what to do.
fn told(path: &Path, error: rocksdb::Error) -> Error {
    let text = error.to_string();
    if text.contains("lock hold by current process") || text.contains("While lock file") {
        at(path, IN_USE, error)
    } else if error.kind() == rocksdb::ErrorKind::Corruption || text.contains("No such file") {
        damaged(path, error)
    } else {
        at(path, "cannot be opened", error)
    }
}

/// Which file is damaged, as far as RocksDB says, and what to do.
pub(super) fn damaged(path: &Path, error: rocksdb::Error) -> Error {
    let text = error.to_string();
    let is_file = |word: &&str| word.ends_with(".sst") || word.ends_with(".log") || word.contains("MANIFEST-");
    let words = text.split(|c: char| c.is_whitespace() || ":,;'\"()[]".contains(c));
    let file = words.filter_map(|word| word.rsplit('/').next()).find(is_file);
    let place = file.map_or_else(|| db_folder(path), |file| db_folder(path).join(file));
    at(&place, DAMAGED, error)
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
pub fn free_bytes(path: &Path) -> u64 {
    disk(path).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Bytes of the disk that holds `path`, used and free; everything when the system will not say.
pub fn disk_bytes(path: &Path) -> u64 {
    disk(path).map_or(u64::MAX, |stat| stat.f_blocks.saturating_mul(stat.f_frsize))
}

#[allow(unsafe_code, reason = "statvfs has no safe form in the standard library")]
fn disk(path: &Path) -> Option<libc::statvfs> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: `path` ends with a zero byte and `stat` is a whole statvfs that the call fills.
    unsafe { (libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) == 0).then(|| stat.assume_init()) }
}
