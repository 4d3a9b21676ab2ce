/* Preloaded into a node, so that a test can do to it what it cannot do to the machine.
   SHIM_LOG: where to record the length of each file at its last successful sync; what is longer, a power failure loses.
   SHIM_NO_SYNC=1: syncs do nothing, as if they were taken out of the program. SHIM_DELAY_US: how much longer each sync
   takes, for benches on a fast disk. SHIM_FULL: while this file exists, the disk of SHIM_FULL_DIR is full: a first write
   is cut in the middle, as a real disk does, and further ones fail. SHIM_CLOCK: a file with 8 bytes, the seconds by which
   the wall clock is wrong. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void record(const struct stat *st) {
  const char *path = getenv("SHIM_LOG");
  char line[64];
  if (!path || !S_ISREG(st->st_mode)) return;
  int log = open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);
  if (log < 0) return;
  int n = snprintf(line, sizeof line, "%llu %lld\n", (unsigned long long)st->st_ino, (long long)st->st_size);
  /* One short append is one write, so lines of two threads do not mix. */
  if (write(log, line, n) != n) abort();
  close(log);
}

static int synced(const char *name, int fd) {
  static int (*real_fsync)(int), (*real_fdatasync)(int);
  if (!real_fsync) real_fsync = REAL(fsync);
  if (!real_fdatasync) real_fdatasync = REAL(fdatasync);
  if (getenv("SHIM_NO_SYNC")) return 0;
  struct stat before;
  int known = fstat(fd, &before) == 0;
  int done = name[1] == 's' ? real_fsync(fd) : real_fdatasync(fd);
  const char *delay = getenv("SHIM_DELAY_US");
  if (delay) usleep(atoi(delay));
  /* What was written while the sync ran may not be on disk: the length before it is what counts. */
  if (done == 0 && known) record(&before);
  return done;
}

int fsync(int fd) { return synced("fsync", fd); }
int fdatasync(int fd) { return synced("fdatasync", fd); }

static int is_full(void) {
  const char *flag = getenv("SHIM_FULL");
  return flag && access(flag, F_OK) == 0;
}

static int is_cut;

/* Whether a file is on the disk that is full now. */
static int has_no_room(int fd) {
  const char *folder = getenv("SHIM_FULL_DIR");
  char link[64], path[PATH_MAX];
  if (!folder || !is_full()) {
    is_cut = 0;
    return 0;
  }
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return 0;
  path[n] = 0;
  return strncmp(path, folder, strlen(folder)) == 0;
}

ssize_t write(int fd, const void *bytes, size_t count) {
  static ssize_t (*real)(int, const void *, size_t);
  if (!real) real = REAL(write);
  if (!has_no_room(fd)) return real(fd, bytes, count);
  if (count > 1 && !__sync_lock_test_and_set(&is_cut, 1)) return real(fd, bytes, count / 2);
  errno = ENOSPC;
  return -1;
}

#define NO_ROOM(fd) if (has_no_room(fd)) { errno = ENOSPC; return -1; }

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
  NO_ROOM(fd)
  return REAL(pwrite)(fd, bytes, count, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
  NO_ROOM(fd)
  return REAL(pwrite64)(fd, bytes, count, at);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
  NO_ROOM(fd)
  return REAL(writev)(fd, parts, count);
}
int fallocate(int fd, int mode, off_t at, off_t count) {
  NO_ROOM(fd)
  return REAL(fallocate)(fd, mode, at, count);
}
int fallocate64(int fd, int mode, off64_t at, off64_t count) {
  NO_ROOM(fd)
  return REAL(fallocate64)(fd, mode, at, count);
}

/* Little is left, as on a disk whose last blocks are too few for what is to be written. */
static int seen_full(int done, struct statvfs *st) {
  if (done == 0 && is_full()) st->f_bavail = st->f_bfree = 65536 / st->f_frsize;
  return done;
}
int statvfs(const char *path, struct statvfs *st) { return seen_full(REAL(statvfs)(path, st), st); }
int statvfs64(const char *path, struct statvfs64 *st) {
  return seen_full(REAL(statvfs64)(path, st), (struct statvfs *)st);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  static volatile int64_t *wrong;
  if (!real) real = REAL(clock_gettime);
  int done = real(clock, now);
  const char *path = getenv("SHIM_CLOCK");
  if (done != 0 || !path || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return done;
  if (!wrong) {
    int fd = open(path, O_RDONLY);
    void *bytes = fd < 0 ? MAP_FAILED : mmap(0, 8, PROT_READ, MAP_SHARED, fd, 0);
    if (bytes == MAP_FAILED) return done;
    wrong = bytes;
  }
  now->tv_sec += *wrong;
  return done;
}
