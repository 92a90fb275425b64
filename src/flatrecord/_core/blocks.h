/* Freed blocks that are kept for whoever needs one of that size next.
 *
 * A few, and for a short while: see "Freed blocks" in CONTRIBUTING.md. Whoever finds the shelf in use, or finds a shelf that
 * was in use when its process was forked off, does without it.
 */
#ifndef FLATRECORD_BLOCKS_H
#define FLATRECORD_BLOCKS_H

#include <stddef.h>
#include <string.h>

#include "platform.h"
#include "threads.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(block, size) ((void)(block), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(block, size) ((void)(block), (void)(size))
#endif

#define FLATRECORD_SHELF 512 /* blocks */

static struct {
    flatrecord_flag in_use;
    size_t limit; /* bytes in all */
    size_t total;
    int count;
    struct {
        void *block;
        size_t size;
    } kept[FLATRECORD_SHELF]; /* the oldest first */
} flatrecord_shelf;

/* Set how many bytes may be kept; to be called before anything is. */
static void flatrecord_keep_up_to(size_t limit)
{
    flatrecord_shelf.limit = flatrecord_make_flag(&flatrecord_shelf.in_use) ? limit : 0;
}

static void *flatrecord_unshelve(int i, size_t *size)
{
    void *block = flatrecord_shelf.kept[i].block;
    *size = flatrecord_shelf.kept[i].size;
    flatrecord_shelf.total -= *size;
    flatrecord_shelf.count--;
    memmove(flatrecord_shelf.kept + i, flatrecord_shelf.kept + i + 1, (size_t)(flatrecord_shelf.count - i) * sizeof flatrecord_shelf.kept[0]);
    ASAN_UNPOISON_MEMORY_REGION(block, *size);
    return block;
}

/* Let go of all that is kept; 0 where there is nothing. */
static int flatrecord_clear_shelf(void)
{
    int cleared = 0;
    if (flatrecord_shelf.limit > 0 && flatrecord_raise(&flatrecord_shelf.in_use)) {
        for (; flatrecord_shelf.count > 0; cleared = 1) {
            size_t size;
            void *block = flatrecord_unshelve(0, &size);
            flatrecord_unmap(block, size);
        }
        flatrecord_lower(&flatrecord_shelf.in_use);
    }
    return cleared;
}

/* A block of at least `needed` bytes, and how many it has: one that is kept, if it is hardly larger; else a fresh one.
 * NULL when the system refuses. */
static void *flatrecord_obtain(size_t needed, size_t *size)
{
    void *block = NULL;
    int i, best = -1;
    if (needed <= flatrecord_shelf.limit && flatrecord_raise(&flatrecord_shelf.in_use)) {
        for (i = 0; i < flatrecord_shelf.count; i++) {
            size_t found = flatrecord_shelf.kept[i].size;
            if (found >= needed && found - needed <= needed / 8 && (best < 0 || found <= flatrecord_shelf.kept[best].size))
                best = i;
        }
        if (best >= 0)
            block = flatrecord_unshelve(best, size);
        flatrecord_lower(&flatrecord_shelf.in_use);
    }
    if (block == NULL) {
        block = flatrecord_map(needed);
        if (block == NULL && flatrecord_clear_shelf())
            block = flatrecord_map(needed);
        *size = needed;
    }
    return block;
}

/* Take a block back: keep it, if it is not too large, in the place of older ones. */
static void flatrecord_give_back(void *block, size_t size)
{
    void *evicted[FLATRECORD_SHELF];
    size_t sizes[FLATRECORD_SHELF];
    int count = 0;
    if (size > flatrecord_shelf.limit || !flatrecord_raise(&flatrecord_shelf.in_use)) {
        flatrecord_unmap(block, size);
        return;
    }
    while (flatrecord_shelf.count == FLATRECORD_SHELF || flatrecord_shelf.total + size > flatrecord_shelf.limit) {
        evicted[count] = flatrecord_unshelve(0, sizes + count);
        count++;
    }
    ASAN_POISON_MEMORY_REGION(block, size);
    flatrecord_shelf.kept[flatrecord_shelf.count].block = block;
    flatrecord_shelf.kept[flatrecord_shelf.count].size = size;
    flatrecord_shelf.count++;
    flatrecord_shelf.total += size;
    flatrecord_lower(&flatrecord_shelf.in_use);
    while (count-- > 0)
        flatrecord_unmap(evicted[count], sizes[count]);
}

#endif
