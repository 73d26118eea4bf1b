//! A tiny relocatable object for tests, in both classes and both byte orders.
//!
//! Four symbols, and one string table for symbols and sections, as LLVM writes it.

const NAMES: &[u8] = b"\0.symtab\0.strtab\0local.llvm.42\0crc\0used\0common\0";
const SHN_ABS: u64 = 0xfff1;
const SHN_COMMON: u64 = 0xfff2;

/// A class and a byte order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    wide: bool,
    big: bool,
}

impl Sample {
    pub(crate) const ALL: [Self; 4] = [
        Self::new(false, false),
        Self::new(false, true),
        Self::new(true, false),
        Self::new(true, true),
    ];

    const fn new(wide: bool, big: bool) -> Self {
        Self { wide, big }
    }

    fn number(self, size: usize, value: u64) -> Vec<u8> {
        if self.big {
            value.to_be_bytes()[8 - size..].to_vec()
        } else {
            value.to_le_bytes()[..size].to_vec()
        }
    }

    fn numbers(self, fields: &[(usize, u64)]) -> Vec<u8> {
        let field = |(size, value): &(usize, u64)| self.number(*size, *value);
        fields.iter().flat_map(field).collect()
    }

    fn word(self) -> usize {
        if self.wide { 8 } else { 4 }
    }

    fn symbol(self, name: &str, info: u64, section: u64, value: u64) -> Vec<u8> {
        let name = name_at(name);
        if self.wide {
            self.numbers(&[
                (4, name),
                (1, info),
                (1, 0),
                (2, section),
                (8, value),
                (8, 0),
            ])
        } else {
            self.numbers(&[
                (4, name),
                (4, value),
                (4, 0),
                (1, info),
                (1, 0),
                (2, section),
            ])
        }
    }

    fn section(self, name: &str, kind: u64, offset: u64, size: u64, link: [u64; 2]) -> Vec<u8> {
        let w = self.word();
        let entry = if kind == 2 { self.symbol_size() } else { 0 };
        self.numbers(&[
            (4, name_at(name)),
            (4, kind),
            (w, 0),
            (w, 0),
            (w, offset),
            (w, size),
            (4, link[0]),
            (4, link[1]),
            (w, 1),
            (w, entry),
        ])
    }

    fn symbol_size(self) -> u64 {
        if self.wide { 24 } else { 16 }
    }

    /// The object: header, symbols, strings, section headers.
    pub(crate) fn object(self) -> Vec<u8> {
        let header_size = if self.wide { 64 } else { 52 };
        let symbols: Vec<u8> = [
            self.symbol("", 0, 0, 0),
            self.symbol("local.llvm.42", 0x02, 1, 0),
            self.symbol("crc", 0x10, SHN_ABS, 0x1234_5678),
            self.symbol("used", 0x20, 0, 0),
            self.symbol("common", 0x11, SHN_COMMON, 4),
        ]
        .concat();
        let symbols_at = header_size;
        let names_at = symbols_at + symbols.len() as u64;
        let sections_at = names_at + NAMES.len() as u64;
        let w = self.word();
        let mut bytes = b"\x7fELF".to_vec();
        bytes.extend([1 + u8::from(self.wide), 1 + u8::from(self.big), 1]);
        bytes.resize(16, 0);
        bytes.extend(self.numbers(&[(2, 1), (2, 0), (4, 1), (w, 0), (w, 0), (w, sections_at)]));
        let section_size = if self.wide { 64 } else { 40 };
        bytes.extend(self.numbers(&[(4, 0), (2, header_size), (2, 0), (2, 0)]));
        bytes.extend(self.numbers(&[(2, section_size), (2, 3), (2, 2)]));
        bytes.extend(&symbols);
        bytes.extend(NAMES);
        bytes.extend(self.section("", 0, 0, 0, [0, 0]));
        bytes.extend(self.section(".symtab", 2, symbols_at, symbols.len() as u64, [2, 2]));
        bytes.extend(self.section(".strtab", 3, names_at, NAMES.len() as u64, [0, 0]));
        bytes
    }
}

fn name_at(name: &str) -> u64 {
    let text = [name.as_bytes(), b"\0"].concat();
    let mut windows = NAMES.windows(text.len());
    windows.position(|window| window == text).unwrap() as u64
}
