//! Bad input and faults of the surroundings: what klto says, its exit code, and what the next
//! build gives. Faults of the store are in `store_faults.rs`, signals in `interrupts.rs`.

#![allow(clippy::unwrap_used)]

mod prepared;

use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use klto_tests::{Build, Log, klto_binary};
use klto_wire::{Reply, Request, SHIMS_VARIABLE, SOCKET_VARIABLE};

use prepared::tools::{path_with, path_without, real_program, stand_in};
use prepared::{
    after_mounts, assert_clean, directory, files_below, jbd2, prepare_again, run,
    with_private_source, wrapped,
};

#[test]
fn a_directory_without_a_kernel_tree_is_refused() {
    let place = directory("no-tree");
    let build = jbd2("unused").started_in(&place);
    run(&mut build.command()).expect(2, &["klto: error: ", "kernel"]);
    assert!(files_below(&place).is_empty());
}

fn with_gcc(name: &str) -> Build {
    let build = jbd2(name).variables(&["ARCH=x86_64"]);
    let output = build.output_directory();
    fs_err::remove_dir_all(output).unwrap();
    fs_err::create_dir_all(output).unwrap();
    let configured = run(&mut build.clone().plain().goals(&["allnoconfig"]).command());
    assert_eq!(configured.code, 0, "{}", configured.stderr);
    build.goals(&["lib/ctype.o"])
}

#[test]
fn gcc_with_lto_is_refused_and_without_it_is_plain_make() {
    let build = with_gcc("gcc");
    run(&mut build.command()).expect(2, &["klto: error: LTO needs clang, but CC=gcc runs"]);
    assert!(!build.output_directory().join("lib/ctype.o").exists());
    let outcome = build.clone().mode(None).succeed();
    assert!(outcome.log.lines.is_empty());
    assert!(build.output_directory().join("lib/ctype.o").is_file());
    assert!(!build.output_directory().join(".klto").exists());
}

#[test]
fn a_missing_tool_is_named_with_its_package() {
    for (program, variable, package) in [
        ("clang-22", "CC", "clang-22"),
        ("ld.lld-22", "LD", "lld-22"),
        ("llvm-nm-22", "NM", "llvm-22"),
    ] {
        let path = path_without("path", &[program]);
        let build = jbd2("missing").environment("PATH", path);
        run(&mut build.command()).expect(
            3,
            &[
                &format!("klto: error: {program} ({variable}) is not found"),
                &format!("hint: apt install {package}"),
            ],
        );
    }
}

#[test]
fn tools_of_different_versions_are_refused() {
    for (program, words) in [
        ("clang-22", "clang version "),
        ("ld.lld-22", "LLD "),
        ("llvm-nm-22", "LLVM version "),
    ] {
        let place = stand_in("other-version", program, &format!("{words}19.1.0"));
        let build = jbd2("versions").environment("PATH", path_with(&place));
        let text = format!("{program} is LLVM 19.1.0");
        let text = if program == "clang-22" {
            "is LLVM 22."
        } else {
            &text
        };
        run(&mut build.command()).expect(3, &[text, "do not read each other's bitcode"]);
    }
}

#[test]
fn an_old_llvm_is_refused_with_the_reason() {
    let place = stand_in("old-version", "clang-22", "clang version 10.0.1");
    let build = jbd2("old").environment("PATH", path_with(&place));
    run(&mut build.command()).expect(3, &["clang-22 is LLVM 10.0.1; klto's LTO needs", "oldest"]);
}

#[test]
fn gnu_tools_are_refused() {
    for (assignment, needed) in [("LD=ld", "ld.lld"), ("NM=nm", "llvm-nm")] {
        let build = jbd2("gnu").word(assignment);
        let text = format!("LTO needs {needed}, but {assignment} runs ");
        run(&mut build.command()).expect(2, &[&text, "GNU"]);
    }
}

#[test]
fn an_output_directory_that_cannot_be_written_is_named() {
    let build = jbd2("read-only");
    let output = build.output_directory().display().to_string();
    let script = format!("mount --bind '{output}' '{output}'; mount -o remount,ro,bind '{output}'");
    let ended = run(&mut after_mounts(&script, &build.command()));
    ended.expect(3, &["klto: error: ", &output, "Read-only"]);
}

