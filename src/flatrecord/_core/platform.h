/* What the operating system and the C API give us that Cython has no word for.
 *
 * Every call of Linux's has a fallback in the same function, and every one of POSIX's another, which asks for no more than C11 and CPython:
 * Windows gets it, and whoever builds with FLATRECORD_PORTABLE.
 */
#ifndef FLATRECORD_PLATFORM_H
#define FLATRECORD_PLATFORM_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <time.h>

/* POSIX with a compiler that has GNU's builtins, as gcc and clang do. */
#if (defined(__unix__) || defined(__APPLE__)) && defined(__GNUC__) && !defined(FLATRECORD_PORTABLE)
#define FLATRECORD_POSIX 1
#include <sys/mman.h>
#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif
#ifndef MAP_POPULATE
#define MAP_POPULATE 0
#endif
#else
#define FLATRECORD_POSIX 0
#endif

#if FLATRECORD_POSIX && defined(__linux__)
#define FLATRECORD_LINUX 1
#include <sys/prctl.h>
#else
#define FLATRECORD_LINUX 0
#endif

#define FLATRECORD_PAGE ((size_t)4096) /* or a part of one */
#define FLATRECORD_HUGE_PAGE ((size_t)2 << 20)

/* Map `size` bytes of fresh private memory, on a page boundary, and on a huge-page boundary where it is large enough to
 * profit and there is room. NULL when the system refuses. */
static inline void *flatrecord_map(size_t size)
{
#if FLATRECORD_POSIX
    const int protection = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
    /* All will be written to. Where there is no room for a huge page, have the small ones all at once. */
    char *block = mmap(NULL, size, protection, flags | (size < FLATRECORD_HUGE_PAGE ? MAP_POPULATE : 0), -1, 0);
    if (block == MAP_FAILED)
        return NULL;
    if (size < FLATRECORD_HUGE_PAGE)
        return block;
    if ((uintptr_t)block % FLATRECORD_HUGE_PAGE) {
        /* Linux aligns by itself from 6.7 on, but only what is a whole number of huge pages. Below the block there is nearly
         * always room: ask for it to begin there. Where there is none, an unaligned block serves too, with small pages at
         * both ends. */
        char *hint = (char *)((uintptr_t)block / FLATRECORD_HUGE_PAGE * FLATRECORD_HUGE_PAGE);
        munmap(block, size);
        block = mmap(hint, size, protection, flags, -1, 0);
        if (block == MAP_FAILED)
            return NULL;
    }
#ifdef MADV_HUGEPAGE
    madvise(block, size, MADV_HUGEPAGE); /* advice: a kernel without huge pages just declines */
#endif
    return block;
#else
    /* Such sizes malloc has from the system, and gives back to it, on Windows too. */
    char *found = (char *)malloc(size + FLATRECORD_PAGE + sizeof(void *)), *block;
    if (found == NULL)
        return NULL;
    block = found + sizeof(void *);
    block += FLATRECORD_PAGE - (uintptr_t)block % FLATRECORD_PAGE;
    memcpy(block - sizeof(void *), &found, sizeof(void *));
    return block;
#endif
}

static inline void flatrecord_unmap(void *block, size_t size)
{
#if FLATRECORD_POSIX
    munmap(block, size);
#else
    void *found;
    (void)size;
    memcpy(&found, (char *)block - sizeof(void *), sizeof(void *));
    free(found);
#endif
}

/* Whether the system gives huge pages to those who ask for them; where it cannot be known, yes. */
static inline int flatrecord_has_huge_pages(void)
{
    int found = 1;
#if FLATRECORD_LINUX
    char text[64] = "";
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
    if (file == NULL)
        return 0; /* a kernel that was built without them */
    if (fgets(text, sizeof text, file) != NULL && strstr(text, "[never]") != NULL)
        found = 0;
    fclose(file);
#ifdef PR_GET_THP_DISABLE
    if (prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1)
        found = 0;
#endif
#endif
    return found;
}

/* Give pages to the part of a block that has none, all at once: one fault costs more than such a page. */
static inline void flatrecord_populate(void *block, size_t size)
{
#if FLATRECORD_LINUX
    const uintptr_t page = FLATRECORD_PAGE, start = ((uintptr_t)block + page - 1) / page * page, end = ((uintptr_t)block + size) / page * page;
    if (end > start)
        madvise((void *)start, end - start, 23); /* MADV_POPULATE_WRITE: a kernel before 5.14 does not know it, and declines */
#else
    (void)block;
    (void)size;
#endif
}

/* Milliseconds on a clock that nobody sets, where there is one. */
static inline int64_t flatrecord_milliseconds(void)
{
    struct timespec now;
#if FLATRECORD_POSIX
    clock_gettime(CLOCK_MONOTONIC, &now);
#else
    timespec_get(&now, TIME_UTC);
#endif
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Whether less time has passed since then. A clock that was set, in either direction, says no. */
static inline int flatrecord_is_within(int64_t began, int milliseconds)
{
    return (uint64_t)(flatrecord_milliseconds() - began) < (uint64_t)milliseconds;
}

/* Whether there is no GIL. */
#ifdef Py_GIL_DISABLED
#define FLATRECORD_FREE_THREADED 1
#else
#define FLATRECORD_FREE_THREADED 0
#endif

/* What is in a list, with a reference of one's own: where there is no GIL, another thread may put something else there and let go
 * of this. */
static inline PyObject *flatrecord_list_item(PyObject *list, Py_ssize_t i)
{
#ifdef Py_GIL_DISABLED
    return PyList_GetItemRef(list, i);
#else
    PyObject *item = PyList_GetItem(list, i);
    Py_XINCREF(item);
    return item;
#endif
}

/* Whether there are `count` references to `object`, and no more.
 *
 * Under the GIL the count is exact. Its low 32 bits are compared, because CPython 3.14 keeps flags
 * in the high half of the same word. Without a GIL only CPython's own answer is trusted, which there
 * is for one reference; where there is none the answer is no: the memory is then copied, never
 * wrongly shared. */
static inline int flatrecord_has_references(PyObject *object, Py_ssize_t count)
{
#ifdef Py_GIL_DISABLED
#if PY_VERSION_HEX >= 0x030E0000
    return count == 1 && PyUnstable_Object_IsUniquelyReferenced(object);
#else
    (void)object;
    (void)count;
    return 0;
#endif
#else
    return (uint32_t)Py_REFCNT(object) == (uint32_t)count;
#endif
}

#endif
