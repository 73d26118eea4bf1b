/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * PCI fixups under full link-time optimization, for trees before 5.12: as for initcalls, see init.h beside
 * this file, an entry names a function that no other object has, and that calls the hook.
 */
#ifndef KLTO_LINUX_PCI_H
#define KLTO_LINUX_PCI_H

#include_next <linux/pci.h>

#if !defined(MODULE) && defined(DECLARE_PCI_FIXUP_SECTION) &&                     \
	defined(CONFIG_HAVE_ARCH_PREL32_RELOCATIONS)

#include <linux/compiler.h>
#include <linux/stringify.h>

#define KLTO_PASTE_FIXUP(object, count, line, hook)                               \
	__pci_fixup_stub__##object##__##count##_##line##_##hook
#define KLTO_FIXUP_NAME(object, count, line, hook)                                \
	KLTO_PASTE_FIXUP(object, count, line, hook)

#define KLTO_FIXUP(stub, section, vendor, device, class, shift, hook)             \
	void stub(struct pci_dev *dev);                                           \
	void stub(struct pci_dev *dev)                                            \
	{                                                                         \
		hook(dev);                                                        \
	}                                                                         \
	__ADDRESSABLE(stub)                                                       \
	asm(".section " #section ", \"a\"\n\t"                                    \
	    ".balign 16\n\t"                                                      \
	    ".short " #vendor ", " #device "\n\t"                                 \
	    ".long " #class ", " #shift "\n\t"                                    \
	    ".long " __stringify(stub) " - .\n\t"                                 \
	    ".previous");

#undef DECLARE_PCI_FIXUP_SECTION
#define DECLARE_PCI_FIXUP_SECTION(section, name, vendor, device, class, shift, hook) \
	KLTO_FIXUP(KLTO_FIXUP_NAME(KLTO_OBJECT, __COUNTER__, __LINE__, hook),     \
		   section, vendor, device, class, shift, hook)

#endif

#endif /* KLTO_LINUX_PCI_H */
