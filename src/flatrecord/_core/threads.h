/* Threads, and what several of them may change: POSIX's and the compiler's atomics, or else what CPython has for all systems.
 *
 * CPython's lock may be let go of by another thread than the one that has it. Conditions and flags are made of it, and counters are
 * guarded by one. Where CPython had no memory for a lock, there is none: then one thread does everything.
 */
#ifndef FLATRECORD_THREADS_H
#define FLATRECORD_THREADS_H

#include <stddef.h>

#include "platform.h"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

/* Have `forget` called in every child process, which has only the thread that forked; 0 where that cannot be. */
static inline int flatrecord_watch_forks_by(void (*forget)(void))
{
#if defined(__unix__) || defined(__APPLE__)
    return pthread_atfork(NULL, NULL, forget) == 0;
#else
    (void)forget;
    return 1; /* there are no such processes */
#endif
}

#if FLATRECORD_POSIX

#include <signal.h>

#define FLATRECORD_STACK ((size_t)256 << 10)

typedef pthread_mutex_t flatrecord_lock;
typedef pthread_cond_t flatrecord_condition;
typedef char flatrecord_flag;
typedef void *flatrecord_ended; /* what a thread's function returns, which is */
#define FLATRECORD_ENDED NULL

static inline int flatrecord_make_lock(flatrecord_lock *lock)
{
    static const pthread_mutex_t made = PTHREAD_MUTEX_INITIALIZER;
    *lock = made;
    return 1;
}

static inline void flatrecord_acquire(flatrecord_lock *lock)
{
    pthread_mutex_lock(lock);
}

static inline void flatrecord_release(flatrecord_lock *lock)
{
    pthread_mutex_unlock(lock);
}

static inline int flatrecord_make_condition(flatrecord_condition *condition)
{
    static const pthread_cond_t made = PTHREAD_COND_INITIALIZER;
    *condition = made;
    return 1;
}

static inline void flatrecord_wait(flatrecord_condition *condition, flatrecord_lock *lock)
{
    pthread_cond_wait(condition, lock);
}

static inline void flatrecord_wake(flatrecord_condition *condition)
{
    pthread_cond_signal(condition);
}

static inline int flatrecord_make_flag(flatrecord_flag *flag)
{
    *flag = 0;
    return 1;
}

/* Raise a flag; 0 where it is up already. */
static inline int flatrecord_raise(flatrecord_flag *flag)
{
    return !__atomic_test_and_set(flag, __ATOMIC_ACQUIRE);
}

static inline void flatrecord_lower(flatrecord_flag *flag)
{
    __atomic_clear(flag, __ATOMIC_RELEASE);
}

/* A counter, which only the other way of doing this needs a lock for. */
static inline ptrdiff_t flatrecord_count(const ptrdiff_t *counter, flatrecord_lock *lock)
{
    (void)lock;
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static inline ptrdiff_t flatrecord_count_on(ptrdiff_t *counter, flatrecord_lock *lock)
{
    (void)lock;
    return __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

static inline void flatrecord_set_count(ptrdiff_t *counter, ptrdiff_t value, flatrecord_lock *lock)
{
    (void)lock;
    __atomic_store_n(counter, value, __ATOMIC_RELAXED);
}

/* Start so many threads; how many were started. */
static inline int flatrecord_start_threads(int wanted, flatrecord_ended (*function)(void *))
{
    sigset_t all, before;
    pthread_attr_t attributes;
    pthread_t thread;
    int started;
    if (pthread_attr_init(&attributes) != 0)
        return 0;
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
    for (started = 0; started < wanted; started++) {
        if (pthread_create(&thread, &attributes, function, NULL) != 0)
            break;
#if defined(__linux__) && defined(_GNU_SOURCE)
        pthread_setname_np(thread, "flatrecord"); /* for those who look at a process's threads */
#endif
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return started;
}

#else

typedef PyThread_type_lock flatrecord_lock;
typedef struct {
    PyThread_type_lock gate; /* closed, but for the moment in which one of the waiting goes through */
    int open;
    int waiting;
    int due; /* how many of these are to go on */
} flatrecord_condition;
typedef PyThread_type_lock flatrecord_flag;
typedef void flatrecord_ended;
#define FLATRECORD_ENDED

static inline int flatrecord_make_lock(flatrecord_lock *lock)
{
    *lock = PyThread_allocate_lock();
    return *lock != NULL;
}

static inline void flatrecord_acquire(flatrecord_lock *lock)
{
    if (*lock != NULL)
        PyThread_acquire_lock(*lock, WAIT_LOCK);
}

static inline void flatrecord_release(flatrecord_lock *lock)
{
    if (*lock != NULL)
        PyThread_release_lock(*lock);
}

static inline int flatrecord_make_condition(flatrecord_condition *condition)
{
    condition->open = condition->waiting = condition->due = 0;
    return flatrecord_make_lock(&condition->gate) && PyThread_acquire_lock(condition->gate, NOWAIT_LOCK);
}

/* With the condition's lock: open the gate if somebody is to go through. */
static inline void flatrecord_open(flatrecord_condition *condition)
{
    if (condition->due > 0 && !condition->open) {
        condition->open = 1;
        PyThread_release_lock(condition->gate);
    }
}

static inline void flatrecord_wait(flatrecord_condition *condition, flatrecord_lock *lock)
{
    condition->waiting++;
    flatrecord_release(lock);
    PyThread_acquire_lock(condition->gate, WAIT_LOCK);
    flatrecord_acquire(lock);
    condition->open = 0;
    condition->waiting--;
    condition->due--;
    flatrecord_open(condition);
}

static inline void flatrecord_wake(flatrecord_condition *condition)
{
    if (condition->due < condition->waiting)
        condition->due++;
    flatrecord_open(condition);
}

static inline int flatrecord_make_flag(flatrecord_flag *flag)
{
    return flatrecord_make_lock(flag);
}

static inline int flatrecord_raise(flatrecord_flag *flag)
{
    return PyThread_acquire_lock(*flag, NOWAIT_LOCK);
}

static inline void flatrecord_lower(flatrecord_flag *flag)
{
    PyThread_release_lock(*flag);
}

static inline ptrdiff_t flatrecord_count(const ptrdiff_t *counter, flatrecord_lock *lock)
{
    ptrdiff_t found;
    flatrecord_acquire(lock);
    found = *counter;
    flatrecord_release(lock);
    return found;
}

static inline ptrdiff_t flatrecord_count_on(ptrdiff_t *counter, flatrecord_lock *lock)
{
    ptrdiff_t found;
    flatrecord_acquire(lock);
    found = (*counter)++;
    flatrecord_release(lock);
    return found;
}

static inline void flatrecord_set_count(ptrdiff_t *counter, ptrdiff_t value, flatrecord_lock *lock)
{
    flatrecord_acquire(lock);
    *counter = value;
    flatrecord_release(lock);
}

static inline int flatrecord_start_threads(int wanted, flatrecord_ended (*function)(void *))
{
    int started;
    for (started = 0; started < wanted; started++)
        if (PyThread_start_new_thread(function, NULL) == (unsigned long)-1)
            break;
    return started;
}

#endif
#endif
