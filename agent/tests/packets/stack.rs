//! The stack of the programs, as kernels before Linux 6.9 count it: each function on a chain of calls takes a
//! multiple of 32 bytes, and the chain 512 at most (`check_max_stack_depth` in kernel/bpf/verifier.c). Newer
//! ones count in steps of 16, so that the programs can load here and on no older kernel.

use std::collections::BTreeMap;

use object::{File, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolKind};
use podgate_datapath::{OBJECT, TRACING_OBJECT};

/// `MAX_BPF_STACK`
const MOST: u64 = 512;
const STEP: u64 = 32;

/// A function, by its section and its place there.
type Place = (usize, u64);

#[derive(Debug, Default)]
struct Function {
    name: String,
    /// Bytes.
    own: u64,
    calls: Vec<Place>,
}

#[test]
fn the_stack_of_each_program_is_small_enough_for_kernels_that_count_it_in_steps_of_32_bytes() {
    for object in [OBJECT, TRACING_OBJECT] {
        let file = File::parse(object).expect("an ELF file");
        let functions = functions(&file);
        let library = file.section_by_name(".text").expect("functions that programs call").index().0;
        let mut programs = 0;
        for place in functions.keys().filter(|(section, _)| *section != library) {
            programs += 1;
            let (bytes, chain) = deepest(&functions, *place);
            assert!(bytes <= MOST, "{bytes} bytes: {}", chain.join(" > "));
        }
        // `from_pod`, `to_pod`, `at_pod`, and what the agent asks.
        assert!(programs >= 6, "{programs} programs");
    }
}

#[test]
fn what_a_function_calls_counts_towards_its_stack() {
    let function = |own: u64, calls: &[u64]| Function {
        name: own.to_string(),
        own,
        calls: calls.iter().map(|at| (0, *at)).collect(),
    };
    let functions = [(0, function(33, &[8, 16])), (8, function(0, &[16])), (16, function(96, &[]))];
    let functions = functions.into_iter().map(|(at, function)| ((0, at), function)).collect();
    assert_eq!(
        deepest(&functions, (0, 0)),
        (64 + 32 + 96, ["33 (33)", "0 (0)", "96 (96)"].map(str::to_owned).into())
    );
}

/// The most bytes of a chain of calls that begins at a function, and the functions on it.
fn deepest(functions: &BTreeMap<Place, Function>, at: Place) -> (u64, Vec<String>) {
    let Function { name, own, calls } = &functions[&at];
    let below = calls.iter().map(|called| deepest(functions, *called)).max_by_key(|(bytes, _)| *bytes);
    let (bytes, mut chain) = below.unwrap_or_default();
    chain.insert(0, format!("{name} ({own})"));
    (bytes + (*own).max(1).next_multiple_of(STEP), chain)
}

fn functions(file: &File<'_>) -> BTreeMap<Place, Function> {
    let symbols = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0);
    let functions = symbols.map(|symbol| {
        let index = symbol.section_index().expect("a function is in a section");
        let section = file.section_by_index(index).expect("of this file");
        let (start, end) = (symbol.address(), symbol.address() + symbol.size());
        let targets: BTreeMap<u64, _> = section.relocations().collect();
        let code = section.data().expect("code");
        let mut function =
            Function { name: symbol.name().unwrap_or_default().to_owned(), ..Function::default() };
        // What is a copy of the frame pointer, by register.
        let mut copies = [false; 16];
        for at in (start..end).step_by(8) {
            let word = &code[usize::try_from(at).expect("a small file")..][..8];
            let [operation, registers, ..] = *word else { unreachable!("eight bytes") };
            let (to, from) = (registers & 15, registers >> 4);
            let offset = i64::from(i16::from_le_bytes([word[2], word[3]]));
            let number = i64::from(i32::from_le_bytes([word[4], word[5], word[6], word[7]]));
            let mut reaches = |offset: i64| function.own = function.own.max((-offset).max(0).cast_unsigned());
            match operation {
                CALL if from == FUNCTION => {
                    let called = match targets.get(&at).map(|relocation| relocation.target()) {
                        None => (index.0, at + 8).shifted(number),
                        Some(RelocationTarget::Symbol(of)) => {
                            let of = file.symbol_by_index(of).expect("of this file");
                            let section = of.section_index().expect("no function is elsewhere").0;
                            match of.kind() {
                                SymbolKind::Section => (section, 8).shifted(number),
                                _ => (section, of.address()),
                            }
                        }
                        Some(other) => panic!("{}: {other:?}", function.name),
                    };
                    function.calls.push(called);
                }
                MOVE => copies[usize::from(to)] = from == FRAME,
                ADD if copies[usize::from(to)] => {
                    reaches(number);
                    copies[usize::from(to)] = false;
                }
                // Loads have the address in one register, stores in the other.
                _ if operation & 7 == LOAD && from == FRAME => reaches(offset),
                _ if matches!(operation & 7, STORE | STORE_NUMBER) && to == FRAME => reaches(offset),
                _ => {}
            }
        }
        ((index.0, start), function)
    });
    functions.collect()
}

/// `struct bpf_insn`: operation, registers, offset, number.
const CALL: u8 = 0x85;
const MOVE: u8 = 0xbf;
const ADD: u8 = 0x07;
const LOAD: u8 = 1;
const STORE_NUMBER: u8 = 2;
const STORE: u8 = 3;
/// `BPF_PSEUDO_CALL`
const FUNCTION: u8 = 1;
/// `r10`
const FRAME: u8 = 10;

trait Shifted {
    /// As many instructions on.
    fn shifted(self, instructions: i64) -> Self;
}

impl Shifted for Place {
    fn shifted(self, instructions: i64) -> Self {
        (self.0, self.1.checked_add_signed(8 * instructions).expect("calls stay within a section"))
    }
}
