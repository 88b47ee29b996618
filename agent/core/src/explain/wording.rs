//! What an answer says: its meaning where the answer is made, its words where it was received. Words are made
//! when an answer is printed or sent.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A phrase of an answer. Its JSON form is its words.
#[derive(Clone, Debug)]
pub enum Wording<T> {
    /// What it means.
    Meaning(T),
    /// Its words, as another program has sent them.
    Words(String),
}

impl<T: fmt::Display> fmt::Display for Wording<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meaning(meaning) => meaning.fmt(f),
            Self::Words(words) => f.write_str(words),
        }
    }
}

impl<T: fmt::Display + PartialEq> PartialEq for Wording<T> {
    /// What means the same has the same words, and the other way round.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Meaning(one), Self::Meaning(other)) => one == other,
            (Self::Words(one), Self::Words(other)) => one == other,
            (Self::Meaning(meaning), Self::Words(words)) | (Self::Words(words), Self::Meaning(meaning)) => {
                meaning.to_string() == *words
            }
        }
    }
}

impl<T: fmt::Display + Eq> Eq for Wording<T> {}

impl<T> Default for Wording<T> {
    fn default() -> Self {
        Self::Words(String::new())
    }
}

impl<T> From<&str> for Wording<T> {
    fn from(words: &str) -> Self {
        Self::Words(words.into())
    }
}

impl<T: fmt::Display> Serialize for Wording<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, T> Deserialize<'de> for Wording<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::Words)
    }
}
