//! What is measured of each kernel: the rows, who builds, and what klto has to reach.
//!
//! In: nothing. Out: a table. It does not run anything.

use super::edits::{Edit, Kind};
use super::sizes::Size;

/// Who builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Kbuild's own ThinLTO, by plain make.
    Thin,
    /// The same kernel without LTO, by plain make.
    None,
    /// Kbuild's own ThinLTO with ccache before the compiler.
    Ccache,
    /// ThinLTO by klto.
    Klto,
    /// Kbuild's own Full LTO, by plain make.
    Full,
    /// Full LTO by klto.
    KltoFull,
}

impl Side {
    pub const ALL: [Self; 6] = [
        Self::Thin,
        Self::None,
        Self::Ccache,
        Self::Klto,
        Self::Full,
        Self::KltoFull,
    ];

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|side| side.name() == name)
    }

    /// Whether its figures depend on the version of klto.
    pub const fn is_klto(self) -> bool {
        matches!(self, Self::Klto | Self::KltoFull)
    }

    /// In figures and directories.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Thin => "thin",
            Self::None => "none",
            Self::Ccache => "ccache",
            Self::Klto => "klto",
            Self::Full => "full",
            Self::KltoFull => "klto-full",
        }
    }

    /// In the document.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Thin => "kbuild ThinLTO",
            Self::None => "kbuild without LTO",
            Self::Ccache => "kbuild ThinLTO, ccache",
            Self::Klto => "klto ThinLTO",
            Self::Full => "kbuild Full LTO",
            Self::KltoFull => "klto Full LTO",
        }
    }
}

/// A measurement of one kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Row {
    CleanEmpty,
    Nothing,
    Touch,
    Edit,
    EditVmlinux,
    EditModule,
    HeaderComment,
    HeaderLine,
    Option,
    CleanFull,
}

/// The most that klto's figure may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Target {
    /// In seconds.
    Seconds(f64),
    /// As a part of kbuild ThinLTO's.
    OfThin(f64),
}

/// What happens before the clock starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preparation {
    /// Output and store are removed.
    Nothing,
    /// The output is up to date.
    Built,
    /// The output is up to date, then a source is changed.
    Edited(Edit),
    /// The output is up to date, then the option of [`OPTION`] becomes a module.
    Configured,
    /// The store is full, and the output directory another, empty one.
    StoreOnly,
}

/// What the row `option` makes a module; it is built in otherwise.
pub(super) const OPTION: &str = "CONFIG_AUTOFS_FS";

impl Row {
    /// All rows; the first leaves the builds that the others start from.
    pub const ALL: [Self; 10] = [
        Self::CleanEmpty,
        Self::Nothing,
        Self::Touch,
        Self::Edit,
        Self::EditVmlinux,
        Self::EditModule,
        Self::HeaderComment,
        Self::HeaderLine,
        Self::Option,
        Self::CleanFull,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::CleanEmpty => "clean-empty",
            Self::Nothing => "nothing",
            Self::Touch => "touch",
            Self::Edit => "edit",
            Self::EditVmlinux => "edit-vmlinux",
            Self::EditModule => "edit-module",
            Self::HeaderComment => "header-comment",
            Self::HeaderLine => "header-line",
            Self::Option => "option",
            Self::CleanFull => "clean-full",
        }
    }

    pub const fn what(self) -> &'static str {
        match self {
            Self::CleanEmpty => "clean build, empty store",
            Self::Nothing => "nothing to do",
            Self::Touch => "`touch init/main.c`",
            Self::Edit => "a new printk in `init/main.c`",
            Self::EditVmlinux => "the same, goal `vmlinux`",
            Self::EditModule => "a new printk in one source of one module",
            Self::HeaderComment => "comment in `include/linux/sched.h` that moves no line",
            Self::HeaderLine => "comment line added to `include/linux/sched.h`",
            Self::Option => "one option from y to m",
            Self::CleanFull => "clean build, full store, other output directory",
        }
    }

    /// What klto has to reach on the large kernel.
    pub const fn target(self) -> Option<Target> {
        Some(match self {
            Self::CleanEmpty => Target::OfThin(0.95),
            Self::Nothing => Target::Seconds(0.3),
            Self::Touch => Target::Seconds(0.5),
            Self::Edit => Target::Seconds(18.0),
            Self::EditVmlinux => Target::Seconds(14.0),
            Self::EditModule => Target::Seconds(3.0),
            Self::HeaderComment => Target::Seconds(20.0),
            Self::HeaderLine => Target::OfThin(0.9),
            Self::Option => Target::OfThin(0.25),
            Self::CleanFull => Target::Seconds(120.0),
        })
    }

    /// Who builds. A store has nothing to find without one, and ccache nothing after a clean build but
    /// in an edit. After a change of the header that almost all sources read kbuild compiles all of them
    /// whatever the change is: that is measured once, with the row that has a target of its own.
    pub const fn sides(self, size: Size) -> &'static [Side] {
        use Side::{Ccache, Full, Klto, KltoFull, None, Thin};
        match (size, self) {
            (Size::Distributed, Self::CleanEmpty | Self::Nothing | Self::Touch | Self::Edit) => {
                &[Thin, Klto]
            }
            (Size::Distributed, Self::CleanFull) => &[Klto],
            (Size::Distributed, _) => &[],
            (_, Self::CleanEmpty | Self::Edit) => &Side::ALL,
            (_, Self::Touch) => &[Thin, None, Ccache, Klto],
            (_, Self::EditModule) => &[Thin, None, Klto, Full, KltoFull],
            (_, Self::HeaderComment) => &[Klto],
            (_, Self::HeaderLine) => &[Thin, Klto],
            (_, Self::CleanFull) => &[Ccache, Klto],
            (_, _) => &[Thin, None, Klto],
        }
    }

    pub const fn goals(self) -> &'static [&'static str] {
        match self {
            Self::EditVmlinux => &["vmlinux"],
            _ => &["bzImage", "modules"],
        }
    }

    /// Whether it is measured once however short it is.
    pub const fn is_once(self) -> bool {
        matches!(self, Self::CleanEmpty | Self::CleanFull)
    }

    pub const fn preparation(self, size: Size) -> Preparation {
        match self {
            Self::CleanEmpty => Preparation::Nothing,
            Self::Nothing => Preparation::Built,
            Self::Touch => Preparation::Edited(in_main(Kind::Touch)),
            Self::Edit | Self::EditVmlinux => Preparation::Edited(in_main(Kind::Statement)),
            Self::EditModule => Preparation::Edited(size.module_edit()),
            Self::HeaderComment => Preparation::Edited(in_sched(Kind::CommentAtEnd)),
            Self::HeaderLine => Preparation::Edited(in_sched(Kind::CommentLine)),
            Self::Option => Preparation::Configured,
            Self::CleanFull => Preparation::StoreOnly,
        }
    }
}

const fn in_main(kind: Kind) -> Edit {
    Edit {
        file: "init/main.c",
        at: "\tpr_notice(\"%s\", linux_banner);",
        kind,
    }
}

const fn in_sched(kind: Kind) -> Edit {
    Edit {
        file: "include/linux/sched.h",
        at: "#include <uapi/linux/sched.h>",
        kind,
    }
}

/// Every edit of every row: these files of a tree get inodes of their own.
pub(super) fn edits(size: Size) -> impl Iterator<Item = Edit> {
    Row::ALL
        .into_iter()
        .filter_map(move |row| match row.preparation(size) {
            Preparation::Edited(edit) => Some(edit),
            _ => None,
        })
}
