//! What a trace of strace says of the files that a build reads.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// What processes have opened and executed, by what strace says.
#[derive(Debug, Default)]
pub struct Opened {
    /// Absolute.
    pub files: BTreeSet<String>,
    /// C sources and headers with the name of the program that opened them.
    pub sources: BTreeSet<(String, String)>,
}

/// The lines of strace, of which two are one call where another process came between its begin and its end.
fn whole_calls(trace: &str) -> String {
    let mut whole = String::with_capacity(trace.len());
    for line in trace.lines() {
        let end = line.strip_prefix(')').and_then(|end| end.split_once("= "));
        match (whole.strip_suffix(" <unfinished ...>\n"), end) {
            (Some(begin), Some((_, result))) => {
                whole.truncate(begin.len());
                whole += &format!(") = {result}\n");
            }
            _ => whole += &format!("{line}\n"),
        }
    }
    whole
}

/// The process of a line, and the rest of it.
fn of_process(line: &str) -> Option<(&str, &str)> {
    line.split_once(' ')
        .map(|(process, rest)| (process, rest.trim_start()))
}

/// Parents by process.
fn parents(trace: &str) -> HashMap<&str, &str> {
    let lines = trace.lines().filter_map(of_process);
    let forks = lines.filter(|(_, call)| call.contains("clone") || call.contains("fork"));
    let pairs = forks.filter_map(|(parent, call)| Some((call.rsplit_once(" = ")?.1, parent)));
    pairs.collect()
}

impl Opened {
    /// Reads a trace of `strace -f -qq -y` with `openat`, `execve` and what makes processes.
    pub fn read(trace: &str) -> Self {
        let trace = whole_calls(trace);
        let parents = parents(&trace);
        let mut programs: HashMap<&str, &str> = HashMap::new();
        let mut opened = Self::default();
        for (process, call) in trace.lines().filter_map(of_process) {
            if call.contains("execve(") {
                let program = call.split('"').nth(1).unwrap_or_default();
                programs.insert(process, program);
                opened.files.insert(program.to_owned());
            } else if call.contains("openat(")
                && !call.contains("O_WRONLY")
                && !call.contains("O_DIRECTORY")
                && let Some((_, result)) = call.rsplit_once(") = ")
                && let Some((_, path)) = result.split_once('<')
            {
                let path = path.trim_end_matches('>').to_owned();
                if path.ends_with(".c") || path.ends_with(".h") {
                    let mut forked =
                        std::iter::successors(Some(process), |one| parents.get(one).copied());
                    // Of a process that was killed with its fork no line tells.
                    if let Some(program) = forked.find_map(|process| programs.get(process)) {
                        let program = Path::new(program).file_name().unwrap_or_default();
                        let program = program.to_string_lossy().into_owned();
                        opened.sources.insert((program, path.clone()));
                    }
                }
                opened.files.insert(path);
            }
        }
        opened.files.retain(|file| file.starts_with('/'));
        opened
    }
}
