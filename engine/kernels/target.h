// Switch an instruction set on for the functions between the two macros, and for nothing else.
//
// Headers are included before the region, and nothing of the standard library is instantiated inside it: an
// inline function compiled there could be the copy the linker keeps for everybody, and then crash on an older
// processor. For the same reason everything inside is in an unnamed namespace, and no lambdas: clang gives
// them no target.
#pragma once

#define POPCLOUD_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define POPCLOUD_TARGET_BEGIN(isa) \
  POPCLOUD_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define POPCLOUD_TARGET_END POPCLOUD_PRAGMA(clang attribute pop)
#else
#define POPCLOUD_TARGET_BEGIN(isa) POPCLOUD_PRAGMA(GCC push_options) POPCLOUD_PRAGMA(GCC target(isa))
#define POPCLOUD_TARGET_END POPCLOUD_PRAGMA(GCC pop_options)
#endif

// Before a loop with a constant count over an array of vectors: unrolled, the array is registers; else it is
// memory. clang does so by itself, GCC only from -O3 on.
#if defined(__clang__)
#define POPCLOUD_UNROLL
#else
#define POPCLOUD_UNROLL POPCLOUD_PRAGMA(GCC unroll 16)
#endif

// For the parts of an inner loop: left to itself, GCC calls the
// larger of them and passes their vectors through memory.
#define POPCLOUD_INLINE inline __attribute__((always_inline))
#define POPCLOUD_NOINLINE __attribute__((noinline))

// The compiler finishes vector v here instead of starting several and running out of registers.
#define POPCLOUD_NOW(v) __asm__ volatile("" : "+x"(v))
