// For functions in innermost loops: left to itself, the compiler inlines them or not as the rest of the file has it.

#pragma once

#define PENSTOCK_INLINE inline __attribute__((always_inline))
