/* Edge counters for libFuzzer, in each module of the build with FLATRECORD_FUZZ=1.

   gcc calls __sanitizer_cov_trace_pc() where a basic block begins. libFuzzer counts no such calls any more: it
   wants an array of counters, as clang makes it, and looks at that after each input. Here a table of its own for each
   module is such an array. An address keeps the slot that it gets when it is met first, so that no two share a counter. */

#include <stddef.h>
#include <stdint.h>

#define SLOTS_LOG2 13 /* the largest module has some 5000 blocks */
#define SLOTS (1 << SLOTS_LOG2)
/* The runtime has functions of these names, which only complain, and gcc does not hide what it knows by name unless it is told. */
#define HIDDEN __attribute__((visibility("hidden")))
#define UNSEEN __attribute__((no_sanitize_coverage, no_sanitize("address"), no_sanitize("undefined")))

void __sanitizer_cov_8bit_counters_init(uint8_t *start, uint8_t *end);
void __sanitizer_cov_pcs_init(const uintptr_t *start, const uintptr_t *end);

extern HIDDEN const char __ehdr_start[]; /* where the linker puts the module's beginning */

static uint8_t counters[SLOTS];
static struct {
    uintptr_t address, flags;
} places[SLOTS];

HIDDEN UNSEEN void __sanitizer_cov_trace_pc(void)
{
    uintptr_t here = (uintptr_t)__builtin_return_address(0);
    /* From the module's beginning, so that the slots are the same in each process. */
    size_t slot = (uint64_t)(here - (uintptr_t)__ehdr_start) * 0x9E3779B97F4A7C15u >> (64 - SLOTS_LOG2);
    for (size_t tried = 0; tried < SLOTS; tried++, slot = (slot + 1) % SLOTS) {
        uintptr_t found = __atomic_load_n(&places[slot].address, __ATOMIC_RELAXED);
        if (found == 0 && __atomic_compare_exchange_n(&places[slot].address, &found, here, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            found = here;
        if (found == here) {
            counters[slot] += counters[slot] != UINT8_MAX; /* one that wrapped to 0 would look as if it had not been here */
            return;
        }
    }
    __builtin_trap(); /* SLOTS is too small, and part of the module would be out of sight */
}

/* What gcc calls besides, and libFuzzer does not have. */
HIDDEN UNSEEN void __sanitizer_cov_trace_cmpf(float left, float right)
{
    (void)left, (void)right;
}

HIDDEN UNSEEN void __sanitizer_cov_trace_cmpd(double left, double right)
{
    (void)left, (void)right;
}

UNSEEN __attribute__((constructor)) static void registered(void)
{
    __sanitizer_cov_8bit_counters_init(counters, counters + SLOTS);
    __sanitizer_cov_pcs_init((const uintptr_t *)places, (const uintptr_t *)(places + SLOTS));
}
