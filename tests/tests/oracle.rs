//! The edit oracle: after a random sequence of edits, each followed by a build, what is built is what a clean
//! build by another klto with an empty store gives, bit for bit.
//!
//! `KLTO_ORACLE=SEED:FIRST-LAST` chooses other edits of another sequence, `SEED:FIRST-LAST:LLVM` of one in
//! which the toolchain changes between the tests' own and that version; `cargo xtask oracle` plays long ones.
//! The edits before the first are done without builds. When a check fails, those since the last that did not
//! are played again with a check after each, and the message names the first edit after which the build is
//! wrong.

#![allow(clippy::unwrap_used)]

mod prepared;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use fs_err as fs;
use klto_tests::{Build, PrivateSource, step};

use prepared::random::Random;
use prepared::{flip_a_bit, jbd2_of_6_12, with_private_source};

/// What is edited and built.
struct Scope {
    /// In the names of directories.
    name: &'static str,
    /// Goals of make; the boot image and the modules without one.
    goals: &'static [&'static str],
    sources: &'static [&'static str],
    headers: &'static [&'static str],
    /// Lines of `.config` that an edit changes, and changes back.
    options: &'static [(&'static str, &'static str)],
    /// The source for which the assembler reads a file.
    reader: &'static str,
    /// The directory that gets more files, and what its Makefile calls the list of objects.
    grows: (&'static str, &'static str),
    /// An object.
    object: &'static str,
}

/// Three modules, of one object each and of several.
static MODULES: Scope = Scope {
    name: "modules",
    goals: &["fs/jbd2/jbd2.ko", "fs/mbcache.ko", "lib/crc16.ko"],
    sources: &[
        "fs/jbd2/commit.c",
        "fs/jbd2/journal.c",
        "fs/jbd2/recovery.c",
        "fs/jbd2/revoke.c",
        "fs/mbcache.c",
        "lib/crc16.c",
    ],
    headers: &[
        "include/linux/jbd2.h",
        "include/linux/mbcache.h",
        "include/linux/crc16.h",
    ],
    options: &[
        ("# CONFIG_JBD2_DEBUG is not set\n", "CONFIG_JBD2_DEBUG=y\n"),
        LOG_BUFFER,
        PRINTK_TIME,
    ],
    reader: "fs/jbd2/recovery.c",
    grows: ("fs/jbd2", "jbd2-objs"),
    object: "fs/jbd2/commit.o",
};

/// A whole kernel, as small as one with modules is.
static KERNEL: Scope = Scope {
    name: "kernel",
    goals: &[],
    sources: &[
        "init/main.c",
        "kernel/notifier.c",
        "fs/exec.c",
        "lib/ctype.c",
        "arch/x86/kernel/e820.c",
        "fs/binfmt_misc.c",
        "fs/autofs/waitq.c",
    ],
    headers: &[
        "include/linux/auto_fs.h",
        "include/linux/binfmts.h",
        "include/linux/utsname.h",
    ],
    options: &[
        ("CONFIG_AUTOFS_FS=m\n", "CONFIG_AUTOFS_FS=y\n"),
        LOG_BUFFER,
        PRINTK_TIME,
    ],
    reader: "kernel/notifier.c",
    grows: ("lib", "obj-y"),
    object: "init/main.o",
};

const LOG_BUFFER: (&str, &str) = ("CONFIG_LOG_BUF_SHIFT=17\n", "CONFIG_LOG_BUF_SHIFT=16\n");
const PRINTK_TIME: (&str, &str) = (
    "# CONFIG_PRINTK_TIME is not set\n",
    "CONFIG_PRINTK_TIME=y\n",
);

/// Steps from one check to the next.
const CHECKED: usize = 10;

/// A header with more at its end, before the `#endif` of its guard.
fn within_guard(header: &str, more: &str) -> String {
    let (before, end) = header.rsplit_once("#endif").unwrap();
    format!("{before}{more}#endif{end}")
}

/// A tree under edit, and its output directory.
struct World {
    scope: &'static Scope,
    random: Random,
    /// Kinds of edits that are still to come before all come again.
    deck: Vec<usize>,
    source: PrivateSource,
    build: Build,
    /// Files as they were at first, by path.
    originals: BTreeMap<String, String>,
    /// Objects that were added to the directory that grows.
    added: Vec<String>,
    /// The other version of LLVM, if there is one.
    other_llvm: Option<u32>,
    is_other_llvm: bool,
    /// The values of KCFLAGS and LOCALVERSION.
    flags: Option<&'static str>,
    version: Option<&'static str>,
    /// A file that is changed in place once what is there is built.
    in_place: Option<(String, String)>,
    /// Whether no builds follow the edits.
    is_skipping: bool,
    steps: usize,
}

