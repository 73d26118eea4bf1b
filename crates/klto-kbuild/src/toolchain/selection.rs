//! How `LLVM=` selects tools, and what klto must add where a tree does not understand it.
//!
//! In: the tree and the variables. Out: names of tools, and variables to add with the text that
//! tells the user so. It does not look whether a tool exists.

use std::ffi::OsStr;

use anyhow::Result;

use super::{Role, split_words};
use crate::make_arguments::MakeArguments;
use crate::tree::Tree;
use crate::variables::Variables;
use crate::versions::Behaviour;

/// What `LLVM=` says, in a tree that understands all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Selection {
    Gnu,
    Plain,
    /// `LLVM=-22`
    Suffix(String),
    /// `LLVM=/usr/lib/llvm-22/bin/`
    Prefix(String),
}

impl Selection {
    fn of(variables: &Variables) -> Result<Self> {
        let value = variables.get_filled("LLVM")?;
        let text = value.as_deref().map(OsStr::to_string_lossy);
        Ok(match text.as_deref().map(str::trim) {
            None => Self::Gnu,
            Some(prefix) if prefix.ends_with('/') => Self::Prefix(prefix.to_owned()),
            Some(suffix) if suffix.starts_with('-') => Self::Suffix(suffix.to_owned()),
            Some(_) => Self::Plain,
        })
    }

    fn name(&self, llvm_name: &str) -> String {
        match self {
            Self::Gnu | Self::Plain => llvm_name.to_owned(),
            Self::Suffix(suffix) => format!("{llvm_name}{suffix}"),
            Self::Prefix(prefix) => format!("{prefix}{llvm_name}"),
        }
    }
}

/// The words that kbuild runs for `role`.
pub(super) fn words_of(role: Role, tree: &Tree, variables: &Variables) -> Result<Vec<String>> {
    let facts = role.facts();
    if let Some(value) = variables.overriding(facts.variable)? {
        return split_words(facts.variable, &value);
    }
    let selection = match Selection::of(variables)? {
        Selection::Gnu => Selection::Gnu,
        selection if tree.has(Behaviour::LlvmAffixes) => selection,
        _ => Selection::Plain,
    };
    let name = match (selection, role) {
        (Selection::Gnu, Role::HostCompiler) => facts.gnu_name.to_owned(),
        (Selection::Gnu, _) => {
            let prefix = variables.get("CROSS_COMPILE")?.unwrap_or_default();
            format!("{}{}", prefix.to_string_lossy(), facts.gnu_name)
        }
        (selection, _) => selection.name(facts.llvm_name),
    };
    split_words(facts.variable, OsStr::new(&name))
}

/// Variables that klto gives make on top of the user's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Additions {
    /// Names and values in the order in which they are given.
    pub variables: Vec<(&'static str, String)>,
    /// What the user is told, one text a line.
    pub notes: Vec<String>,
}

impl Additions {
    /// What the tree needs to use the tools that the user means; `adds_lto` says that klto, not
    /// kbuild, adds LTO. Configuring and building need the same, or else kconfig asks anew.
    pub fn of(tree: &Tree, variables: &Variables, adds_lto: bool) -> Result<Self> {
        let mut additions = Self::default();
        additions.spell_out_llvm(tree, variables)?;
        let with_tools = additions.apply(variables.arguments);
        let variables = Variables {
            arguments: &with_tools,
            ..*variables
        };
        let compiler = words_of(Role::Compiler, tree, &variables)?;
        let by_clang = super::command::split(&compiler).program.contains("clang");
        if by_clang && !tree.has(Behaviour::ClangTargetFromArch) {
            additions.name_target(tree, &variables, &compiler)?;
            if adds_lto && variables.get("LLVM_IAS")?.is_none() {
                additions.variables.push(("LLVM_IAS", "1".into()));
            }
        }
        Ok(additions)
    }

    /// The arguments with the variables.
    pub fn apply(&self, arguments: &MakeArguments) -> MakeArguments {
        self.variables
            .iter()
            .fold(arguments.clone(), |arguments, (name, value)| {
                arguments.with_variable(name, OsStr::new(value))
            })
    }

    fn spell_out_llvm(&mut self, tree: &Tree, variables: &Variables) -> Result<()> {
        let selection = Selection::of(variables)?;
        let has_affix = matches!(selection, Selection::Suffix(_) | Selection::Prefix(_));
        if !has_affix || tree.has(Behaviour::LlvmAffixes) {
            return Ok(());
        }
        let roles = Role::ALL.map(|role| (role.variable(), role.facts().llvm_name));
        // tools/scripts/Makefile.include gives these a value only if they have none.
        let more = [
            ("HOSTCXX", "clang++"),
            ("HOSTLD", "ld.lld"),
            ("HOSTAR", "llvm-ar"),
        ];
        for (variable, llvm_name) in roles.into_iter().chain(more) {
            let host_tool = matches!(variable, "HOSTLD" | "HOSTAR");
            let given = match host_tool {
                true => variables.get(variable)?,
                false => variables.overriding(variable)?,
            };
            if given.is_none() {
                self.variables.push((variable, selection.name(llvm_name)));
            }
        }
        let given = variables.get("LLVM")?.unwrap_or_default();
        let words = self
            .variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        self.notes.push(format!(
            "Linux {} takes LLVM={} for LLVM=1, so klto names the tools: {}",
            tree.version,
            given.display(),
            words.collect::<Vec<_>>().join(" ")
        ));
        Ok(())
    }

    /// Without a target in its name or its flags, clang would compile for the host.
    fn name_target(&mut self, tree: &Tree, variables: &Variables, words: &[String]) -> Result<()> {
        let named = words
            .iter()
            .any(|word| word.starts_with("--target") || word == "-target");
        let foreign = tree.source_architecture != tree.host_architecture;
        if named || !foreign || variables.get_filled("CROSS_COMPILE")?.is_some() {
            return Ok(());
        }
        let architecture = tree.source_architecture.as_str();
        if let Some((_, triple)) = TRIPLES.iter().find(|(name, _)| *name == architecture) {
            self.variables.push(("CROSS_COMPILE", format!("{triple}-")));
            self.notes.push(format!(
                "Linux {} tells clang its target by CROSS_COMPILE only, so klto adds \
                 CROSS_COMPILE={triple}-",
                tree.version
            ));
        }
        Ok(())
    }
}

/// The triples that later trees give clang for each SRCARCH, scripts/Makefile.clang.
const TRIPLES: [(&str, &str); 9] = [
    ("arm", "arm-linux-gnueabi"),
    ("arm64", "aarch64-linux-gnu"),
    ("hexagon", "hexagon-linux-musl"),
    ("m68k", "m68k-linux-gnu"),
    ("mips", "mipsel-linux-gnu"),
    ("powerpc", "powerpc64le-linux-gnu"),
    ("riscv", "riscv64-linux-gnu"),
    ("s390", "s390x-linux-gnu"),
    ("x86", "x86_64-linux-gnu"),
];
