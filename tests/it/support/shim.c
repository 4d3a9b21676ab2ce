/* Preloaded into a node: records the length of each file at its last successful sync, so that a test can cut the tails
   that a power failure would lose. SHIM_LOG: where to record. SHIM_NO_SYNC=1: syncs do nothing, as if they were taken out
   of the program. SHIM_DELAY_US: how much longer each sync takes, for benches on a fast disk. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

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
  if (!real_fsync) real_fsync = dlsym(RTLD_NEXT, "fsync");
  if (!real_fdatasync) real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
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
