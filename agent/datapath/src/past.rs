//! Connections that agents before this one have let pass.
//!
//! In: the pins. Out: where such connections are: in the flow table that is taken over, in that of an agent
//! with other maps, or nowhere, when no agent has been here. What else can report about them (sockets) is
//! left to others.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use podgate_common::{FIRST_LAYOUT_OF_FLOWS, Flow, FlowSet, LAYOUT_VERSION};

use super::{FlowTableReader, MappedFlows, maps::keep_open};

/// Where the connections of before are.
#[derive(Debug)]
pub enum Past {
    /// In the flow table itself, which was pinned.
    Kept,
    /// In the tables of agents with other maps.
    Tables(Vec<FlowTableReader>),
    /// Nowhere that can be read: no agent was here, or one whose table is of another form.
    None,
}

impl Past {
    /// `layouts`: the pins of agents with other maps.
    pub(super) fn of(is_fresh: bool, layouts: &[impl AsRef<Path>]) -> Self {
        if !is_fresh {
            return Self::Kept;
        }
        let mut tables = Vec::new();
        for layout in layouts.iter().map(AsRef::as_ref).filter(|layout| is_readable(layout)) {
            match open(layout) {
                Ok(table) => tables.push(table),
                Err(error) => tracing::warn!(
                    layout = %layout.display(), "cannot read the connections of the previous agent: {error:#}"
                ),
            }
        }
        if tables.is_empty() { Self::None } else { Self::Tables(tables) }
    }

    /// Enters the connections of before that the table has not got; returns how many there are.
    ///
    /// # Errors
    ///
    /// When a table cannot be mapped, or the programs do not let the agent write.
    pub fn enter_into(&self, flows: &MappedFlows<'_>) -> Result<usize> {
        let Self::Tables(tables) = self else { return Ok(0) };
        let mut entered = 0;
        for table in tables {
            for (key, flow) in table.entries()? {
                // Revisions are counted from the start again.
                let flow = Flow { client_revision: 0, server_revision: 0, ..flow };
                flows.enter(key, |known| known.unwrap_or(flow))?;
                entered += 1;
            }
        }
        Ok(entered)
    }
}

/// By the number in the directory's name, as in `v5`.
fn is_readable(layout: &Path) -> bool {
    let name = layout.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix('v'));
    let number = name.and_then(|name| name.split(|digit: char| !digit.is_ascii_digit()).next()?.parse().ok());
    number.is_some_and(|number: u32| (FIRST_LAYOUT_OF_FLOWS..=LAYOUT_VERSION).contains(&number))
}

fn open(layout: &Path) -> Result<FlowTableReader> {
    let path = layout.join("maps/FLOWS");
    let map = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let info = map.info().context("cannot learn its size")?;
    ensure!(info.value_size() as usize == size_of::<FlowSet>(), "its sets have another size");
    Ok(FlowTableReader::new(keep_open(&map)?, info.max_entries()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tables_of_the_same_form_are_read() {
        for (name, readable) in [
            (format!("v{LAYOUT_VERSION}"), true),
            (format!("v{LAYOUT_VERSION}-before"), true),
            (format!("v{}", LAYOUT_VERSION + 1), false),
            (format!("v{}", FIRST_LAYOUT_OF_FLOWS - 1), false),
            ("v".into(), false),
            ("other".into(), false),
        ] {
            assert_eq!(is_readable(&Path::new("/sys/fs/bpf/podgate").join(&name)), readable, "{name}");
        }
    }
}
