use super::*;

const PLACE: &[u8] = b"/build";

fn record(flag: &str) -> CompileRecord {
    CompileRecord {
        program: "/usr/bin/clang".into(),
        arguments: vec![flag.into()],
        directory: "/build".into(),
    }
}

#[test]
fn a_journal_of_moved_trees_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let object = Path::new("a.o");
    let mut journal = Journal::open(&path, b"/old").unwrap();
    journal.begin_compile(object, record("-O2")).unwrap();
    let identifier = journal.identifier().to_owned();
    drop(journal);
    assert_eq!(
        Journal::read_identifier(&path, b"/old").unwrap(),
        identifier
    );
    assert_eq!(Journal::read_identifier(&path, b"/new"), None);
    let journal = Journal::open(&path, b"/new").unwrap();
    assert_ne!(journal.identifier(), identifier);
    assert_eq!(journal.compile(object), None);
}

#[test]
fn records_survive_and_a_damaged_journal_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let object = Path::new("a.o");
    let identifier = {
        let mut journal = Journal::open(&path, PLACE).unwrap();
        journal.begin_compile(object, record("-O2")).unwrap();
        journal.set_native(object, "objcopy").unwrap();
        journal.identifier().to_owned()
    };
    assert_eq!(Journal::read_identifier(&path, PLACE).unwrap(), identifier);
    let journal = Journal::open(&path, PLACE).unwrap();
    assert_eq!(journal.identifier(), identifier);
    assert_eq!(journal.compile(object), Some(&record("-O2")));
    assert_eq!(journal.native_reader(object), Some("objcopy"));
    let natives = Journal::read_natives(&path).unwrap();
    assert_eq!(natives, [(object.to_owned(), "objcopy".to_owned())]);
    drop(journal);
    let whole = fs_err::read(&path).unwrap();
    for damaged in [
        &whole[..whole.len() - 3],
        &[&whole[..40], &[0xff], &whole[41..]].concat(),
    ] {
        fs_err::write(&path, damaged).unwrap();
        assert_eq!(Journal::read_identifier(&path, PLACE), None);
        let journal = Journal::open(&path, PLACE).unwrap();
        assert_ne!(journal.identifier(), identifier);
        assert_eq!(journal.compile(object), None);
    }
}

#[test]
fn versions_belong_to_the_bitcode_that_exports_them() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(&directory.path().join("journal"), PLACE).unwrap();
    let (old, new) = (Digest::of_bytes(b"old"), Digest::of_bytes(b"new"));
    let versions = VersionsRecord {
        script: b"__crc_x = 1;".to_vec(),
        options: vec![],
        bitcode: *old.as_bytes(),
    };
    journal
        .set_versions(Path::new("a.o"), versions.clone())
        .unwrap();
    assert_eq!(journal.versions(Path::new("a.o"), old), Some(&versions));
    assert_eq!(journal.versions(Path::new("a.o"), new), None);
}

#[test]
fn steps_belong_to_the_last_compile() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let object = Path::new("a.o");
    let mut journal = Journal::open(&path, PLACE).unwrap();
    journal.begin_compile(object, record("-O2")).unwrap();
    let objtool = ObjtoolRecord {
        program: "/o/objtool".into(),
        arguments: vec!["check".into()],
    };
    let add = |steps: &mut StepsRecord| steps.objtool = Some(objtool.clone());
    journal.add_step(object, add).unwrap();
    let traced = |steps: &mut StepsRecord| steps.records_entry_calls = true;
    journal.add_step(object, traced).unwrap();
    let steps = Journal::open(&path, PLACE).unwrap().steps(object);
    assert_eq!(steps.objtool, Some(objtool));
    assert!(steps.records_entry_calls);
    let mut journal = Journal::open(&path, PLACE).unwrap();
    journal.begin_compile(object, record("-O2")).unwrap();
    assert_eq!(journal.steps(object), StepsRecord::default());
    assert_eq!(
        Journal::open(&path, PLACE).unwrap().steps(object),
        StepsRecord::default()
    );
}

#[test]
fn recipes_share_environments_and_lose_those_that_none_has() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let recipe = |value: &str| Recipe {
        arguments: vec!["sh".into(), "-c".into(), "cc -c a.c".into()],
        directory: "/build".into(),
        environment: vec![("A".into(), value.into())],
    };
    let (one, other) = (Path::new("a.o"), Path::new("b.o"));
    {
        let mut journal = Journal::open(&path, PLACE).unwrap();
        for object in [one, other] {
            journal.set_recipe(object, &recipe("old")).unwrap();
            journal.set_recipe(object, &recipe("new")).unwrap();
        }
        assert_eq!(journal.records.environments.len(), 2);
    }
    let journal = Journal::open(&path, PLACE).unwrap();
    assert_eq!(journal.records.recipe(other), Some(recipe("new")));
    assert_eq!(
        Journal::read_recipe(&path, one).unwrap(),
        Some(recipe("new"))
    );
    assert_eq!(Journal::read_recipe(&path, Path::new("c.o")).unwrap(), None);
    let journal = Journal::open(&path, PLACE).unwrap();
    assert_eq!(journal.records.environments.len(), 1);
}

#[test]
fn it_is_rewritten_where_much_is_outdated() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let natives = || (0..10).map(|number| PathBuf::from(format!("{number}.o")));
    let size = || fs_err::metadata(&path).unwrap().len();
    let set_all = |reader: &str| {
        let mut journal = Journal::open(&path, PLACE).unwrap();
        let opened = size();
        natives().for_each(|object| journal.set_native(&object, reader).unwrap());
        opened
    };
    set_all("one");
    let once = size();
    assert_eq!(set_all("two"), once);
    let twice = size();
    assert!(twice > once);
    assert_eq!(set_all("two"), once, "what is outdated is gone");
    let journal = Journal::open(&path, PLACE).unwrap();
    assert!(natives().all(|object| journal.native_reader(&object) == Some("two")));
}

#[test]
fn a_lost_journal_has_another_identifier() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let first = Journal::open(&path, PLACE).unwrap().identifier().to_owned();
    fs_err::write(&path, b"damaged").unwrap();
    assert_ne!(Journal::open(&path, PLACE).unwrap().identifier(), first);
}

#[test]
fn lines_read_are_those_of_the_last_compile() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let object = Path::new("a.o");
    let names = SourceFiles::from(["x.h".into()]);
    let mut journal = Journal::open(&path, PLACE).unwrap();
    journal.begin_compile(object, record("-O2")).unwrap();
    journal.set_lines_read(object, Some(names.clone())).unwrap();
    let known = || Journal::read_lines_read(&path).unwrap().0;
    let of = |object: &Path, names: &[&str]| {
        let names = names.iter().map(PathBuf::from).collect();
        LinesRead::from([(object.to_owned(), names)])
    };
    assert_eq!(known(), of(object, &["x.h"]));
    let more = SourceFiles::from(["y.h".into()]);
    journal.add_lines_read(object, Some(more.clone())).unwrap();
    assert_eq!(known(), of(object, &["x.h", "y.h"]));
    journal.begin_compile(object, record("-O2")).unwrap();
    assert_eq!(known(), LinesRead::new());
    // What else is made of the source does not tell of the object.
    journal.add_lines_read(object, Some(more)).unwrap();
    assert_eq!(known(), LinesRead::new());
}
