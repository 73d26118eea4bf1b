//! Round trips, and refusal of what no shim sends.

use super::*;

fn round_trip(reply: &Reply) -> Reply {
    let mut bytes = Vec::new();
    reply.write(&mut bytes).unwrap();
    Reply::read(&mut bytes.as_slice()).unwrap()
}

fn request() -> Request {
    Request {
        role: ShimRole::Linker,
        program: "/usr/bin/ld.lld".into(),
        arguments: vec!["-r".into(), OsString::from_vec(vec![0xff, 0xfe])],
        directory: "/build".into(),
        environment: vec![("PATH".into(), "/bin".into())],
    }
}

#[test]
fn requests_round_trip_with_bytes_that_are_no_text() {
    let mut bytes = Vec::new();
    request().write(&mut bytes).unwrap();
    assert_eq!(Request::read(&mut bytes.as_slice()).unwrap(), request());
}

#[test]
fn replies_round_trip() {
    let arguments = vec!["-c".into()];
    for reply in [
        Reply::Exec {
            program: "/a".into(),
            arguments: arguments.clone(),
        },
        Reply::RunThenReport {
            program: "/b".into(),
            arguments,
            directory: "/d".into(),
            quiet: true,
        },
        Reply::Done {
            code: 7,
            stdout: b"o".to_vec(),
            stderr: b"e".to_vec(),
        },
    ] {
        assert_eq!(round_trip(&reply), reply);
    }
}

#[test]
fn what_was_printed_comes_with_the_end() {
    let finished = Finished {
        code: 1,
        printed: b"a.c:1:2: \xff\n".to_vec(),
    };
    let mut bytes = Vec::new();
    finished.write(&mut bytes).unwrap();
    assert_eq!(Finished::read(&mut bytes.as_slice()).unwrap(), finished);
}

#[test]
fn truncated_and_foreign_frames_are_errors() {
    let mut bytes = Vec::new();
    request().write(&mut bytes).unwrap();
    for length in 0..bytes.len() {
        assert!(
            Request::read(&mut &bytes[..length]).is_err(),
            "length {length}"
        );
    }
    assert!(Reply::read(&mut bytes.as_slice()).is_err());
    let huge = [0xff, 0xff, 0xff, 0xff, 1];
    assert!(Request::read(&mut huge.as_slice()).is_err());
}
