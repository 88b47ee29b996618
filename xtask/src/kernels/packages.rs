//! Packages of several releases of Debian and Ubuntu, by `apt-get` with lists of its own below `target`: the
//! machine's own lists, packages and architectures stay as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::files;
use crate::{platform::Platform, setup, workspace};

/// A release of a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Release {
    Bullseye,
    Bookworm,
    Trixie,
    /// Ubuntu's. Of amd64 alone: other processors have another server.
    Jammy,
}

const DEBIAN: &str = "http://deb.debian.org";
const UBUNTU: &str = "http://archive.ubuntu.com/ubuntu";
const DEBIAN_KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// In Debian's package `ubuntu-keyring`.
const UBUNTU_KEYS: &str = "usr/share/keyrings/ubuntu-archive-keyring.gpg";

impl Release {
    const fn name(self) -> &'static str {
        match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Jammy => "jammy",
        }
    }

    /// Lines of `sources.list`, but for the keys.
    fn sources(self) -> [String; 2] {
        let name = self.name();
        match self {
            Self::Bullseye | Self::Bookworm | Self::Trixie => [
                format!("{DEBIAN}/debian {name} main"),
                format!("{DEBIAN}/debian-security {name}-security main"),
            ],
            Self::Jammy => {
                [format!("{UBUNTU} {name}-updates main"), format!("{UBUNTU} {name}-security main")]
            }
        }
    }

    /// The keys that its lists are signed with.
    fn keys(self) -> Result<PathBuf> {
        match self {
            Self::Bullseye | Self::Bookworm | Self::Trixie => {
                setup::install_files(&[(DEBIAN_KEYS, "debian-archive-keyring")])?;
                Ok(DEBIAN_KEYS.into())
            }
            Self::Jammy => {
                let unpacked = places()?.join("ubuntu-keyring");
                let keys = unpacked.join(UBUNTU_KEYS);
                if !keys.is_file() {
                    let packages = Packages::of(Self::Trixie, Platform::HOST)?;
                    packages.unpack(&["ubuntu-keyring".to_owned()], &unpacked)?;
                }
                Ok(keys)
            }
        }
    }
}

fn places() -> Result<PathBuf> {
    Ok(workspace::target()?.join("kernels/packages"))
}

/// What one release has for one processor.
#[derive(Debug)]
struct Packages {
    directory: PathBuf,
}

impl Packages {
    /// With the release's lists, as they are now or were at an earlier call.
    fn of(release: Release, platform: Platform) -> Result<Self> {
        let directory = places()?.join(format!("{}-{platform}", release.name()));
        let packages = Self { directory };
        if packages.directory.join("ready").is_file() {
            return Ok(packages);
        }
        println!("kernels: lists of packages of {} for {platform}", release.name());
        let keys = release.keys()?;
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(packages.directory.join(part)).context("directories for apt")?;
        }
        let sources =
            release.sources().map(|source| format!("deb [signed-by={}] {source}\n", keys.display()));
        let place = packages.directory.display();
        let configuration = format!(
            "APT::Architecture \"{platform}\"; APT::Architectures {{\"{platform}\";}};\n\
             Dir::State \"{place}\"; Dir::State::lists \"{place}/lists\"; Dir::State::status \"{place}/status\";\n\
             Dir::Cache \"{place}/cache\"; Dir::Etc::sourcelist \"{place}/sources.list\";\n\
             Dir::Etc::sourceparts \"-\"; Acquire::Languages \"none\";\n\
             APT::Sandbox::User \"root\"; APT::Install-Recommends \"false\";\n",
        );
        for (name, text) in
            [("sources.list", sources.concat()), ("status", String::new()), ("apt.conf", configuration)]
        {
            fs::write(packages.directory.join(name), text).with_context(|| format!("writing {name}"))?;
        }
        files::output(packages.apt("apt-get").args(["-qq", "update"]))?;
        fs::write(packages.directory.join("ready"), "").context("noting that the lists are there")?;
        Ok(packages)
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        apt.env("APT_CONFIG", self.directory.join("apt.conf")).env("LC_ALL", "C");
        apt.current_dir(&self.directory);
        apt
    }

    /// What a package depends on, by names that begin so.
    fn depends(&self, package: &str, prefix: &str) -> Result<Vec<String>> {
        let text = files::output(self.apt("apt-cache").args(["depends", package]))?;
        let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect())
    }

    /// Downloads packages, alone, and unpacks them.
    fn unpack(&self, names: &[String], to: &Path) -> Result<()> {
        for name in names {
            println!("kernels: download {name}");
            files::output(self.apt("apt-get").args(["-qq", "download", name]))?;
        }
        unpack_all(&self.directory, to)
    }

    /// The same with all that they depend on, as on a machine without any.
    fn unpack_with_dependencies(&self, names: &[&str], to: &Path) -> Result<()> {
        println!("kernels: download {}", names.join(", "));
        let mut install = self.apt("apt-get");
        install.args(["-qq", "install", "--yes", "--download-only"]).args(names);
        files::output(&mut install)?;
        unpack_all(&self.directory.join("cache/archives"), to)
    }
}

fn unpack_all(directory: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for path in files::entries(directory)? {
        if path.extension().is_some_and(|extension| extension == "deb") {
            files::output(Command::new("dpkg-deb").arg("-x").arg(&path).arg(to))?;
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// A kernel's packages, unpacked.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) release: String,
    pub(super) image: PathBuf,
    pub(super) modules: PathBuf,
}

impl Kernel {
    /// The newest one, or the one that was unpacked before.
    pub(super) fn unpack(
        release: Release,
        platform: Platform,
        package: &str,
        directory: &Path,
    ) -> Result<Self> {
        let unpacked = directory.join("root");
        if !unpacked.is_dir() {
            let packages = Packages::of(release, platform)?;
            let mut names = packages.depends(package, "linux-image-")?;
            ensure!(names.len() == 1, "{package} depends on one kernel, not on {names:?}");
            names.extend(packages.depends(&names[0], "linux-modules-")?);
            let partial = directory.join("root.partial");
            packages.unpack(&names, &partial)?;
            files::decompress(&modules_below(&partial)?)?;
            fs::rename(&partial, &unpacked).context("the unpacked kernel")?;
        }
        let modules = files::only(&modules_below(&unpacked)?)?;
        let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let image = unpacked.join("boot").join(format!("vmlinuz-{release}"));
        ensure!(image.is_file(), "{} is missing", image.display());
        Ok(Self { release, image, modules })
    }
}

fn modules_below(root: &Path) -> Result<PathBuf> {
    let mut places = ["usr/lib/modules", "lib/modules"].iter().map(|place| root.join(place));
    places.find(|place| place.is_dir()).with_context(|| format!("{} has no modules", root.display()))
}

/// A root with the programs that tests call, for another processor.
pub(super) fn tools(platform: Platform) -> Result<PathBuf> {
    let root = workspace::target()?.join(format!("kernels/tools-{platform}"));
    if !root.is_dir() {
        let partial = root.with_extension("partial");
        let packages = Packages::of(Release::Bookworm, platform)?;
        packages.unpack_with_dependencies(&["coreutils", "dash", "iproute2", "nftables"], &partial)?;
        fs::rename(&partial, &root).context("the unpacked programs")?;
    }
    Ok(root)
}
