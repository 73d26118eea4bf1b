//! Debian suites that the machine does not use: apt reads them by a source list and a state directory in the
//! development cache, and installs nothing.
//!
//! In: a suite. Out: `apt-get` as a command that knows this suite alone.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use fs_err as fs;
use klto_core::Failure;

use crate::cache::Cache;
use crate::command;

/// Keys of the Debian archive, from the package debian-archive-keyring.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite, by the mirror that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// Of the machine's main mirror.
    Main(&'static str),
    /// Of the machine's security mirror.
    Security(&'static str),
}

/// What of a suite is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Packages to install.
    Binary,
    /// Packages to build.
    Source,
}

/// apt with the lists of one suite.
#[derive(Debug)]
pub struct PrivateApt {
    options: Vec<String>,
}

impl PrivateApt {
    /// Updates the lists of a suite.
    pub fn open(cache: &Cache, suite: Suite, kind: Kind) -> Result<Self> {
        let (Suite::Main(name) | Suite::Security(name)) = suite;
        let state = cache.apt(name)?;
        for directory in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(state.join(directory))?;
        }
        fs::write(state.join("status"), "")?;
        let kind = match kind {
            Kind::Binary => "deb",
            Kind::Source => "deb-src",
        };
        let mirror = mirror(suite)?;
        let line = format!("{kind} [signed-by={KEYRING}] {mirror} {name} main\n");
        fs::write(state.join("sources.list"), line)?;
        let apt = Self {
            options: options(&state),
        };
        command::run(apt.get().arg("update"))?;
        Ok(apt)
    }

    /// `apt-get` that downloads into `directory`; apt's own user may not write into a cache of ours.
    pub fn download(&self, directory: &Path) -> Command {
        let mut get = self.get();
        get.arg("-oAPT::Sandbox::User=root").current_dir(directory);
        get
    }

    fn get(&self) -> Command {
        let mut get = Command::new("apt-get");
        get.args(&self.options);
        get
    }
}

fn options(state: &Path) -> Vec<String> {
    let option = |key: &str, name: &str| format!("-o{key}={}", state.join(name).display());
    vec![
        option("Dir::Etc::SourceList", "sources.list"),
        "-oDir::Etc::SourceParts=/dev/null".to_owned(),
        option("Dir::State::Lists", "lists"),
        option("Dir::State::status", "status"),
        option("Dir::Cache", "cache"),
    ]
}

fn mirror(suite: Suite) -> Result<String> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(RELEASE) $(REPO_URI)"]);
    let listed = command::output(targets.args(["Created-By: Packages", "Origin: Debian"]))?;
    let missing = || {
        let (Suite::Main(name) | Suite::Security(name)) = suite;
        Failure::environment(format!("the machine's apt has no mirror for {name}"))
            .hint("add a line for bookworm, or bookworm-security, to /etc/apt/sources.list")
    };
    Ok(mirror_in(&listed, suite).ok_or_else(missing)?)
}

/// The mirror of a suite of that kind: security suites have an addition to their name, main ones have none.
fn mirror_in(targets: &str, suite: Suite) -> Option<String> {
    targets.lines().find_map(|line| {
        let (release, address) = line.split_once(' ')?;
        let is_alike = match suite {
            Suite::Main(_) => !release.contains('-'),
            Suite::Security(_) => release.ends_with("-security"),
        };
        is_alike.then(|| address.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_suite_has_its_mirror() {
        let targets = "bookworm-updates mirror:/main/\nbookworm-security mirror:/security/\n\
                       bookworm mirror:/main/\n";
        let mirror = |suite| mirror_in(targets, suite);
        assert_eq!(mirror(Suite::Main("sid")).unwrap(), "mirror:/main/");
        let security = Suite::Security("bullseye-security");
        assert_eq!(mirror(security).unwrap(), "mirror:/security/");
        assert_eq!(mirror_in("bookworm mirror:/main/\n", security), None);
    }
}
