//! The processors that podgate is built for, by the names that containers and Go have for them, and what this
//! machine needs to build for each.
//!
//! For its own processor a machine builds with its own C library, for the other one with musl: its standard
//! library comes from rustup, the C compiler from Debian.

use std::{env, fmt, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use object::elf;

use crate::{setup, workspace};

/// A processor, on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Platform {
    Amd64,
    Arm64,
}

impl Platform {
    pub const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// This machine's.
    pub const HOST: Self = if cfg!(target_arch = "x86_64") { Self::Amd64 } else { Self::Arm64 };

    /// As Go calls it, and so all of the container world.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As rustc, GCC and QEMU call it.
    pub(crate) const fn machine(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// `e_machine` of its programs.
    const fn elf_machine(self) -> u16 {
        match self {
            Self::Amd64 => elf::EM_X86_64,
            Self::Arm64 => elf::EM_AARCH64,
        }
    }

    /// What rustc builds for.
    ///
    /// # Errors
    ///
    /// When rustc does not start.
    pub(crate) fn triple(self) -> Result<String> {
        if self == Self::HOST { host() } else { Ok(format!("{}-unknown-linux-musl", self.machine())) }
    }

    /// GCC for another processor.
    fn compiler(self) -> String {
        format!("{}-linux-gnu-gcc", self.machine())
    }

    /// Installs what is missing to build for it.
    ///
    /// # Errors
    ///
    /// When rustup has no standard library for it, or a package cannot be installed.
    pub(crate) fn set_up(self) -> Result<()> {
        if self == Self::HOST {
            return Ok(());
        }
        // Set-up installs without what packages recommend: the headers of C come apart.
        let (compiler, headers, package) = match self {
            Self::Amd64 => {
                ("gcc-x86-64-linux-gnu", "/usr/x86_64-linux-gnu/include/stdint.h", "libc6-dev-amd64-cross")
            }
            Self::Arm64 => {
                ("gcc-aarch64-linux-gnu", "/usr/aarch64-linux-gnu/include/stdint.h", "libc6-dev-arm64-cross")
            }
        };
        setup::install(&[(&self.compiler(), compiler)])?;
        setup::install_files(&[(headers, package)])?;
        let triple = self.triple()?;
        if !has_standard_library(&triple)? {
            println!("setup: rustup target add {triple}");
            // In the workspace, for its own toolchain.
            let add = Command::new("rustup")
                .args(["target", "add", &triple])
                .current_dir(workspace::root())
                .output()
                .context("starting rustup")?;
            let complaint = String::from_utf8_lossy(&add.stderr);
            ensure!(add.status.success(), "rustup target add {triple}: {}\n{complaint}", add.status);
        }
        Ok(())
    }

    /// What cargo and the crates with C code must know to build for it.
    ///
    /// # Errors
    ///
    /// When rustc does not start.
    pub(crate) fn settings(self) -> Result<Vec<(String, String)>> {
        let triple = self.triple()?;
        let cargo = |name: &str| format!("CARGO_TARGET_{}_{name}", triple.to_uppercase().replace('-', "_"));
        let mut settings = vec![(cargo("RUSTFLAGS"), "-Ctarget-feature=+crt-static".to_owned())];
        if self != Self::HOST {
            settings.push((cargo("LINKER"), self.compiler()));
            settings.push((format!("CC_{}", triple.replace('-', "_")), self.compiler()));
            settings.push((
                format!("AR_{}", triple.replace('-', "_")),
                format!("{}-linux-gnu-ar", self.machine()),
            ));
        }
        Ok(settings)
    }

    /// Whether a program starts on it in an empty root: one that names a loader does not.
    ///
    /// # Errors
    ///
    /// When it is another processor's, or linked dynamically.
    pub(crate) fn ensure_runs(self, program: &Path) -> Result<()> {
        use object::read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _};
        let bytes = fs::read(program).with_context(|| program.display().to_string())?;
        let file: ElfFile64<'_> = ElfFile64::parse(&*bytes).with_context(|| program.display().to_string())?;
        let endian = file.endian();
        let machine = file.elf_header().e_machine(endian);
        ensure!(
            machine == self.elf_machine(),
            "{} is for the machine {machine} (e_machine), not for {self}",
            program.display()
        );
        let loader = file.elf_program_headers().iter().any(|header| header.p_type(endian) == elf::PT_INTERP);
        ensure!(!loader, "{} is linked dynamically", program.display());
        Ok(())
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What rustc builds for when no target is named.
fn host() -> Result<String> {
    let text = rustc(&["-vV"])?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

fn has_standard_library(triple: &str) -> Result<bool> {
    let libraries = rustc(&["--print", "target-libdir", "--target", triple])?;
    let files = fs::read_dir(libraries.trim()).into_iter().flatten().flatten();
    Ok(files.map(|file| file.file_name()).any(|name| name.to_string_lossy().starts_with("libstd-")))
}

fn rustc(arguments: &[&str]) -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(arguments).current_dir(workspace::root()).output();
    let output = output.context("starting rustc")?;
    ensure!(output.status.success(), "rustc {}: {}", arguments.join(" "), output.status);
    String::from_utf8(output.stdout).context("what rustc prints")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program of another processor's, or one that needs a loader, is found out.
    #[test]
    fn only_a_static_program_of_the_processor_passes() {
        let own = env::current_exe().expect("this test");
        let text = |platform: Platform| format!("{:#}", platform.ensure_runs(&own).unwrap_err());
        for platform in Platform::ALL {
            let expected = if platform == Platform::HOST { "is linked dynamically" } else { "e_machine" };
            assert!(text(platform).contains(expected), "{platform}: {}", text(platform));
        }
    }
}
