//! The history beyond the end of its agent: a file in the agent's run directory, gone with a reboot.
//!
//! Lines of JSON, compressed: a header, then a flow in each. The compression's checksum shows what was not
//! written whole.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, ensure};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use jiff::Timestamp;
use podgate_core::model::{Name, ObjectName};
use serde::{Deserialize, Serialize};

use super::{FlowHistory, FlowKind, KnownEnd, KnownOwner, NameRole, PastFlow, Seen};
use crate::api::{FlowEnd, FlowRecord, protocol_number};

/// Raised when the lines change so that an older or newer agent would misread them.
const FORMAT: u32 = 1;

/// What is read at the most, in bytes: ten times what a full history of the default size takes.
const LONGEST: u64 = 1 << 30;

#[derive(Debug, Serialize, Deserialize)]
struct SavedHistory {
    podgate_flow_history: u32,
    node: Name,
}

impl FlowHistory {
    /// Where an agent keeps its history. `directory`: that of its socket.
    pub fn path(directory: &Path) -> PathBuf {
        directory.join("flow-history.gz")
    }

    /// Writes all flows of the past, unless nothing has come since it was done last.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; then the one before is still there.
    pub fn save(&self, path: &Path) -> Result<()> {
        let (past, unsaved) = {
            let lately = self.lock();
            if lately.unsaved == 0 {
                return Ok(());
            }
            (self.copy(&lately), lately.unsaved)
        };
        self.write(path, &past).with_context(|| format!("cannot write {}", path.display()))?;
        self.lock().unsaved -= unsaved;
        Ok(())
    }

    fn write(&self, path: &Path, past: &[PastFlow]) -> Result<()> {
        let unfinished = path.with_extension("new");
        // An earlier agent may have been killed while it wrote.
        let _ = fs::remove_file(&unfinished);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        let mut lines = GzEncoder::new(BufWriter::new(file), Compression::fast());
        let header = SavedHistory { podgate_flow_history: FORMAT, node: self.node.clone() };
        serde_json::to_writer(&mut lines, &header)?;
        for flow in past {
            lines.write_all(b"\n")?;
            serde_json::to_writer(&mut lines, &FlowRecord::from(flow))?;
        }
        lines.finish()?.flush()?;
        fs::rename(&unfinished, path)?;
        Ok(())
    }

    /// Takes over what an earlier agent of this node has saved. Out: how many kinds of flows; 0 without a
    /// file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read whole, or is another node's: then nothing of it is taken over.
    pub fn restore(&self, path: &Path) -> Result<usize> {
        let past = self.read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut lately = self.lock();
        let restored = past.len();
        for (kind, seen) in past {
            lately.enter(kind, seen);
        }
        Ok(restored)
    }

    fn read(&self, path: &Path) -> Result<Vec<(FlowKind, Seen)>> {
        let file = match fs::File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file?,
        };
        let mut lines = BufReader::new(GzDecoder::new(file).take(LONGEST)).lines();
        let header = lines.next().context("it is empty")??;
        let header: SavedHistory = serde_json::from_str(&header).context("it is no history of flows")?;
        ensure!(header.podgate_flow_history == FORMAT, "it is of another version");
        ensure!(header.node == self.node, "it is of node {}", header.node);
        lines.map(|line| read_flow(&line?)).collect()
    }
}

fn read_flow(line: &str) -> Result<(FlowKind, Seen)> {
    let flow: FlowRecord = serde_json::from_str(line)?;
    let last: Timestamp = flow.time.parse()?;
    let first = flow.first.as_deref().map(str::parse).transpose()?.unwrap_or(last);
    let protocol = protocol_number(&flow.protocol).context("an unknown protocol")?;
    let kind = FlowKind {
        direction: flow.direction,
        outcome: flow.reason,
        protocol,
        message: flow.message.as_deref().map(read_message).transpose()?,
        port: flow.destination.port,
        source: read_end(&flow.source)?,
        destination: read_end(&flow.destination)?,
        policies: flow.policies.into(),
        names: NameRole::of_words(flow.names, flow.name_expired, flow.name_missing).map(Box::new),
        certain: flow.certain,
    };
    let (packets, source_port) = (flow.packets, flow.source.port);
    let seen = Seen { first, last, packets, source_port, revision: flow.revision, weight: kind.weight() };
    Ok((kind, seen))
}

/// As [`crate::api::icmp_message`] writes it.
fn read_message(text: &str) -> Result<u16> {
    let (kind, code) = text.split_once('/').unwrap_or((text, "0"));
    Ok(u16::from_be_bytes([kind.parse()?, code.parse()?]))
}

fn read_end(end: &FlowEnd) -> Result<KnownEnd> {
    let name = |text: &String| {
        let (namespace, name) = text.split_once('/').context("a name without a namespace")?;
        anyhow::Ok(ObjectName::new(namespace, name))
    };
    let owner = match (&end.pod, &end.service, &end.node) {
        (Some(pod), ..) => {
            let labels = end.labels.iter().map(|(key, value)| (Name::from(key), Name::from(value)));
            Some(KnownOwner::Pod(name(pod)?, Arc::new(labels.collect())))
        }
        (_, Some(service), _) => Some(KnownOwner::Service(name(service)?)),
        (.., Some(node)) => Some(KnownOwner::Node(node.into())),
        (None, None, None) => None,
    };
    Ok(KnownEnd { address: end.address, owner })
}
