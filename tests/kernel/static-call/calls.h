/* Between the two sources of klto_calls.ko. */
int klto_through(int x);
int klto_user(int x);
