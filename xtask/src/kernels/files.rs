//! What programs need besides themselves: shared libraries, and the modules that a module depends on.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use object::{Object as _, ObjectSection as _};

use super::modules;

/// Newer kernels have compressed modules.
pub(super) const UNPACKER: (&str, &str) = ("unxz", "xz-utils");

/// A program of this machine's.
pub(super) fn tool(name: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let mut programs = places.map(|directory| directory.join(name));
    programs.find(|program| program.is_file()).with_context(|| format!("no program {name}"))
}

/// The shared libraries of programs, with the loader.
pub(super) fn libraries<'a>(programs: impl Iterator<Item = &'a PathBuf>) -> Result<BTreeSet<PathBuf>> {
    let mut libraries = BTreeSet::new();
    for program in programs {
        // `name => /path (address)`, or `/path (address)` for the loader.
        let list = output(Command::new("ldd").arg(program))?;
        let paths = list.split_whitespace().filter(|word| word.starts_with('/'));
        libraries.extend(paths.map(PathBuf::from));
    }
    Ok(libraries)
}

/// A table like `modules.dep`, from what each module says of itself.
pub(super) fn dependencies(directory: &Path) -> Result<String> {
    let mut paths = BTreeMap::new();
    find(&directory.join("kernel"), "ko", &mut |path| {
        if let Ok(relative) = path.strip_prefix(directory) {
            let relative = relative.to_string_lossy().into_owned();
            paths.insert(modules::name(&relative), relative);
        }
    })?;
    let mut table = String::new();
    for path in paths.values() {
        let names = depends(&directory.join(path))?;
        let others: Vec<&str> = names.iter().filter_map(|name| paths.get(name)).map(String::as_str).collect();
        table += &format!("{path}: {}\n", others.join(" "));
    }
    Ok(table)
}

/// The line `depends=a,b` of a module's section `.modinfo`.
fn depends(module: &Path) -> Result<Vec<String>> {
    let bytes = fs::read(module).with_context(|| format!("reading {}", module.display()))?;
    let file = object::File::parse(&*bytes).with_context(|| format!("{} is no object", module.display()))?;
    let info = file.section_by_name(".modinfo").context("a module describes itself")?;
    let info = info.data().context("reading a module's description")?;
    let lines = info.split(|byte| *byte == 0).filter_map(|line| std::str::from_utf8(line).ok());
    let depends = lines.filter_map(|line| line.strip_prefix("depends=")).flat_map(|names| names.split(','));
    Ok(depends.filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect())
}

/// Gives the modules below a directory the form that this program can read.
pub(super) fn decompress(directory: &Path) -> Result<()> {
    let mut modules = Vec::new();
    find(directory, "xz", &mut |path| modules.push(path.to_owned()))?;
    if !modules.is_empty() {
        output(Command::new(UNPACKER.0).args(modules))?;
    }
    Ok(())
}

/// The files below a directory, with what links lead to.
pub(super) fn below(directory: &Path, found: &mut impl FnMut(&Path)) -> Result<()> {
    for path in entries(directory)? {
        if path.is_dir() && !path.is_symlink() {
            below(&path, found)?;
        } else if path.is_file() {
            found(&path);
        }
    }
    Ok(())
}

/// What is in a directory, sorted.
pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// The one entry of a directory.
pub(super) fn only(directory: &Path) -> Result<PathBuf> {
    let mut paths = entries(directory)?;
    ensure!(paths.len() == 1, "{}: one entry expected, not {paths:?}", directory.display());
    Ok(paths.remove(0))
}

/// What a command prints; fails with what it complains of.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{complaint}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("reading the output of {command:?}"))
}

fn find(directory: &Path, wanted: &str, found: &mut impl FnMut(&Path)) -> Result<()> {
    below(directory, &mut |path| {
        if path.extension().is_some_and(|extension| extension == wanted) {
            found(path);
        }
    })
}
