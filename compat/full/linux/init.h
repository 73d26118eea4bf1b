/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Initcalls under full link-time optimization, for trees before 5.12.
 *
 * Such a tree writes the entry of an initcall as an assembler text that names the function. Full LTO makes
 * one module of all objects: of two static functions of one name it renames the second, and the text then
 * means the first. So the entry names a function of its own, whose name no other object has, and that
 * calls the initcall. KLTO_OBJECT is the object's path as an identifier. The entries stay in the order of
 * the link, for LTO keeps the order of assembler texts. The names are made as those of later trees are.
 *
 * This directory stands before the tree's include path; the tree's own header comes first here.
 */
#ifndef KLTO_LINUX_INIT_H
#define KLTO_LINUX_INIT_H

#include_next <linux/init.h>

#if !defined(MODULE) && !defined(__ASSEMBLY__) && defined(CONFIG_HAVE_ARCH_PREL32_RELOCATIONS)

#include <linux/compiler.h>
#include <linux/stringify.h>

#define KLTO_PASTE_INITCALL(prefix, object, count, line, fn, id)                  \
	prefix##kmod_##object##__##count##_##line##_##fn##id
#define KLTO_INITCALL_NAME(prefix, object, count, line, fn, id)                   \
	KLTO_PASTE_INITCALL(prefix, object, count, line, fn, id)

#define KLTO_INITCALL(stub, entry, fn, section)                                   \
	int __init stub(void);                                                    \
	int __init stub(void)                                                     \
	{                                                                         \
		return fn();                                                      \
	}                                                                         \
	__ADDRESSABLE(stub)                                                       \
	asm(".section \"" #section ".init\", \"a\"\n"                             \
	    __stringify(entry) ":\n\t"                                            \
	    ".long " __stringify(stub) " - .\n\t"                                 \
	    ".previous");
#define KLTO_NAMED_INITCALL(count, line, fn, id, section)                         \
	KLTO_INITCALL(KLTO_INITCALL_NAME(__initstub__, KLTO_OBJECT, count, line, fn, id), \
		      KLTO_INITCALL_NAME(__initcall__, KLTO_OBJECT, count, line, fn, id), \
		      fn, section)
#define KLTO_COUNTED_INITCALL(count, line, fn, id, section)                       \
	KLTO_NAMED_INITCALL(count, line, fn, id, section)

#undef ___define_initcall
#define ___define_initcall(fn, id, section)                                       \
	KLTO_COUNTED_INITCALL(__COUNTER__, __LINE__, fn, id, section)

#endif

#endif /* KLTO_LINUX_INIT_H */
