//! Which values an instruction uses.
//!
//! In: a record of a function's block, the types of the module. Out: numbers of values, and whether the
//! instruction is a value itself. Facts: `llvm/Bitcode/LLVMBitCodes.h`, `BitcodeWriter.cpp`
//! (`writeInstruction`). A record that is not known here gives nothing: who asks must take it for a use of
//! everything.

use super::bitstream::Record;
use super::codes::type_of as type_code;

/// What operands of calls depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    Void,
    Label,
    Metadata,
    Function { returns: u64, parameters: Vec<u64> },
    Other,
}

/// `bitc::FunctionCodes`.
mod code {
    pub(super) const DECLARE_BLOCKS: u64 = 1;
    pub(super) const BINARY: u64 = 2;
    pub(super) const CAST: u64 = 3;
    pub(super) const EXTRACT_ELEMENT: u64 = 6;
    pub(super) const INSERT_ELEMENT: u64 = 7;
    pub(super) const SHUFFLE_VECTOR: u64 = 8;
    pub(super) const COMPARE: u64 = 9;
    pub(super) const RETURN: u64 = 10;
    pub(super) const BRANCH: u64 = 11;
    pub(super) const SWITCH: u64 = 12;
    pub(super) const UNREACHABLE: u64 = 15;
    pub(super) const PHI: u64 = 16;
    pub(super) const ALLOCA: u64 = 19;
    pub(super) const LOAD: u64 = 20;
    pub(super) const EXTRACT_VALUE: u64 = 26;
    pub(super) const INSERT_VALUE: u64 = 27;
    pub(super) const COMPARE_2: u64 = 28;
    pub(super) const SELECT: u64 = 29;
    pub(super) const INDIRECT_BRANCH: u64 = 31;
    pub(super) const CALL: u64 = 34;
    pub(super) const FENCE: u64 = 36;
    pub(super) const LOAD_ATOMIC: u64 = 41;
    pub(super) const ELEMENT_POINTER: u64 = 43;
    pub(super) const STORE: u64 = 44;
    pub(super) const STORE_ATOMIC: u64 = 45;
    pub(super) const COMPARE_EXCHANGE: u64 = 46;
    pub(super) const OPERAND_BUNDLE: u64 = 55;
    pub(super) const UNARY: u64 = 56;
    pub(super) const CALL_BRANCH: u64 = 57;
    pub(super) const FREEZE: u64 = 58;
    pub(super) const ATOMIC_UPDATE: u64 = 59;
}

/// Flags in the calling convention of a call: a type of the function follows, flags of arithmetic do.
const EXPLICIT_TYPE: u64 = 1 << 15;
const FAST_MATH: u64 = 1 << 17;

/// `OB_METADATA` of LLVM 22.
const METADATA_MARK: u32 = 1 << 31;

impl Type {
    /// The type that a record of the table adds; `None` for one that adds none.
    pub(super) fn of(record: &Record<'_>) -> Option<Self> {
        Some(match (record.code, record.operands.as_slice()) {
            (type_code::NUMBER_OF_ENTRIES | type_code::STRUCT_NAME, _) => return None,
            (type_code::VOID, _) => Self::Void,
            (type_code::LABEL, _) => Self::Label,
            (type_code::METADATA, _) => Self::Metadata,
            (type_code::FUNCTION, [_, returns, parameters @ ..]) => Self::Function {
                returns: *returns,
                parameters: parameters.to_vec(),
            },
            _ => Self::Other,
        })
    }
}

/// What one instruction uses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Instruction {
    /// Numbers of values.
    pub(super) values: Vec<u64>,
    /// Numbers of metadata that are arguments.
    pub(super) metadata: Vec<u64>,
    /// Whether it takes the next number of a value.
    pub(super) is_value: bool,
}

