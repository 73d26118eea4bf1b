//! A `.config` as values by name.
//!
//! In: the file that kconfig writes. Out: what is set, and what it says of LTO. It does not know
//! which options the tree has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The options of a `.config`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    path: PathBuf,
    values: BTreeMap<String, String>,
}

/// What the tree's own option for Clang LTO says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamLto {
    /// The tree has no such option.
    Absent,
    /// `CONFIG_LTO_NONE`, or no Clang LTO option at all.
    None,
    /// `CONFIG_LTO_CLANG_THIN`
    Thin,
    /// `CONFIG_LTO_CLANG_THIN_DIST`
    ThinDist,
    /// `CONFIG_LTO_CLANG_FULL`
    Full,
}

impl UpstreamLto {
    /// The option's name without `CONFIG_`; a tree without an option has none.
    pub fn option(self) -> Option<&'static str> {
        match self {
            Self::Absent => None,
            Self::None => Some("LTO_NONE"),
            Self::Thin => Some("LTO_CLANG_THIN"),
            Self::ThinDist => Some("LTO_CLANG_THIN_DIST"),
            Self::Full => Some("LTO_CLANG_FULL"),
        }
    }
}

impl Config {
    /// Reads the file; nothing if there is none.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        match fs_err::read(path) {
            Ok(bytes) => Ok(Some(Self::parse(path, &String::from_utf8_lossy(&bytes)))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("reading the configuration"),
        }
    }

    fn parse(path: &Path, text: &str) -> Self {
        let assignment = |line: &str| {
            let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
            let inner = value
                .strip_prefix('"')
                .and_then(|value| value.strip_suffix('"'));
            Some((name.to_owned(), inner.unwrap_or(value).to_owned()))
        };
        let values = text
            .lines()
            .filter_map(|line| assignment(line.trim_end()))
            .collect();
        Self {
            path: path.to_owned(),
            values,
        }
    }

    /// Where it was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The value of an option, without `CONFIG_` and without the quotes of a string.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The values of all options.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.values.values().map(String::as_str)
    }

    /// Whether an option is `y` or `m`.
    pub fn is_set(&self, name: &str) -> bool {
        matches!(self.value(name), Some("y" | "m"))
    }

    /// An option, without `CONFIG_`, by which the build reads comments of a source, without a record or a
    /// makefile that says so: `kernel/kheaders_data.tar.xz` and `usr/include` hold headers as text,
    /// rust-bindgen reads C headers by a front end of its own, kernel-doc checks comments, and speakup's
    /// `makemapdata` reads defines as text.
    pub fn reader_of_comments(&self, source: &Path) -> Option<&'static str> {
        let of_all = ["IKHEADERS", "HEADERS_INSTALL", "RUST", "DRM_I915_WERROR"];
        let is_of_speakup =
            source.ends_with("spk_priv_keyinfo.h") || source.ends_with("linux/input.h");
        let of_some = is_of_speakup.then_some("SPEAKUP");
        let mut options = of_all.into_iter().chain(of_some);
        options.find(|option| self.is_set(option))
    }

    /// What it says of LTO in a tree that has the option.
    pub fn upstream_lto(&self) -> UpstreamLto {
        let choices = [UpstreamLto::ThinDist, UpstreamLto::Thin, UpstreamLto::Full];
        let chosen = |choice: &UpstreamLto| choice.option().is_some_and(|name| self.is_set(name));
        choices
            .into_iter()
            .find(chosen)
            .unwrap_or(UpstreamLto::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_values() {
        let text =
            "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=m\nCONFIG_D=\"x \\\"y\"\nCONFIG_E=0x10\n";
        let config = Config::parse(Path::new(".config"), text);
        let set: Vec<_> = ["A", "B", "C", "D", "E"]
            .map(|name| config.is_set(name))
            .into();
        assert_eq!(set, [true, false, true, false, false]);
        assert_eq!(config.value("D"), Some("x \\\"y"));
        assert_eq!(config.value("E"), Some("0x10"));
        assert_eq!(config.value("B"), None);
    }

    #[test]
    fn some_options_read_comments() {
        let reader = |text: &str, source: &str| {
            let config = Config::parse(Path::new(".config"), text);
            config.reader_of_comments(Path::new(source))
        };
        assert_eq!(reader("CONFIG_IKHEADERS=m\n", "fs/a.h"), Some("IKHEADERS"));
        let speakup = "CONFIG_SPEAKUP=y\n";
        assert_eq!(reader(speakup, "fs/a.h"), None);
        assert_eq!(reader(speakup, "include/linux/input.h"), Some("SPEAKUP"));
    }

    #[test]
    fn the_choice_of_lto_is_read() {
        for (text, lto) in [
            ("", UpstreamLto::None),
            ("CONFIG_LTO_NONE=y", UpstreamLto::None),
            (
                "CONFIG_LTO_CLANG=y\nCONFIG_LTO_CLANG_THIN=y\n",
                UpstreamLto::Thin,
            ),
            ("CONFIG_LTO_CLANG_FULL=y", UpstreamLto::Full),
            ("CONFIG_LTO_CLANG_THIN_DIST=y", UpstreamLto::ThinDist),
            ("# CONFIG_LTO_CLANG_THIN is not set", UpstreamLto::None),
        ] {
            assert_eq!(
                Config::parse(Path::new("x"), text).upstream_lto(),
                lto,
                "{text}"
            );
        }
    }

    #[test]
    fn no_file_is_no_configuration() {
        assert_eq!(
            Config::read(Path::new("/nonexistent/.config")).unwrap(),
            None
        );
    }
}
