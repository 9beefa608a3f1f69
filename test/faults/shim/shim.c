/*
 * A library that is loaded before the C library (LD_PRELOAD) and spoils one of the program's calls to file system and network.
 *
 * It counts the calls of one process, in one sequence over all kinds of call and all threads. Counted are calls on paths below one folder and on
 * descriptors opened there, and calls on sockets of the internet; all others pass. What it is told stands in the environment:
 *
 *   MANIFOLD_SHIM_ROOT  the folder, as an absolute path
 *   MANIFOLD_SHIM_AT    the number of the call to spoil, from 1; absent or 0: none. A call that cannot fail so leaves it to the next that can.
 *   MANIFOLD_SHIM_MODE  kill: the process dies by SIGKILL before the call; short: half of what is to be written is; full: that, and then ENOSPC for
 *                       ever; EIO, ENOSPC, EMFILE, ECONNRESET: the call fails with it, undone
 *   MANIFOLD_SHIM_FROM  1: that call and all after it that can; else that call alone
 *   MANIFOLD_SHIM_ONLY  given: calls alone whose path holds this text, or "socket", are counted
 *   MANIFOLD_SHIM_LOG   a file that gets a line for each call: number, kind, name, path; a '!' before the line of a spoiled one
 *
 * Node is linked against the C library, SQLite inside it too, so all of their calls come by here; libuv reaches some by syscall(). With
 * UV_USE_IO_URING=0 none goes through a ring, and with UV_THREADPOOL_SIZE=1 the sequence is nearly the same in each run. Compared with strace
 * for the pinned Node: what is missing are calls that only ask (stat, realpath, statfs), chmod, fcntl (locks) and close.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Kinds of call, which decide what each can fail with. LOOKS changes nothing; REMOVES frees space, so a full disk does not refuse it. */
enum { OPENS = 'o', CREATES = 'c', READS = 'r', WRITES = 'w', SYNCS = 's', NAMES = 'n', REMOVES = 'u', LOOKS = 'l', NETWORK = 'N', CONNECTS = 'C' };
enum { PASS = 0, SHORT = -1 };
#define DESCRIPTORS 4096

static const char *root, *only, *mode;
static int at, from, failure, logged = -1;
static atomic_int calls, fired;
/* By descriptor: the path below the root, or "socket"; 0 where the call passes. */
static const char *_Atomic marks[DESCRIPTORS];

#define REAL(name) ({ static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name); real; })

static int error_of(const char *name) {
  static const struct { const char *name; int number; } errors[] = {
    { "EIO", EIO }, { "ENOSPC", ENOSPC }, { "full", ENOSPC }, { "EMFILE", EMFILE }, { "ECONNRESET", ECONNRESET },
  };
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) if (!strcmp(name, errors[i].name)) return errors[i].number;
  return 0;
}