impl Scope {
    /// A build of the unedited tree, in an output directory of that name.
    fn build(&self, name: &str) -> Build {
        let name = format!("{name}-{}", self.name);
        let build = match self.goals.is_empty() {
            true => kernel(&name),
            false => jbd2_of_6_12(&name),
        };
        build.goals(self.goals).verify(0)
    }

    fn with_private_source(&self, build: Build) -> (Build, PrivateSource) {
        if !self.goals.is_empty() {
            return with_private_source(build);
        }
        let source = PrivateSource::of(build.tree(), "oracle").unwrap();
        let build = build.source(source.path());
        build.configure_fresh().unwrap();
        (build, source)
    }

    /// What is held against a clean build.
    fn products(&self, clean: &Build) -> Vec<PathBuf> {
        if !self.goals.is_empty() {
            return self.goals.iter().map(PathBuf::from).collect();
        }
        let kernel = [
            "vmlinux",
            "System.map",
            "Module.symvers",
            clean.tree().image,
        ];
        let kernel = kernel.map(PathBuf::from).into_iter();
        let modules = klto_verify::modules(clean.output_directory()).unwrap();
        kernel.chain(modules).collect()
    }

    fn makefile(&self) -> String {
        format!("{}/Makefile", self.grows.0)
    }
}

/// The whole small kernel, with an empty store.
fn kernel(name: &str) -> Build {
    let build = Build::new("6.12", &format!("oracle-{name}")).unwrap();
    let build = build.fragments(&["oracle-x86_64.config"]);
    build.empty_store().unwrap()
}

impl World {
    /// The unedited tree, built.
    fn new(scope: &'static Scope, seed: u64, other_llvm: Option<u32>) -> Self {
        let (build, source) = scope.with_private_source(scope.build("tree"));
        let mut originals = BTreeMap::new();
        let makefile = scope.makefile();
        let files = scope.sources.iter().chain(scope.headers);
        for file in files.copied().chain([makefile.as_str()]) {
            let text = fs::read_to_string(source.path().join(file)).unwrap();
            originals.insert(file.to_owned(), text);
        }
        let mut world = Self {
            scope,
            random: Random(seed),
            deck: Vec::new(),
            source,
            build,
            originals,
            added: Vec::new(),
            other_llvm,
            is_other_llvm: false,
            flags: None,
            version: None,
            in_place: None,
            is_skipping: false,
            steps: 0,
        };
        // What the assembler reads is in no dependency file.
        let reads = "void klto_blob(void);\nvoid klto_blob(void)\n{\n\t\
            asm volatile(\".pushsection .rodata; .incbin \\\"klto-blob\\\"; .popsection\");\n}\n";
        let reader = world.originals[scope.reader].clone() + reads;
        world.originals.insert(scope.reader.to_owned(), reader);
        world.write("include/klto-blob", "0");
        world.revert(scope.reader);
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
        let words = [("KCFLAGS", self.flags), ("LOCALVERSION", self.version)];
        let words = words
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        words.fold(build, |build, (name, value)| {
            build.word(format!("{name}={value}"))
        })
    }

