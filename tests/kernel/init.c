/*
 * The init program of klto's boot tests: freestanding, one file, no library.
 *
 * In:  an initramfs with /modules/order (file names in dependency order) and the modules beside it, and
 *      /wrong-version.ko and /unsigned.ko, which must not load; /check-cfi where the kernel has CFI.
 * Out: lines "klto-init: ..." in the kernel log, one for each proof; "klto-init: FAIL step errno"
 *      where one fails; "klto-init: done" at the end; then the machine goes down.
 *
 * The lines go through /dev/kmsg: the console prints them whole and in order with the kernel's own.
 */

typedef unsigned long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

#if defined(__x86_64__)
enum { SYS_READ = 0, SYS_WRITE = 1, SYS_CLOSE = 3, SYS_IOCTL = 16, SYS_CLONE = 56, SYS_WAIT4 = 61 };
enum { SYS_GETPID = 39, SYS_MOUNT = 165, SYS_REBOOT = 169, SYS_CLOCK_GETTIME = 228 };
enum { SYS_EXIT_GROUP = 231, SYS_OPENAT = 257, SYS_MKDIRAT = 258, SYS_FINIT_MODULE = 313 };
#define VDSO_CLOCK_GETTIME "__vdso_clock_gettime"
#define ENTRY "mov %rsp, %rdi\n and $-16, %rsp\n call run\n hlt\n"
#elif defined(__aarch64__)
enum { SYS_IOCTL = 29, SYS_MKDIRAT = 34, SYS_MOUNT = 40, SYS_OPENAT = 56, SYS_CLOSE = 57 };
enum { SYS_READ = 63, SYS_WRITE = 64, SYS_EXIT_GROUP = 94, SYS_CLOCK_GETTIME = 113 };
enum { SYS_REBOOT = 142, SYS_GETPID = 172, SYS_CLONE = 220, SYS_WAIT4 = 260, SYS_FINIT_MODULE = 273 };
#define VDSO_CLOCK_GETTIME "__kernel_clock_gettime"
#define ENTRY "mov x0, sp\n and sp, x0, #-16\n bl run\n brk #0\n"
#else
#error "this architecture has no entry here"
#endif

enum { AT_FDCWD = -100, O_RDONLY = 0, O_WRONLY = 1, O_RDWR = 2, SIGCHLD = 17, CLOCK_MONOTONIC = 1 };
enum { CLONE_VM = 0x100, CLONE_VFORK = 0x4000 };
enum { ENOENT = 2, EBUSY = 16, ENODEV = 19, EINVAL = 22 };

__asm__(".text\n.globl _start\n_start:\n" ENTRY);

/* ---- system calls ---- */

__attribute__((always_inline)) static inline long call(long number, long a, long b, long c, long d, long e)
{
#if defined(__x86_64__)
	long result;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return result;
#else
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	__asm__ volatile("svc #0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4)
			 : "memory");
	return x0;
#endif
}

static long open_file(const char *path, int flags)
{
	return call(SYS_OPENAT, AT_FDCWD, (long)path, flags, 0, 0);
}

static long read_file(long file, void *buffer, u64 size)
{
	return call(SYS_READ, file, (long)buffer, (long)size, 0, 0);
}

static long write_file(long file, const void *buffer, u64 size)
{
	return call(SYS_WRITE, file, (long)buffer, (long)size, 0, 0);
}

static void close_file(long file)
{
	call(SYS_CLOSE, file, 0, 0, 0, 0);
}

/* ---- bytes; the first two are names that the compiler calls ---- */

void *memset(void *to, int value, u64 size)
{
	for (u8 *at = to; size--; at++)
		*at = (u8)value;
	return to;
}

void *memcpy(void *to, const void *from, u64 size)
{
	u8 *at = to;
	for (const u8 *source = from; size--;)
		*at++ = *source++;
	return to;
}

static u64 length(const char *text)
{
	u64 count = 0;
	while (text[count])
		count++;
	return count;
}

static int same(const char *left, const char *right)
{
	while (*left && *left == *right) {
		left++;
		right++;
	}
	return *left == *right;
}

static int starts_with(const char *text, const char *prefix)
{
	while (*prefix && *text == *prefix) {
		text++;
		prefix++;
	}
	return !*prefix;
}

/* ---- the report ---- */

static long log_file = 2;

struct line {
	char text[512];
	u64 used;
};