__attribute__((constructor)) static void begin(void) {
  const char *given = getenv("MANIFOLD_SHIM_ROOT"), *log = getenv("MANIFOLD_SHIM_LOG");
  only = getenv("MANIFOLD_SHIM_ONLY");
  mode = getenv("MANIFOLD_SHIM_MODE") ? getenv("MANIFOLD_SHIM_MODE") : "kill";
  at = getenv("MANIFOLD_SHIM_AT") ? atoi(getenv("MANIFOLD_SHIM_AT")) : 0;
  from = getenv("MANIFOLD_SHIM_FROM") != NULL || !strcmp(mode, "full");
  failure = error_of(mode);
  if (log) logged = (int)REAL(syscall)(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  root = given;
}

/* The part of the path below the root; NULL where it lies elsewhere. */
static const char *below(const char *path) {
  size_t length = root ? strlen(root) : 0;
  if (!length || !path || strncmp(path, root, length) || (path[length] && path[length] != '/')) return NULL;
  return path + length;
}
static const char *mark_of(int fd) { return fd >= 0 && fd < DESCRIPTORS ? atomic_load(&marks[fd]) : NULL; }
/* Marks are few and live as long as the process. */
static int mark(int fd, const char *path) {
  if (fd >= 0 && fd < DESCRIPTORS) atomic_store(&marks[fd], path ? strdup(path) : NULL);
  return fd;
}

static int can(int kind) {
  if (!strcmp(mode, "kill")) return 1;
  int network = kind == NETWORK || kind == CONNECTS;
  if (failure == ECONNRESET) return network;
  if (failure == EMFILE) return kind == OPENS || kind == CREATES || kind == LOOKS || kind == CONNECTS;
  if (network) return 0;
  if (failure == ENOSPC) return kind == CREATES || kind == WRITES || kind == SYNCS || kind == NAMES;
  return failure == EIO || kind == WRITES;
}

/* One counted call. PASS: do it; SHORT: do half of it; else fail with this errno. */
static int strike(int kind, const char *name, const char *path) {
  if (only && !strstr(path, only)) return PASS;
  int number = atomic_fetch_add(&calls, 1) + 1;
  int hit = at > 0 && number >= at && can(kind) && (from || !atomic_exchange(&fired, 1));
  int first = hit && !(from && atomic_exchange(&fired, 1));
  if (logged >= 0) {
    char line[512];
    int length = snprintf(line, sizeof line, "%s%d %c %s %s\n", hit ? "!" : "", number, kind, name, path);
    REAL(syscall)(SYS_write, logged, line, length < (int)sizeof line ? length : (int)sizeof line - 1);
  }
  if (!hit) return PASS;
  if (!strcmp(mode, "kill")) { REAL(kill)(getpid(), SIGKILL); for (;;) pause(); }
  if (!failure || (!strcmp(mode, "full") && first && kind == WRITES)) return SHORT;
  return failure;
}
static int failing(int verdict) {
  if (verdict > 0) errno = verdict;
  return verdict > 0;
}

static int opened(const char *name, int directory, const char *path, int flags, mode_t bits) {
  const char *part = below(path);
  int kind = flags & O_CREAT ? CREATES : OPENS;
  if (part && failing(strike(kind, name, part))) return -1;
  return mark(REAL(openat)(directory, path, flags, bits), part);
}
#define BITS(flags) mode_t bits = 0; if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list rest; va_start(rest, flags); bits = va_arg(rest, mode_t); va_end(rest); }
int open(const char *path, int flags, ...) { BITS(flags) return opened("open", AT_FDCWD, path, flags, bits); }
int open64(const char *path, int flags, ...) { BITS(flags) return opened("open", AT_FDCWD, path, flags, bits); }
int openat(int directory, const char *path, int flags, ...) { BITS(flags) return opened("open", directory, path, flags, bits); }
int openat64(int directory, const char *path, int flags, ...) { BITS(flags) return opened("open", directory, path, flags, bits); }

int socket(int domain, int type, int protocol) {
  int counted = domain == AF_INET || domain == AF_INET6;
  if (counted && failing(strike(CONNECTS, "socket", "socket"))) return -1;
  return mark(REAL(socket)(domain, type, protocol), counted ? "socket" : NULL);
}
int connect(int fd, const struct sockaddr *address, socklen_t length) {
  if (mark_of(fd) && failing(strike(NETWORK, "connect", "socket"))) return -1;
  return REAL(connect)(fd, address, length);
}
int close(int fd) { mark(fd, NULL); return REAL(close)(fd); }

static int on(int fd, int kind, const char *name) {
  const char *path = mark_of(fd);
  return path ? strike(!strcmp(path, "socket") ? NETWORK : kind, name, path) : PASS;
}
/* A call over one buffer. */
#define BUFFER(kind, name, parameters, arguments) \
  ssize_t name parameters { \
    int verdict = on(fd, kind, #name); \
    if (failing(verdict)) return -1; \
    if (verdict == SHORT && size > 1) size /= 2; \
    return REAL(name) arguments; \
  }
BUFFER(READS, read, (int fd, void *data, size_t size), (fd, data, size))
BUFFER(READS, pread64, (int fd, void *data, size_t size, off64_t place), (fd, data, size, place))
BUFFER(WRITES, write, (int fd, const void *data, size_t size), (fd, data, size))
BUFFER(WRITES, pwrite64, (int fd, const void *data, size_t size, off64_t place), (fd, data, size, place))
BUFFER(WRITES, send, (int fd, const void *data, size_t size, int flags), (fd, data, size, flags))
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  return failing(on(fd, WRITES, "sendmsg")) ? -1 : REAL(sendmsg)(fd, message, flags);
}

/* A call over several buffers: half of it is its first half of buffers, or half of the only one. */
#define VECTOR(kind, name, parameters, arguments) \
  ssize_t name parameters { \
    int verdict = on(fd, kind, #name); \
    struct iovec half; \
    if (failing(verdict)) return -1; \
    if (verdict == SHORT && count > 1) count /= 2; \
    else if (verdict == SHORT && vector->iov_len > 1) { half = *vector; half.iov_len /= 2; vector = &half; } \
    return REAL(name) arguments; \
  }
VECTOR(READS, readv, (int fd, const struct iovec *vector, int count), (fd, vector, count))
VECTOR(READS, preadv, (int fd, const struct iovec *vector, int count, off_t place), (fd, vector, count, place))
VECTOR(READS, preadv64, (int fd, const struct iovec *vector, int count, off64_t place), (fd, vector, count, place))
VECTOR(WRITES, writev, (int fd, const struct iovec *vector, int count), (fd, vector, count))
VECTOR(WRITES, pwritev, (int fd, const struct iovec *vector, int count, off_t place), (fd, vector, count, place))
VECTOR(WRITES, pwritev64, (int fd, const struct iovec *vector, int count, off64_t place), (fd, vector, count, place))

#define ON_DESCRIPTOR(kind, name, parameters, arguments) \
  int name parameters { return failing(on(fd, kind, #name)) ? -1 : REAL(name) arguments; }
ON_DESCRIPTOR(SYNCS, fsync, (int fd), (fd))
ON_DESCRIPTOR(SYNCS, fdatasync, (int fd), (fd))
ON_DESCRIPTOR(REMOVES, ftruncate64, (int fd, off64_t size), (fd, size))

#define ON_PATH(kind, name, parameters, path, arguments) \
  int name parameters { const char *part = below(path); return part && failing(strike(kind, #name, part)) ? -1 : REAL(name) arguments; }
ON_PATH(NAMES, mkdir, (const char *path, mode_t bits), path, (path, bits))
ON_PATH(REMOVES, unlink, (const char *path), path, (path))
ON_PATH(NAMES, rename, (const char *path, const char *new_path), new_path, (path, new_path))
ON_PATH(NAMES, link, (const char *path, const char *new_path), new_path, (path, new_path))
ON_PATH(LOOKS, scandir64, (const char *path, struct dirent64 ***found, int (*filter)(const struct dirent64 *),
  int (*order)(const struct dirent64 **, const struct dirent64 **)), path, (path, found, filter, order))

/* libuv reaches these by number where it does not trust the C library to have them. */
long syscall(long number, ...) {
  long a[6];
  va_list rest;
  va_start(rest, number);
  for (int i = 0; i < 6; i++) a[i] = va_arg(rest, long);
  va_end(rest);
  int verdict = PASS;
  if (number == SYS_preadv || number == SYS_preadv2) verdict = on((int)a[0], READS, "preadv");
  else if (number == SYS_pwritev || number == SYS_pwritev2) verdict = on((int)a[0], WRITES, "pwritev");
  if (failing(verdict)) return -1;
  return REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
