//! The edit oracle: after a random sequence of edits, each followed by a build, the modules are what a clean
//! build by another klto with an empty store gives, bit for bit.
//!
//! `KLTO_ORACLE=SEED:STEPS` chooses another sequence, `SEED:STEPS:LLVM` one in which the toolchain changes too,
//! between the tests' own and that version; `cargo xtask oracle` plays long ones. When a check fails, the sequence is
//! played again with a check after each step, and the message names the first edit after which the build is
//! wrong.

#![allow(clippy::unwrap_used)]

mod prepared;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use fs_err as fs;
use klto_tests::{Build, PrivateSource, step};

use prepared::{jbd2_of_6_12, with_private_source};

/// One of several objects, and two of one object.
const MODULES: [&str; 3] = ["fs/jbd2/jbd2.ko", "fs/mbcache.ko", "lib/crc16.ko"];

const SOURCES: [&str; 6] = [
    "fs/jbd2/commit.c",
    "fs/jbd2/journal.c",
    "fs/jbd2/recovery.c",
    "fs/jbd2/revoke.c",
    "fs/mbcache.c",
    "lib/crc16.c",
];

const HEADERS: [&str; 3] = [
    "include/linux/jbd2.h",
    "include/linux/mbcache.h",
    "include/linux/crc16.h",
];

/// Lines of `.config` that an edit changes, and changes back.
const OPTIONS: [(&str, &str); 3] = [
    ("# CONFIG_JBD2_DEBUG is not set\n", "CONFIG_JBD2_DEBUG=y\n"),
    ("CONFIG_LOG_BUF_SHIFT=17\n", "CONFIG_LOG_BUF_SHIFT=16\n"),
    (
        "# CONFIG_PRINTK_TIME is not set\n",
        "CONFIG_PRINTK_TIME=y\n",
    ),
];

/// Steps from one check to the next.
const CHECKED: usize = 10;

/// SplitMix64: the same sequence everywhere (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
/// Generators, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % count as u64).unwrap()
    }

    fn one_of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

/// A header with more at its end, before the `#endif` of its guard.
fn within_guard(header: &str, more: &str) -> String {
    let (before, end) = header.rsplit_once("#endif").unwrap();
    format!("{before}{more}#endif{end}")
}

/// A tree under edit, and its output directory.
struct World {
    random: Random,
    source: PrivateSource,
    build: Build,
    /// Files as they were at first, by path.
    originals: BTreeMap<String, String>,
    /// Objects that were added to jbd2.
    added: Vec<String>,
    /// The other version of LLVM, if there is one.
    other_llvm: Option<u32>,
    is_other_llvm: bool,
    /// The value of KCFLAGS.
    flags: Option<&'static str>,
    steps: usize,
}

impl World {
    /// The unedited tree, built.
    fn new(seed: u64, other_llvm: Option<u32>) -> Self {
        let build = jbd2_of_6_12("tree").goals(&MODULES).verify(0);
        let (build, source) = with_private_source(build);
        let mut originals = BTreeMap::new();
        let more = ["fs/jbd2/Makefile"];
        for file in SOURCES.iter().chain(&HEADERS).chain(&more) {
            let text = fs::read_to_string(source.path().join(file)).unwrap();
            originals.insert((*file).to_owned(), text);
        }
        let mut world = Self {
            random: Random(seed),
            source,
            build,
            originals,
            added: Vec::new(),
            other_llvm,
            is_other_llvm: false,
            flags: None,
            steps: 0,
        };
        // What the assembler reads is in no dependency file.
        let reads = "void klto_blob(void);\nvoid klto_blob(void)\n{\n\t\
            asm volatile(\".pushsection .rodata; .incbin \\\"klto-blob\\\"; .popsection\");\n}\n";
        let recovery = world.originals["fs/jbd2/recovery.c"].clone() + reads;
        world
            .originals
            .insert("fs/jbd2/recovery.c".to_owned(), recovery);
        world.write("include/klto-blob", "0");
        world.revert("fs/jbd2/recovery.c");
        world.make();
        world
    }

    /// A build with the tools and variables that are chosen now.
    fn chosen(&self, build: &Build) -> Build {
        let tools = match (self.is_other_llvm, self.other_llvm) {
            (true, Some(version)) => format!("LLVM=-{version}"),
            _ => "LLVM=-22".to_owned(),
        };
        let build = build.clone().variables(&["ARCH=x86_64", &tools]);
        match self.flags {
            Some(flags) => build.word(format!("KCFLAGS={flags}")),
            None => build,
        }
    }

