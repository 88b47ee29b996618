//! How the programs are translated: for processors that may read words which are not aligned.
//! Without this each header field is read byte by byte. Every kernel that the agent runs on
//! allows it (x86-64 and arm64 have HAVE_EFFICIENT_UNALIGNED_ACCESS).

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Lints are checked for the host, which has another linker.
    if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|target| target == "bpf") {
        println!("cargo:rustc-link-arg-bins=--cpu-features=+allows-misaligned-mem-access");
    }
}
