/* An external module whose functions call each other across its sources. */
#include <linux/module.h>
#include "sample.h"

#ifndef CONFIG_KLTO_SAMPLE_TEXT
const char *klto_sample_text(void)
{
	return "none";
}
#endif

static int __init klto_sample_init(void)
{
	pr_info("klto_sample: sum %d, text %s\n", klto_sample_sum(2, 3), klto_sample_text());
	return 0;
}

static void __exit klto_sample_exit(void)
{
}

module_init(klto_sample_init);
module_exit(klto_sample_exit);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("External module of klto's tests");