    fn make(&mut self) {
        let build = |world: &Self| {
            if !world.is_skipping {
                world.chosen(&world.build).succeed();
            }
        };
        build(self);
        if let Some((file, text)) = self.in_place.take() {
            // At once, of the same size, and the same inode.
            fs::write(self.source.path().join(file), text).unwrap();
            build(self);
        }
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
    #[expect(
        clippy::too_many_lines,
        reason = "a flat match over the kinds of edits"
    )]
    fn edit(&mut self) -> String {
        self.steps += 1;
        let number = self.steps;
        let kinds = match self.other_llvm {
            Some(_) => 19,
            None => 18,
        };
        if self.deck.is_empty() {
            self.deck = self.random.shuffled(kinds);
        }
        match self.deck.pop().unwrap() {
            0 | 1 => {
                let file = self.random.one_of(self.scope.sources);
                let function = format!(
                    "int klto_{number}(void);\nint klto_{number}(void)\n{{\n\treturn {number};\n}}\n"
                );
                self.write(file, &(self.read(file) + &function));
                format!("a function in {file}")
            }
            2 => {
                let file = self.random.one_of(self.scope.sources);
                let text = self.read(file);
                self.write(file, &text);
                format!("{file} is touched")
            }
            3 => {
                let file = self.random.one_of(self.scope.sources);
                self.revert(file);
                format!("{file} as at first")
            }
            4 => {
                let file = self.random.one_of(self.scope.headers);
                // Every other one moves lines.
                let end = if number.is_multiple_of(2) { "\n" } else { " " };
                self.write(file, &format!("/* {number} */{end}{}", self.read(file)));
                format!("a comment in {file}")
            }
            5 => {
                let file = self.random.one_of(self.scope.headers);
                // Every other one is in all objects, and reads its line.
                let (kind, line) = match number.is_multiple_of(2) {
                    true => ("__attribute__((used))", " + __LINE__"),
                    false => ("inline", ""),
                };
                let function = format!(
                    "static {kind} int klto_{number}_inline(void) {{ return {number}{line}; }}\n"
                );
                self.write(file, &within_guard(&self.read(file), &function));
                format!("an inline function in {file}")
            }
            6 => {
                let file = self.random.one_of(self.scope.headers);
                self.revert(file);
                format!("{file} as at first")
            }
            7 => self.add_or_remove_a_file(),
            8 => {
                let options = self.scope.options;
                let (one, other) = options[self.random.below(options.len())];
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
                let files = self.scope.sources.iter().chain(self.scope.headers);
                for (place, file) in files.enumerate() {
                    let text = &self.originals[*file];
                    match (self.random.below(2), file.ends_with(".c")) {
                        (0, true) => self.write(file, &format!("{text}int klto_of_{place};\n")),
                        (0, false) => self.write(file, &text.replacen("the", "THE", 1)),
                        _ => self.revert(file),
                    }
                }
                format!(
                    "a checkout of other sources, {}",
                    self.add_or_remove_a_file()
                )
            }
            10 => {
                self.write("include/klto-blob", &number.to_string());
                match self.random.below(2) {
                    0 => "another file for .incbin".to_owned(),
                    _ => {
                        let text = self.read(self.scope.reader);
                        self.write(self.scope.reader, &text);
                        "another file for .incbin, and its reader is touched".to_owned()
                    }
                }
            }
            11 => {
                let files = [self.scope.sources, self.scope.headers].concat();
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
                    _ => self.build.output_directory().join(self.scope.object),
                };
                let time = fs::metadata(like).unwrap().modified().unwrap();
                let path = self.source.path().join(file);
                let opened = fs::File::options().write(true).open(path).unwrap();
                opened.file().set_modified(time).unwrap();
                format!("{file} with an old time")
            }
            12 => {
                let file = self.random.one_of(self.scope.sources);
                let text = self.read(file);
                // What was built of the header before the error is newer than the header is again.
                let header = self.random.one_of(self.scope.headers);
                let path = self.source.path().join(header);
                let before = fs::metadata(&path).unwrap().modified().unwrap();
                let header_text = self.read(header);
                let inline =
                    format!("static inline int klto_aside{number}(void) {{ return 0; }}\n");
                self.write(header, &within_guard(&header_text, &inline));
                self.write(file, &format!("{text}#error here\n"));
                if !self.is_skipping {
                    let wrong = self.chosen(&self.build).run().unwrap();
                    assert!(!wrong.status.success());
                }
                self.write(file, &text);
                self.write(header, &header_text);
                let opened = fs::File::options().write(true).open(path).unwrap();
                opened.file().set_modified(before).unwrap();
                format!("{file} with an error, and without it again, {header} as it was before")
            }
            13 => {
                let choices = [None, Some("-DKLTO_A"), Some("-O1"), Some("-fno-inline")];
                self.flags = choices[self.random.below(choices.len())];
                format!("KCFLAGS: {:?}", self.flags)
            }
            14 => {
                let file = self.random.one_of(self.scope.sources);
                // Two edits in one tick; what is read is the second.
                let text = self.read(file);
                self.write(file, &format!("{text}int klto_x{number};\n"));
                self.write(file, &format!("{text}int klto_y{number};\n"));
                format!("two edits of {file} at once")
            }
            15 => {
                let later = SystemTime::now() + Duration::from_secs(3600);
                let output = self.build.output_directory();
                let made = match self.random.below(2) {
                    0 => output.to_owned(),
                    _ => output.join(self.scope.grows.0),
                };
                // A link leads to the source, or to klto.
                let is_file = |file: &PathBuf| fs::symlink_metadata(file).unwrap().is_file();
                for file in prepared::files_below(&made).into_iter().filter(is_file) {
                    let opened = fs::File::open(file).unwrap();
                    opened.file().set_modified(later).unwrap();
                }
                let file = self.random.one_of(self.scope.sources);
                let text = self.read(file);
                self.write(file, &format!("{text}int klto_earlier{number};\n"));
                format!("the clock is set back, then {file} is edited")
            }
            16 => {
                let choices = [None, Some("-klto"), Some("-other")];
                self.version = choices[self.random.below(choices.len())];
                format!("LOCALVERSION: {:?}", self.version)
            }
            17 => {
                let file = self.random.one_of(self.scope.sources);
                let text = self.read(file);
                self.write(file, &format!("{text}int klto_x{number};\n"));
                let then = format!("{text}int klto_y{number};\n");
                self.in_place = Some((file.to_owned(), then));
                format!("an edit of {file}, and another once it is built")
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
        let (directory, list) = self.scope.grows;
        let change = match self.added.pop() {
            Some(name) => {
                let file = self.source.path().join(directory).join(format!("{name}.c"));
                fs::remove_file(file).unwrap();
                format!("{name}.c is removed")
            }
            None => {
                let name = format!("klto_{number}");
                let text = format!("int {name}(void);\nint {name}(void) {{ return {number}; }}\n");
                self.write(&format!("{directory}/{name}.c"), &text);
                self.added.push(name.clone());
                format!("{name}.c is added")
            }
        };
        let objects: String = self.added.iter().map(|name| format!(" {name}.o")).collect();
        let file = self.scope.makefile();
        let makefile = &self.originals[&file];
        self.write(&file, &format!("{makefile}\n{list} +={objects}\n"));
        change
    }

    /// A clean build of what is there now.
    fn clean_build(&self) -> Build {
        let clean = self.scope.build("clean").source(self.source.path());
        let output = clean.output_directory().to_owned();
        // Only the configuration is taken along.
        let config = self.build.output_directory().join(".config");
        if output.exists() {
            fs::remove_dir_all(&output).unwrap();
        }
        fs::create_dir_all(&output).unwrap();
        fs::copy(config, output.join(".config")).unwrap();
        step("a clean build", || self.chosen(&clean).succeed());
        clean
    }

    /// What differs from it, if anything does.
    fn differences(&self, clean: &Build) -> Option<String> {
        let [one, other] = [clean, &self.build].map(Build::output_directory);
        let files = self.scope.products(clean);
        let report = klto_verify::bit_equal(one, other, &files).unwrap();
        (!report.equal()).then(|| report.to_string())
    }
}