    fn make(&self) {
        self.chosen(&self.build).succeed();
    }

    fn write(&self, file: &str, text: &str) {
        self.source.write(file, text).unwrap();
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.source.path().join(file)).unwrap()
    }

    fn revert(&self, file: &str) {
        self.write(file, &self.originals[file]);
    }

    /// Does one random edit; says which.
    fn edit(&mut self) -> String {
        self.steps += 1;
        let number = self.steps;
        let kinds = match self.other_llvm {
            Some(_) => 17,
            None => 16,
        };
        match self.random.below(kinds) {
            0 | 1 => {
                let file = self.random.one_of(&SOURCES);
                let function = format!(
                    "int klto_{number}(void);\nint klto_{number}(void)\n{{\n\treturn {number};\n}}\n"
                );
                self.write(file, &(self.read(file) + &function));
                format!("a function in {file}")
            }
            2 => {
                let file = self.random.one_of(&SOURCES);
                let text = self.read(file);
                self.write(file, &text);
                format!("{file} is touched")
            }
            3 => {
                let file = self.random.one_of(&SOURCES);
                self.revert(file);
                format!("{file} as at first")
            }
            4 => {
                let file = self.random.one_of(&HEADERS);
                self.write(file, &format!("/* {number} */ {}", self.read(file)));
                format!("a comment in {file}")
            }
            5 => {
                let file = self.random.one_of(&HEADERS);
                let function = format!(
                    "static inline int klto_{number}_inline(void) {{ return {number}; }}\n"
                );
                self.write(file, &within_guard(&self.read(file), &function));
                format!("an inline function in {file}")
            }
            6 => {
                let file = self.random.one_of(&HEADERS);
                self.revert(file);
                format!("{file} as at first")
            }
            7 => self.add_or_remove_a_file(),
            8 => {
                let (one, other) = OPTIONS[self.random.below(OPTIONS.len())];
                let path = self.build.output_directory().join(".config");
                let config = fs::read_to_string(&path).unwrap();
                let (from, to) = if config.contains(one) {
                    (one, other)
                } else {
                    (other, one)
                };
                fs::write(&path, config.replace(from, to)).unwrap();
                format!("in .config: {}", to.trim())
            }
            9 => {
                // Many files at once; those of other size and of the same size.
                for (place, file) in SOURCES.iter().chain(&HEADERS).enumerate() {
                    let text = &self.originals[*file];
                    match (self.random.below(2), file.ends_with(".c")) {
                        (0, true) => self.write(file, &format!("{text}int klto_of_{place};\n")),
                        (0, false) => self.write(file, &text.replacen("the", "THE", 1)),
                        _ => self.revert(file),
                    }
                }
                "a checkout of other sources".to_owned()
            }
            10 => {
                self.write("include/klto-blob", &number.to_string());
                let text = self.read("fs/jbd2/recovery.c");
                self.write("fs/jbd2/recovery.c", &text);
                "another file for .incbin".to_owned()
            }
            11 => {
                let files = [&SOURCES[..], &HEADERS].concat();
                let file = self.random.one_of(&files);
                let text = &self.originals[file];
                let inline = format!("static inline int klto_old{number}(void) {{ return 0; }}\n");
                let edited = match file.ends_with(".c") {
                    true => format!("{text}int klto_old{number};\n"),
                    false => within_guard(text, &inline),
                };
                self.write(file, &edited);
                // As old as the tree, or as an object.
                let like = match self.random.below(2) {
                    0 => self.source.path().join("Makefile"),
                    _ => self.build.output_directory().join("fs/jbd2/commit.o"),
                };
                let time = fs::metadata(like).unwrap().modified().unwrap();
                let path = self.source.path().join(file);
                let opened = fs::File::options().write(true).open(path).unwrap();
                opened.file().set_modified(time).unwrap();
                format!("{file} with an old time")
            }
            12 => {
                let file = self.random.one_of(&SOURCES);
                let text = self.read(file);
                self.write(file, &format!("{text}#error here\n"));
                let wrong = self.chosen(&self.build).run().unwrap();
                assert!(!wrong.status.success());
                self.write(file, &text);
                format!("{file} with an error, and without it again")
            }
            13 => {
                let choices = [None, Some("-DKLTO_A"), Some("-O1"), Some("-fno-inline")];
                self.flags = choices[self.random.below(choices.len())];
                format!("KCFLAGS: {:?}", self.flags)
            }
            14 => {
                let file = self.random.one_of(&SOURCES);
                // Two edits in one tick; what is read is the second.
                let text = self.read(file);
                self.write(file, &format!("{text}int klto_x{number};\n"));
                self.write(file, &format!("{text}int klto_y{number};\n"));
                format!("two edits of {file} at once")
            }
            15 => {
                let later = SystemTime::now() + Duration::from_secs(3600);
                let module = self.build.output_directory().join("fs/jbd2");
                for file in prepared::files_below(&module) {
                    let opened = fs::File::options().write(true).open(file).unwrap();
                    opened.file().set_modified(later).unwrap();
                }
                let file = self.random.one_of(&SOURCES);
                let text = self.read(file);
                self.write(file, &format!("{text}int klto_earlier{number};\n"));
                format!("the clock is set back, then {file} is edited")
            }
            _ => {
                self.is_other_llvm = !self.is_other_llvm;
                // Options that one of them lacks are asked for otherwise.
                let configured = self.chosen(&self.build).plain().goals(&["olddefconfig"]);
                configured.succeed();
                "the other toolchain".to_owned()
            }
        }
    }

    fn add_or_remove_a_file(&mut self) -> String {
        let number = self.steps;
        let change = match self.added.pop() {
            Some(name) => format!("{name}.c is removed"),
            None => {
                let name = format!("klto_{number}");
                let text = format!("int {name}(void);\nint {name}(void) {{ return {number}; }}\n");
                self.write(&format!("fs/jbd2/{name}.c"), &text);
                self.added.push(name.clone());
                format!("{name}.c is added")
            }
        };
        let objects: String = self.added.iter().map(|name| format!(" {name}.o")).collect();
        let makefile = &self.originals["fs/jbd2/Makefile"];
        self.write(
            "fs/jbd2/Makefile",
            &format!("{makefile}\njbd2-objs +={objects}\n"),
        );
        change
    }

    /// What differs from a clean build, if anything does.
    fn differences(&self) -> Option<String> {
        let clean = jbd2_of_6_12("clean").goals(&MODULES);
        let clean = clean.source(self.source.path());
        let output = clean.output_directory().to_owned();
        // Only the configuration is taken along.
        let config = self.build.output_directory().join(".config");
        fs::remove_dir_all(&output).unwrap();
        fs::create_dir_all(&output).unwrap();
        fs::copy(config, output.join(".config")).unwrap();
        step("a clean build", || self.chosen(&clean).succeed());
        let files = MODULES.map(PathBuf::from);
        let report = klto_verify::bit_equal(&output, self.build.output_directory(), &files);
        let report = report.unwrap();
        (!report.equal()).then(|| report.to_string())
    }
}

