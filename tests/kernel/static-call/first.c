/* Defines a static call, and changes it between two calls of the other object's function. */
#include <linux/module.h>
#include <linux/static_call.h>
#include "calls.h"

static int klto_one(int x)
{
	return x + 1;
}

static int klto_two(int x)
{
	return x + 2;
}

DEFINE_STATIC_CALL(klto_call, klto_one);

/* Small enough to be imported. */
int klto_through(int x)
{
	return static_call(klto_call)(x);
}

static int __init klto_calls_init(void)
{
	int before = klto_user(40);

	static_call_update(klto_call, klto_two);
	pr_info("klto_calls: %d then %d\n", before, klto_user(40));
	return 0;
}

static void __exit klto_calls_exit(void)
{
}

module_init(klto_calls_init);
module_exit(klto_calls_exit);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("Static call of klto's tests");
