/* An external module of one source that needs another external module. */
#include <linux/module.h>
#include "sample.h"

static int __init klto_user_init(void)
{
	pr_info("klto_user: sum %d\n", klto_sample_sum(20, 22));
	return 0;
}

static void __exit klto_user_exit(void)
{
}

module_init(klto_user_init);
module_exit(klto_user_exit);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("External module of klto's tests that needs another");
