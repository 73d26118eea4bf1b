//! What counts as a good console, line by line.

use super::*;

const GOOD: &str = "\
KASLR enabled
klto-init: start
klto-init: mounts done
klto-init: versions begin
jbd2: disagrees about version of symbol kfree
jbd2: Unknown symbol kfree (err -22)
klto-init: versions end errno 22
klto-init: signature begin
Loading of unsigned module is rejected
klto-init: signature end errno 129
klto-init: module ext4 loaded
klto-init: modules ok 1
klto-init: disk ok
klto-init: tracer ok init-1 [000] 0.7: mutex_unlock <-x
klto-init: config.gz 3 bytes fnv e71fa2190541574b
klto-init: vdso ok
klto-init: efi ok
klto-init: kvm ok
klto-init: stack proc_pid_stack vfs_read
klto-init: lkdtm begin
Unable to handle kernel execute from non-executable memory
Internal error: Oops: 000000008600000f [#1] SMP
Call trace:
klto-init: lkdtm end child-signal 11
klto-init: cfi begin
CFI failure at lkdtm_indirect_call+0x16/0x20 [lkdtm] (target: lkdtm_increment_int+0x0/0x10)
Oops: invalid opcode: 0000 [#2] SMP
klto-init: cfi end child-signal 11
klto-init: livepatch ok
klto-init: done
reboot: Power down
";

fn expected() -> Expected {
    Expected {
        modules: vec!["ext4".to_owned()],
        config: (3, fnv1a(b"abc")),
        proofs: &["KASLR enabled"],
        features: Feature::ALL.to_vec(),
    }
}

fn problems_after(from: &str, to: &str) -> Vec<String> {
    let console = GOOD.replace(from, to);
    assert_ne!(console, GOOD);
    check(&console, &expected())
}

#[test]
fn the_good_console_has_no_problem() {
    assert_eq!(check(GOOD, &expected()), Vec::<String>::new());
}

#[test]
fn every_line_of_init_is_needed() {
    for line in GOOD.lines().filter(|line| line.starts_with("klto-init")) {
        assert!(
            !problems_after(&format!("{line}\n"), "").is_empty(),
            "{line}"
        );
    }
}

#[test]
fn what_the_kernel_says_of_itself_is_needed() {
    let problems = problems_after("KASLR enabled", "KASLR disabled due to lack of seed");
    assert_eq!(problems, ["missing: KASLR enabled"]);
}

#[test]
fn lines_out_of_order_are_missing() {
    let swapped = problems_after(
        "klto-init: efi ok\nklto-init: kvm ok",
        "klto-init: kvm ok\nklto-init: efi ok",
    );
    assert_eq!(swapped, ["missing: klto-init: kvm ok"]);
}

#[test]
fn another_config_is_a_problem() {
    assert_eq!(problems_after("e71fa2190541574b", "1").len(), 1);
}

#[test]
fn a_complaint_outside_the_announcement_is_a_problem() {
    for complaint in COMPLAINTS {
        let problems = problems_after(
            "klto-init: vdso ok",
            &format!("{complaint} x\nklto-init: vdso ok"),
        );
        assert_eq!(problems, [format!("not announced: {complaint} x")]);
    }
}

#[test]
fn a_warning_inside_the_announcement_is_a_problem() {
    let problems = problems_after("Call trace:", "WARNING: CPU: 0");
    assert_eq!(problems, ["not announced: WARNING: CPU: 0"]);
}

#[test]
fn cfi_must_find_the_wrong_call() {
    let failure = "CFI failure at lkdtm_indirect_call+0x16/0x20 [lkdtm] ";
    assert_eq!(problems_after(failure, ""), [WRONG_CALL.otherwise]);
}

#[test]
fn a_wrong_version_must_be_named_and_nothing_else_go_wrong() {
    let symbol = "jbd2: disagrees about version of symbol kfree\n";
    assert_eq!(problems_after(symbol, ""), [WRONG_VERSION.otherwise]);
    let crash = format!("{symbol}Oops: general protection fault\n");
    assert_eq!(problems_after(symbol, &crash).len(), 1);
    assert_eq!(
        problems_after("versions end errno 22", "versions end errno 8").len(),
        1
    );
}

#[test]
fn a_caller_that_survives_is_a_problem() {
    assert_eq!(
        problems_after("lkdtm end child-signal 11", "lkdtm end child-signal 0").len(),
        1
    );
    assert_eq!(
        problems_after("cfi end child-signal 11", "cfi end child-signal 0").len(),
        1
    );
    assert_eq!(
        problems_after("Internal error: Oops: 000000008600000f [#1] SMP\n", "").len(),
        1
    );
    assert_eq!(
        problems_after("Call trace:", "klto-init: FAIL EXEC_RODATA survived").len(),
        1
    );
}

#[test]
fn a_feature_that_a_tree_does_not_have_must_be_said_to_be_absent() {
    let expected = Expected {
        features: vec![Feature::Vdso],
        proofs: &[],
        ..expected()
    };
    let console = "\
klto-init: start
klto-init: mounts done
klto-init: versions absent
klto-init: signature absent
klto-init: module ext4 loaded
klto-init: modules ok 1
klto-init: disk absent
klto-init: tracer absent
klto-init: config.gz absent
klto-init: vdso ok
klto-init: efi absent
klto-init: kvm absent
klto-init: stack absent
klto-init: lkdtm absent
klto-init: cfi absent
klto-init: livepatch absent
klto-init: done
";
    assert_eq!(check(console, &expected), Vec::<String>::new());
    let silent = console.replace("klto-init: kvm absent\n", "");
    assert_eq!(
        check(&silent, &expected),
        ["missing: klto-init: kvm absent"]
    );
}
