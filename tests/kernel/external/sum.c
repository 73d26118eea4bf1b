/* A symbol that another external module uses. */
#include <linux/module.h>
#include "sample.h"

int klto_sample_sum(int left, int right)
{
	return left + right;
}
EXPORT_SYMBOL_GPL(klto_sample_sum);
