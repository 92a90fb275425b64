/* The inner loops of a strided copy: rows of elements, and tiles that are turned.
 *
 * A copy of a constant few bytes by memcpy compiles to one load and one store, and asks for no alignment.
 */
#ifndef FLATRECORD_STRIDED_H
#define FLATRECORD_STRIDED_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && !defined(FLATRECORD_PORTABLE)
#define FLATRECORD_INLINE static inline __attribute__((always_inline))
#else
#define FLATRECORD_INLINE static inline
#endif

/* Loops over the words of a group: they are to be in registers, which an array that is indexed by a variable is not. */
#if !defined(__GNUC__) || defined(FLATRECORD_PORTABLE)
#define FLATRECORD_UNROLL
#elif defined(__clang__)
#define FLATRECORD_UNROLL _Pragma("clang loop unroll(full)")
#else
#define FLATRECORD_UNROLL _Pragma("GCC unroll 8")
#endif

/* Gather `count` elements that lie `stride` bytes apart. */
FLATRECORD_INLINE void flatrecord_gather_sized(char *target, const char *source, ptrdiff_t count, ptrdiff_t stride, size_t itemsize)
{
    ptrdiff_t i;
    for (i = 0; i < count; i++)
        memcpy(target + i * (ptrdiff_t)itemsize, source + i * stride, itemsize);
}

static inline void flatrecord_gather(char *target, const char *source, ptrdiff_t count, ptrdiff_t stride, ptrdiff_t itemsize)
{
    if (stride == itemsize) {
        memcpy(target, source, (size_t)(count * itemsize));
        return;
    }
    switch (itemsize) {
    case 1: flatrecord_gather_sized(target, source, count, stride, 1); break;
    case 2: flatrecord_gather_sized(target, source, count, stride, 2); break;
    case 4: flatrecord_gather_sized(target, source, count, stride, 4); break;
    case 8: flatrecord_gather_sized(target, source, count, stride, 8); break;
    case 16: flatrecord_gather_sized(target, source, count, stride, 16); break;
    default: flatrecord_gather_sized(target, source, count, stride, (size_t)itemsize);
    }
}

/* Turn a tile: element j of the target's row i is element i of the source's row j. */
FLATRECORD_INLINE void flatrecord_turn_sized(
    char *target, ptrdiff_t target_row, const char *source, ptrdiff_t source_row, ptrdiff_t rows, ptrdiff_t columns, size_t itemsize)
{
    ptrdiff_t i, j;
    for (i = 0; i < rows; i++)
        for (j = 0; j < columns; j++)
            memcpy(target + i * target_row + j * (ptrdiff_t)itemsize, source + j * source_row + i * (ptrdiff_t)itemsize, itemsize);
}

/* Small elements are turned several at a time, in registers, which makes half of the loads and stores or fewer.
 * A word holds `group` elements of one row; in each step, halves of two words change places. */
FLATRECORD_INLINE uint64_t flatrecord_word(const char *source)
{
    uint64_t word;
    memcpy(&word, source, 8);
    return word;
}

FLATRECORD_INLINE void flatrecord_swap_halves(uint64_t *upper, uint64_t *lower, int bits, uint64_t mask)
{
    uint64_t a = *upper, b = *lower;
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    *upper = (a & ~mask) | ((b >> bits) & mask);
    *lower = ((a & mask) << bits) | (b & mask);
#else
    *upper = (a & mask) | ((b & mask) << bits);
    *lower = ((a >> bits) & mask) | (b & ~mask);
#endif
}

FLATRECORD_INLINE void flatrecord_turn_words(
    char *target, ptrdiff_t target_row, const char *source, ptrdiff_t source_row, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t itemsize)
{
    const ptrdiff_t group = 8 / itemsize;
    ptrdiff_t i, j, k;
    uint64_t words[8];
    for (i = 0; i + group <= rows; i += group) {
        for (j = 0; j + group <= columns; j += group) {
            FLATRECORD_UNROLL
            for (k = 0; k < group; k++)
                words[k] = flatrecord_word(source + (j + k) * source_row + i * itemsize);
            if (itemsize == 1) {
                FLATRECORD_UNROLL
                for (k = 0; k < 8; k += 2)
                    flatrecord_swap_halves(words + k, words + k + 1, 8, UINT64_C(0x00ff00ff00ff00ff));
            }
            if (itemsize <= 2) {
                FLATRECORD_UNROLL
                for (k = 0; k < group; k++)
                    if (!(k & (2 / itemsize)))
                        flatrecord_swap_halves(words + k, words + k + 2 / itemsize, 16, UINT64_C(0x0000ffff0000ffff));
            }
            FLATRECORD_UNROLL
            for (k = 0; k < group / 2; k++)
                flatrecord_swap_halves(words + k, words + k + group / 2, 32, UINT64_C(0x00000000ffffffff));
            FLATRECORD_UNROLL
            for (k = 0; k < group; k++)
                memcpy(target + (i + k) * target_row + j * itemsize, words + k, 8);
        }
        flatrecord_turn_sized(
            target + i * target_row + j * itemsize, target_row, source + j * source_row + i * itemsize, source_row, group, columns - j, (size_t)itemsize);
    }
    flatrecord_turn_sized(target + i * target_row, target_row, source + i * itemsize, source_row, rows - i, columns, (size_t)itemsize);
}

static inline void flatrecord_turn(
    char *target, ptrdiff_t target_row, const char *source, ptrdiff_t source_row, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t itemsize)
{
    switch (itemsize) {
    case 1: flatrecord_turn_words(target, target_row, source, source_row, rows, columns, 1); break;
    case 2: flatrecord_turn_words(target, target_row, source, source_row, rows, columns, 2); break;
    case 4: flatrecord_turn_words(target, target_row, source, source_row, rows, columns, 4); break;
    case 8: flatrecord_turn_sized(target, target_row, source, source_row, rows, columns, 8); break;
    case 16: flatrecord_turn_sized(target, target_row, source, source_row, rows, columns, 16); break;
    default: flatrecord_turn_sized(target, target_row, source, source_row, rows, columns, (size_t)itemsize);
    }
}

#endif
