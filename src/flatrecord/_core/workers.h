/* A pool of threads that do the pieces of one job beside the thread that has it.
 *
 * The threads are started when the first job asks for them, stay for the life of the process, and sleep
 * while there is nothing to do. They never touch a Python object and never allocate. Whoever has a job is not
 * dependent on them: it takes pieces itself until none are left, and waits in the end only for
 * those pieces that a thread of the pool is at. One job at a time has the pool; whoever comes meanwhile works
 * alone.
 */
#ifndef FLATRECORD_WORKERS_H
#define FLATRECORD_WORKERS_H

#include <stddef.h>

#include "platform.h"

/* One piece of a job. May be called for several pieces at once, and for the same piece again. */
typedef void (*flatrecord_piece)(void *job, ptrdiff_t i);

typedef struct {
    flatrecord_piece piece;
    void *job;
    ptrdiff_t count;
    ptrdiff_t next; /* the first piece that nobody has taken */
    int entered;    /* the pool has it */
    unsigned forks; /* of this process when it entered the pool */
} flatrecord_work;

#if defined(__unix__) || defined(__APPLE__)

#include <pthread.h>
#include <signal.h>

#define FLATRECORD_MAX_WORKERS 31      /* a copy has used up the memory's bandwidth long before */
#define FLATRECORD_STACK ((size_t)256 << 10)

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wanted; /* the threads of the pool wait for it */
    pthread_cond_t left;   /* whoever has the job waits for it */
    flatrecord_work *work; /* NULL where no job has the pool */
    int threads;           /* started */
    int seats;             /* threads that may still join in */
    int inside;            /* threads that are at a piece of the job, or about to take one */
    int watching;          /* forks are noticed */
    unsigned forks;        /* how many lie between the first process and this one */
} flatrecord_pool = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL, 0, 0, 0, 0, 0};

/* Whether there are pieces that nobody has taken. */
static inline int flatrecord_has_pieces(const flatrecord_work *work)
{
    return __atomic_load_n(&work->next, __ATOMIC_RELAXED) < work->count;
}

/* Do one piece that nobody has taken; 0 where there is none. */
static inline int flatrecord_one_piece(flatrecord_work *work)
{
    ptrdiff_t i;
    if (!flatrecord_has_pieces(work))
        return 0;
    i = __atomic_fetch_add(&work->next, 1, __ATOMIC_RELAXED);
    if (i >= work->count)
        return 0;
    work->piece(work->job, i);
    return 1;
}

static void *flatrecord_worker(void *unused)
{
    flatrecord_work *work;
    (void)unused;
    pthread_mutex_lock(&flatrecord_pool.lock);
    for (;;) {
        while (flatrecord_pool.seats == 0)
            pthread_cond_wait(&flatrecord_pool.wanted, &flatrecord_pool.lock);
        flatrecord_pool.seats--;
        flatrecord_pool.inside++;
        work = flatrecord_pool.work;
        pthread_mutex_unlock(&flatrecord_pool.lock);
        while (flatrecord_one_piece(work))
            ;
        pthread_mutex_lock(&flatrecord_pool.lock);
        if (--flatrecord_pool.inside == 0)
            pthread_cond_signal(&flatrecord_pool.left);
    }
    return NULL;
}

/* In a child process there is only the thread that forked. What the others were at, it does not have. */
static void flatrecord_forget_workers(void)
{
    static const pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static const pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    flatrecord_pool.lock = lock;
    flatrecord_pool.wanted = flatrecord_pool.left = condition;
    flatrecord_pool.work = NULL;
    flatrecord_pool.threads = flatrecord_pool.seats = flatrecord_pool.inside = 0;
    flatrecord_pool.forks++;
}

/* Notice forks from now on. To be called before anything else: a child that is forked off while another thread has the lock, and
 * does not forget it, waits for that thread for ever. Where it fails, everybody works alone. */
static void flatrecord_watch_forks(void)
{
    flatrecord_pool.watching = pthread_atfork(NULL, NULL, flatrecord_forget_workers) == 0;
}