/// A part of a sequence.
#[derive(Clone)]
struct Part {
    seed: u64,
    steps: RangeInclusive<usize>,
    other_llvm: Option<u32>,
}

impl Part {
    /// What the environment says, or the first steps of the sequence 1.
    fn chosen(last: usize) -> Self {
        let Ok(chosen) = std::env::var("KLTO_ORACLE") else {
            return Self {
                seed: 1,
                steps: 1..=last,
                other_llvm: None,
            };
        };
        let mut parts = chosen.split(':');
        let mut part = || parts.next();
        let (seed, steps) = (part().unwrap(), part().unwrap());
        let (first, last) = steps.split_once('-').unwrap();
        Self {
            seed: seed.parse().unwrap(),
            steps: first.parse().unwrap()..=last.parse().unwrap(),
            other_llvm: part().map(|version| version.parse().unwrap()),
        }
    }
}

/// Plays a part of a sequence; checks at the steps for which `is_checked` says so. Returns what the part leaves,
/// and the last clean build.
fn play(
    scope: &'static Scope,
    part: &Part,
    is_checked: impl Fn(usize) -> bool,
) -> Result<(World, Option<Build>), (usize, String)> {
    let mut last_clean = None;
    let mut world = World::new(scope, part.seed, part.other_llvm);
    for step in 1..=*part.steps.end() {
        world.is_skipping = step < *part.steps.start();
        let edit = world.edit();
        eprintln!("    {step:>4}  {edit}");
        world.make();
        if is_checked(step) {
            let clean = last_clean.insert(world.clean_build());
            if let Some(report) = world.differences(clean) {
                let what = format!("seed {}, step {step}, {edit}:\n{report}", part.seed);
                return Err((step, what));
            }
        }
    }
    Ok((world, last_clean))
}

fn builds_after_edits_are_clean_builds(scope: &'static Scope, part: &Part) {
    let (first, last) = (*part.steps.start(), *part.steps.end());
    let tenth = |step: usize| step >= first && (step.is_multiple_of(CHECKED) || step == last);
    let (world, clean) = match play(scope, part, tenth) {
        Ok((world, clean)) => (world, clean.unwrap()),
        Err((wrong, report)) => {
            let right = (wrong - 1) / CHECKED * CHECKED;
            let each = |step: usize| step > right && step >= first;
            let part = Part {
                steps: first..=wrong,
                ..part.clone()
            };
            let (_, first) = play(scope, &part, each).err().expect(&report);
            panic!("{first}");
        }
    };
    // A check that cannot fail would prove nothing.
    let wrong = scope.products(&clean).pop().unwrap();
    flip_a_bit(&world.build.output_directory().join(&wrong));
    let report = world.differences(&clean).unwrap_or_default();
    assert!(report.contains(wrong.to_str().unwrap()), "{report}");
}

#[test]
fn modules_after_edits_are_those_of_clean_builds() {
    builds_after_edits_are_clean_builds(&MODULES, &Part::chosen(30));
}

#[test]
#[ignore = "takes ten minutes and more: cargo xtask oracle plays it"]
fn a_kernel_after_edits_is_that_of_a_clean_build() {
    builds_after_edits_are_clean_builds(&KERNEL, &Part::chosen(10));
}
