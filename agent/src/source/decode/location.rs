//! Where objects stand in what was read.

/// Where a value was found. It names objects that do not name themselves.
#[derive(Clone, Debug)]
pub(crate) struct ObjectLocation {
    /// Unique among the places of a source: a file.
    pub(crate) origin: String,
    /// Unique within the origin, e.g. `document 2`.
    pub(crate) position: String,
}

/// Where an object begins, and, of a list, where its items do. Lines are counted from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ObjectLines {
    pub(crate) own: usize,
    pub(crate) items: Vec<ObjectLines>,
}

impl ObjectLines {
    pub(crate) const fn at(own: usize) -> Self {
        Self { own, items: Vec::new() }
    }
}