/* Start threads until there are `wanted`, or the system has no more. */
static void flatrecord_start_workers(int wanted)
{
    sigset_t all, before;
    pthread_attr_t attributes;
    pthread_t thread;
    if (flatrecord_pool.threads >= wanted)
        return;
    if (pthread_attr_init(&attributes) != 0)
        return;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, FLATRECORD_STACK);
    /* Signals are for Python's threads, whose system calls they are to interrupt. But not those that
     * a memory access raises: they go to the thread that made it, and kill it in silence where they are blocked. */
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (flatrecord_pool.threads < wanted) {
        if (pthread_create(&thread, &attributes, flatrecord_worker, NULL) != 0)
            break;
#if defined(__linux__) && defined(_GNU_SOURCE)
        pthread_setname_np(thread, "flatrecord"); /* for those who look at a process's threads */
#endif
        flatrecord_pool.threads++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

/* Let up to `helpers` threads of the pool take pieces of `work` from now on. */
static void flatrecord_share(flatrecord_work *work, int helpers)
{
    int i;
    work->entered = 0;
    if (helpers > FLATRECORD_MAX_WORKERS)
        helpers = FLATRECORD_MAX_WORKERS;
    if (helpers < 1 || !flatrecord_pool.watching)
        return;
    pthread_mutex_lock(&flatrecord_pool.lock);
    if (flatrecord_pool.work == NULL) {
        flatrecord_start_workers(helpers);
        if (helpers > flatrecord_pool.threads)
            helpers = flatrecord_pool.threads;
        flatrecord_pool.work = work;
        flatrecord_pool.seats = helpers;
        work->entered = 1;
        work->forks = flatrecord_pool.forks;
        for (i = 0; i < helpers; i++)
            pthread_cond_signal(&flatrecord_pool.wanted);
    }
    pthread_mutex_unlock(&flatrecord_pool.lock);
}

/* Let nobody take a further piece, and wait for those that are under way.
 *
 * Not 0 where this process was forked off meanwhile: then the pieces that other threads were at are not done. */
static int flatrecord_settle(flatrecord_work *work)
{
    int forked;
    __atomic_store_n(&work->next, work->count, __ATOMIC_RELAXED);
    if (!work->entered)
        return 0;
    pthread_mutex_lock(&flatrecord_pool.lock);
    forked = work->forks != flatrecord_pool.forks;
    if (!forked) {
        flatrecord_pool.seats = 0;
        while (flatrecord_pool.inside > 0)
            pthread_cond_wait(&flatrecord_pool.left, &flatrecord_pool.lock);
        flatrecord_pool.work = NULL;
    }
    pthread_mutex_unlock(&flatrecord_pool.lock);
    return forked;
}

static void flatrecord_abandon(void *work)
{
    flatrecord_settle((flatrecord_work *)work);
}

/* With the GIL: do pieces for some milliseconds without it, then look for signals. -1 with an exception set where a handler raises.
 *
 * A daemon thread that wants the GIL back when the interpreter has ended is ended there and then (up to CPython 3.13); also from within
 * the look for signals, which may collect garbage and so run anything. The job is on its stack, so nobody may be at it any more. */
static int flatrecord_slice(flatrecord_work *work, int milliseconds)
{
    volatile int failed;
    PyThreadState *state = PyEval_SaveThread();
    const int64_t until = flatrecord_milliseconds() + milliseconds;
    while (flatrecord_milliseconds() < until && flatrecord_one_piece(work))
        ;
    pthread_cleanup_push(flatrecord_abandon, work);
    PyEval_RestoreThread(state);
    failed = PyErr_CheckSignals();
    pthread_cleanup_pop(0);
    return failed;
}

#else /* without POSIX threads, everybody works alone */

static inline int flatrecord_has_pieces(const flatrecord_work *work)
{
    return work->next < work->count;
}

static inline int flatrecord_one_piece(flatrecord_work *work)
{
    if (!flatrecord_has_pieces(work))
        return 0;
    work->piece(work->job, work->next++);
    return 1;
}

static inline void flatrecord_watch_forks(void)
{
}

static inline void flatrecord_share(flatrecord_work *work, int helpers)
{
    (void)work;
    (void)helpers;
}

static inline int flatrecord_settle(flatrecord_work *work)
{
    work->next = work->count;
    return 0;
}

static inline int flatrecord_slice(flatrecord_work *work, int milliseconds)
{
    PyThreadState *state = PyEval_SaveThread();
    const int64_t until = flatrecord_milliseconds() + milliseconds;
    while (flatrecord_milliseconds() < until && flatrecord_one_piece(work))
        ;
    PyEval_RestoreThread(state);
    return PyErr_CheckSignals();
}

#endif
#endif
