/* The source behind the switch. */
#include "sample.h"

const char *klto_sample_text(void)
{
	return "switched on";
}
