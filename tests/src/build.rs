//! One run of make, through klto or plain: from a few choices to what came out.
//!
//! Every run has the reproducible stamps of kbuild, the C locale, a store of the tests' own and
//! `KLTO_VERIFY`, so that a part of all results that are found is made again and compared.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use klto_core::die_with_parent;
use xtask::kernel::{self, Configuration, Lto, REPRODUCIBLE, Tree};
use xtask::sources;

use crate::binary::klto_binary;
use crate::log::Log;
use crate::outcome::Outcome;
use crate::place::{cache, test_directory};

/// The choices of a run. Cheap to clone: keep one and vary it.
#[derive(Debug, Clone)]
pub struct Build {
    tree: &'static Tree,
    source: PathBuf,
    output: PathBuf,
    store: PathBuf,
    _temporary_store: Option<Arc<tempfile::TempDir>>,
    configuration: Configuration,
    through_klto: bool,
    mode: Option<&'static str>,
    jobs: Option<usize>,
    variables: Option<Vec<String>>,
    goals: Vec<String>,
    words: Vec<OsString>,
    environment: Vec<(OsString, Option<OsString>)>,
    directory: Option<PathBuf>,
}

/// Variables of the tests' own environment that would change a build.
const REMOVED: &[&str] = &[
    "MAKEFLAGS",
    "MFLAGS",
    "MAKELEVEL",
    "MAKEFILES",
    "GNUMAKEFLAGS",
    "ARCH",
    "CROSS_COMPILE",
    "LLVM",
    "LLVM_IAS",
    "CC",
    "LD",
    "HOSTCC",
    "KCFLAGS",
    "KBUILD_OUTPUT",
    "KBUILD_VERBOSE",
    "KCONFIG_CONFIG",
    "INSTALL_MOD_PATH",
    "INSTALL_PATH",
    "CCC_OVERRIDE_OPTIONS",
    "CPATH",
    // Cargo sets it for the programs that it runs.
    "LD_LIBRARY_PATH",
    "KLTO_CACHE",
    "KLTO_CACHE_LIMIT",
    "KLTO_IMPORT_LIMIT",
    "KLTO_MEMORY",
    "KLTO_VERIFY",
];

impl Build {
    /// `klto make --lto=thin -j2` of the tree of that version in `builds/test-NAME`, with the
    /// goals of the boot image and the modules. On a tree with the option, `.config` decides
    /// instead of `--lto`.
    pub fn new(tree: &str, name: &str) -> Result<Self> {
        let tree = Tree::named(tree)?;
        let configuration = Configuration {
            lto: if tree.has_lto_option {
                Lto::Thin
            } else {
                Lto::None
            },
            ..Configuration::default()
        };
        Ok(Self {
            tree,
            source: sources::fetch(cache(), tree)?,
            output: test_directory(name)?,
            store: test_directory("store")?,
            _temporary_store: None,
            configuration,
            through_klto: true,
            mode: (!tree.has_lto_option).then_some("thin"),
            jobs: Some(2),
            variables: None,
            goals: Vec::new(),
            words: Vec::new(),
            environment: Vec::new(),
            directory: None,
        }
        .verify(5))
    }

    /// Another source directory.
    pub fn source(mut self, source: &Path) -> Self {
        self.source = source.to_owned();
        self
    }

    /// Another output directory.
    pub fn output(mut self, output: &Path) -> Self {
        self.output = output.to_owned();
        self
    }

    /// Another store.
    pub fn store(mut self, store: &Path) -> Self {
        self.store = store.to_owned();
        self
    }

    /// An empty store, removed with the last clone of this build.
    pub fn empty_store(mut self) -> Result<Self> {
        // Beside the outputs: results are cloned where the file system can.
        let directory = tempfile::Builder::new()
            .prefix(xtask::test::STORE_OF_TEST)
            .tempdir_in(cache().builds()?)?;
        self.store = directory.path().to_owned();
        self._temporary_store = Some(Arc::new(directory));
        Ok(self)
    }

    /// With the modules that are built alone, jbd2 and ext4, for [`Self::configure`].
    pub fn ext4(mut self) -> Self {
        self.configuration.ext4 = true;
        self
    }

