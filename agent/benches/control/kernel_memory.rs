//! What the kernel keeps for a benchmark.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result};

/// What the BPF maps of this process take in the kernel, in MB.
pub(crate) fn kernel_memory() -> Result<f64> {
    let mut bytes_of_map: BTreeMap<String, f64> = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fdinfo").context("the open files of this process")? {
        // One of them is the directory itself, closed by now.
        let Ok(info) = fs::read_to_string(entry.context("an open file")?.path()) else { continue };
        let field =
            |name: &str| info.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
        if let (Some(map), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            bytes_of_map.insert(map, bytes.parse().context("bytes")?);
        }
    }
    Ok(bytes_of_map.values().sum::<f64>() / 1e6)
}