/// Plays the sequence up to `steps`; checks at the steps for which `is_checked` says so.
fn play(
    (seed, other_llvm): (u64, Option<u32>),
    steps: usize,
    is_checked: impl Fn(usize) -> bool,
) -> Result<(), (usize, String)> {
    let mut world = World::new(seed, other_llvm);
    for step in 1..=steps {
        let edit = world.edit();
        eprintln!("    {step:>4}  {edit}");
        world.make();
        if is_checked(step)
            && let Some(report) = world.differences()
        {
            return Err((step, format!("seed {seed}, step {step}, {edit}:\n{report}")));
        }
    }
    Ok(())
}

#[test]
fn builds_after_edits_are_clean_builds() {
    let chosen = std::env::var("KLTO_ORACLE").unwrap_or_else(|_| "1:30".to_owned());
    let mut parts = chosen.split(':');
    let mut part = || parts.next().map(|number| number.parse::<u64>().unwrap());
    let (seed, steps) = (part().unwrap(), part().unwrap() as usize);
    let sequence = (seed, part().map(|version| version as u32));
    let tenth = |step: usize| step.is_multiple_of(CHECKED) || step == steps;
    if let Err((wrong, report)) = play(sequence, steps, tenth) {
        let right = (wrong - 1) / CHECKED * CHECKED;
        let each = |step: usize| step > right;
        let (_, first) = play(sequence, wrong, each).expect_err(&report);
        panic!("{first}");
    }
}

/// A check that cannot fail would prove nothing.
#[test]
fn the_oracle_sees_a_wrong_module() {
    let world = World::new(1, None);
    let module = world.build.output_directory().join(MODULES[1]);
    let mut bytes = fs::read(&module).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&module, bytes).unwrap();
    assert!(world.differences().unwrap().contains(MODULES[1]));
}
