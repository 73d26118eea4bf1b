//! klto's own words: which command, and its options.
//!
//! `klto make` takes one option of its own, `--lto=…`; everything else is make's and goes to it as it
//! is. clap cannot hand arbitrary options through in their order, so the words are read here.

use std::ffi::OsString;
use std::path::PathBuf;

use klto_core::Failure;
use klto_kbuild::LtoRequest;

const HELP: &str = "\
klto builds Linux kernel trees from 5.10 on with Clang link-time optimization, unpatched.

Usage:
  klto make [--lto=none|thin|full] [arguments of make]
  klto config --lto=none|thin|full [arguments of make]
  klto doctor [--lto=…] [arguments of make]
  klto explain [OBJECT | --native | --recipe OBJECT] [-O OUTPUT]
  klto explain --next [--lto=…] [arguments of make]
  klto stats [-O OUTPUT]
  klto trace [-O OUTPUT]
  klto cache [size|gc|verify|clear]
  klto --version | --help

Commands:
  make      Runs make with klto behind its tools. Without --lto the .config decides; on a
            tree that has no LTO option, --lto=thin and --lto=full add it.
  config    Changes the LTO choice of the .config, by the tree's own scripts/config and
            `make olddefconfig`, and sees that Kconfig took it. On a tree without the
            option it remembers the choice in .config.klto.
  doctor    Says what stands between this tree, configuration and toolchain and LTO, why,
            and what to change. Exit code 0: LTO can work.
  explain   Says why make ran in the last build, which actions ran or came out of the store,
            and why; of OBJECT alone, if it is named. --native lists the objects that are
            compiled without LTO because something reads them as ELF, and what reads each.
            --recipe prints, as a shell script, the line of kbuild's recipe that made OBJECT,
            a path in the output tree. Run outside of a build, it has none of the flags that
            klto adds. --next, as the first word, says what `klto make` with the same words
            would run now, and why.
  stats     Counts and seconds of the last build by kind of action, and what took longest.
  trace     The same build as a trace for about:tracing or ui.perfetto.dev, as JSON.
  cache     The store: its size and how much builds found in it (size, without a word); gc
            removes what was not used for long, down to the limit; verify reads all of it,
            removes what is damaged and then ends with 1; clear empties it.

OUTPUT is the output tree (default: the current directory); for an external module its own
directory.

Modes:
  none      No LTO. Each object is optimized by itself.
  thin      ThinLTO. Functions are imported across objects, then each object is optimized
            by itself again, in parallel; klto keeps the results. Smaller and faster code
            than none; a clean build takes about as long, and no process needs much more
            memory than a compiler does. Before Linux 6.1 CFI needs it or full.
  full      Full LTO, `CONFIG_LTO_CLANG_FULL`. The whole kernel is optimized as one object
            by one thread: minutes and gigabytes for the link of a large kernel, and the code
            is seldom better than with thin. klto keeps the result of each link: an edit of a
            module does not link the kernel again.

Environment:
  KLTO_CACHE        the store's directory (default: $XDG_CACHE_HOME/klto, else ~/.cache/klto)
  KLTO_CACHE_LIMIT  bytes that it may hold, as 20G (default: 10G)
  KLTO_IMPORT_LIMIT largest function that is imported, in LLVM's instructions
                    (default: the tree's own, else 5)
  KLTO_MEMORY       bytes that full links may take together, as 8G (at most what is free)
  KLTO_VERIFY       percent of reused results that are made again and compared (default: 0)

Exit codes: make's own for a build; 1 the build failed, 2 bad input, 3 environment, 4 a klto bug.
";

/// What the user asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// `klto make …`
    Make {
        /// `--lto=`.
        request: Option<LtoRequest>,
        /// make's own words.
        arguments: Vec<OsString>,
    },
    /// `klto config --lto=… …`
    Config {
        /// `--lto=`.
        request: LtoRequest,
        /// make's own words.
        arguments: Vec<OsString>,
    },
    /// `klto doctor …`
    Doctor {
        /// `--lto=`.
        request: Option<LtoRequest>,
        /// make's own words.
        arguments: Vec<OsString>,
    },
    /// `klto explain …`
    Explain {
        /// What is asked.
        question: Question,
        /// The output tree.
        output: PathBuf,
    },
    /// `klto explain --next …`
    ExplainNext {
        /// `--lto=`.
        request: Option<LtoRequest>,
        /// make's own words.
        arguments: Vec<OsString>,
    },
    /// `klto stats …`
    Stats {
        /// The output tree.
        output: PathBuf,
    },
    /// `klto trace …`
    Trace {
        /// The output tree.
        output: PathBuf,
    },
    /// `klto cache …`
    Cache(CacheCommand),
    /// Text that is printed as it is.
    Print(String),
}

