//! A map and a mirror of what is in it: what is asked for is compared with the mirror, and only differences
//! are written.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context as _, Result};
use aya::{
    Pod,
    maps::{HashMap, LpmTrie, MapData, MapError, lpm_trie::Key},
};
use podgate_common::{Address, PrefixKey};

/// A map of which this process is the only writer.
#[derive(Debug)]
pub struct MapTable<K, V, M = HashMap<MapData, K, V>> {
    name: &'static str,
    map: M,
    mirror: BTreeMap<K, V>,
    writes: u64,
}

impl<K: Pod + Ord, V: Pod> MapTable<K, V> {
    /// Takes a map over that may hold entries.
    pub(super) fn taken_over(name: &'static str, map: HashMap<MapData, K, V>) -> Result<Self> {
        let mirror = map
            .iter()
            .collect::<Result<_, _>>()
            .with_context(|| format!("cannot read the table of {name}"))?;
        Ok(Self { name, map, mirror, writes: 0 })
    }
}

impl<K: Copy + Ord + fmt::Debug, V: Copy + PartialEq, M: MapStore<K, V>> MapTable<K, V, M> {
    pub(super) const fn empty(name: &'static str, map: M) -> Self {
        Self { name, map, mirror: BTreeMap::new(), writes: 0 }
    }

    pub(super) const fn map(&self) -> &M {
        &self.map
    }

    /// What the map holds.
    pub const fn entries(&self) -> &BTreeMap<K, V> {
        &self.mirror
    }

    /// How often this process has written to the map or removed from it.
    pub const fn writes(&self) -> u64 {
        self.writes
    }

    /// Writes one entry, if the map has not got it.
    ///
    /// # Errors
    ///
    /// When the kernel has no room or memory for it.
    pub fn put(&mut self, key: K, value: V) -> Result<()> {
        if self.mirror.get(&key) != Some(&value) {
            self.map
                .store(&key, &value)
                .with_context(|| format!("cannot write {key:?} to the table of {}", self.name))?;
            self.mirror.insert(key, value);
            self.writes += 1;
        }
        Ok(())
    }

    /// Removes one entry, if the map has it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn remove(&mut self, key: &K) -> Result<()> {
        if self.mirror.remove(key).is_some() {
            self.writes += 1;
            absent_is_fine(self.map.delete(key))
                .with_context(|| format!("cannot remove {key:?} from the table of {}", self.name))?;
        }
        Ok(())
    }

    /// Writes all of `wanted`, and leaves the rest.
    ///
    /// # Errors
    ///
    /// As [`MapTable::put`].
    pub fn put_all(&mut self, wanted: &BTreeMap<K, V>) -> Result<()> {
        // Nearly always, and found without a search for each.
        if self.mirror == *wanted {
            return Ok(());
        }
        wanted.iter().try_for_each(|(key, value)| self.put(*key, *value))
    }

    /// Writes and removes (`None`) entries, and leaves the rest.
    ///
    /// # Errors
    ///
    /// As [`MapTable::put`] and [`MapTable::remove`].
    pub fn change(&mut self, changes: &BTreeMap<K, Option<V>>) -> Result<()> {
        changes.iter().try_for_each(|(key, value)| match value {
            Some(value) => self.put(*key, *value),
            None => self.remove(key),
        })
    }

    /// Removes what is not in `wanted`.
    ///
    /// # Errors
    ///
    /// As [`MapTable::remove`].
    pub fn keep(&mut self, wanted: &BTreeMap<K, V>) -> Result<()> {
        if self.mirror == *wanted {
            return Ok(());
        }
        let doomed: Vec<K> = self.mirror.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        doomed.iter().try_for_each(|key| self.remove(key))
    }
}

/// Writing to a kind of map.
pub trait MapStore<K, V> {
    /// Writes an entry, new or not.
    fn store(&mut self, key: &K, value: &V) -> Result<(), MapError>;
    /// Removes an entry.
    fn delete(&mut self, key: &K) -> Result<(), MapError>;
}

impl<K: Pod, V: Pod> MapStore<K, V> for HashMap<MapData, K, V> {
    fn store(&mut self, key: &K, value: &V) -> Result<(), MapError> {
        self.insert(key, value, 0)
    }

    fn delete(&mut self, key: &K) -> Result<(), MapError> {
        self.remove(key)
    }
}

impl<V: Pod> MapStore<PrefixKey, V> for LpmTrie<MapData, Address, V> {
    fn store(&mut self, key: &PrefixKey, value: &V) -> Result<(), MapError> {
        self.insert(&Key::new(key.length, key.address), value, 0)
    }

    fn delete(&mut self, key: &PrefixKey) -> Result<(), MapError> {
        self.remove(&Key::new(key.length, key.address))
    }
}

/// The kernel says "no such entry" for what is gone already.
pub(super) fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}
