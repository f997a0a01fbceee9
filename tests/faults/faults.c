/* Injects faults into the I/O operations of a process. It is loaded before libc (LD_PRELOAD), and counts the operations on
 * the files of one folder. At the n-th operation it kills the process, lets the operation fail, or copies the files as a
 * power cut would leave them. `injection.py` calls these functions.
 *
 *   faults_watch(folder)         count operations on files of this folder, and forget the faults set before
 *   faults_kill(n, half)         SIGKILL instead of operation n; half: do the first half of a write before it
 *   faults_fail(n, error, only)  operation n fails with this errno, and all operations after it unless `only`
 *   faults_power(folder)         after sync n, folder/n has what a power cut leaves at least: each file as of its last
 *                                sync, and the names as of the last sync of the folder
 *   faults_filesystem(number)    statfs reports this type for every file system
 *   faults_no_shared_memory(yes) mmap fails for the files of the folder, as on some file systems
 *   faults_count()               the number of operations
 *   faults_operation(n)          operation n, such as "fdatasync tokens.db-wal"
 *   faults_syncs()               the number of syncs since faults_power
 *
 * Writes to mapped memory are not counted. SQLite writes its -shm file that way, and nothing durable depends on it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

enum { MOST = 4096 };

static char folder[PATH_MAX];
static char power[PATH_MAX];
static char operations[MOST][96];
static long count, kill_at, fail_at, filesystem;
static int half, only, fail_with, inside, syncs, unshared;

void faults_watch(const char *path) {
    snprintf(folder, sizeof folder, "%s/", path);
    count = kill_at = fail_at = 0;
}
void faults_kill(long at, int halfway) { kill_at = at; half = halfway; }
void faults_fail(long at, int error, int only_this) { fail_at = at; fail_with = error; only = only_this; }
void faults_power(const char *path) { snprintf(power, sizeof power, "%s", path); syncs = 0; }
void faults_filesystem(long number) { filesystem = number; }
void faults_no_shared_memory(int yes) { unshared = yes; }
int faults_syncs(void) { return syncs; }
long faults_count(void) { return count; }
const char *faults_operation(long at) { return at >= 1 && at <= count && at <= MOST ? operations[at - 1] : ""; }

static void *libc(const char *name) { return dlsym(RTLD_NEXT, name); }

/* Returns the name within the folder, "." for the folder itself, or NULL for other paths. */
static const char *within(const char *path) {
    size_t length = strlen(folder);
    if (length == 0) return NULL;
    if (strncmp(path, folder, length) == 0) return path + length;
    if (strlen(path) == length - 1 && strncmp(path, folder, length - 1) == 0) return ".";
    return NULL;
}

static const char *name_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return NULL;
    path[length] = 0;
    return within(path);
}

/* Counts an operation. Returns 0: do it; 1: it fails, and errno is set; 2: do half of it, and kill the process. */
static int operation(const char *what, const char *name) {
    if (inside || name == NULL) return 0;
    count++;
    if (count <= MOST) snprintf(operations[count - 1], sizeof operations[0], "%s %s", what, name);
    if (count == kill_at) {
        if (half && strstr(what, "write")) return 2;
        kill(getpid(), SIGKILL);
    }
    if (fail_at && (count == fail_at || (!only && count > fail_at))) {
        errno = fail_with;
        return 1;
    }
    return 0;
}

static void copy(const char *from, const char *to) {
    char block[65536];
    ssize_t got;
    int source = open(from, O_RDONLY), target = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    while (source >= 0 && target >= 0 && (got = read(source, block, sizeof block)) > 0)
        if (write(target, block, got) < 0) break;
    if (source >= 0) close(source);
    if (target >= 0) close(target);
}

/* The files of the folder that were synced, and whether the name was in the folder at its last sync. */
static struct { char name[NAME_MAX + 1], was[NAME_MAX + 1]; int there; } known[64];
static int names;

static int entry(const char *name) {
    int at = 0;
    while (at < names && strcmp(known[at].name, name) != 0) at++;
    if (at == names && names < 63) snprintf(known[names++].name, sizeof known[0].name, "%s", name);
    return at;
}

static void remember(const char *name) {
    known[entry(name)].there = 1;
}

/* A file was renamed. After the next sync of the folder the new name is durable, with the data of the last file sync. */
static void renamed(const char *was, const char *name) {
    if (power[0] == 0 || was == NULL || name == NULL) return;
    snprintf(known[entry(name)].was, sizeof known[0].was, "%s", was);
}

/* Copies what is durable after a sync: folder/n is folder/(n-1) with this file as it is now. If the folder was synced,
 * it has the current names. */
