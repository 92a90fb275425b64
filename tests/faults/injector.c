/* Lets the n-th call of the C library go wrong in the process that it is preloaded into.

   The variables below say which call and how; a process sets its own (injection.py). While `injector_at` is 0,
   a call costs one comparison more. Only calls of the main thread count, unless `injector_everywhere` is set. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MEMORY = 1, MAPS = 2, OUT = 4, IN = 8, FILES = 16 };
enum { FAIL, SHORT, INTERRUPT };

volatile long injector_groups;     /* which calls count */
volatile long injector_at;         /* which of them goes wrong, from 1 on; 0 for none */
volatile long injector_every;      /* not 0: each call whose number is a multiple of `injector_at`, too */
volatile long injector_action;     /* what happens then */
volatile long injector_error;      /* errno for FAIL */
volatile long injector_everywhere; /* calls of other threads count, too */
atomic_long injector_seen;         /* calls that counted; set to 0 beforehand */
atomic_long injector_fired;        /* calls that went wrong */
atomic_long injector_blocks;       /* blocks from malloc and its like, and mappings, that are there now */

static pthread_t main_thread;

__attribute__((constructor)) static void begin(void)
{
    main_thread = pthread_self();
}

/* Whether this call goes wrong; one that is interrupted only hears of a signal, and goes on. */
static int goes_wrong(int group)
{
    if (!injector_at || !(injector_groups & group) || !(injector_everywhere || pthread_equal(pthread_self(), main_thread)))
        return 0;
    long seen = ++injector_seen;
    if (injector_every ? seen % injector_at : seen != injector_at)
        return 0;
    injector_fired++;
    if (injector_action == INTERRUPT)
        raise(SIGINT);
    return injector_action != INTERRUPT;
}

#define REAL(name) ((__typeof__(&name))real(&known_##name, #name))
static void *real(void **known, const char *name)
{
    if (!*known)
        *known = dlsym(RTLD_NEXT, name);
    return *known;
}

/* ------------------------------------------------------------------ memory */

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static void *counted(void *block)
{
    injector_blocks += block != NULL;
    return block;
}

static int no_memory(void)
{
    if (!goes_wrong(MEMORY))
        return 0;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size)
{
    return no_memory() ? NULL : counted(__libc_malloc(size));
}

void *calloc(size_t count, size_t size)
{
    return no_memory() ? NULL : counted(__libc_calloc(count, size));
}

void *realloc(void *block, size_t size)
{
    if (no_memory())
        return NULL;
    void *moved = __libc_realloc(block, size);
    injector_blocks += (block == NULL && moved != NULL) - (block != NULL && moved == NULL && size == 0);
    return moved;
}

