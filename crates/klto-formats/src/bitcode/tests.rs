//! Tests of the bitcode readers on small streams made by hand.

use super::bitstream::Bitstream;
use super::*;

/// Writes bits, least significant first.
#[derive(Default)]
struct Writer {
    bits: Vec<bool>,
}

impl Writer {
    fn fixed(&mut self, value: u64, width: u32) -> &mut Self {
        self.bits
            .extend((0..width).map(|bit| value >> bit & 1 == 1));
        self
    }

    fn variable(&mut self, mut value: u64, width: u32) -> &mut Self {
        let more = 1 << (width - 1);
        while value >= more {
            self.fixed(value % more + more, width);
            value /= more;
        }
        self.fixed(value, width)
    }

    fn align(&mut self) -> &mut Self {
        self.bits
            .resize(self.bits.len().next_multiple_of(32), false);
        self
    }

    /// A block of abbreviation width 3, in a place where that is `width`.
    fn block(&mut self, width: u32, block: u32, inside: impl Fn(&mut Self)) -> &mut Self {
        self.fixed(1, width)
            .variable(block.into(), 8)
            .variable(3, 4);
        let length_at = self.align().bits.len();
        self.fixed(0, 32);
        inside(self);
        self.fixed(0, 3).align();
        let words = (self.bits.len() - length_at) / 32 - 1;
        for bit in 0..32 {
            self.bits[length_at + bit] = words >> bit & 1 == 1;
        }
        self
    }

    fn record(&mut self, code: u64, operands: &[u64]) -> &mut Self {
        self.fixed(3, 3).variable(code, 6);
        self.variable(operands.len() as u64, 6);
        for operand in operands {
            self.variable(*operand, 6);
        }
        self
    }

    /// Defines: a literal code, then an array of char6.
    fn define_text_abbreviation(&mut self, code: u64) -> &mut Self {
        self.fixed(2, 3).variable(3, 5);
        self.fixed(1, 1).variable(code, 8);
        self.fixed(0, 1).fixed(3, 3);
        self.fixed(0, 1).fixed(4, 3)
    }

    fn bytes(&self) -> Vec<u8> {
        let byte = |bits: &[bool]| {
            (0..)
                .zip(bits)
                .map(|(n, bit)| u8::from(*bit) << n)
                .sum::<u8>()
        };
        let mut bytes = b"BC\xc0\xde".to_vec();
        bytes.extend(self.bits.chunks(8).map(byte));
        bytes
    }
}

fn stream(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    write(&mut writer);
    writer.bytes()
}

fn inline_asm(head: &[u64], text: &str) -> Vec<u64> {
    let mut operands = head.to_vec();
    operands.push(text.len() as u64);
    operands.extend(text.bytes().map(u64::from));
    operands.extend([1, u64::from(b'r')]);
    operands
}

#[test]
fn all_versions_of_inline_asm_are_read() {
    let bytes = stream(|stream| {
        stream.block(2, block::MODULE, |module| {
            module.record(4, &[u64::from(b'm')]);
            module.block(3, block::CONSTANTS, |constants| {
                constants.record(18, &inline_asm(&[0], "old"));
                constants.record(23, &inline_asm(&[0], "old2"));
                constants.record(22, &[1, 2, 3]);
            });
            module.block(3, block::FUNCTION, |function| {
                function.record(4, &[9]);
                function.block(3, block::CONSTANTS, |constants| {
                    constants.record(28, &inline_asm(&[0], "old3"));
                    constants.record(30, &inline_asm(&[7, 1], ""));
                    constants.record(30, &inline_asm(&[7, 1], "new"));
                });
            });
            module.block(3, 15, |metadata| {
                metadata.record(18, &inline_asm(&[0], "no"));
            });
        });
    });
    let texts = assembly(&bytes).unwrap();
    assert_eq!(texts, [&b"m"[..], b"old", b"old2", b"old3", b"", b"new"]);
}

#[test]
fn sign_extended_characters_are_bytes() {
    let bytes = stream(|stream| {
        stream.block(2, block::MODULE, |module| {
            module.record(4, &[u64::MAX - 0x1d, 0xffff_ff82, 0xac]);
        });
    });
    assert_eq!(assembly(&bytes).unwrap(), ["\u{20ac}".as_bytes()]);
}

