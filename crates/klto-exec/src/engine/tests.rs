//! The engine over real processes and a real store.

use super::*;
use klto_core::{ActionKind, Argument, FileRef, Input};
use klto_store::Lookup;
use std::sync::Arc;

fn shell(directory: &Path, name: &str, script: &str) -> Action {
    Action {
        kind: ActionKind::Backend,
        label: name.into(),
        program: "/bin/sh".into(),
        tool_identity: Digest::of_bytes(b"sh"),
        arguments: vec![
            Argument::Text("-c".into()),
            Argument::Text(script.into()),
            Argument::File("", FileRef::Output(0)),
        ],
        inputs: vec![Input {
            role: "bitcode",
            path: format!("{name}.bc").into(),
            digest: Digest::of_bytes(name.as_bytes()),
        }],
        outputs: vec![directory.join(name)],
        directory: directory.to_owned(),
        environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
        edits: None,
        storable: Storable::Yes,
    }
}

fn store(directory: &Path) -> Store {
    Store::open(&directory.join("store"), 1 << 30).unwrap()
}

fn engine(directory: &Path, verify: u8) -> (Engine, Arc<Mutex<Vec<String>>>) {
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = Arc::clone(&lines);
    let engine = Engine::new(Some(store(directory)), verify, move |line: &str| {
        sink.lock().unwrap().push(line.to_owned());
    });
    (engine, lines)
}

const ANY: &OutputCheck<'static> = &|_, _| Ok(());

#[test]
fn second_run_is_a_hit_and_prints_the_stored_standard_error() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, _) = engine(directory.path(), 0);
    let actions = [shell(
        directory.path(),
        "a.o",
        "echo warning >&2; echo native > $0",
    )];
    let first = engine.run(&actions, &Slots::LentOnly, ANY, &Progress::default());
    assert_eq!(first[0].how, How::Ran);
    fs_err::remove_file(&actions[0].outputs[0]).unwrap();
    let second = engine.run(&actions, &Slots::LentOnly, ANY, &Progress::default());
    assert_eq!(second[0].how, How::Hit);
    assert_eq!(
        second[0].outcome,
        Outcome::Done {
            stderr: b"warning\n".to_vec()
        }
    );
    assert_eq!(fs_err::read(&actions[0].outputs[0]).unwrap(), b"native\n");
}

#[test]
fn failures_say_why_and_store_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, _) = engine(directory.path(), 0);
    let reason = |script: &str, check: &OutputCheck<'_>| {
        let actions = [shell(directory.path(), "a.o", script)];
        let completed = engine.run(&actions, &Slots::LentOnly, check, &Progress::default());
        assert!(!actions[0].outputs[0].exists());
        assert!(matches!(
            engine.store().unwrap().lookup(actions[0].key()),
            Ok(Lookup::Miss)
        ));
        match &completed[0].outcome {
            Outcome::Failed { reason, .. } => reason.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reason("echo x > $0; exit 3", ANY), "exit code 3");
    assert_eq!(reason("echo x > $0; kill -9 $$", ANY), "killed by signal 9");
    assert!(reason("true", ANY).contains("a.o"));
    let empty: &OutputCheck<'_> = &|_, bytes| {
        if bytes.is_empty() {
            Err("empty".into())
        } else {
            Ok(())
        }
    };
    assert_eq!(reason(": > $0", empty), "empty");
    let changed = reason("echo x > $0; echo edited > a.o.bc", ANY);
    assert_eq!(changed, "a.o.bc changed while it ran; build again");
}

#[test]
fn a_planted_wrong_result_is_caught_by_verification() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, _) = engine(directory.path(), 100);
    let action = shell(directory.path(), "a.o", "echo right > $0");
    let planted = directory.path().join("planted");
    fs_err::write(&planted, "wrong\n").unwrap();
    store(directory.path())
        .insert(action.key(), &[planted.as_path()], b"")
        .unwrap();
    let completed = engine.run(&[action], &Slots::LentOnly, ANY, &Progress::default());
    match &completed[0].outcome {
        Outcome::Failed { reason, .. } => assert!(reason.contains("differs from a fresh run")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn never_more_tools_than_slots_and_all_of_them_run() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, _) = engine(directory.path(), 0);
    let script = "mkdir running.$$; ls -d running.* | wc -l >> counts; sleep 0.05; rmdir running.$$; echo > $0";
    let actions: Vec<_> = (0..12)
        .map(|number| shell(directory.path(), &format!("{number}.o"), script))
        .collect();
    let client = jobserver::Client::new(2).unwrap();
    let slots = Slots::from_jobserver(client).unwrap();
    let completed = engine.run(&actions, &slots, ANY, &Progress::default());
    assert_eq!(completed.len(), 12);
    let counts = fs_err::read_to_string(directory.path().join("counts")).unwrap();
    let most = counts
        .lines()
        .map(|line| line.trim().parse::<usize>().unwrap())
        .max()
        .unwrap();
    assert!((2..=3).contains(&most), "most at once: {most}");
}

#[test]
fn no_action_starts_after_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, _) = engine(directory.path(), 0);
    let actions = [
        shell(directory.path(), "a.o", "exit 1"),
        shell(directory.path(), "b.o", "echo > $0"),
    ];
    assert_eq!(
        engine
            .run(&actions, &Slots::LentOnly, ANY, &Progress::default())
            .len(),
        1
    );
}
