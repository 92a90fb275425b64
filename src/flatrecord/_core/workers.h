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
#include "threads.h"

#define FLATRECORD_MAX_WORKERS 31 /* a copy has used up the memory's bandwidth long before */

/* One piece of a job. May be called for several pieces at once, and for the same piece again. */
typedef void (*flatrecord_piece)(void *job, ptrdiff_t i);

typedef struct {
    flatrecord_piece piece;
    void *job;
    ptrdiff_t count;
    ptrdiff_t next; /* the first piece that nobody has taken */
    int helpers;    /* threads of the pool that may do pieces */
    int entered;    /* the pool has it */
    unsigned forks; /* of this process when it entered the pool */
} flatrecord_work;

static struct {
    flatrecord_lock lock;
    flatrecord_condition wanted; /* the threads of the pool wait for it */
    flatrecord_condition left;   /* whoever has the job waits for it */
    flatrecord_work *work;       /* NULL where no job has the pool */
    int threads;                 /* started */
    int seats;                   /* threads that may still join in */
    int inside;                  /* threads that are at a piece of the job, or about to take one */
    int usable;                  /* there are locks, and forks are noticed */
    unsigned forks;              /* how many lie between the first process and this one */
} flatrecord_pool;

/* Whether there are pieces that nobody has taken. */
static inline int flatrecord_has_pieces(const flatrecord_work *work)
{
    return flatrecord_count(&work->next, &flatrecord_pool.lock) < work->count;
}

/* Do one piece that nobody has taken; 0 where there is none. */
static inline int flatrecord_one_piece(flatrecord_work *work)
{
    ptrdiff_t i;
    if (!flatrecord_has_pieces(work))
        return 0;
    i = flatrecord_count_on(&work->next, &flatrecord_pool.lock);
    if (i >= work->count)
        return 0;
    work->piece(work->job, i);
    return 1;
}

static flatrecord_ended flatrecord_worker(void *unused)
{
    flatrecord_work *work;
    (void)unused;
    flatrecord_acquire(&flatrecord_pool.lock);
    for (;;) {
        while (flatrecord_pool.seats == 0)
            flatrecord_wait(&flatrecord_pool.wanted, &flatrecord_pool.lock);
        flatrecord_pool.seats--;
        flatrecord_pool.inside++;
        work = flatrecord_pool.work;
        flatrecord_release(&flatrecord_pool.lock);
        while (flatrecord_one_piece(work))
            ;
        flatrecord_acquire(&flatrecord_pool.lock);
        if (--flatrecord_pool.inside == 0)
            flatrecord_wake(&flatrecord_pool.left);
    }
    return FLATRECORD_ENDED;
}

/* Begin anew, without threads. */
static void flatrecord_make_pool(void)
{
    flatrecord_pool.usable = flatrecord_make_lock(&flatrecord_pool.lock) && flatrecord_make_condition(&flatrecord_pool.wanted) &&
                             flatrecord_make_condition(&flatrecord_pool.left);
    flatrecord_pool.work = NULL;
    flatrecord_pool.threads = flatrecord_pool.seats = flatrecord_pool.inside = 0;
}

/* In a child process there is only the thread that forked. What the others were at, it does not have. */
static void flatrecord_forget_workers(void)
{
    flatrecord_make_pool();
    flatrecord_pool.forks++;
}

/* Notice forks from now on. To be called before anything else: a child that is forked off while another thread has the lock, and
 * does not forget it, waits for that thread for ever. Where it fails, everybody works alone. */
static void flatrecord_watch_forks(void)
{
    flatrecord_make_pool();
    if (!flatrecord_watch_forks_by(flatrecord_forget_workers))
        flatrecord_pool.usable = 0;
}

/* With the GIL: let as many threads of the pool as the work says take pieces of it from now on. */
static void flatrecord_share(flatrecord_work *work)
{
    int i, helpers = work->helpers < FLATRECORD_MAX_WORKERS ? work->helpers : FLATRECORD_MAX_WORKERS;
    work->entered = 0;
    if (helpers < 1 || !flatrecord_pool.usable)
        return;
    flatrecord_acquire(&flatrecord_pool.lock);
    if (flatrecord_pool.work == NULL) {
        if (flatrecord_pool.threads < helpers)
            flatrecord_pool.threads += flatrecord_start_threads(helpers - flatrecord_pool.threads, flatrecord_worker);
        if (helpers > flatrecord_pool.threads)
            helpers = flatrecord_pool.threads;
        flatrecord_pool.work = work;
        flatrecord_pool.seats = helpers;
        work->entered = 1;
        work->forks = flatrecord_pool.forks;
        for (i = 0; i < helpers; i++)
            flatrecord_wake(&flatrecord_pool.wanted);
    }
    flatrecord_release(&flatrecord_pool.lock);
}

/* Let nobody take a further piece, and wait for those that are under way.
 *
 * Not 0 where this process was forked off meanwhile: then the pieces that other threads were at are not done. */
static int flatrecord_settle(flatrecord_work *work)
{
    int forked;
    flatrecord_set_count(&work->next, work->count, &flatrecord_pool.lock);
    if (!work->entered)
        return 0;
    flatrecord_acquire(&flatrecord_pool.lock);
    forked = work->forks != flatrecord_pool.forks;
    if (!forked) {
        flatrecord_pool.seats = 0;
        while (flatrecord_pool.inside > 0)
            flatrecord_wait(&flatrecord_pool.left, &flatrecord_pool.lock);
        flatrecord_pool.work = NULL;
    }
    flatrecord_release(&flatrecord_pool.lock);
    return forked;
}

#if FLATRECORD_POSIX

static void flatrecord_abandon(void *work)
{
    flatrecord_settle((flatrecord_work *)work);
}

#endif

/* With the GIL: do pieces for some milliseconds without it, then look for signals. -1 with an exception set where a handler raises.
 *
 * A daemon thread that wants the GIL back when the interpreter has ended is ended there and then (up to CPython 3.13); also from within
 * the look for signals, which may collect garbage and so run anything. The job is on its stack, so nobody may be at it any more. Where
 * a thread that is ended calls nobody to see to that, the pool stops meanwhile. */
static int flatrecord_slice(flatrecord_work *work, int milliseconds)
{
    volatile int failed;
    PyThreadState *state = PyEval_SaveThread();
    const int64_t began = flatrecord_milliseconds();
    while (flatrecord_is_within(began, milliseconds) && flatrecord_one_piece(work))
        ;
#if FLATRECORD_POSIX
    pthread_cleanup_push(flatrecord_abandon, work);
    PyEval_RestoreThread(state);
    failed = PyErr_CheckSignals();
    pthread_cleanup_pop(0);
#else
    {
        ptrdiff_t next;
        flatrecord_acquire(&flatrecord_pool.lock);
        next = work->next;
        work->next = work->count;
        flatrecord_release(&flatrecord_pool.lock);
        flatrecord_settle(work);
        work->entered = 0;
        PyEval_RestoreThread(state);
        failed = PyErr_CheckSignals();
        if (!failed && next < work->count) {
            work->next = next;
            flatrecord_share(work);
        }
    }
#endif
    return failed;
}

#endif
