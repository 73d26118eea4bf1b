/* What the sources of the external module share. */
int klto_sample_sum(int left, int right);
const char *klto_sample_text(void);