static void synced(const char *name) {
    if (power[0] == 0 || name == NULL || inside) return;
    inside = 1;
    char from[PATH_MAX + 512], to[PATH_MAX + 512];
    int folder_itself = strcmp(name, ".") == 0;
    if (!folder_itself) remember(name);
    syncs++;
    snprintf(to, sizeof to, "%s/%d", power, syncs);
    mkdir(to, 0700);
    for (int at = 0; at < names; at++) {
        snprintf(from, sizeof from, "%s%s", folder, known[at].name);
        const char *was = known[at].name;
        if (folder_itself && access(from, F_OK) != 0) known[at].there = 0;
        if (folder_itself && known[at].was[0] && access(from, F_OK) == 0) {
            known[at].there = 1;
            was = known[at].was;
        }
        if (!known[at].there) continue;
        if (strcmp(name, known[at].name) != 0) snprintf(from, sizeof from, "%s/%d/%s", power, syncs - 1, was);
        snprintf(to, sizeof to, "%s/%d/%s", power, syncs, known[at].name);
        copy(from, to);
        if (folder_itself) known[at].was[0] = 0;
    }
    inside = 0;
}

#define WRITES(NAME, OFFSET)                                                                                            \
    ssize_t NAME(int fd, const void *data, size_t size, OFFSET at) {                                                   \
        static ssize_t (*real)(int, const void *, size_t, OFFSET);                                                     \
        if (!real) real = libc(#NAME);                                                                                 \
        char path[PATH_MAX];                                                                                           \
        switch (operation("write", name_of(fd, path))) {                                                                    \
        case 1: return -1;                                                                                             \
        case 2:                                                                                                        \
            real(fd, data, size / 2, at);                                                                              \
            kill(getpid(), SIGKILL);                                                                                   \
        }                                                                                                              \
        return real(fd, data, size, at);                                                                               \
    }
WRITES(pwrite, off_t)
WRITES(pwrite64, off64_t)

ssize_t write(int fd, const void *data, size_t size) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = libc("write");
    char path[PATH_MAX];
    if (folder[0] && !inside) switch (operation("write", name_of(fd, path))) {
    case 1: return -1;
    case 2:
        real(fd, data, size / 2);
        kill(getpid(), SIGKILL);
    }
    return real(fd, data, size);
}

#define SYNCS(NAME)                                                                                                     \
    int NAME(int fd) {                                                                                                 \
        static int (*real)(int);                                                                                       \
        if (!real) real = libc(#NAME);                                                                                 \
        char path[PATH_MAX];                                                                                           \
        const char *name = folder[0] ? name_of(fd, path) : NULL;                                                       \
        if (operation(#NAME, name)) return -1;                                                                              \
        int done = real(fd);                                                                                           \
        if (done == 0) synced(name);                                                                                   \
        return done;                                                                                                   \
    }
SYNCS(fsync)
SYNCS(fdatasync)

#define TRUNCATES(NAME, OFFSET)                                                                                         \
    int NAME(int fd, OFFSET size) {                                                                                    \
        static int (*real)(int, OFFSET);                                                                               \
        if (!real) real = libc(#NAME);                                                                                 \
        char path[PATH_MAX];                                                                                           \
        if (folder[0] && operation("truncate", name_of(fd, path))) return -1;                                               \
        return real(fd, size);                                                                                         \
    }
TRUNCATES(ftruncate, off_t)
TRUNCATES(ftruncate64, off64_t)

int unlink(const char *path) {
    static int (*real)(const char *);
    if (!real) real = libc("unlink");
    if (operation("unlink", within(path))) return -1;
    return real(path);
}

int rename(const char *from, const char *to) {
    static int (*real)(const char *, const char *);
    if (!real) real = libc("rename");
    if (operation("rename", within(to))) return -1;
    int done = real(from, to);
    if (done == 0) renamed(within(from), within(to));
    return done;
}

int linkat(int one, const char *from, int other, const char *to, int flags) {
    static int (*real)(int, const char *, int, const char *, int);
    if (!real) real = libc("linkat");
    if (operation("link", within(to))) return -1;
    int done = real(one, from, other, to, flags);
    if (done == 0) renamed(within(from), within(to));
    return done;
}

#define STATFS(NAME, TYPE)                                                                                              \
    int NAME(const char *path, struct TYPE *found) {                                                                   \
        static int (*real)(const char *, struct TYPE *);                                                               \
        if (!real) real = libc(#NAME);                                                                                 \
        int done = real(path, found);                                                                                  \
        if (filesystem) found->f_type = filesystem;                                                                    \
        return done;                                                                                                   \
    }
STATFS(statfs, statfs)
STATFS(statfs64, statfs64)

#define MAPS(NAME, OFFSET)                                                                                             \
    void *NAME(void *at, size_t size, int protection, int flags, int fd, OFFSET offset) {                              \
        char path[PATH_MAX];                                                                                           \
        if (unshared && fd >= 0 && name_of(fd, path)) {                                                                \
            errno = ENODEV;                                                                                            \
            return MAP_FAILED;                                                                                         \
        }                                                                                                              \
        return (void *)syscall(SYS_mmap, at, size, protection, flags, fd, offset);                                     \
    }
MAPS(mmap, off_t)
MAPS(mmap64, off64_t)
