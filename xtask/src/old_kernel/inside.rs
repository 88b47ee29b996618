//! The first process of the machine: mounts what programs expect, loads the modules, runs the tests, switches
//! off.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
};
use serde::{Deserialize, Serialize};

/// Where the machine finds its plan.
pub(super) const PLAN: &str = "plan.json";

/// What there is to do.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Plan {
    pub(super) modules: Vec<PathBuf>,
    pub(super) runs: Vec<Run>,
}

/// One test program with its arguments.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Run {
    pub(super) program: PathBuf,
    pub(super) directory: PathBuf,
    pub(super) arguments: Vec<String>,
}

/// Never comes back on the machine.
pub(crate) fn run() -> Result<()> {
    ensure!(std::process::id() == 1, "`inside` is for the machine of `cargo xtask old-kernel`");
    if let Err(error) = work() {
        println!("{error:#}");
    }
    // The emulator ends instead of starting again.
    match reboot(RebootMode::RB_AUTOBOOT).context("switching off")? {}
}

fn work() -> Result<()> {
    for (kind, place) in
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run"), ("tmpfs", "/tmp")]
    {
        fs::create_dir_all(place).with_context(|| format!("creating {place}"))?;
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mounting {place}"))?;
    }
    let plan = fs::read(Path::new("/").join(PLAN)).context("reading the plan")?;
    let plan: Plan = serde_json::from_slice(&plan).context("understanding the plan")?;
    for module in &plan.modules {
        let path = Path::new("/").join(module);
        let file = fs::File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        finit_module(&file, c"", ModuleInitFlags::empty())
            .with_context(|| format!("loading {}", path.display()))?;
    }
    for Run { program, directory, arguments } in &plan.runs {
        println!("\n{} {}", program.display(), arguments.join(" "));
        let mut test = Command::new(program);
        test.args(arguments).current_dir(directory).env("CARGO_MANIFEST_DIR", directory);
        test.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("CI", "true");
        let status = test.status().with_context(|| format!("starting {}", program.display()))?;
        println!("{status}");
    }
    Ok(())
}