static void add_text(struct line *line, const char *text)
{
	while (*text && line->used < sizeof(line->text) - 1)
		line->text[line->used++] = *text++;
}

static void add_number(struct line *line, u64 value, u64 base)
{
	char digits[24];
	u64 at = sizeof(digits) - 1;
	digits[at] = 0;
	do {
		digits[--at] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	add_text(line, digits + at);
}

static void start_line(struct line *line)
{
	line->used = 0;
	add_text(line, "klto-init: ");
}

static void end_line(struct line *line)
{
	line->text[line->used++] = '\n';
	write_file(log_file, line->text, line->used);
}

static void say(const char *text)
{
	struct line line;
	start_line(&line);
	add_text(&line, text);
	end_line(&line);
}

/* `result` is a system call's: a negative errno. */
static void fail(const char *step, long result)
{
	struct line line;
	start_line(&line);
	add_text(&line, "FAIL ");
	add_text(&line, step);
	add_text(&line, " ");
	add_number(&line, (u64)(result < 0 ? -result : result), 10);
	end_line(&line);
}

/* A feature that this kernel was built without; the reader of the log knows which must be there. */
static void absent(const char *feature)
{
	struct line line;
	start_line(&line);
	add_text(&line, feature);
	add_text(&line, " absent");
	end_line(&line);
}

/* ---- whole files ---- */

/* Reads all that fits, ends it with a zero, and returns the length or a negative errno. */
static long slurp(const char *path, char *buffer, u64 size)
{
	long file = open_file(path, O_RDONLY);
	if (file < 0)
		return file;
	u64 used = 0;
	while (used < size - 1) {
		long got = read_file(file, buffer + used, size - 1 - used);
		if (got < 0) {
			close_file(file);
			return got;
		}
		if (got == 0)
			break;
		used += (u64)got;
	}
	buffer[used] = 0;
	close_file(file);
	return (long)used;
}

static long put(const char *path, const char *text)
{
	long file = open_file(path, O_WRONLY);
	if (file < 0)
		return file;
	long result = write_file(file, text, length(text));
	close_file(file);
	return result < 0 ? result : 0;
}

/* ---- the steps ---- */

static void mount_one(const char *type, const char *path)
{
	call(SYS_MKDIRAT, AT_FDCWD, (long)path, 0755, 0, 0);
	long result = call(SYS_MOUNT, (long)type, (long)path, (long)type, 0, 0);
	/* A filesystem that the kernel does not have makes what lies in it absent, and that is said. */
	int absent = result == -ENOENT || result == -ENODEV;
	if (result < 0 && result != -EBUSY && !absent)
		fail(type, result);
}

static void mount_all(void)
{
	mount_one("devtmpfs", "/dev");
	long kmsg = open_file("/dev/kmsg", O_WRONLY);
	if (kmsg >= 0)
		log_file = kmsg;
	say("start");
	if (kmsg < 0)
		fail("kmsg", kmsg);
	mount_one("proc", "/proc");
	mount_one("sysfs", "/sys");
	mount_one("debugfs", "/sys/kernel/debug");
	mount_one("tracefs", "/sys/kernel/tracing");
	say("mounts done");
}

/* Module name of a file name: without directory and ".ko", with '_' for '-', as the kernel says it. */
static void module_name(const char *file, char *name, u64 size)
{
	u64 used = 0;
	for (; *file && !same(file, ".ko") && used < size - 1; file++) {
		if (*file == '/')
			used = 0;
		else
			name[used++] = *file == '-' ? '_' : *file;
	}
	name[used] = 0;
}

static char proc_modules[65536];

static int module_is_listed(const char *name)
{
	u64 size = length(name);
	for (const char *at = proc_modules; *at;) {
		if (starts_with(at, name) && at[size] == ' ')
			return 1;
		while (*at && *at++ != '\n')
			;
	}
	return 0;
}

static int load_module(const char *file, const char *name)
{
	struct line path = { .used = 0 };
	add_text(&path, "/modules/");
	add_text(&path, file);
	path.text[path.used] = 0;
	long fd = open_file(path.text, O_RDONLY);
	long result = fd < 0 ? fd : call(SYS_FINIT_MODULE, fd, (long)"", 0, 0, 0);
	if (fd >= 0)
		close_file(fd);
	if (result == 0) {
		result = slurp("/proc/modules", proc_modules, sizeof(proc_modules));
		if (result >= 0)
			result = module_is_listed(name) ? 0 : -ENOENT;
	}
	if (result < 0) {
		fail(name, result);
		return 0;
	}
	struct line line;
	start_line(&line);
	add_text(&line, "module ");
	add_text(&line, name);
	add_text(&line, " loaded");
	end_line(&line);
	return 1;
}

static void load_modules(void)
{
	static char order[65536];
	u64 loaded = 0;
	long size = slurp("/modules/order", order, sizeof(order));
	if (size < 0)
		return fail("modules", size);
	for (char *file = order; *file;) {
		char *end = file;
		while (*end && *end != '\n')
			end++;
		int last = !*end;
		*end = 0;
		char name[64];
		module_name(file, name, sizeof(name));
		if (*name)
			loaded += (u64)load_module(file, name);
		file = last ? end : end + 1;
	}
	struct line line;
	start_line(&line);
	add_text(&line, "modules ok ");
	add_number(&line, loaded, 10);
	end_line(&line);
}

/* A module that must not load: the kernel says why. */
static void refuse_module(const char *feature, const char *path)
{
	long file = open_file(path, O_RDONLY);
	if (file == -ENOENT)
		return absent(feature);
	if (file < 0)
		return fail(feature, file);
	struct line line;
	start_line(&line);
	add_text(&line, feature);
	add_text(&line, " begin");
	end_line(&line);
	long result = call(SYS_FINIT_MODULE, file, (long)"", 0, 0, 0);
	close_file(file);
	if (result >= 0)
		return fail(feature, result);
	start_line(&line);
	add_text(&line, feature);
	add_text(&line, " end errno ");
	add_number(&line, (u64)-result, 10);
	end_line(&line);
}

/* The initramfs itself is the disk: it begins with the magic number of cpio's newc format. */
static void read_disk(void)
{
	static char sector[512 + 1];
	long result = slurp("/dev/vda", sector, sizeof(sector));
	if (result == -ENOENT)
		return absent("disk");
	if (result < 0 || !starts_with(sector, "070701"))
		return fail("disk", result < 0 ? result : -EINVAL);
	say("disk ok");
}

/* The first line of the trace that is no comment, cut at its end; null when there is none. */
static const char *traced_line(char *trace)
{
	for (char *at = trace; *at;) {
		char *end = at;
		while (*end && *end != '\n')
			end++;
		int complete = *end == '\n';
		*end = 0;
		while (*at == ' ')
			at++;
		if (*at && *at != '#' && complete)
			return at;
		at = complete ? end + 1 : end;
	}
	return 0;
}

static void trace_functions(void)
{
	static char trace[16384];
	long result = put("/sys/kernel/tracing/current_tracer", "function");
	if (result == -ENOENT)
		return absent("tracer");
	if (result < 0)
		return fail("tracer", result);
	call(SYS_GETPID, 0, 0, 0, 0, 0);
	put("/sys/kernel/tracing/tracing_on", "0");
	result = slurp("/sys/kernel/tracing/trace", trace, sizeof(trace));
	long stopped = put("/sys/kernel/tracing/current_tracer", "nop");
	if (result < 0 || stopped < 0)
		return fail("tracer", result < 0 ? result : stopped);
	const char *found = traced_line(trace);
	if (!found)
		return fail("tracer-line", -ENOENT);
	struct line line;
	start_line(&line);
	add_text(&line, "tracer ok ");
	add_text(&line, found);
	end_line(&line);
}

/* The length and the 64-bit FNV-1a of /proc/config.gz, to compare with kernel/config_data.gz. */
static void read_config(void)
{
	static u8 buffer[4096];
	u64 hash = 0xcbf29ce484222325UL, total = 0;
	long file = open_file("/proc/config.gz", O_RDONLY), got;
	if (file == -ENOENT)
		return absent("config.gz");
	if (file < 0)
		return fail("config.gz", file);
	while ((got = read_file(file, buffer, sizeof(buffer))) > 0) {
		total += (u64)got;
		for (long at = 0; at < got; at++)
			hash = (hash ^ buffer[at]) * 0x100000001b3UL;
	}
	close_file(file);
	if (got < 0)
		return fail("config.gz", got);
	struct line line;
	start_line(&line);
	add_text(&line, "config.gz ");
	add_number(&line, total, 10);
	add_text(&line, " bytes fnv ");
	add_number(&line, hash, 16);
	end_line(&line);
}

/* The layouts below are those of the ELF specification, 64 bits. */
struct elf_header {
	u8 identity[16];
	u16 type, machine;
	u32 version;
	u64 entry, program_offset, section_offset;
	u32 flags;
	u16 header_size, program_size, program_count, section_size, section_count, names;
};
struct elf_program { u32 type, flags; u64 offset, address, physical, file_size, size, align; };
struct elf_dynamic { u64 tag, value; };
struct elf_symbol { u32 name; u8 info, other; u16 section; u64 value, size; };
enum { PT_LOAD = 1, PT_DYNAMIC = 2, DT_HASH = 4, DT_STRTAB = 5, DT_SYMTAB = 6, AT_SYSINFO_EHDR = 33 };

static u64 find_symbol(const struct elf_dynamic *dynamic, u64 shift, const char *wanted)
{
	const u32 *hash = 0;
	const char *names = 0;
	const struct elf_symbol *symbols = 0;
	for (; dynamic->tag; dynamic++) {
		if (dynamic->tag == DT_HASH)
			hash = (const u32 *)(dynamic->value + shift);
		if (dynamic->tag == DT_STRTAB)
			names = (const char *)(dynamic->value + shift);
		if (dynamic->tag == DT_SYMTAB)
			symbols = (const struct elf_symbol *)(dynamic->value + shift);
	}
	if (!hash || !names || !symbols)
		return 0;
	for (u32 at = 0; at < hash[1]; at++)
		if (symbols[at].section && same(names + symbols[at].name, wanted))
			return symbols[at].value + shift;
	return 0;
}

static u64 vdso_function(u64 image, const char *wanted)
{
	const struct elf_header *header = (const void *)image;
	const struct elf_program *program = (const void *)(image + header->program_offset);
	const struct elf_dynamic *dynamic = 0;
	u64 shift = image;
	for (u16 at = 0; at < header->program_count; at++) {
		if (program[at].type == PT_LOAD)
			shift = image + program[at].offset - program[at].address;
		if (program[at].type == PT_DYNAMIC)
			dynamic = (const void *)(image + program[at].offset);
	}
	return dynamic ? find_symbol(dynamic, shift, wanted) : 0;
}

/* stack: argc, argv, 0, environment, 0, pairs of the auxiliary vector. */
static u64 auxiliary(const u64 *stack, u64 wanted)
{
	const u64 *at = stack + 1 + stack[0] + 1;
	while (*at)
		at++;
	for (at++; at[0]; at += 2)
		if (at[0] == wanted)
			return at[1];
	return 0;
}

struct moment { long seconds, nanoseconds; };

static int in_order(const struct moment *first, const struct moment *second)
{
	if (first->seconds != second->seconds)
		return first->seconds < second->seconds;
	return first->nanoseconds <= second->nanoseconds;
}

/* The vdso's clock must lie between two readings of the kernel's. */
static void call_vdso(const u64 *stack)
{
	struct moment before = { 0, 0 }, inside = { 0, 0 }, after = { 0, 0 };
	u64 image = auxiliary(stack, AT_SYSINFO_EHDR);
	u64 address = image ? vdso_function(image, VDSO_CLOCK_GETTIME) : 0;
	if (!address)
		return fail("vdso", -ENOENT);
	int (*clock)(int, struct moment *) = (int (*)(int, struct moment *))address;
	call(SYS_CLOCK_GETTIME, CLOCK_MONOTONIC, (long)&before, 0, 0, 0);
	int result = clock(CLOCK_MONOTONIC, &inside);
	call(SYS_CLOCK_GETTIME, CLOCK_MONOTONIC, (long)&after, 0, 0, 0);
	if (result || !in_order(&before, &inside) || !in_order(&inside, &after))
		return fail("vdso", result ? result : -EINVAL);
	say("vdso ok");
}

static void check_efi(void)
{
	long file = open_file("/sys/firmware/efi", O_RDONLY);
	if (file < 0)
		return absent("efi");
	close_file(file);
	say("efi ok");
}

static void check_kvm(void)
{
#if defined(__aarch64__)
	enum { KVM_GET_API_VERSION = 0xae00, KVM_CREATE_VM = 0xae01 };
	long file = open_file("/dev/kvm", O_RDWR);
	if (file == -ENOENT)
		return absent("kvm");
	if (file < 0)
		return fail("kvm", file);
	long version = call(SYS_IOCTL, file, KVM_GET_API_VERSION, 0, 0, 0);
	long machine = call(SYS_IOCTL, file, KVM_CREATE_VM, 0, 0, 0);
	if (machine >= 0)
		close_file(machine);
	close_file(file);
	if (version != 12 || machine < 0)
		return fail("kvm", version == 12 ? machine : version);
	say("kvm ok");
#else
	absent("kvm");
#endif
}

/* The functions on the kernel's own stack while it makes the text, innermost first. */
static void show_stack(void)
{
	static char stack[8192];
	long size = slurp("/proc/self/stack", stack, sizeof(stack));
	if (size == -ENOENT)
		return absent("stack");
	if (size <= 0)
		return fail("stack", size);
	struct line line;
	start_line(&line);
	add_text(&line, "stack");
	for (char *at = stack; *at;) {
		/* "[<0>] name+0x12/0x34" */
		while (*at && *at != ' ')
			at++;
		char *end = at;
		while (*end && *end != '+' && *end != '\n')
			end++;
		char last = *end;
		*end = 0;
		add_text(&line, at);
		*end = last;
		at = end;
		while (*at && *at++ != '\n')
			;
	}
	end_line(&line);
}

#define CRASH_ENTRY "/sys/kernel/debug/provoke-crash/DIRECT"

/*
 * A child asks lkdtm for `crash`; the kernel must find it out, and kill the child. It has its parent's
 * memory, as after vfork: 5.10 for x86 would free the memory of a task that died of an oops with interrupts
 * off, and when another task is to run at that moment, zap_pte_range loops for ever (one boot of six). The
 * child also has its parent's stack, which its own calls must leave as they are.
 */
static void provoke_crash(const char *feature, const char *crash)
{
	long entry = open_file(CRASH_ENTRY, O_WRONLY);
	if (entry == -ENOENT)
		return absent(feature);
	if (entry < 0)
		return fail(feature, entry);
	struct line line;
	start_line(&line);
	add_text(&line, feature);
	add_text(&line, " begin");
	end_line(&line);
	long child = call(SYS_CLONE, CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0, 0, 0);
	if (child == 0) {
		write_file(entry, crash, length(crash));
		start_line(&line);
		add_text(&line, "FAIL ");
		add_text(&line, crash);
		add_text(&line, " survived");
		end_line(&line);
		call(SYS_EXIT_GROUP, 0, 0, 0, 0, 0);
	}
	int status = 0;
	long waited = child < 0 ? child : call(SYS_WAIT4, child, (long)&status, 0, 0, 0);
	close_file(entry);
	if (waited < 0)
		return fail(feature, waited);
	start_line(&line);
	add_text(&line, feature);
	add_text(&line, " end child-signal ");
	add_number(&line, (u64)status & 0x7f, 10);
	end_line(&line);
}

/* A call by a pointer of another type. A kernel without CFI lets it pass, so it is asked for. */
static void check_cfi(void)
{
	long asked = open_file("/check-cfi", O_RDONLY);
	if (asked < 0)
		return absent("cfi");
	close_file(asked);
	provoke_crash("cfi", "CFI_FORWARD_PROTO");
}

/* The tree's own sample replaces cmdline_proc_show(), for each task when it leaves the kernel. */
static void check_livepatch(void)
{
	static char text[256];
	if (!module_is_listed("livepatch_sample"))
		return absent("livepatch");
	for (int tries = 0; tries < 100000; tries++) {
		slurp("/proc/cmdline", text, sizeof(text));
		if (starts_with(text, "this has been live patched"))
			return say("livepatch ok");
	}
	fail("livepatch", 0);
}

/* x86_64 has no ACPI here, so it restarts; QEMU's -no-reboot ends the machine then. */
static void power_off(void)
{
	enum { MAGIC1 = 0xfee1dead, MAGIC2 = 672274793, RESTART = 0x01234567, POWER_OFF = 0x4321fedc };
#if defined(__x86_64__)
	long command = RESTART;
#else
	long command = POWER_OFF;
#endif
	fail("power-off", call(SYS_REBOOT, (long)MAGIC1, MAGIC2, command, 0, 0));
	for (;;)
		;
}

void run(const u64 *stack)
{
	mount_all();
	refuse_module("versions", "/wrong-version.ko");
	refuse_module("signature", "/unsigned.ko");
	load_modules();
	read_disk();
	trace_functions();
	read_config();
	call_vdso(stack);
	check_efi();
	check_kvm();
	show_stack();
	provoke_crash("lkdtm", "EXEC_RODATA");
	check_cfi();
	check_livepatch();
	say("done");
	power_off();
}