/// What `klto explain` is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// What happened in the last build?
    Build,
    /// What happened to this object?
    Object(PathBuf),
    /// Which objects are compiled without LTO?
    Native,
    /// Which recipe makes this object?
    Recipe(PathBuf),
}

/// What `klto cache` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheCommand {
    /// Shows size and hits.
    Size,
    /// Removes what was not used for long.
    Collect,
    /// Reads everything.
    Verify,
    /// Removes everything.
    Clear,
}

/// Reads the words after `klto`.
pub fn parse(words: &[OsString]) -> anyhow::Result<Command> {
    let Some((first, rest)) = words.split_first() else {
        return Err(Failure::bad_input("klto needs a command")
            .hint("klto --help lists them")
            .into());
    };
    let asks_for_help = rest
        .first()
        .is_some_and(|word| word == "--help" || word == "-h");
    match first.to_str() {
        // make has one of its own.
        Some("config" | "doctor" | "explain" | "stats" | "trace" | "cache") if asks_for_help => {
            Ok(Command::Print(HELP.to_owned()))
        }
        Some("make") => parse_make(rest),
        Some("config") => parse_config(rest),
        Some("doctor") => {
            split_request(rest).map(|(request, arguments)| Command::Doctor { request, arguments })
        }
        Some("explain") => parse_explain(rest),
        Some("stats") => parse_output(rest).map(|output| Command::Stats { output }),
        Some("trace") => parse_output(rest).map(|output| Command::Trace { output }),
        Some("cache") => parse_cache(rest),
        Some("--help" | "-h" | "help") => Ok(Command::Print(HELP.to_owned())),
        Some("--version" | "-V") => Ok(Command::Print(format!(
            "klto {}\n",
            env!("CARGO_PKG_VERSION")
        ))),
        _ => Err(
            Failure::bad_input(format!("klto has no command {}", first.display()))
                .hint("klto --help lists them")
                .into(),
        ),
    }
}

fn parse_make(words: &[OsString]) -> anyhow::Result<Command> {
    let (request, arguments) = split_request(words)?;
    Ok(Command::Make { request, arguments })
}

fn parse_config(words: &[OsString]) -> anyhow::Result<Command> {
    let (request, arguments) = split_request(words)?;
    let missing = || Failure::bad_input("config needs --lto=none, --lto=thin or --lto=full");
    let request = request.ok_or_else(missing)?;
    Ok(Command::Config { request, arguments })
}

/// klto's own option, and make's words.
fn split_request(words: &[OsString]) -> anyhow::Result<(Option<LtoRequest>, Vec<OsString>)> {
    let mut request = None;
    let mut arguments = Vec::new();
    for word in words {
        match word.to_str().and_then(|word| word.strip_prefix("--lto=")) {
            Some(value) => request = Some(value.parse::<LtoRequest>()?),
            None if word == "--lto" => {
                let hint = "write --lto=none, --lto=thin or --lto=full";
                return Err(Failure::bad_input("--lto needs a value").hint(hint).into());
            }
            None => arguments.push(word.clone()),
        }
    }
    Ok((request, arguments))
}

