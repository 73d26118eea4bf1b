//! Whether the tools can do LTO together.
//!
//! In: resolved tools, which are run with `--version`. Out: the version of LLVM that all of them
//! are, or a failure that says which tool is wrong and what to do. It does not know the kernel's
//! configuration.

use std::fmt;
use std::path::Path;

use anyhow::Result;
use klto_core::{Failure, run_captured};

use super::{Role, Tool, Toolchain};
use crate::versions::OLDEST_LLVM;

/// A version of LLVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LlvmVersion {
    /// The 22 of 22.1.8.
    pub major: u32,
    /// The 1 of 22.1.8.
    pub minor: u32,
    /// The 8 of 22.1.8.
    pub patch: u32,
}

impl fmt::Display for LlvmVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What the tools say of themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The version of all of them.
    pub version: LlvmVersion,
    /// The first line of what each prints, which tells builds of one version apart. kbuild goes by the compiler's
    /// (Makefile, CC_VERSION_TEXT).
    pub first_lines: Vec<String>,
}

/// What one tool says of itself.
struct Reported {
    version: LlvmVersion,
    first_line: String,
}

/// The tools that read or write bitcode, with the words before the version in what they print.
const LLVM_TOOLS: [(Role, &str); 4] = [
    (Role::Compiler, "clang version "),
    (Role::Linker, "LLD "),
    (Role::Archiver, "LLVM version "),
    (Role::SymbolLister, "LLVM version "),
];

impl Toolchain {
    /// Runs the tools that LTO needs and compares their versions.
    pub fn check(&self) -> Result<Checked> {
        let (reports, conflicts) = self.examine_all();
        match (conflicts.into_iter().next(), version_of_compiler(&reports)) {
            (Some(conflict), _) => Err(conflict.into()),
            (None, Some(version)) => Ok(Checked {
                version,
                first_lines: reports
                    .into_iter()
                    .map(|(_, report)| report.first_line)
                    .collect(),
            }),
            (None, None) => Err(Failure::bug("no tool was asked for its version").into()),
        }
    }

    /// The compiler's version, if it has one, and everything that is wrong with the tools.
    pub(crate) fn examine(&self) -> (Option<LlvmVersion>, Vec<Failure>) {
        let (reports, conflicts) = self.examine_all();
        (version_of_compiler(&reports), conflicts)
    }

    fn examine_all(&self) -> (Vec<(&Tool, Reported)>, Vec<Failure>) {
        let mut conflicts = Vec::new();
        let mut reports = Vec::new();
        for (tool, report) in self.reports() {
            match report {
                Ok(report) => reports.push((tool, report)),
                Err(conflict) => conflicts.push(conflict),
            }
        }
        let others = Role::ALL.into_iter().filter(|role| role.facts().needed);
        let others = others.filter(|role| LLVM_TOOLS.iter().all(|(checked, _)| checked != role));
        conflicts.extend(others.filter_map(|role| self.existing(self.tool(role)).err()));
        let versions: Vec<_> = reports
            .iter()
            .map(|(tool, report)| (*tool, report.version))
            .collect();
        conflicts.extend(disagreements(&versions));
        (reports, conflicts)
    }

    /// Asks all of them at once: most of the time each needs is the loader's.
    fn reports(&self) -> Vec<(&Tool, Result<Reported, Failure>)> {
        std::thread::scope(|scope| {
            let ask = |(role, words_before)| {
                let tool = self.tool(role);
                (tool, scope.spawn(move || self.report(tool, words_before)))
            };
            let asked = LLVM_TOOLS.map(ask).into_iter();
            let answered = asked.map(|(tool, asked)| {
                let panicked = |_| Err(Failure::bug("asking a tool for its version"));
                (tool, asked.join().unwrap_or_else(panicked))
            });
            answered.collect()
        })
    }

    fn report(&self, tool: &Tool, words_before: &str) -> Result<Reported, Failure> {
        let path = self.existing(tool)?;
        let captured = run_captured(path, ["--version"], Path::new("/")).map_err(|error| {
            let what = format!("{} --version cannot be run: {error}", path.display());
            Failure::environment(what)
        })?;
        let text = String::from_utf8_lossy(&captured.stdout);
        let version =
            parse_version(&text, words_before).ok_or_else(|| wrong_tool(tool, path, &text))?;
        Ok(Reported {
            version,
            first_line: text.lines().next().unwrap_or_default().to_owned(),
        })
    }

