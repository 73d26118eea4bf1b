//! Objects that differ in places of inline assembly, on objects of the real clang.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{SOURCE, compile, run};
use klto_formats::bitcode::differ_only_in_assembly_places;

const FLAGS: [&str; 2] = ["-flto=thin", "-fvisibility=hidden"];
const TARGETS: [&str; 2] = ["x86_64-linux-gnu", "aarch64-linux-gnu"];

/// What kernels have besides: jumps from assembly, loops, switches, atomic accesses, variables of registers,
/// variable arguments, calls through pointers, structs by value.
const MORE: &str = r#"
typedef unsigned long size;
struct pair { long a, b; };
extern int printed(const char *, ...);
extern struct pair swapped(struct pair);
long numbers[] = { 1, 2, 0x123456789 };
long *const to_number = &numbers[1];
static inline int likely_true(int *key)
{
    asm goto("nop; .pushsection __jump_table, \"aw\"; .long %l[yes]; .popsection" : : "i"(key) : : yes);
    return 0;
yes:
    return 1;
}
int with_key(int n) { static int key; return likely_true(&key) ? n : -n; }
long of_case(long n)
{
    switch (n) {
    case 5: return 50;
    case 77: return 770;
    case 0x100000000: return printed("much %ld\n", n);
    case 9000: asm volatile("nop /* %0 */" : : "r"(n)); return 3;
    default: return n / 3;
    }
}
long summed(const long *from, size count)
{
    long sum = 0;
    for (size i = 0; i < count; i++) {
        asm volatile("" : "+r"(sum) : : "memory");
        sum += from[i] * (i & 1 ? 3 : -7);
    }
    return sum;
}
long counted(long *at, long old)
{
    __atomic_fetch_add(at, 3, __ATOMIC_SEQ_CST);
    __atomic_compare_exchange_n(at, &old, 12, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return __atomic_load_n(at, __ATOMIC_ACQUIRE) + old;
}
int called(int (*pointer)(struct pair *, int), struct pair pair)
{
    struct pair local = swapped(pair);
    char array[pair.a & 31];
    asm volatile("" : : "r"(array) : "memory");
    return pointer(&local, __builtin_expect(local.a == 4, 0)) + array[3];
}
double scaled(double x, int n) { asm volatile("" ::: "memory"); return -x * n + 1.5; }
"#;

fn object(directory: &Path, source: &str, target: &str) -> Vec<u8> {
    std::fs::read(compile(directory, "a.o", source, target, &FLAGS)).unwrap()
}

/// What a backend makes of it.
fn native(directory: &Path, bitcode: &[u8], target: &str) -> Vec<u8> {
    std::fs::write(directory.join("b.o"), bitcode).unwrap();
    let target = format!("--target={target}");
    let arguments = ["-O2", &target, "-c", "-x", "ir", "b.o", "-o", "native.o"];
    run("clang", directory, &arguments);
    std::fs::read(directory.join("native.o")).unwrap()
}

#[test]
fn a_comment_moves_places_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    for target in TARGETS {
        let source = format!("{SOURCE}{MORE}");
        let old = object(directory.path(), &source, target);
        let new = object(directory.path(), &format!("/* longer */\n{source}"), target);
        assert!(old != new);
        assert_eq!(
            differ_only_in_assembly_places(&old, &new),
            Ok(true),
            "{target}"
        );
        let natives = [&old, &new].map(|bitcode| native(directory.path(), bitcode, target));
        assert!(natives[0] == natives[1], "{target}");
    }
}

#[test]
fn a_change_of_code_counts() {
    let directory = tempfile::tempdir().unwrap();
    let target = TARGETS[0];
    let source = format!("{SOURCE}{MORE}");
    let old = object(directory.path(), &source, target);
    for (from, to) in [
        ("case 77:", "case 78:"),
        ("case 0x100000000", "case 0x100000001"),
        ("return 770", "return 771"),
        ("0x123456789 }", "0x123456780 }"),
        ("&numbers[1]", "&numbers[2]"),
        ("3 : -7", "3 : -8"),
        ("at, 3,", "at, 4,"),
        ("much %ld", "more %ld"),
        ("nop /* %0 */", "nop #%0 "),
        ("-x * n + 1.5", "-x * n + 1.25"),
        ("__ATOMIC_ACQUIRE", "__ATOMIC_RELAXED"),
        ("static int table", "int table"),
        ("used_elsewhere", "used_ElseWhere"),
    ] {
        assert!(source.contains(from), "{from}");
        let changed = format!("/* longer */\n{}", source.replace(from, to));
        let new = object(directory.path(), &changed, target);
        assert_eq!(
            differ_only_in_assembly_places(&old, &new),
            Ok(false),
            "{from}"
        );
    }
}

/// The number of a place, as the disassembler prints it.
fn place_in(directory: &Path, bitcode: &[u8]) -> u64 {
    std::fs::write(directory.join("c.o"), bitcode).unwrap();
    let text = run("llvm-dis", directory, &["c.o", "-o", "-"]);
    let text = String::from_utf8(text).unwrap();
    let attached = text.split("!srcloc !").nth(1).unwrap();
    let node = attached
        .split(|letter: char| !letter.is_ascii_digit())
        .next();
    let line = format!("\n!{} = !{{i64 ", node.unwrap());
    let number = text.split(&line).nth(1).unwrap().split('}').next().unwrap();
    number.parse().unwrap()
}

/// A number in the code that is the number of a place by chance, and is changed as that is moved.
#[test]
fn a_constant_that_code_uses_too_counts() {
    let directory = tempfile::tempdir().unwrap();
    let target = TARGETS[0];
    let comment = "/* six */\n";
    for user in [
        "long user(void) { return NUMBER; }",
        "long user(long n) { return n * NUMBER; }",
        "long user = NUMBER;",
        "long user[] = { 1, NUMBER };",
        "struct { int a; long b; } user = { 1, NUMBER };",
        "extern int given(int, long); int user(int n) { return given(n, NUMBER); }",
        "void user(long *to) { *to = NUMBER; }",
        "long user(long n) { return n == NUMBER; }",
        "int given(void); int user(long n) { switch (n) { case 4: return given(); case NUMBER: return 2; \
         case 5: return given() + 1; case 90: return 7; } return 9; }",
        "long user(int n) { return n ? NUMBER : 3; }",
        "void user(long *p) { __atomic_fetch_add(p, NUMBER, __ATOMIC_SEQ_CST); }",
        "void user(void) { asm volatile(\"\" : : \"r\"(NUMBER)); }",
        "char user(char *p) { return p[NUMBER]; }",
    ] {
        let with = |before: &str, number: u64| {
            let user = user.replace("NUMBER", &format!("{number}L"));
            object(
                directory.path(),
                &format!("{before}{SOURCE}{user}\n"),
                target,
            )
        };
        let number = place_in(directory.path(), &with("", 1));
        let moved = number + comment.len() as u64;
        assert_eq!(place_in(directory.path(), &with(comment, 1)), moved);
        let old = with("", number);
        let changed = with(comment, moved);
        assert_eq!(
            differ_only_in_assembly_places(&old, &changed),
            Ok(false),
            "{user}"
        );
    }
}

#[test]
fn wrong_bytes_are_no_object() {
    assert!(differ_only_in_assembly_places(b"", b"").is_err());
    assert!(differ_only_in_assembly_places(b"BC\xc0\xde", b"\x7fELF").is_err());
}