fn parse_explain(words: &[OsString]) -> anyhow::Result<Command> {
    if let Some((first, rest)) = words.split_first()
        && first == "--next"
    {
        let (request, arguments) = split_request(rest)?;
        return Ok(Command::ExplainNext { request, arguments });
    }
    let mut output = PathBuf::from(".");
    let mut question = Question::Build;
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let mut value = |what| {
            let missing = || Failure::bad_input(format!("{} needs {what}", word.display()));
            rest.next().map(PathBuf::from).ok_or_else(missing)
        };
        let asked = match word.to_str() {
            Some("--native") => Question::Native,
            Some("--recipe") => Question::Recipe(value("an object")?),
            Some("-O") => {
                output = value("a directory")?;
                continue;
            }
            Some("--next") => {
                return Err(
                    Failure::bad_input("--next must be the first word after explain").into(),
                );
            }
            Some(object) if !object.starts_with('-') => Question::Object(object.into()),
            _ => {
                let message = format!("explain has no option {}", word.display());
                let failure = Failure::bad_input(message);
                return Err(failure.hint("klto --help lists them").into());
            }
        };
        if question != Question::Build {
            return Err(Failure::bad_input("explain answers one question at a time").into());
        }
        question = asked;
    }
    Ok(Command::Explain { question, output })
}

/// `-O OUTPUT` or nothing.
fn parse_output(words: &[OsString]) -> anyhow::Result<PathBuf> {
    match words {
        [] => Ok(PathBuf::from(".")),
        [option, output] if option == "-O" => Ok(PathBuf::from(output)),
        _ => Err(Failure::bad_input("the only option is -O OUTPUT").into()),
    }
}

fn parse_cache(words: &[OsString]) -> anyhow::Result<Command> {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let command = match words.iter().map(|word| &**word).collect::<Vec<_>>()[..] {
        [] | ["size"] => CacheCommand::Size,
        ["gc"] => CacheCommand::Collect,
        ["verify"] => CacheCommand::Verify,
        ["clear"] => CacheCommand::Clear,
        _ => return Err(Failure::bad_input("cache knows size, gc, verify and clear").into()),
    };
    Ok(Command::Cache(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn only_the_lto_option_is_klto_s_own() {
        let command = parse(&words("make -j8 --lto=thin LLVM=1 --trace all")).unwrap();
        let expected = Command::Make {
            request: Some("thin".parse().unwrap()),
            arguments: words("-j8 LLVM=1 --trace all"),
        };
        assert_eq!(command, expected);
    }

    #[test]
    fn a_doctor_looks_for_what_the_choice_needs() {
        let command = parse(&words("doctor --lto=full LLVM=1")).unwrap();
        let expected = Command::Doctor {
            request: Some(LtoRequest::Full),
            arguments: words("LLVM=1"),
        };
        assert_eq!(command, expected);
    }

    #[test]
    fn the_next_build_is_asked_for_by_its_words() {
        let command = parse(&words("explain --next --lto=thin LLVM=1")).unwrap();
        let expected = Command::ExplainNext {
            request: Some("thin".parse().unwrap()),
            arguments: words("LLVM=1"),
        };
        assert_eq!(command, expected);
    }

    #[test]
    fn every_command_of_klto_s_own_has_help() {
        for text in [
            "--help",
            "help",
            "config --help",
            "explain -h",
            "cache --help",
        ] {
            let command = parse(&words(text)).unwrap();
            assert_eq!(command, Command::Print(HELP.to_owned()), "{text}");
        }
        assert!(matches!(
            parse(&words("make --help")),
            Ok(Command::Make { .. })
        ));
    }

    #[test]
    fn unknown_words_are_refused() {
        for text in [
            "",
            "build",
            "make --lto",
            "make --lto=fast",
            "config LLVM=1",
            "explain --all",
            "explain --native -O",
            "explain -O out --next",
            "explain a.o b.o",
            "explain --native a.o",
            "explain --recipe",
            "stats out",
            "trace -O",
            "cache empty",
        ] {
            assert!(parse(&words(text)).is_err(), "{text}");
        }
    }
}
