/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * READ_ONCE as an acquire, for arm64 trees before 5.11 that are built with link-time optimization.
 *
 * With LTO the compiler sees across files and may turn an address or data dependency that begins at a
 * READ_ONCE into a control dependency, which orders nothing on this architecture. An acquire load does
 * not need the dependency. This directory stands before the tree's include path; the tree's own header
 * follows, and keeps a __READ_ONCE that is there already.
 */
#ifndef KLTO_ASM_RWONCE_H
#define KLTO_ASM_RWONCE_H

#ifndef __ASSEMBLY__

#define __READ_ONCE(x)                                                            \
({                                                                                \
	union {                                                                   \
		__unqual_scalar_typeof(x) value;                                  \
		unsigned char one;                                                \
		unsigned short two;                                               \
		unsigned int four;                                                \
		unsigned long eight;                                              \
	} klto_loaded;                                                            \
	switch (sizeof(x)) {                                                      \
	case 1:                                                                   \
		asm volatile("ldarb %w0, %1" : "=r"(klto_loaded.one)              \
			     : "Q"(*(const volatile unsigned char *)&(x))         \
			     : "memory");                                         \
		break;                                                            \
	case 2:                                                                   \
		asm volatile("ldarh %w0, %1" : "=r"(klto_loaded.two)              \
			     : "Q"(*(const volatile unsigned short *)&(x))        \
			     : "memory");                                         \
		break;                                                            \
	case 4:                                                                   \
		asm volatile("ldar %w0, %1" : "=r"(klto_loaded.four)              \
			     : "Q"(*(const volatile unsigned int *)&(x))          \
			     : "memory");                                         \
		break;                                                            \
	case 8:                                                                   \
		asm volatile("ldar %0, %1" : "=r"(klto_loaded.eight)              \
			     : "Q"(*(const volatile unsigned long *)&(x))         \
			     : "memory");                                         \
		break;                                                            \
	default:                                                                  \
		__builtin_memcpy(&klto_loaded, (const void *)&(x), sizeof(x));    \
	}                                                                         \
	klto_loaded.value;                                                        \
})

#endif /* __ASSEMBLY__ */

#include_next <asm/rwonce.h>

#endif /* KLTO_ASM_RWONCE_H */