    /// Other fragments of the configuration than the tree's own, for [`Self::configure`].
    pub fn fragments(mut self, fragments: &'static [&'static str]) -> Self {
        // A few for each run of the tests, which keep them to their end.
        self.tree = Box::leak(Box::new(Tree {
            fragments,
            ..self.tree.clone()
        }));
        self
    }

    /// The LTO choice, for [`Self::configure`].
    pub fn lto(mut self, lto: Lto) -> Self {
        self.configuration.lto = lto;
        self
    }

    /// Plain make: no klto at all.
    pub fn plain(mut self) -> Self {
        self.through_klto = false;
        self
    }

    /// `--lto=MODE`; `None`: no such word.
    pub fn mode(mut self, mode: Option<&'static str>) -> Self {
        self.mode = mode;
        self
    }

    /// `-jN`; `None`: no such word.
    pub fn jobs(mut self, jobs: Option<usize>) -> Self {
        self.jobs = jobs;
        self
    }

    /// These words instead of the tree's own choice of architecture and toolchain.
    pub fn variables(mut self, variables: &[&str]) -> Self {
        self.variables = Some(variables.iter().map(|word| (*word).to_owned()).collect());
        self
    }

    /// These goals instead of boot image and modules.
    pub fn goals(mut self, goals: &[&str]) -> Self {
        self.goals = goals.iter().map(|goal| (*goal).to_owned()).collect();
        self
    }

    /// One more word for make, before the goals.
    pub fn word(mut self, word: impl AsRef<OsStr>) -> Self {
        self.words.push(word.as_ref().to_owned());
        self
    }

    /// One more environment variable.
    pub fn environment(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let value = Some(value.as_ref().to_owned());
        self.environment.push((name.as_ref().to_owned(), value));
        self
    }

    /// Without this environment variable, also if it is one that every run has.
    pub fn without_environment(mut self, name: &str) -> Self {
        self.environment.push((name.into(), None));
        self
    }

    /// `KLTO_VERIFY`: the percentage of found results that are made again and compared.
    pub fn verify(self, percent: u8) -> Self {
        self.environment("KLTO_VERIFY", percent.to_string())
    }

    /// Starts in this directory, without `-C` and `O=`: those are then words of the test's own.
    pub fn started_in(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// The output directory.
    pub fn output_directory(&self) -> &Path {
        &self.output
    }

    /// The store.
    pub fn store_directory(&self) -> &Path {
        &self.store
    }

    /// The tree.
    pub fn tree(&self) -> &'static Tree {
        self.tree
    }

    /// Removes the output directory and writes `.config` into a new one.
    pub fn configure_fresh(&self) -> Result<()> {
        crate::place::remove(&self.output)?;
        self.configure()
    }

    /// Writes `.config`.
    pub fn configure(&self) -> Result<()> {
        kernel::configure(self.tree, &self.source, &self.output, self.configuration)
    }

    /// The command, ready to be started.
    pub fn command(&self) -> Command {
        let mut command = match self.through_klto {
            true => {
                let mut klto = Command::new(klto_binary());
                klto.arg("make");
                klto.args(self.mode.map(|mode| format!("--lto={mode}")));
                klto
            }
            false => Command::new("make"),
        };
        match &self.directory {
            Some(directory) => drop(command.current_dir(directory)),
            None => {
                command.arg("-C").arg(&self.source);
                command.arg(format!("O={}", self.output.display()));
            }
        }
        match &self.variables {
            Some(words) => command.args(words),
            None => command.args(self.tree.variables),
        };
        command.args(self.jobs.map(|jobs| format!("-j{jobs}")));
        command.args(&self.words);
        match self.goals.is_empty() {
            true => command.args(self.tree.goals(self.configuration)),
            false => command.args(&self.goals),
        };
        self.set_environment(&mut command);
        command
    }

    fn set_environment(&self, command: &mut Command) {
        for name in REMOVED {
            command.env_remove(name);
        }
        command.envs(REPRODUCIBLE);
        command.env("KLTO_CACHE", &self.store);
        command.env("LANG", "C.UTF-8").env_remove("LC_ALL");
        for (name, value) in &self.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
    }

    /// Runs it to its end.
    pub fn run(&self) -> Result<Outcome> {
        self.start()?.wait()
    }

    /// Runs it to its end, which must be success.
    ///
    /// # Panics
    /// The run fails; the message holds the end of what it printed.
    pub fn succeed(&self) -> Outcome {
        match self.run() {
            Ok(outcome) => outcome.succeeded(),
            Err(error) => panic!("{error:#}"),
        }
    }

    /// Starts it; what it prints goes to files.
    pub fn start(&self) -> Result<Running> {
        // The log of an earlier build must not be taken for this one's.
        if self.through_klto {
            let _ = std::fs::remove_file(self.output.join(".klto/log"));
        }
        let stdout = tempfile::NamedTempFile::new()?;
        let stderr = tempfile::NamedTempFile::new()?;
        let mut command = self.command();
        command
            .stdin(Stdio::null())
            .stdout(stdout.reopen()?)
            .stderr(stderr.reopen()?);
        let child = die_with_parent(&mut command)
            .spawn()
            .with_context(|| format!("starting {}", xtask::command::words(&command)))?;
        Ok(Running {
            child,
            command: xtask::command::words(&command),
            log_of: self.through_klto.then(|| self.output.clone()),
            stdout,
            stderr,
            begin: Instant::now(),
        })
    }
}

/// A run that goes on.
#[derive(Debug)]
pub struct Running {
    /// The process.
    pub child: Child,
    command: String,
    log_of: Option<PathBuf>,
    stdout: tempfile::NamedTempFile,
    stderr: tempfile::NamedTempFile,
    begin: Instant,
}

impl Running {
    /// Standard output so far.
    pub fn stdout(&self) -> Result<String> {
        read(&self.stdout)
    }

    /// Standard error so far.
    pub fn stderr(&self) -> Result<String> {
        read(&self.stderr)
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Result<Outcome> {
        let status = self.child.wait()?;
        Ok(Outcome {
            status,
            stdout: self.stdout()?,
            stderr: self.stderr()?,
            log: self.log_of.as_deref().map(Log::read).unwrap_or_default(),
            elapsed: self.begin.elapsed(),
            command: self.command,
        })
    }
}

fn read(file: &tempfile::NamedTempFile) -> Result<String> {
    let bytes = fs_err::read(file.path())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
