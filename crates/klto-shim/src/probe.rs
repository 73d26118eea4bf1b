//! Probes: what kbuild asks the compiler by `cc-option`, `as-instr` and others each time that make reads its
//! makefiles (scripts/Makefile.compiler). The same probe has the same answer in the next build.
//!
//! In: a call that compiles nothing, or a few lines of standard input. Out: what the compiler said the first
//! time. The session has a place for answers only where the tools, the environment and make's words are those
//! of the last build; an answer is a file in it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The most of standard input that belongs to a probe, and the largest object that is kept.
const LONGEST: usize = 1 << 16;

/// A probe.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    /// Where the compiler writes an object.
    pub output: PathBuf,
    /// Whether it reads standard input.
    pub reads_input: bool,
    /// Arguments without the output, directory and standard input: all that the answer depends on.
    key: Vec<u8>,
}

/// What the compiler does when it is asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub code: u8,
    /// For standard error.
    pub printed: Vec<u8>,
    /// `None` where it writes none.
    pub object: Option<Vec<u8>>,
}

/// The beginning of standard input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// It ends there, and names no file.
    Whole(Vec<u8>),
    /// It goes on, or the compiler may read a file that it names.
    Other(Vec<u8>),
}

impl Probe {
    /// `None` for a call that may read a file, or make something that is used.
    pub fn of(arguments: &[OsString], directory: &Path) -> Option<Self> {
        let (mut key, mut output, mut reads_input) = (Vec::new(), None, None);
        add(&mut key, directory.as_os_str().as_bytes());
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match word.as_bytes() {
                b"-o" => output = Some(PathBuf::from(words.next()?)),
                b"-x" => {
                    add(&mut key, word.as_bytes());
                    add(&mut key, words.next()?.as_bytes());
                }
                input @ (b"-" | b"/dev/null") if reads_input.is_none() => {
                    add(&mut key, input);
                    reads_input = Some(input == b"-");
                }
                flag if names_no_file(flag) => add(&mut key, flag),
                _ => return None,
            }
        }
        let compiles = arguments.iter().any(|word| word == "-c");
        let probe = Self {
            output: output?,
            reads_input: reads_input?,
            key,
        };
        compiles.then_some(probe)
    }

    /// The same with what it reads.
    pub fn with_input(mut self, text: &[u8]) -> Self {
        add(&mut self.key, text);
        self
    }

    /// The answer that `place` has.
    pub fn known(&self, place: &Path) -> Option<Answer> {
        let bytes = fs::read(place.join(self.name())).ok()?;
        let mut rest = bytes.as_slice();
        let key = take(&mut rest)?;
        let (code, mut rest) = rest.split_first()?;
        let printed = take(&mut rest)?.to_vec();
        let object = match rest.is_empty() {
            true => None,
            false => Some(take(&mut rest)?.to_vec()),
        };
        let answer = Answer {
            code: *code,
            printed,
            object,
        };
        (key == self.key && rest.is_empty()).then_some(answer)
    }

    /// Keeps an answer in `place`, if it is one for good; one that cannot be kept is asked for again.
    pub fn keep(&self, place: &Path, answer: &Answer) {
        let mut bytes = Vec::new();
        add(&mut bytes, &self.key);
        bytes.push(answer.code);
        add(&mut bytes, &answer.printed);
        if let Some(object) = &answer.object {
            add(&mut bytes, object);
        }
        if bytes.len() > 2 * LONGEST || !answer.is_for_good(&self.output) {
            return;
        }
        let partial = place.join(format!("{}.{}", self.name(), std::process::id()));
        let written = fs::write(&partial, bytes);
        if written.is_err() || fs::rename(&partial, place.join(self.name())).is_err() {
            let _ = fs::remove_file(&partial);
        }
    }

    /// Probes that share a name take turns: the file has the whole key.
    fn name(&self) -> String {
        let mut hasher = DefaultHasher::new();
        hasher.write(&self.key);
        format!("{:016x}", hasher.finish())
    }
}

impl Answer {
    /// Whether the compiler did what it was asked, or does not know how. It may also have failed for want of
    /// memory, of room, or of the output's directory.
    fn is_for_good(&self, output: &Path) -> bool {
        const REFUSALS: [&[u8]; 6] = [
            b"unknown",
            b"unsupported",
            b"not supported",
            b"invalid",
            b"unrecognized",
            b"unused",
        ];
        let says = |words: &[u8]| has(&self.printed, words);
        match self.code {
            0 => self.object.is_some(),
            1 => {
                let refuses = REFUSALS.iter().any(|words| says(words));
                refuses && !says(output.as_os_str().as_bytes()) && !says(b"LLVM ERROR")
            }
            _ => false,
        }
    }
}

impl Input {
    /// Reads no more than a probe has.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn read(input: &mut dyn Read) -> io::Result<Self> {
        let mut text = Vec::new();
        input.take(LONGEST as u64 + 1).read_to_end(&mut text)?;
        let directives: [&[u8]; 4] = [b"incbin", b"include", b"import", b"embed"];
        let names_file = directives.iter().any(|words| has(&text, words));
        Ok(match text.len() > LONGEST || names_file {
            true => Self::Other(text),
            false => Self::Whole(text),
        })
    }
}

fn has(text: &[u8], words: &[u8]) -> bool {
    text.windows(words.len().max(1)).any(|part| part == words)
}