impl Instruction {
    /// Reads a record where `next` is the next number of a value; `None` where it is not known.
    pub(super) fn read(record: &Record<'_>, types: &[Type], next: u64) -> Option<Self> {
        let mut reader = Reader {
            rest: record.operands.as_slice(),
            types,
            next,
            found: Self::default(),
        };
        let is_value = reader.read(record.code)?;
        Some(Self {
            is_value,
            ..reader.found
        })
    }
}

struct Reader<'a> {
    rest: &'a [u64],
    types: &'a [Type],
    next: u64,
    found: Instruction,
}

impl Reader<'_> {
    /// Reads the operands of an instruction of this code; whether it is a value.
    #[expect(
        clippy::too_many_lines,
        reason = "a flat match over the codes of instructions"
    )]
    fn read(&mut self, code: u64) -> Option<bool> {
        let is_value = match code {
            code::DECLARE_BLOCKS | code::UNREACHABLE | code::FENCE => false,
            code::UNARY | code::FREEZE | code::CAST | code::LOAD | code::LOAD_ATOMIC => {
                self.typed()?;
                true
            }
            code::EXTRACT_VALUE => {
                self.typed()?;
                true
            }
            code::BINARY | code::COMPARE | code::COMPARE_2 => {
                self.typed()?;
                self.plain()?;
                true
            }
            code::EXTRACT_ELEMENT | code::INSERT_VALUE | code::ATOMIC_UPDATE => {
                self.typed()?;
                self.typed()?;
                true
            }
            code::INSERT_ELEMENT | code::SHUFFLE_VECTOR | code::SELECT => {
                self.typed()?;
                self.plain()?;
                self.typed()?;
                true
            }
            code::COMPARE_EXCHANGE => {
                self.typed()?;
                self.typed()?;
                self.plain()?;
                true
            }
            code::STORE | code::STORE_ATOMIC => {
                self.typed()?;
                self.typed()?;
                false
            }
            code::RETURN => {
                if !self.rest.is_empty() {
                    self.typed()?;
                }
                false
            }
            code::BRANCH => {
                // Two blocks and a condition, or one block.
                if self.rest.len() > 1 {
                    self.skip(2)?;
                    self.plain()?;
                }
                false
            }
            code::SWITCH => {
                self.skip(1)?;
                self.plain()?;
                self.skip(1)?;
                // Values of cases are not relative.
                let cases = std::mem::take(&mut self.rest);
                self.found.values.extend(cases.iter().step_by(2));
                false
            }
            code::INDIRECT_BRANCH => {
                self.skip(1)?;
                self.plain()?;
                false
            }
            code::PHI => {
                self.skip(1)?;
                while let [value, _, rest @ ..] = self.rest {
                    self.rest = rest;
                    // The lowest bit is the sign.
                    let distance = value >> 1;
                    self.found.values.push(match value & 1 {
                        0 => self.next.checked_sub(distance)?,
                        _ => self.next.checked_add(distance)?,
                    });
                }
                true
            }
            code::ALLOCA => {
                // The number of elements is not relative.
                self.found.values.push(*self.rest.get(2)?);
                true
            }
            code::ELEMENT_POINTER => {
                self.skip(2)?;
                self.typed_to_the_end()?;
                true
            }
            code::OPERAND_BUNDLE => {
                self.skip(1)?;
                self.typed_to_the_end()?;
                false
            }
            code::CALL => {
                self.skip(1)?;
                let convention = self.number()?;
                if convention & FAST_MATH != 0 {
                    self.skip(1)?;
                }
                self.call(convention & EXPLICIT_TYPE != 0)?
            }
            code::CALL_BRANCH => {
                self.skip(1)?;
                let convention = self.number()?;
                self.skip(1)?;
                let blocks = usize::try_from(self.number()?).ok()?;
                self.skip(blocks)?;
                self.call(convention & EXPLICIT_TYPE != 0)?
            }
            _ => return None,
        };
        Some(is_value)
    }

    /// A call from the type of its function on; whether it returns something.
    fn call(&mut self, has_type: bool) -> Option<bool> {
        if !has_type {
            return None;
        }
        let number = usize::try_from(self.number()?).ok()?;
        let Type::Function {
            returns,
            parameters,
        } = self.types.get(number)?
        else {
            return None;
        };
        self.typed()?;
        for parameter in parameters {
            match self.types.get(usize::try_from(*parameter).ok()?)? {
                Type::Label => self.skip(1)?,
                Type::Metadata => {
                    let number = self.relative()?;
                    self.found.metadata.push(number);
                }
                _ => self.plain()?,
            }
        }
        self.typed_to_the_end()?;
        let returns = self.types.get(usize::try_from(*returns).ok()?)?;
        Some(*returns != Type::Void)
    }

    fn number(&mut self) -> Option<u64> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.rest = self.rest.get(count..)?;
        Some(())
    }

    /// A number that is written as the distance to the next one, in 32 bits.
    fn relative(&mut self) -> Option<u64> {
        let distance = u32::try_from(self.number()?).ok()?;
        // In a bundle of operands it says that a number of metadata follows.
        if distance == METADATA_MARK {
            return None;
        }
        let next = u32::try_from(self.next).ok()?;
        Some(u64::from(next.wrapping_sub(distance)))
    }

    /// A value whose type is known.
    fn plain(&mut self) -> Option<()> {
        let value = self.relative()?;
        self.found.values.push(value);
        Some(())
    }

    /// A value; the type of one that comes later follows it.
    fn typed(&mut self) -> Option<()> {
        let value = self.relative()?;
        self.found.values.push(value);
        match value >= self.next {
            true => self.skip(1),
            false => Some(()),
        }
    }

    fn typed_to_the_end(&mut self) -> Option<()> {
        while !self.rest.is_empty() {
            self.typed()?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(code: u64, operands: &[u64]) -> Option<Instruction> {
        let types = [
            Type::Void,
            Type::Other,
            Type::Metadata,
            Type::Function {
                returns: 0,
                parameters: vec![1, 2],
            },
        ];
        let record = Record {
            code,
            operands: operands.to_vec(),
            blob: None,
        };
        Instruction::read(&record, &types, 100)
    }

    fn values(code: u64, operands: &[u64]) -> Vec<u64> {
        read(code, operands).unwrap().values
    }

    #[test]
    fn distances_are_taken_from_the_next_value() {
        assert_eq!(values(code::BINARY, &[1, 90, 0]), [99, 10]);
        // A value that comes later has its type behind it.
        let later = u64::from(5_u32.wrapping_neg());
        assert_eq!(values(code::STORE, &[later, 7, 3, 4, 0]), [105, 97]);
        assert_eq!(values(code::PHI, &[1, 4, 0, 7, 1]), [98, 103]);
    }

    #[test]
    fn absolute_numbers_stay() {
        assert_eq!(values(code::SWITCH, &[1, 1, 9, 40, 5, 41, 6]), [99, 40, 41]);
        assert_eq!(values(code::ALLOCA, &[1, 2, 33, 4]), [33]);
    }

    #[test]
    fn arguments_of_calls_go_by_the_function_s_type() {
        let call = read(code::CALL, &[0, EXPLICIT_TYPE, 3, 20, 1, 60]).unwrap();
        let expected = Instruction {
            values: vec![80, 99],
            metadata: vec![40],
            is_value: false,
        };
        assert_eq!(call, expected);
        let branch = read(
            code::CALL_BRANCH,
            &[0, EXPLICIT_TYPE, 8, 2, 9, 10, 3, 20, 1, 60],
        );
        assert_eq!(branch.unwrap(), expected);
        assert_eq!(read(code::CALL, &[0, 0, 3, 20, 1, 60]), None);
    }

    #[test]
    fn what_is_not_known_is_nothing() {
        assert_eq!(read(5, &[]), None);
        assert_eq!(read(code::BINARY, &[1]), None);
        assert_eq!(read(code::CALL, &[0, EXPLICIT_TYPE, 1, 20]), None);
        assert_eq!(read(code::OPERAND_BUNDLE, &[0, 1 << 31, 5]), None);
    }
}
