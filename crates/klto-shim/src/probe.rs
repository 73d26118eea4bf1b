//! Answers to kbuild's questions about the compiler, which `cc-option`, `as-instr` and others ask each time that make
//! reads its makefiles (scripts/Makefile.compiler): the same question has the same answer in the next build.
//!
//! In: a call that compiles nothing, or a line of standard input. Out: what the compiler said the first time. The
//! session has a place for answers only where the tools, the environment and make's words are those of the last
//! build; an answer is a file in it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{self, Read, Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The most of standard input that is a question, and the largest object that is an answer.
const LONGEST: usize = 1 << 16;

/// A question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    /// Where the compiler writes an object, which kbuild throws away.
    pub output: PathBuf,
    /// Whether the question goes on in standard input.
    pub reads_input: bool,
    /// The arguments without the output, and standard input: the whole question.
    key: Vec<u8>,
}

/// What the compiler says to a question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub code: u8,
    /// For standard error.
    pub printed: Vec<u8>,
    /// `None` where it writes none.
    pub object: Option<Vec<u8>>,
}

impl Probe {
    /// `None` for a call that may read a file, or make something that is used.
    pub fn of(arguments: &[OsString]) -> Option<Self> {
        let (mut key, mut output, mut input) = (Vec::new(), None, None);
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match word.as_bytes() {
                b"-o" => output = Some(PathBuf::from(words.next()?)),
                b"-x" => {
                    add(&mut key, word.as_bytes());
                    add(&mut key, words.next()?.as_bytes());
                }
                b"-" if input.is_none() => input = Some(true),
                b"/dev/null" if input.is_none() => input = Some(false),
                flag if names_no_file(flag) => add(&mut key, flag),
                _ => return None,
            }
        }
        let compiles = arguments.iter().any(|word| word == "-c");
        let probe = Self {
            output: output?,
            reads_input: input?,
            key,
        };
        compiles.then_some(probe)
    }

    /// Takes standard input as the rest of the question; whether it is one, and a file with the same text.
    ///
    /// # Errors
    ///
    /// Standard input cannot be read, or there is no room for it.
    pub fn take_input(&mut self, input: &mut dyn Read) -> io::Result<(bool, File)> {
        let mut text = Vec::new();
        input.read_to_end(&mut text)?;
        let has = |words: &[u8]| text.windows(words.len()).any(|part| part == words);
        let is_question = text.len() <= LONGEST && !has(b"incbin") && !has(b"include");
        let mut file = memory_file()?;
        file.write_all(&text)?;
        file.rewind()?;
        add(&mut self.key, &text);
        Ok((is_question, file))
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

    /// Keeps an answer in `place`; one that cannot be kept is asked for again.
    pub fn keep(&self, place: &Path, answer: &Answer) {
        let mut bytes = Vec::new();
        add(&mut bytes, &self.key);
        bytes.push(answer.code);
        add(&mut bytes, &answer.printed);
        if let Some(object) = &answer.object {
            add(&mut bytes, object);
        }
        if bytes.len() > 2 * LONGEST {
            return;
        }
        let partial = place.join(format!("{}.{}", self.name(), std::process::id()));
        let written = fs::write(&partial, bytes);
        if written.is_err() || fs::rename(&partial, place.join(self.name())).is_err() {
            let _ = fs::remove_file(&partial);
        }
    }

    /// Questions that share a name take turns: the file has the whole question.
    fn name(&self) -> String {
        let mut hasher = DefaultHasher::new();
        hasher.write(&self.key);
        format!("{:016x}", hasher.finish())
    }
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
    const WITH_FILES: [&[u8]; 9] = [
        b"-Wp,",
        b"-Wl,",
        b"-Wa,-I",
        b"-Wa,@",
        b"-fplugin",
        b"-fpass-plugin",
        b"-fprofile-",
        b"-fxray-",
        b"-fsanitize-",
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
        Probe::of(&arguments)
    }

    #[test]
    fn questions_are_told_from_compiles() {
        for call in [
            "-Werror -D__KERNEL__ --target=x86_64-linux-gnu -O2 -pg -mfentry -Wa,--fatal-warnings -c -x assembler-with-cpp \
             -o .tmp_7/tmp -",
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

    #[test]
    fn an_answer_is_that_of_the_same_question() {
        let place = tempfile::tempdir().unwrap();
        let question = |text: &str, output: &str| {
            let mut probe = probe(&format!("-c -x assembler -o {output} -")).unwrap();
            let (is_question, _) = probe.take_input(&mut text.as_bytes()).unwrap();
            assert!(is_question);
            probe
        };
        let answer = Answer {
            code: 1,
            printed: b"no such instruction".to_vec(),
            object: None,
        };
        question("nop", "a").keep(place.path(), &answer);
        assert_eq!(question("nop", "b").known(place.path()), Some(answer));
        assert_eq!(question("hlt", "a").known(place.path()), None);
        let with_object = Answer {
            code: 0,
            printed: Vec::new(),
            object: Some(Vec::new()),
        };
        question("hlt", "a").keep(place.path(), &with_object);
        assert_eq!(question("hlt", "a").known(place.path()), Some(with_object));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_names_a_file_is_no_question() {
        let mut probe = probe("-c -x assembler -o a -").unwrap();
        let text = ".incbin \"a\"";
        let (is_question, mut file) = probe.take_input(&mut text.as_bytes()).unwrap();
        let mut again = String::new();
        file.read_to_string(&mut again).unwrap();
        assert!(!is_question && again == text);
    }
}
