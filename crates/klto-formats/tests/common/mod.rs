//! The real tools that the tests compare with, and objects made by them.
//!
//! `KLTO_TEST_CLANG` names the clang, `clang-22` if it is not set; the other tools are found by
//! the same directory and suffix. A missing tool fails the test.
#![allow(dead_code, clippy::unwrap_used)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The path of an LLVM tool, as `clang`, `llvm-nm`, `ld.lld`.
pub fn tool(name: &str) -> PathBuf {
    let clang = std::env::var_os("KLTO_TEST_CLANG").unwrap_or_else(|| "clang-22".into());
    let clang = PathBuf::from(clang);
    let file = clang.file_name().and_then(OsStr::to_str).unwrap();
    let suffix = file.strip_prefix("clang").unwrap_or_else(|| {
        panic!("KLTO_TEST_CLANG must name a program clang*, not {file}");
    });
    clang.with_file_name(format!("{name}{suffix}"))
}

/// Runs a tool in `directory`; gives its standard output, or its standard error for `-###`.
pub fn run<S: AsRef<OsStr>>(name: &str, directory: &Path, arguments: &[S]) -> Vec<u8> {
    let program = tool(name);
    let output = Command::new(&program)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap_or_else(|error| {
            let program = program.display();
            panic!("this test needs {program}: {error}; set KLTO_TEST_CLANG to another clang")
        });
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} failed:\n{stderr}");
    if arguments.iter().any(|argument| argument.as_ref() == "-###") {
        return output.stderr;
    }
    output.stdout
}

/// Compiles `source` for `target` with more `flags`; gives the path of the object `name`.
pub fn compile(
    directory: &Path,
    name: &str,
    source: &str,
    target: &str,
    flags: &[&str],
) -> PathBuf {
    let file = directory.join(name).with_extension("c");
    std::fs::write(&file, source).unwrap();
    let object = directory.join(name);
    std::fs::create_dir_all(object.parent().unwrap()).unwrap();
    let target = format!("--target={target}");
    let mut arguments = vec!["-O2", "-c", "-w", "-ffreestanding", &target, "-o"];
    arguments.push(object.to_str().unwrap());
    arguments.extend(flags);
    arguments.push(file.to_str().unwrap());
    run("clang", directory, &arguments);
    object
}

/// A source with what matters to the readers: bindings, common, locals that asm refers to,
/// module-level asm as `EXPORT_SYMBOL` writes it, and inline asm.
pub const SOURCE: &str = r#"
asm(".section \"__ksymtab_strings\",\"a\"\n"
    ".globl __ksymtab_foo\n"
    "__ksymtab_foo: .asciz \"foo\"\n"
    "asm_local: .byte 0\n"
    ".previous");
asm(".weak asm_weak_used");
asm("/* \u2014 */ .globl asm_used");
int common_one;
extern int used_elsewhere(int);
extern int weak_elsewhere(int) __attribute__((weak));
__thread int per_thread = 3;
const char text[] = "text";
static int table[4] = { 1, 2, 3, 4 };
static __attribute__((noinline)) int local(int x)
{
    asm volatile("nop; nop" ::: "memory");
    asm volatile(".pushsection .data.one, \"aw\"; .long 1; .popsection; label%=:" ::: "memory");
    return used_elsewhere(x) + table[x & 3];
}
__attribute__((weak)) int weak_defined(void) { return local(3) + per_thread; }
__attribute__((used)) static int kept(int a) { return a * 2; }
int foo(int a)
{
    asm volatile("" ::: "memory");
    if (weak_elsewhere)
        a += weak_elsewhere(a);
    return local(a) + common_one + __builtin_popcount(a);
}
int alias_of_foo(int a) __attribute__((alias("foo")));
void copy(char *to, const char *from, unsigned long n) { __builtin_memcpy(to, from, n); }
"#;