void *memalign(size_t alignment, size_t size)
{
    return no_memory() ? NULL : counted(__libc_memalign(alignment, size));
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

int posix_memalign(void **block, size_t alignment, size_t size)
{
    void *found = memalign(alignment, size);
    if (found == NULL)
        return ENOMEM;
    *block = found;
    return 0;
}

void free(void *block)
{
    injector_blocks -= block != NULL;
    __libc_free(block);
}

static void *known_mmap64, *known_munmap;

void *mmap64(void *address, size_t size, int protection, int flags, int file, off64_t offset)
{
    if (goes_wrong(MAPS)) {
        errno = (int)injector_error;
        return MAP_FAILED;
    }
    void *block = REAL(mmap64)(address, size, protection, flags, file, offset);
    injector_blocks += block != MAP_FAILED;
    return block;
}

void *mmap(void *address, size_t size, int protection, int flags, int file, off_t offset)
{
    return mmap64(address, size, protection, flags, file, offset);
}

int munmap(void *block, size_t size)
{
    injector_blocks--;
    return REAL(munmap)(block, size);
}

/* ------------------------------------------------------ bytes in and out */

static int fails(void)
{
    errno = (int)injector_error;
    return injector_action == FAIL;
}

static size_t half(size_t size)
{
    return size > 1 ? size / 2 : size;
}

/* One call that moves `size` bytes, of which a short one moves half. */
#define MOVES(group, name, parameters, size, ...)                                                                           \
    static void *known_##name;                                                                                              \
    ssize_t name parameters                                                                                                 \
    {                                                                                                                       \
        if (goes_wrong(group)) {                                                                                            \
            if (fails())                                                                                                    \
                return -1;                                                                                                  \
            size = half(size);                                                                                              \
        }                                                                                                                   \
        return REAL(name)(__VA_ARGS__);                                                                                     \
    }

MOVES(OUT, write, (int file, const void *data, size_t size), size, file, data, size)
MOVES(OUT, pwrite64, (int file, const void *data, size_t size, off64_t at), size, file, data, size, at)
MOVES(OUT, send, (int file, const void *data, size_t size, int flags), size, file, data, size, flags)
MOVES(IN, read, (int file, void *data, size_t size), size, file, data, size)
MOVES(IN, pread64, (int file, void *data, size_t size, off64_t at), size, file, data, size, at)
MOVES(IN, recv, (int file, void *data, size_t size, int flags), size, file, data, size, flags)

/* Half of the pieces, or half of the only one. */
static struct iovec shorter(const struct iovec *pieces, int *count)
{
    struct iovec first = pieces[0];
    if (*count == 1)
        first.iov_len = half(first.iov_len);
    *count = (int)half((size_t)*count);
    return first;
}

#define MOVES_PIECES(group, name, parameters, ...)                                                                          \
    static void *known_##name;                                                                                              \
    ssize_t name parameters                                                                                                 \
    {                                                                                                                       \
        struct iovec first;                                                                                                 \
        if (goes_wrong(group)) {                                                                                            \
            if (fails())                                                                                                    \
                return -1;                                                                                                  \
            first = shorter(pieces, &count);                                                                                \
            if (count == 1)                                                                                                 \
                pieces = &first;                                                                                            \
        }                                                                                                                   \
        return REAL(name)(__VA_ARGS__);                                                                                     \
    }

MOVES_PIECES(OUT, writev, (int file, const struct iovec *pieces, int count), file, pieces, count)
MOVES_PIECES(IN, readv, (int file, const struct iovec *pieces, int count), file, pieces, count)
MOVES_PIECES(OUT, pwritev64v2, (int file, const struct iovec *pieces, int count, off64_t at, int flags), file, pieces, count, at, flags)
MOVES_PIECES(IN, preadv64v2, (int file, const struct iovec *pieces, int count, off64_t at, int flags), file, pieces, count, at, flags)

static void *known_sendmsg;

ssize_t sendmsg(int file, const struct msghdr *message, int flags)
{
    struct msghdr changed = *message;
    struct iovec first;
    int count = (int)message->msg_iovlen;
    if (count && goes_wrong(OUT)) {
        if (fails())
            return -1;
        first = shorter(message->msg_iov, &count);
        changed.msg_iovlen = (size_t)count;
        if (count == 1)
            changed.msg_iov = &first;
    }
    return REAL(sendmsg)(file, &changed, flags);
}

/* ------------------------------------------------------------------ files */

#define FILE_CALL(name, parameters, ...)                                                                                    \
    static void *known_##name;                                                                                              \
    int name parameters                                                                                                     \
    {                                                                                                                       \
        if (goes_wrong(FILES) && fails())                                                                                   \
            return -1;                                                                                                      \
        return REAL(name)(__VA_ARGS__);                                                                                     \
    }

FILE_CALL(linkat, (int from, const char *old, int to, const char *new, int flags), from, old, to, new, flags)
FILE_CALL(rename, (const char *old, const char *new), old, new)
FILE_CALL(renameat, (int from, const char *old, int to, const char *new), from, old, to, new)
FILE_CALL(fchmod, (int file, mode_t mode), file, mode)
FILE_CALL(fchown, (int file, uid_t user, gid_t group), file, user, group)
FILE_CALL(ftruncate64, (int file, off64_t size), file, size)
FILE_CALL(stat64, (const char *restrict path, struct stat64 *restrict found), path, found)
FILE_CALL(fstat64, (int file, struct stat64 *found), file, found)

/* Nothing here has to outlast a power failure, and a disk that is asked to write each time takes most of it. */
int fsync(int file)
{
    (void)file;
    return goes_wrong(FILES) && fails() ? -1 : 0;
}

static void *known_open64, *known_openat64, *known_fcntl64;

int open64(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    if (goes_wrong(FILES) && fails())
        return -1;
    return REAL(open64)(path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    if (goes_wrong(FILES) && fails())
        return -1;
    return REAL(openat64)(folder, path, flags, mode);
}

/* os.dup is a fcntl, and others too that ask whether a file is inherited. */
int fcntl64(int file, int what, ...)
{
    va_list more;
    va_start(more, what);
    void *argument = va_arg(more, void *);
    va_end(more);
    if (what == F_DUPFD_CLOEXEC && goes_wrong(FILES) && fails())
        return -1;
    return REAL(fcntl64)(file, what, argument);
}