#[test]
fn abbreviations_of_the_block_and_of_blockinfo_are_followed() {
    let bytes = stream(|stream| {
        stream.block(2, block::MODULE, |module| {
            module.block(3, 0, |info| {
                info.record(1, &[u64::from(block::CONSTANTS)]);
                info.define_text_abbreviation(99);
            });
            module.define_text_abbreviation(4);
            // "ab_9": a, b, _ and 9 are 0, 1, 63 and 61.
            module.fixed(4, 3).variable(4, 6);
            module.fixed(0, 6).fixed(1, 6).fixed(63, 6).fixed(61, 6);
            module.block(3, block::CONSTANTS, |constants| {
                constants.fixed(4, 3).variable(1, 6).fixed(5, 6);
                constants.record(18, &inline_asm(&[0], "x"));
            });
        });
    });
    assert_eq!(assembly(&bytes).unwrap(), [&b"ab_9"[..], b"x"]);
}

#[test]
fn a_wrapper_is_taken_off() {
    let inner = stream(|stream| {
        stream.block(2, block::MODULE, |module| {
            module.block(3, block::GLOBAL_VALUE_SUMMARY, |_| {});
        });
    });
    let mut wrapped = Vec::new();
    for word in [0x0B17_C0DE, 0, 20, inner.len() as u32, 7] {
        wrapped.extend(u32::to_le_bytes(word));
    }
    wrapped.extend(&inner);
    wrapped.extend([0; 12]);
    assert!(is_bitcode(&wrapped) && is_bitcode(&inner) && !is_bitcode(b"BC\xc0"));
    assert_eq!(has_thin_summary(&wrapped), Ok(true));
    assert!(has_thin_summary(&wrapped[..30]).is_err());
    assert!(has_thin_summary(&wrapped[..15]).is_err());
}

#[test]
fn the_summary_of_full_lto_is_not_thin() {
    let bytes = stream(|stream| {
        stream.block(2, block::MODULE, |module| {
            module.block(3, 24, |summary| {
                summary.block(3, block::GLOBAL_VALUE_SUMMARY, |_| {});
            });
        });
    });
    assert_eq!(has_thin_summary(&bytes), Ok(false));
}

#[test]
fn damage_is_an_error() {
    let inline_without_text = stream(|stream| {
        stream.block(2, block::CONSTANTS, |constants| {
            constants.record(30, &[7, 1, 5, 65]);
        });
    });
    assert!(assembly(&inline_without_text).is_err());
    let unknown_abbreviation = stream(|stream| {
        stream.block(2, block::MODULE, |module| {
            module.fixed(5, 3);
        });
    });
    assert!(assembly(&unknown_abbreviation).is_err());
    let long_array = stream(|stream| {
        stream.block(2, block::MODULE, |module| {
            module.fixed(3, 3).variable(4, 6).variable(u64::MAX, 6);
        });
    });
    assert!(assembly(&long_array).is_err());
    assert!(assembly(b"ELF").is_err());
    assert!(symbols(&stream(|_| {})).is_err());
    assert_eq!(assembly(&stream(|_| {})), Ok(vec![]));
}

#[test]
fn deep_nesting_is_an_error() {
    fn nest(writer: &mut Writer, depth: u32) {
        if depth > 0 {
            writer.block(3, block::FUNCTION, |inside| nest(inside, depth - 1));
        }
    }
    let bytes = stream(|stream| {
        stream.block(2, block::MODULE, |module| nest(module, 100));
    });
    let error = assembly(&bytes).unwrap_err();
    assert_eq!(error.expected, "at most 64 nested blocks");
}

#[test]
fn array_elements_without_bits_are_refused() {
    let bytes = stream(|stream| {
        stream.block(2, block::MODULE, |module| {
            module.fixed(2, 3).variable(3, 5);
            module.fixed(1, 1).variable(4, 8);
            module.fixed(0, 1).fixed(3, 3);
            module.fixed(1, 1).variable(0, 8);
        });
    });
    let error = assembly(&bytes).unwrap_err();
    assert_eq!(error.expected, "an encoding of array elements");
}

#[test]
fn many_definitions_need_no_stack() {
    let bytes = stream(|stream| {
        stream.block(2, block::MODULE, |module| {
            for _ in 0..100_000 {
                module.define_text_abbreviation(4);
            }
        });
    });
    assert_eq!(assembly(&bytes), Ok(vec![]));
    assert!(Bitstream::open(&bytes).is_ok());
}