/// A file that is nowhere.
pub(crate) fn memory_file() -> io::Result<File> {
    let file = rustix::fs::memfd_create("probe", rustix::fs::MemfdFlags::CLOEXEC)?;
    Ok(File::from(file))
}

/// Whether a flag is one of those that kbuild asks about, and its value no path.
fn names_no_file(flag: &[u8]) -> bool {
    const KINDS: [&[u8]; 14] = [
        b"-c",
        b"-D",
        b"-W",
        b"-f",
        b"-m",
        b"-g",
        b"-O",
        b"-std=",
        b"-nostd",
        b"-no-",
        b"-Q",
        b"--target=",
        b"-pipe",
        b"-pg",
    ];
    const WITH_FILES: [&[u8]; 13] = [
        b"-Wp,",
        b"-Wl,",
        b"-Wa,-I",
        b"-Wa,@",
        b"-fplugin",
        b"-fpass-plugin",
        b"-fprofile-",
        b"-fcs-profile-",
        b"-fxray-",
        b"-fsanitize-",
        b"-fbasic-block-",
        b"-frandomize-layout-",
        b"-fmodule",
    ];
    const OF_PATHS: [&[u8]; 3] = [
        b"-fmacro-prefix-map=",
        b"-ffile-prefix-map=",
        b"-fdebug-prefix-map=",
    ];
    let begins = |kinds: &[&[u8]]| kinds.iter().any(|kind| flag.starts_with(kind));
    let is_path = flag.contains(&b'/') && !begins(&OF_PATHS);
    begins(&KINDS) && !begins(&WITH_FILES) && !is_path
}

/// Appends a text with its length.
fn add(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text);
}

/// The text that [`add`] has put at the beginning.
fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (text, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(call: &str) -> Option<Probe> {
        let arguments: Vec<OsString> = call.split(' ').map(OsString::from).collect();
        Probe::of(&arguments, Path::new("/out"))
    }

    #[test]
    fn probes_are_told_from_compiles() {
        for call in [
            "-Werror -D__KERNEL__ --target=x86_64-linux-gnu -O2 -pg -mfentry -Wa,--fatal-warnings -c \
             -x assembler-with-cpp -o .tmp_7/tmp -",
            "-Werror -std=gnu11 -fmacro-prefix-map=./= -march=armv8.5-a -c -x c /dev/null -o .tmp_7/tmp",
        ] {
            assert!(probe(call).is_some(), "{call}");
        }
        for call in [
            "-c -x c /dev/null",
            "-c -o a.o a.c",
            "-E -x c - -o a",
            "-c -include a.h -x c /dev/null -o a",
            "-c -I. -x c /dev/null -o a",
            "-c -fprofile-use=a -x c /dev/null -o a",
            "-c -Wp,-MMD,a.d -x c /dev/null -o a",
            "-c -fsanitize-ignorelist=a -x c /dev/null -o a",
            "-c -fx=/a -x c /dev/null -o a",
            "-c @a -x c /dev/null -o a",
        ] {
            assert_eq!(probe(call), None, "{call}");
        }
    }

    fn refusal(text: &str) -> Answer {
        Answer {
            code: 1,
            printed: text.as_bytes().to_vec(),
            object: None,
        }
    }

    #[test]
    fn an_answer_is_that_of_the_same_probe() {
        let place = tempfile::tempdir().unwrap();
        let of = |text: &str, call: &str| probe(call).unwrap().with_input(text.as_bytes());
        let (one, other) = (
            "-c -x assembler -o .tmp_7/tmp -",
            "-c -x assembler -o .tmp_8/tmp -",
        );
        let answer = || refusal("<stdin>:1:1: error: invalid instruction mnemonic 'x'");
        of("x", one).keep(place.path(), &answer());
        assert_eq!(of("x", other).known(place.path()), Some(answer()));
        assert_eq!(of("y", one).known(place.path()), None);
        assert_eq!(
            of("x", "-c -o .tmp_7/tmp - -x assembler").known(place.path()),
            None
        );
        let with_object = || Answer {
            code: 0,
            printed: Vec::new(),
            object: Some(Vec::new()),
        };
        of("y", one).keep(place.path(), &with_object());
        assert_eq!(of("y", one).known(place.path()), Some(with_object()));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_may_pass_is_not_kept() {
        let place = tempfile::tempdir().unwrap();
        let probe = probe("-c -x c -o .tmp_7/tmp /dev/null").unwrap();
        let without_object = Answer {
            code: 0,
            ..refusal("")
        };
        let crash = Answer {
            code: 139,
            ..refusal("unknown")
        };
        let unopened = "error: unable to open output file '.tmp_7/tmp': 'No space left on device'";
        for answer in [
            refusal(unopened),
            refusal("LLVM ERROR: unknown"),
            without_object,
            crash,
        ] {
            probe.keep(place.path(), &answer);
            assert_eq!(probe.known(place.path()), None, "{answer:?}");
        }
    }

    #[test]
    fn input_that_names_a_file_belongs_to_no_probe() {
        let read = |text: &[u8]| Input::read(&mut &*text).unwrap();
        assert_eq!(read(b"nop"), Input::Whole(b"nop".to_vec()));
        let text = b".incbin \"a\"";
        assert_eq!(read(text), Input::Other(text.to_vec()));
        let long = vec![b'\n'; LONGEST + 2];
        assert_eq!(read(&long), Input::Other(long[1..].to_vec()));
    }
}
