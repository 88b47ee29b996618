//! The versions that are pinned for the BPF programs, from `ebpf/toolchain.toml`.

const PINS: &str = include_str!("../../../ebpf/toolchain.toml");

/// A rustup toolchain that can build them.
pub(super) fn nightly() -> &'static str {
    pin("nightly")
}

/// The whole version of bpf-linker.
pub(super) fn linker() -> &'static str {
    pin("bpf-linker")
}

/// The LLVM to build it with, where any can be installed.
pub(super) fn llvm() -> u32 {
    pin("llvm").parse().expect("ebpf/toolchain.toml: llvm is a number")
}

/// The value of a line `key = "value"`.
fn pin(key: &str) -> &'static str {
    let value = PINS.lines().find_map(|line| {
        let (name, value) = line.split_once(" = \"")?;
        if name == key { value.strip_suffix('"') } else { None }
    });
    value.unwrap_or_else(|| panic!("ebpf/toolchain.toml has no {key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pin_is_there() {
        assert!(nightly().starts_with("nightly-20"));
        assert_eq!(linker().split('.').count(), 3, "a whole version");
        assert!(llvm() >= 21, "bpf-linker needs it");
    }
}