/// clang's message is the same as under plain make, and so is the exit code.
#[test]
fn a_compile_error_is_make_s_own_and_nothing_is_stored() {
    let (build, source) = with_private_source(jbd2("error"));
    let text = fs_err::read_to_string(source.path().join("fs/jbd2/revoke.c")).unwrap();
    let broken = text + "\nint klto_test(void) { return no_such_name; }\n";
    source.write("fs/jbd2/revoke.c", &broken).unwrap();
    let goal = ["fs/jbd2/revoke.o"];
    let build = build.goals(&goal);
    let plain = jbd2("error-plain").source(source.path()).goals(&goal);
    prepare_again(&plain, &source);
    let plain = plain.plain();
    let plain = run(&mut plain.command());
    let ended = run(&mut build.command());
    plain.expect(2, &["use of undeclared identifier 'no_such_name'"]);
    ended.expect(2, &[]);
    let of_clang = |text: &str| -> Vec<String> {
        let lines = text.lines().skip_while(|line| !line.contains("revoke.c:"));
        let lines = lines.take_while(|line| !line.starts_with("make"));
        lines.map(str::to_owned).collect()
    };
    assert!(of_clang(&plain.stderr).len() >= 3, "{}", plain.stderr);
    assert_eq!(of_clang(&ended.stderr), of_clang(&plain.stderr));
    let log = Log::read(build.output_directory());
    let note = "not stored: it fails or prints something";
    let is_of_it = |line: &String| line == &format!("ran compile fs/jbd2/revoke.o: {note}");
    assert!(log.lines.iter().any(is_of_it), "{:?}", log.lines);
}

/// clang exits with 0 when an import is missing. The stand-in hides one while clang runs.
#[test]
fn a_missing_import_fails_the_build() {
    let place = directory("hides-import");
    let real = real_program("clang-22");
    let hides = place.join("hides");
    let script = format!(
        "#!/bin/sh\n\
         for word; do case $word in -fthinlto-index=*.thinlto.bc)\n\
         list=${{word#-fthinlto-index=}}; list=${{list%.thinlto.bc}}.imports\n\
         hidden=$(head -n1 \"$list\"); esac; done\n\
         [ -n \"$hidden\" ] && [ -e {hides} ] || exec {real} \"$@\"\n\
         mv \"$hidden\" \"$hidden.hidden\"; {real} \"$@\"; code=$?\n\
         mv \"$hidden.hidden\" \"$hidden\"; exit $code\n",
        real = real.display(),
        hides = hides.display()
    );
    fs_err::write(&hides, "").unwrap();
    prepared::write_program(&place.join("clang-22"), &script);
    let build = jbd2("import").jobs(Some(1));
    let ended = run(&mut build
        .clone()
        .environment("PATH", path_with(&place))
        .command());
    ended.expect(
        2,
        &["klto: error: backend of fs/jbd2/", "the backend wrote"],
    );
    fs_err::remove_file(hides).unwrap();
    build.succeed();
    assert_clean(&build);
}

#[test]
fn deep_output_trees_and_no_home_are_no_fault() {
    let build = jbd2("deep");
    let name = "a-directory-with-a-rather-long-name-and-more-words";
    let deep = directory("deep-place")
        .join(name)
        .join(name)
        .join(name)
        .join("out");
    fs_err::create_dir_all(deep.parent().unwrap()).unwrap();
    fs_err::rename(build.output_directory(), &deep).unwrap();
    assert!(deep.as_os_str().len() > 150);
    let build = build.output(&deep);
    build
        .clone()
        .environment("TMPDIR", deep.parent().unwrap())
        .without_environment("HOME")
        .without_environment("XDG_CACHE_HOME")
        .without_environment("KLTO_CACHE")
        .succeed();
    assert_clean(&build);
}

#[test]
fn without_a_home_klto_says_that_nothing_is_reused() {
    let build = jbd2("no-home")
        .goals(&["lib/crc16.ko"])
        .without_environment("HOME")
        .without_environment("XDG_CACHE_HOME")
        .without_environment("KLTO_CACHE");
    let outcome = build.succeed();
    let text = "klto: warning: none of KLTO_CACHE, XDG_CACHE_HOME and HOME is set";
    assert!(outcome.stderr.contains(text), "{}", outcome.describe());
}

#[test]
fn a_build_inside_fakeroot_is_like_any_other() {
    let build = jbd2("fakeroot");
    let ended = run(&mut wrapped(
        &mut Command::new("fakeroot"),
        &build.command(),
    ));
    ended.expect(0, &[]);
    assert!(!ended.stderr.contains("klto: warning"), "{}", ended.stderr);
    assert_clean(&build);
}

/// Kbuild writes `objdump -h … | grep -q …`: the reader may be gone before all is printed.
#[test]
fn a_broken_pipe_behind_a_shim_is_no_error() {
    let place = directory("pipe");
    let shim = place.join("objdump");
    let program = klto_binary().with_file_name("klto-shim");
    fs_err::os::unix::fs::symlink(program, &shim).unwrap();
    let socket = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(socket.path().join("s")).unwrap();
    let session = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        Request::read(&mut stream).unwrap();
        let stdout = vec![b'x'; 1 << 20];
        let reply = Reply::Done {
            code: 0,
            stdout,
            stderr: Vec::new(),
        };
        reply.write(&mut stream).unwrap();
    });
    let mut child = Command::new(shim)
        .args(["-h", "some.o"])
        .env(SOCKET_VARIABLE, socket.path().join("s"))
        .env(SHIMS_VARIABLE, "objdump\treader\t/bin/false\n")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    session.join().unwrap();
    assert!(output.status.success(), "{}", output.status);
    assert!(output.stderr.is_empty());
}
