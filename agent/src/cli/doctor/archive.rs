//! Files in memory as a compressed archive.

use std::io;

use flate2::{Compression, write::GzEncoder};

use super::facts::Fact;

/// Everything lies in one directory, so that it unpacks beside nothing else. `modified`: seconds since 1970.
pub(super) fn archive(facts: &[Fact], modified: u64) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for Fact { name, what: _, text } in facts {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(modified);
        archive.append_data(&mut header, format!("podgate-doctor/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()
}
