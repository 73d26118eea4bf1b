/* Imports klto_through, and with it a call whose key this object does not know. */
#include <linux/compiler.h>
#include "calls.h"

noinline int klto_user(int x)
{
	return klto_through(x);
}
