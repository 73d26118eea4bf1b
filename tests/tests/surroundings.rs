//! What a build depends on outside of the two trees: a change of it runs make.

#![allow(clippy::unwrap_used)]

mod prepared;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use fs_err as fs;
use klto_tests::Build;

use prepared::{jbd2_of_6_12, private_jbd2_of_6_12, with_private_source};

/// Why make ran, if it did.
fn why_make_ran(build: &Build) -> Option<String> {
    let outcome = build.succeed();
    let is_skipped = outcome
        .stdout
        .contains("nothing has changed since the last build");
    (!is_skipped).then(|| outcome.log.why_make_ran.unwrap())
}

/// After the change make runs and names it; after that it need not.
fn expect_make(build: &Build, why: &str) {
    let reason = why_make_ran(build).unwrap_or_default();
    assert!(reason.contains(why), "{reason:?}, not {why:?}");
    assert_eq!(why_make_ran(build), None, "after {why}");
}

/// A build of a module of one object.
fn crc16(name: &str) -> Build {
    jbd2_of_6_12(name).goals(&["lib/crc16.ko"])
}

fn git(tree: &Path, words: &[&str]) {
    let mut git = Command::new("git");
    git.arg("-C")
        .arg(tree)
        .args(["-c", "user.name=klto", "-c", "user.email=klto@localhost"]);
    assert!(git.args(words).status().unwrap().success(), "{words:?}");
}

fn commit(tree: &Path, message: &str) {
    git(
        tree,
        &["commit", "--quiet", "--allow-empty", "--message", message],
    );
}

/// The first commit adds a plus sign to the release (scripts/setlocalversion); others change nothing.
fn check_release(build: &Build, tree: &Path) {
    why_make_ran(build).unwrap();
    assert_eq!(why_make_ran(build), None);
    commit(tree, "one");
    expect_make(build, "and with it the kernel's release");
    let release = build
        .output_directory()
        .join("include/config/kernel.release");
    assert!(fs::read_to_string(release).unwrap().ends_with("+\n"));
    commit(tree, "two");
    assert_eq!(why_make_ran(build), None, "the same release");
}

#[test]
fn what_git_writes_counts_where_the_release_changes() {
    let (build, source) = with_private_source(jbd2_of_6_12("repository"));
    let tree = source.path();
    git(tree, &["init", "--quiet"]);
    check_release(&build, tree);
    // An edit together with a commit is an edit.
    let file = tree.join("fs/jbd2/commit.c");
    let text = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    fs::write(
        &file,
        text.replacen("commit phase 1", "commit phase one", 1),
    )
    .unwrap();
    git(tree, &["add", "--force", "fs/jbd2/commit.c"]);
    commit(tree, "three");
    expect_make(&build, "source fs/jbd2/commit.c has changed");
    git(tree, &["tag", "--annotate", "--message=tag", "v6.12-klto"]);
    assert_eq!(why_make_ran(&build), None, "a tag of another version");
    // For git a file with another mode is another one.
    let mode = |mode| fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o755);
    expect_make(&build, "source fs/jbd2/commit.c has changed");
}

#[test]
fn so_does_what_git_writes_elsewhere() {
    let (build, source) = with_private_source(jbd2_of_6_12("repository-elsewhere"));
    let place = prepared::directory("git");
    let separate = format!("--separate-git-dir={}", place.join("git").display());
    git(source.path(), &["init", "--quiet", &separate]);
    assert!(source.path().join(".git").is_file());
    check_release(&build, source.path());
}

#[test]
fn makefiles_that_ask_git_count_its_files() {
    let (build, source) = with_private_source(crc16("asks-git"));
    let tree = source.path();
    let makefile = "lib/Makefile";
    let text = fs::read_to_string(tree.join(makefile)).unwrap();
    let tag = "ccflags-y += -DKLTO_TAG=$(shell git -C $(srctree) rev-parse --short HEAD)\n";
    source.write(makefile, &(text + tag)).unwrap();
    git(tree, &["init", "--quiet"]);
    commit(tree, "one");
    why_make_ran(&build).unwrap();
    commit(tree, "two");
    expect_make(&build, "lib/Makefile asks git");
    // A name like a makefile's that is none is no text to read.
    git(tree, &["branch", "Makefile/x"]);
    why_make_ran(&build).unwrap();
    std::os::unix::fs::symlink("nowhere", tree.join("fs/Makefile.local")).unwrap();
    why_make_ran(&build).unwrap();
    source
        .edit("lib/crc16.c", "CRC16 calculations", "calculations of CRC16")
        .unwrap();
    expect_make(&build, "source lib/crc16.c has changed");
}

