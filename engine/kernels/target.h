// Switch an instruction set on for the functions between the two macros, and for nothing else.
//
// Headers are included before the region, and nothing of the standard library is instantiated inside it: an inline
// function compiled there could be the copy the linker keeps for everybody, and then crash on an older processor.
// For the same reason everything inside is in an unnamed namespace, and no lambdas: clang gives them no target.
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