    fn existing<'a>(&self, tool: &'a Tool) -> Result<&'a Path, Failure> {
        tool.resolved.as_deref().ok_or_else(|| self.missing(tool))
    }

    fn missing(&self, tool: &Tool) -> Failure {
        let variable = tool.role.variable();
        let message = match tool.program.as_str() {
            "" => return Failure::bad_input(format!("{variable} names no program")),
            program => format!("{program} ({variable}) is not found"),
        };
        let mut hint = format!("apt install {}", package(tool));
        if tool.program == tool.role.facts().llvm_name
            && let Some(major) = self.search.newest_suffix()
        {
            hint = format!("LLVM=-{major} uses the tools of LLVM {major} that are in PATH");
        }
        Failure::environment(message).hint(hint)
    }
}

fn version_of_compiler(reports: &[(&Tool, Reported)]) -> Option<LlvmVersion> {
    let mut reports = reports.iter();
    let compiler = reports.find(|(tool, _)| tool.role == Role::Compiler);
    compiler.map(|(_, report)| report.version)
}

/// A compiler that is too old, and tools of another version than the compiler's.
fn disagreements(versions: &[(&Tool, LlvmVersion)]) -> Vec<Failure> {
    let compiler = versions
        .iter()
        .find(|(tool, _)| tool.role == Role::Compiler);
    let Some((compiler, version)) = compiler else {
        return Vec::new();
    };
    let mut conflicts = Vec::new();
    if version.major < OLDEST_LLVM {
        let message = format!(
            "{} is LLVM {version}; klto's LTO needs {OLDEST_LLVM} or newer, the oldest that \
             Linux 6.12 accepts",
            compiler.program
        );
        conflicts.push(Failure::environment(message).hint("choose another with LLVM=-22"));
    }
    let others = versions
        .iter()
        .filter(|(_, other)| other.major != version.major);
    conflicts.extend(others.map(|(other, found)| {
        let message = format!(
            "{} is LLVM {found} but {} is LLVM {version}; they do not read each other's bitcode",
            other.program, compiler.program
        );
        let hint = "choose tools of one version, for all at once with LLVM=-22 or \
                    LLVM=/usr/lib/llvm-22/bin/";
        Failure::environment(message).hint(hint)
    }));
    conflicts
}

fn wrong_tool(tool: &Tool, path: &Path, text: &str) -> Failure {
    let facts = tool.role.facts();
    let first_line = text.lines().next().unwrap_or_default();
    let message = format!(
        "LTO needs {}, but {}={} runs {} ({first_line})",
        facts.llvm_name,
        facts.variable,
        tool.words.join(" "),
        path.display()
    );
    Failure::bad_input(message).hint("LLVM=1 selects all of LLVM's tools at once")
}

/// The version after `words_before`, in any line: distributions put their name in front.
fn parse_version(text: &str, words_before: &str) -> Option<LlvmVersion> {
    let (_, version) = text.split_once(words_before)?;
    let end = version
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(version.len());
    let mut numbers = version.get(..end)?.split('.').map(str::parse);
    let mut next = || numbers.next().and_then(Result::ok);
    let major = next()?;
    let (minor, patch) = (next().unwrap_or(0), next().unwrap_or(0));
    Some(LlvmVersion {
        major,
        minor,
        patch,
    })
}

/// Debian's package, as `lld-22` for `ld.lld-22`, `binutils-aarch64-linux-gnu` for
/// `aarch64-linux-gnu-objcopy`.
fn package(tool: &Tool) -> String {
    let facts = tool.role.facts();
    let name = tool.program.rsplit('/').next().unwrap_or_default();
    if let Some(suffix) = name.strip_prefix(facts.llvm_name) {
        return format!("{}{suffix}", facts.package);
    }
    let package = if facts.gnu_name == "gcc" {
        "gcc"
    } else {
        "binutils"
    };
    match name
        .strip_suffix(facts.gnu_name)
        .and_then(|prefix| prefix.strip_suffix('-'))
    {
        Some(triple) => format!("{package}-{triple}"),
        None => package.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_tools_print() {
        for (text, words, expected) in [
            (
                "Debian clang version 22.1.8 (1~deb12u1)\nTarget: x\n",
                "clang version ",
                "22.1.8",
            ),
            ("clang version 19.1.0git\n", "clang version ", "19.1.0"),
            (
                "Debian LLD 22.1.8 (compatible with GNU linkers)\n",
                "LLD ",
                "22.1.8",
            ),
            (
                "llvm-nm, compatible with GNU nm\nDebian LLVM version 22.1.8\n",
                "LLVM version ",
                "22.1.8",
            ),
            (
                "LLVM (http://llvm.org/):\n  LLVM version 13\n  Optimized",
                "LLVM version ",
                "13.0.0",
            ),
        ] {
            let found = parse_version(text, words).map(|version| version.to_string());
            assert_eq!(found.as_deref(), Some(expected), "{text}");
        }
        let gnu = "GNU ld (GNU Binutils for Debian) 2.40\n";
        assert_eq!(parse_version(gnu, "LLD "), None);
        assert_eq!(parse_version("clang version ", "clang version "), None);
    }
}