#[test]
fn files_that_were_read_elsewhere_count() {
    let (build, source) = with_private_source(crc16("sdk"));
    let sdk = prepared::directory("sdk-of-vendor");
    let header = sdk.join("reg.h");
    fs::write(&header, "#define KLTO_REG 1\n").unwrap();
    let makefile = "lib/Makefile";
    let text = fs::read_to_string(source.path().join(makefile)).unwrap();
    let reads = "include $(SDK)/flags.mk\n-include $(SDK)/more.mk\n";
    let flags = sdk.join("flags.mk");
    fs::write(&flags, "ccflags-y += -I$(SDK) -include reg.h\n").unwrap();
    source.write(makefile, &(text + reads)).unwrap();
    let build = build.word(format!("SDK={}", sdk.display()));
    why_make_ran(&build).unwrap();
    assert_eq!(why_make_ran(&build), None);
    fs::write(&header, "#define KLTO_REG 2\n").unwrap();
    expect_make(&build, "reg.h has changed");
    // Makefiles too, and one that was not there.
    let more = "ccflags-y += -DKLTO_MORE\n";
    let text = fs::read_to_string(&flags).unwrap();
    fs::write(&flags, text + more).unwrap();
    expect_make(&build, "flags.mk has changed");
    fs::write(sdk.join("more.mk"), more).unwrap();
    expect_make(&build, "more.mk has changed");
}

#[test]
fn sources_that_lie_elsewhere_count() {
    let (build, source) = private_jbd2_of_6_12("sources-elsewhere");
    let vendor = prepared::directory("vendor");
    let place = vendor.display();
    let blob = vendor.join("blob");
    fs::write(&blob, "one").unwrap();
    let part = vendor.join("part.c");
    let incbin = format!("asm(\".section .rodata\\n.incbin \\\"{place}/blob\\\"\\n.previous\");\n");
    fs::write(&part, format!("int klto_part = 1;\n{incbin}")).unwrap();
    fs::create_dir(vendor.join("features")).unwrap();
    let makefile = "fs/jbd2/Makefile";
    let text = fs::read_to_string(source.path().join(makefile)).unwrap();
    let reads = "jbd2-objs += part.o\n\
        $(obj)/part.o: $(VENDOR)/part.c FORCE\n\
        \t$(call if_changed_rule,cc_o_c)\n\
        ifneq ($(wildcard $(VENDOR)/features/*),)\n\
        ccflags-y += -DKLTO_FEATURE\n\
        endif\n";
    source.write(makefile, &(text + reads)).unwrap();
    let build = build.word(format!("VENDOR={place}"));
    why_make_ran(&build).unwrap();
    assert_eq!(why_make_ran(&build), None);
    fs::write(&part, format!("int klto_part = 2;\n{incbin}")).unwrap();
    expect_make(&build, "part.c has changed");
    fs::write(&blob, "two").unwrap();
    expect_make(&build, "blob has changed");
    let module = fs::read(build.output_directory().join("fs/jbd2/jbd2.ko")).unwrap();
    assert!(module.windows(3).any(|bytes| bytes == b"two"));
    fs::write(vendor.join("features/one"), "").unwrap();
    expect_make(&build, "features has changed");
}

#[test]
fn a_choice_of_the_user_s_counts() {
    let home = prepared::directory("home");
    let build = crc16("home-of-user").environment("HOME", &home);
    why_make_ran(&build).unwrap();
    assert_eq!(why_make_ran(&build), None);
    fs::write(home.join(".gitconfig"), "[core]\n\tabbrev = 13\n").unwrap();
    expect_make(&build, "a choice of the user's");
}
